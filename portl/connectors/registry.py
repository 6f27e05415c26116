"""Find connectors through pluggy hooks in the entry-point group ``portl``.

The entry point's name is the connector's name, so that only the plugin that a job names is imported. Its object is a
module, or anything else, with the hook ``portl_connector``::

    import portl

    @portl.hookimpl
    def portl_connector():
        return portl.Connector(name="mine", source=MySource, source_config=MySourceConfig)

A connector inside an application needs no package: ``portl.register(connector)``.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs
import pluggy

from portl.connectors.connector import Connector
from portl.values.errors import PluginError
from portl.values.text import nearest

GROUP = "portl"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hooks that a plugin may implement."""

    @hookspec(firstresult=True)
    def portl_connector(self) -> Connector | None:
        """Return the connector. Called when a job names the plugin's entry point."""


#: Connectors of the application itself, by name.
_registered: dict[str, Connector] = {}
#: The entry points found last, and the path they were found on: finding them reads a file of every installed package.
_found: tuple[list[str], dict[str, EntryPoint]] = ([], {})


def register(connector: Connector) -> None:
    """Register a connector in this process, without packaging it. A later one with the same name replaces it.

    Raises:
        PluginError: an installed package has a connector with that name.
    """
    entry = available().get(connector.name)
    if entry is not None:
        owner = entry.dist.name if entry.dist else "another package"
        raise PluginError(f"there is a connector {connector.name!r} already, from {owner}")
    _registered[connector.name] = connector


@attrs.frozen(kw_only=True)
class Installed:
    """A connector, as ``portl.installed`` returns it."""

    name: str
    #: The distribution that contains it; None for a registered one.
    package: str | None
    version: str | None
    summary: str = ""
    #: True if it can read.
    source: bool = False
    #: True if it can write.
    destination: bool = False
    #: The conflict strategies of its destination.
    strategies: tuple[str, ...] = ()
    #: True if its destination can quarantine rows, and make a job one transaction.
    savepoints: bool = False
    #: Why it cannot be used; None if it can.
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return attrs.asdict(self)


def installed() -> list[Installed]:
    """Return all connectors by name. Imports each; one that fails to import is returned with its error."""
    found = []
    entries = available()
    for name in sorted({*entries, *_registered}):
        distribution = entries[name].dist if name in entries else None
        package, version = (distribution.name, distribution.version) if distribution else (None, None)
        try:
            connector = load(name)
        except PluginError as error:
            found.append(Installed(name=name, package=package, version=version, error=error.message))
            continue
        writes = connector.destination
        found.append(
            Installed(
                name=name,
                package=package,
                version=version,
                summary=connector.summary,
                source=connector.source is not None,
                destination=writes is not None,
                strategies=tuple(sorted(s.value for s in writes.strategies)) if writes else (),
                savepoints=writes.savepoints if writes else False,
            )
        )
    return found


def available() -> dict[str, EntryPoint]:
    """Return the installed connectors by name, without importing any."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """Return the names of all connectors, including registered ones, without importing any."""
    return sorted({*available(), *_registered})


def _known(name: str) -> dict[str, EntryPoint]:
    """Return the installed connectors, from the cache if that has ``name``."""
    global _found
    if _found[0] != sys.path or name not in _found[1]:
        _found = (list(sys.path), available())
    return _found[1]


def load(name: str) -> Connector:
    """Import the connector called ``name``.

    Raises:
        PluginError: no connector with that name is installed, or its plugin fails to import or provides none.
    """
    if name in _registered:
        return _registered[name]
    found = _known(name)
    if name not in found:
        raise PluginError(_missing(name, [*found, *_registered]))
    entry = found[name]
    try:
        plugin = entry.load()
    except Exception as error:
        text = f"the connector {_origin(entry)} failed to import: {type(error).__name__}: {error}"
        raise PluginError(text) from error
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(plugin)
    try:
        connector = manager.hook.portl_connector()
    except Exception as error:
        text = f"the hook of the connector {_origin(entry)} failed: {type(error).__name__}: {error}"
        raise PluginError(text) from error
    if not isinstance(connector, Connector):
        raise PluginError(
            f"the plugin {_origin(entry)} provides no connector: expected a portl.Connector from a function "
            f"portl_connector marked @portl.hookimpl, found {connector!r}"
        )
    return connector


def _origin(entry: EntryPoint) -> str:
    """Return where a connector comes from, for messages only: reading the package's metadata takes milliseconds."""
    return f"{entry.name!r} ({entry.value}, from the package {entry.dist.name if entry.dist else 'unknown'})"


def _missing(name: str, names: list[str]) -> str:
    text = f"no connector {name!r} is installed; there {'are' if len(names) != 1 else 'is'} {_listed(names)}"
    if near := nearest(name, names):
        return f"{text}; did you mean {near!r}?"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return f"{text}; connectors are packages; this one may be: python -m pip install portl-{name}"
    return text


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"

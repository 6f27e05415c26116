"""Find connectors: pluggy hooks behind the entry-point group ``portl``.

The entry point's name is the connector's name, so that only the plugin that a job names is imported. Its value is a
module (or any object) with the hook ``portl_connector``::

    import portl

    @portl.hookimpl
    def portl_connector():
        return portl.Connector(name="mine", source=MySource, source_config=MySourceConfig)

A connector inside an application needs no package: ``portl.register(connector)``.
"""

from __future__ import annotations

import difflib
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs
import pluggy

from portl.connectors.connector import Connector
from portl.values.errors import PluginError

GROUP = "portl"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hooks that a plugin may implement."""

    @hookspec(firstresult=True)
    def portl_connector(self) -> Connector | None:
        """Return the connector. Called once a plan, when a job names the plugin's entry point."""


#: Connectors of the application itself, by name.
_registered: dict[str, Connector] = {}
#: What was found last, and on which path: to look for entry points is to read a file of every installed package.
_found: tuple[list[str], dict[str, EntryPoint]] = ([], {})


def register(connector: Connector) -> None:
    """Make a connector known to this process, without packaging it. The same name again replaces the first.

    Raises:
        PluginError: if an installed package has a connector of that name.
    """
    entry = available().get(connector.name)
    if entry is not None:
        owner = entry.dist.name if entry.dist else "another package"
        raise PluginError(f"there is a connector {connector.name!r} already: it comes with {owner}")
    _registered[connector.name] = connector


@attrs.frozen(kw_only=True)
class Installed:
    """What ``portl.installed`` knows of one connector."""

    name: str
    #: The distribution that it comes with; None for one that was registered.
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
    """Return all connectors by name. Imports each; one that fails to import says so and breaks no other."""
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
    """Return the names of all connectors, registered ones too, without importing any."""
    return sorted({*available(), *_registered})


def _known(name: str) -> dict[str, EntryPoint]:
    """Return the installed connectors as they were found last, or, where that does not have ``name``, as they are."""
    global _found
    if _found[0] != sys.path or name not in _found[1]:
        _found = (list(sys.path), available())
    return _found[1]


def load(name: str) -> Connector:
    """Import the connector called ``name``.

    Raises:
        PluginError: if none of that name is installed, or if its plugin fails to import or offers nothing.
    """
    if name in _registered:
        return _registered[name]
    found = _known(name)
    if name not in found:
        raise PluginError(_missing(name, [*found, *_registered]))
    entry = found[name]
    origin = f"{name!r} ({entry.value}, from the package {entry.dist.name if entry.dist else 'unknown'})"
    try:
        plugin = entry.load()
    except Exception as error:
        raise PluginError(f"the connector {origin} failed to import: {type(error).__name__}: {error}") from error
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(plugin)
    try:
        connector = manager.hook.portl_connector()
    except Exception as error:
        raise PluginError(f"the hook of the connector {origin} failed: {type(error).__name__}: {error}") from error
    if not isinstance(connector, Connector):
        raise PluginError(
            f"the connector {origin} offers nothing: expected a portl.Connector from a function portl_connector "
            f"marked @portl.hookimpl, found {connector!r}"
        )
    return connector


def _missing(name: str, names: list[str]) -> str:
    text = f"no connector {name!r} is installed; there {'are' if len(names) != 1 else 'is'} {_listed(names)}"
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"{text}; did you mean {near[0]!r}?"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return f"{text}; connectors come as packages, this one perhaps as: python -m pip install portl-{name}"
    return text


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none"

"""Find connectors: pluggy hooks behind the entry-point group ``portl``.

The entry point's name is the connector's name, so that only the plugin that a job names is imported. Its value is a
module (or any object) with the hook ``portl_connector``::

    import portl

    @portl.hookimpl
    def portl_connector():
        return portl.Connector(name="mine", source=MySource, source_config=MySourceConfig)
"""

from __future__ import annotations

import difflib
import re
from importlib.metadata import EntryPoint, entry_points

import pluggy

from portl.connectors import Connector
from portl.errors import PluginError

GROUP = "portl"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hooks that a plugin may implement."""

    @hookspec(firstresult=True)
    def portl_connector(self) -> Connector | None:
        """Return the connector. Called once a plan, when a job names the plugin's entry point."""


def available() -> dict[str, EntryPoint]:
    """Return the installed connectors by name, without importing any."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load(name: str) -> Connector:
    """Import the connector called ``name``.

    Raises:
        PluginError: if none of that name is installed, or if its plugin fails to import or offers nothing.
    """
    found = available()
    if name not in found:
        raise PluginError(_missing(name, list(found)))
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

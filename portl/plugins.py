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
    connector = manager.hook.portl_connector()
    if not isinstance(connector, Connector):
        raise PluginError(f"the connector {origin} returned no portl.Connector from its hook portl_connector")
    return connector


def _missing(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    installed = ", ".join(sorted(names)) or "none"
    return (
        f"no connector is called {name!r}; {suggestion}installed: {installed}; "
        f"a connector comes with a package of its own, by custom portl-{name}: python -m pip install portl-{name}"
    )

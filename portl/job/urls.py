"""Jobs without a file: from two URLs and the name of a table. The scheme of a URL says whose it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from portl.config.validators import FieldError
from portl.connectors import registry
from portl.connectors.connector import Connector
from portl.job.environment import escaped
from portl.values.errors import ConfigError, PluginError
from portl.values.secrets import Secret

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")


def job_from_urls(
    source: str | Secret,
    destination: str | Secret,
    *,
    table: str,
    to_table: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Return the job that copies a table, as the dict that ``portl.migrate``, ``plan`` and ``verify`` take.

    Add keys to it as you like. Passwords in it are of the type ``Secret``: it can be printed.

    Args:
        source: the URL of the place that the table is in; the connector that knows its scheme reads it.
        destination: the URL of the place that it goes to.
        table: its name, as the connector writes names: for PostgreSQL ``users`` or ``sales.orders``.
        to_table: its name at the destination; by default the same.
        name: the job's name; by default one that the same table gets each time, so that an interrupted run is resumed.

    Raises:
        ConfigError: a URL or a name cannot be read. The text repeats no part of a URL.
        PluginError: no installed connector knows the scheme, or the one that does fails to import.
    """
    reads, reach = end_of("source", source)
    writes, target = end_of("destination", destination)
    chosen = named("source", reads, table)
    written = named("destination", writes, to_table if to_table is not None else table)
    called = ".".join(str(value) for value in chosen.values())
    return {
        "name": escaped(f"copy of {called}") if name is None else name,
        "source": {"type": reads.name, **escaped(reach), **escaped(chosen)},
        "destination": {"type": writes.name, **escaped(target), **escaped(written)},
    }


def end_of(end: str, url: str | Secret) -> tuple[Connector, Mapping[str, Any]]:
    """Return the connector that a URL belongs to, and the keys that reach the same place.

    Args:
        end: ``source`` or ``destination``, for messages.
        url: it may hold a password, so that no message repeats it.
    """
    secret = url if isinstance(url, Secret) else Secret(url)
    connector = _knowing(end, secret)
    assert connector.from_url is not None, "it was chosen for that"
    try:
        return connector, connector.from_url(secret)
    except FieldError as error:
        problem = f"the {end}'s URL {error.text}"
    raise ConfigError([problem], origin="URL")  # here, where no handled exception holds the URL


def named(end: str, connector: Connector, table: str) -> Mapping[str, Any]:
    """Return the keys that choose a table by its name."""
    if connector.from_name is None:
        return {"table": table}
    try:
        return connector.from_name(table)
    except FieldError as error:
        raise ConfigError([f"{end}: {error.text}"], origin="table") from None


def _knowing(end: str, url: Secret) -> Connector:
    match = _SCHEME.match(url.reveal())
    if match is None:
        raise ConfigError([f"the {end}: expected a URL, such as {_listed(examples())}"], origin="URL")
    scheme = match[1].lower()
    for connector in _connectors(scheme):
        if scheme in connector.schemes and connector.from_url is not None:
            return connector
    known = _known(_connectors(scheme))
    raise PluginError(
        f"the {end}: no installed connector knows URLs that begin with {scheme}://; known: {_listed(known)}"
        + "".join(f"; {said}" for said in _failing())
    )


def _connectors(scheme: str) -> Iterable[Connector]:
    """Yield the connectors that can be imported, those first that are called like the scheme: one import will do."""

    def unlike(name: str) -> tuple[bool, str]:
        return not (scheme.startswith(name) or name.startswith(scheme)), name

    for name in sorted(registry.names(), key=unlike):
        try:
            yield registry.load(name)
        except PluginError:
            continue  # ``_failing`` tells of it where that may be why none is found


def _failing() -> list[str]:
    return [found.error for found in registry.installed() if found.error is not None]


def examples() -> list[str]:
    """Return an example of the URLs of each connector that has some."""
    return [connector.url_example for connector in _connectors("") if connector.url_example]


def _known(connectors: Iterable[Connector]) -> list[str]:
    return sorted({f"{scheme}://" for connector in connectors for scheme in connector.schemes})


def _listed(schemes: list[str]) -> str:
    return ", ".join(schemes) or "none"

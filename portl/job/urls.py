"""Make jobs from two URLs and the name of a table. A URL's scheme decides its connector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
    table: str | None = None,
    to_table: str | None = None,
    tables: str | Sequence[str] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Return a job that copies one table or several, as a dict for ``portl.migrate``, ``plan`` and ``verify``.

    Any other key can be added to it. Its passwords are of type ``Secret``, so it can be printed.

    Args:
        source: the URL of the table's database, in a form that an installed connector understands.
        destination: the URL of the database to copy it to.
        table: its name, as the connector spells names: for PostgreSQL ``users`` or ``sales.orders``.
        to_table: its name at the destination; by default the same.
        tables: instead of ``table``: the word ``all``, or names and patterns, as for the key ``tables``.
        name: the job's name; the default depends only on the table, so that an interrupted run is resumed.

    Raises:
        ConfigError: a URL or a name is malformed. The message repeats no part of a URL.
        PluginError: no installed connector knows the scheme, or the one that does fails to import.
    """
    reads, source_keys = side_of("source", source)
    writes, destination_keys = side_of("destination", destination)
    if (table is None) == (tables is None):
        raise ConfigError(["expected either table or tables"], origin="tables")
    if table is None:
        wanted: Any = tables if isinstance(tables, str) else list(tables or ())
        return {
            "name": "copy of many tables" if name is None else name,
            "source": {"type": reads.name, **escaped(source_keys)},
            "destination": {"type": writes.name, **escaped(destination_keys)},
            "tables": escaped(wanted),
        }
    chosen = named("source", reads, table)
    written = named("destination", writes, to_table if to_table is not None else table)
    called = ".".join(str(value) for value in chosen.values())
    return {
        "name": escaped(f"copy of {called}") if name is None else name,
        "source": {"type": reads.name, **escaped(source_keys), **escaped(chosen)},
        "destination": {"type": writes.name, **escaped(destination_keys), **escaped(written)},
    }


def side_of(side: str, url: str | Secret) -> tuple[Connector, Mapping[str, Any]]:
    """Return the connector of a URL, and the equivalent keys of a job file.

    Args:
        side: ``source`` or ``destination``, for messages.
        url: never repeated in messages, as it may contain a password.
    """
    secret = url if isinstance(url, Secret) else Secret(url)
    connector = _connector(side, secret)
    assert connector.from_url is not None, "the connector was chosen for that"
    try:
        return connector, connector.from_url(secret)
    except FieldError as error:
        problem = f"the {side}'s URL {error.text}"
    raise ConfigError([problem], origin="URL")  # raised here, where no exception being handled holds the URL


def named(side: str, connector: Connector, table: str) -> Mapping[str, Any]:
    """Return the keys that choose a table by its name."""
    if connector.from_name is None:
        return {"table": table}
    try:
        return connector.from_name(table)
    except FieldError as error:
        raise ConfigError([f"{side}: {error.text}"], origin="table") from None


def _connector(side: str, url: Secret) -> Connector:
    match = _SCHEME.match(url.reveal())
    if match is None:
        raise ConfigError([f"the {side}: expected a URL, such as {_listed(examples())}"], origin="URL")
    scheme = match[1].lower()
    for connector in _connectors(scheme):
        if scheme in connector.schemes and connector.from_url is not None:
            return connector
    known = _known(_connectors(scheme))
    raise PluginError(
        f"the {side}: no installed connector knows URLs that begin with {scheme}://; known: {_listed(known)}"
        + "".join(f"; {error}" for error in _import_errors())
    )


def _connectors(scheme: str) -> Iterable[Connector]:
    """Yield the importable connectors, those named like the scheme first, so that usually one import is enough."""

    def unlike(name: str) -> tuple[bool, str]:
        return not (scheme.startswith(name) or name.startswith(scheme)), name

    for name in sorted(registry.names(), key=unlike):
        try:
            yield registry.load(name)
        except PluginError:
            continue  # reported by ``_import_errors`` if no connector is found


def _import_errors() -> list[str]:
    return [found.error for found in registry.installed() if found.error is not None]


def examples() -> list[str]:
    """Return an example URL for each connector that has URLs."""
    return [connector.url_example for connector in _connectors("") if connector.url_example]


def _known(connectors: Iterable[Connector]) -> list[str]:
    return sorted({f"{scheme}://" for connector in connectors for scheme in connector.schemes})


def _listed(schemes: list[str]) -> str:
    return ", ".join(schemes) or "none"

"""Parse the URL and the name that a user types for a table, and list the tables to choose from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import portl
from portl import FieldError, Secret
from portl_postgres.catalog.tables import KINDS, shown
from portl_postgres.config import PostgresSourceConfig, SSLMode
from portl_postgres.conninfo import SECRET_KEYWORDS, parse_url
from portl_postgres.session.database import Database
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, quoted, statement

#: The schemes of its URLs (manual, 32.1.1.2, Connection URIs).
SCHEMES = ("postgresql", "postgres")

#: The keywords of libpq that have a key of their own.
_KEYS = {
    "host": "host",
    "port": "port",
    "dbname": "database",
    "user": "username",
    "password": "password",
    **{name: name for name in ("sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name")},
}
_NUMBERS = ("port", "connect_timeout")

#: A plain name, or one in double quotes, which are doubled inside. A dot separates schema and table.
_PART = r'(?:"(?:[^"]|"")+"|[^".][^.]*)'
_NAME = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<table>{_PART})")


def from_url(url: Secret) -> Mapping[str, Any]:
    """Return the keys that connect to the same database; the URL itself if no keys are equivalent.

    Raises:
        FieldError: it cannot be parsed.
    """
    found = parse_url(url)
    if any(name in SECRET_KEYWORDS for name in found if name != "password"):
        return {"url": url}
    if any(not re.fullmatch(r"[1-9]\d*", found.get(name, "1")) for name in _NUMBERS):
        return {"url": url}  # several ports, or a timeout of 0, which is none
    keys: dict[str, Any] = {key: found[name] for name, key in _KEYS.items() if name in found}
    keys.update({name: int(keys[name]) for name in _NUMBERS if name in keys})
    if "password" in keys:
        keys["password"] = Secret(keys["password"])
    params = {name: value for name, value in found.items() if name not in _KEYS}
    return {**keys, "params": params} if params else keys


def from_name(name: str) -> Mapping[str, Any]:
    """Return the keys for TABLE or SCHEMA.TABLE, each the exact name, plain or in double quotes.

    Raises:
        FieldError: it is neither.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise FieldError(
            "table",
            f"expected TABLE or SCHEMA.TABLE, found {name!r}; put a name that contains a dot in double quotes: "
            '"one.name"',
        )
    return {"schema": _plain(match["schema"] or "public"), "table": _plain(match["table"])}


def _plain(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def tables(keys: Mapping[str, Any], context: portl.Context, role: str) -> list[portl.TableEntry]:
    """Connect and return the relations that the role may read (``source``) or insert into (``destination``)."""
    database = Database(_config(keys), None, role)
    try:
        with database.session(context, {"default_transaction_read_only": "on"}) as session:
            rows = session.query(
                bound(statement("tables"), "SELECT" if role == "source" else "INSERT"), what="looking for tables"
            )
    finally:
        database.close()
    return [
        portl.TableEntry(name=shown(schema, name), kind=KINDS[kind], rows=None if estimate < 0 else round(estimate))
        for schema, name, kind, estimate in rows
    ]


def listing(session: Session) -> list[portl.TableEntry]:
    """Return the relations of a database, over an open session, with the keys that read and write each."""
    return [
        portl.TableEntry(
            name=shown(schema, name),
            kind=KINDS[kind],
            rows=None if estimate < 0 else round(estimate),
            reading={"schema": schema, "table": name, "only": kind == "r"},
            writing={"schema": schema, "table": name, "only": kind == "r"},
        )
        for schema, name, kind, estimate in session.query(bound(statement("listing")), what="looking for tables")
    ]


def requoted(name: str) -> str:
    """Return a table's name, as shown in messages, with the quotes that SQL needs."""
    parts = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', name)
    return quoted(*(inner.replace('""', '"') or plain for inner, plain in parts))


def _config(keys: Mapping[str, Any]) -> PostgresSourceConfig:
    """Return a config for the connection. Its table is a placeholder: no table has been chosen yet."""
    given = dict(keys)
    if "sslmode" in given:
        try:
            given["sslmode"] = SSLMode(given["sslmode"])
        except ValueError:
            allowed = ", ".join(mode.value for mode in SSLMode)
            raise portl.ConfigError([f"sslmode: expected one of {allowed}"], origin="URL") from None
    return PostgresSourceConfig(type="postgres", schema="pg_catalog", table="pg_class", **given)

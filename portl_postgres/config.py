"""The keys of a job file under ``source`` and ``destination`` where ``type`` is ``postgres``."""

from __future__ import annotations

import difflib
import enum
from typing import Any

import attrs
from psycopg import pq

from portl import DestinationConfig, FieldError, Secret, SourceConfig
from portl_postgres.conninfo import parse_url

#: PostgreSQL cuts longer names off with no more than a notice (manual, 4.1.1: NAMEDATALEN - 1).
MAX_NAME_BYTES = 63


def check_name(field: str, name: str) -> None:
    """Refuse a name that PostgreSQL would cut off or cannot hold.

    Raises:
        FieldError: for ``field``.
    """
    if not name:
        raise FieldError(field, "a name must not be empty")
    if "\0" in name:
        raise FieldError(field, "a name must not contain a NUL character")
    length = len(name.encode())
    if length > MAX_NAME_BYTES:
        raise FieldError(
            field,
            f"{name!r} is {length} bytes long; PostgreSQL keeps {MAX_NAME_BYTES} bytes of a name and drops the rest",
        )


def _name(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None:
        check_name(attribute.name, value)


def _names(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None) -> None:
    for name in value or ():
        check_name(attribute.name, name)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value <= 0:
        raise FieldError(attribute.name, f"expected a number greater than zero, found {value!r}")


def _port(instance: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and not 0 < value < 65536:
        raise FieldError(attribute.name, f"expected a number from 1 to 65535, found {value}")


def _timeout(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value < 0:
        raise FieldError(attribute.name, f"expected seconds, 0 for none, found {value!r}")


class SSLMode(enum.StrEnum):
    """libpq's ``sslmode`` (manual, 32.19.1)."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Compression(enum.StrEnum):
    """How PostgreSQL compresses large values (manual, CREATE TABLE, COMPRESSION)."""

    LZ4 = "lz4"
    PGLZ = "pglz"


@attrs.frozen(kw_only=True)
class Pool:
    """The pool of connections to one end."""

    #: Connections kept open.
    min_size: int = attrs.field(default=0)
    #: Connections at most.
    max_size: int = attrs.field(default=4, validator=_positive)
    #: Seconds to wait for a free connection.
    timeout: float = attrs.field(default=30.0, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size:
            raise FieldError(
                "min_size", f"expected a number from 0 to max_size ({self.max_size}), found {self.min_size}"
            )


@attrs.frozen(kw_only=True, slots=False)
class PostgresEnd:
    """How to reach a database. What is left out is libpq's default, the variables PGHOST, PGUSER and so on included."""

    #: A libpq URI or conninfo string, instead of host, port, database and username.
    url: Secret | None = None
    #: The server's name, address or socket directory.
    host: str | None = None
    #: The server's port.
    port: int | None = attrs.field(default=None, validator=_port)
    #: The database's name.
    database: str | None = attrs.field(default=None, validator=_name)
    #: The role to connect as.
    username: str | None = attrs.field(default=None, validator=_name)
    #: The role's password. Better as ${NAME} than in the file.
    password: Secret | None = None
    #: The schema of the table; for a query, the schema that its names are looked up in first.
    schema: str = attrs.field(default="public", validator=_name)
    #: disable, allow, prefer, require, verify-ca or verify-full.
    sslmode: SSLMode | None = None
    #: The file of the certificates of authorities to trust.
    sslrootcert: str | None = None
    #: The file of the client's certificate.
    sslcert: str | None = None
    #: The file of the client's key.
    sslkey: str | None = None
    #: Seconds to wait for a connection.
    connect_timeout: int = attrs.field(default=10, validator=_positive)
    #: What pg_stat_activity shows.
    application_name: str = "portl"
    #: Any other parameter of libpq, by its name there.
    params: dict[str, str] = attrs.Factory(dict)
    #: The pool of connections: {min_size, max_size, timeout}.
    pool: Pool = attrs.Factory(Pool)
    #: Seconds that one statement may take; 0 for no limit.
    statement_timeout: float = attrs.field(default=0.0, validator=_timeout)
    #: Seconds to wait for a lock; 0 for no limit.
    lock_timeout: float = attrs.field(default=0.0, validator=_timeout)

    def __attrs_post_init__(self) -> None:
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        for name in self.params:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                suggestion = f"; did you mean {near[0]!r}?" if near else ""
                raise FieldError("params", f"libpq has no parameter {name!r}{suggestion}")
            if "password" in name:
                raise FieldError(
                    "params", f"{name!r} does not belong here: use the key `password`, which is kept secret"
                )
        if self.url is not None:
            for field in ("host", "port", "database", "username"):
                if getattr(self, field) is not None:
                    raise FieldError(field, "does not go together with `url`, which says it already")
            parse_url(self.url)


@attrs.frozen(kw_only=True)
class PostgresSourceConfig(PostgresEnd, SourceConfig):
    """A table, a view or a query to read."""

    #: The table, view, materialized view or foreign table; exactly as it is called, in `schema`.
    table: str | None = attrs.field(default=None, validator=_name)
    #: One SELECT, WITH, VALUES or TABLE, instead of a table. It runs in a read-only transaction.
    query: str | None = None
    #: An SQL condition on the rows to read.
    where: str | None = None

    def __attrs_post_init__(self) -> None:
        PostgresEnd.__attrs_post_init__(self)
        SourceConfig.__attrs_post_init__(self)
        if (self.table is None) == (self.query is None):
            raise FieldError("table", "expected exactly one of `table` and `query`")
        if self.query is not None and not self.query.strip():
            raise FieldError("query", "must not be empty")


@attrs.frozen(kw_only=True)
class PostgresDestinationConfig(PostgresEnd, DestinationConfig):
    """A table to write to."""

    #: The table; exactly as it is called, in `schema`.
    table: str = attrs.field(validator=_name)
    #: The primary key of a table that this run creates. By default the source's.
    primary_key: tuple[str, ...] | None = attrs.field(default=None, validator=_names)
    #: lz4 or pglz, for the text, json and bytea columns of a table that this run creates.
    compression: Compression | None = None
    #: True: a table that this run creates is not written to the WAL. Fast, and empty after a crash.
    unlogged: bool = False
    #: True: enums, domains and composite types that the destination lacks are created; false: they are a problem.
    create_types: bool = True

    def __attrs_post_init__(self) -> None:
        PostgresEnd.__attrs_post_init__(self)
        if self.primary_key is not None and not self.primary_key:
            raise FieldError("primary_key", "must name at least one column")

"""The keys of a job file under ``source`` and ``destination`` if ``type`` is ``postgres``."""

from __future__ import annotations

import difflib
import enum
import re
from typing import Any, ClassVar

import attrs

from portl import DestinationConfig, FieldError, Secret, SourceConfig
from portl_postgres.conninfo import KEYWORDS, SECRET_KEYWORDS, parse_url

#: PostgreSQL truncates longer names with a mere notice (manual, 4.1.1: NAMEDATALEN - 1).
MAX_NAME_BYTES = 63


def check_name(field: str, name: str) -> None:
    """Refuse a name that PostgreSQL would truncate or cannot store.

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
            f"{name!r} is {length} bytes long; PostgreSQL truncates names to {MAX_NAME_BYTES} bytes",
        )


def _name(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None:
        check_name(attribute.name, value)


def _names(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None) -> None:
    for name in value or ():
        check_name(attribute.name, name)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value <= 0:
        raise FieldError(attribute.name, f"expected a number greater than zero, found {value:g}")


def _port(instance: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and not 0 < value < 65536:
        raise FieldError(attribute.name, f"expected a number from 1 to 65535, found {value}")


def _timeout(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value < 0:
        raise FieldError(attribute.name, f"expected a number of seconds, 0 for no limit, found {value:g}")


def _columns(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None) -> None:
    if value is None:
        return
    if not value:
        raise FieldError(attribute.name, "expected at least one column, found an empty list")
    twice = next((name for name in value if value.count(name) > 1), None)
    if twice is not None:
        raise FieldError(attribute.name, f"names the column {twice!r} twice")


def _url(instance: PostgresEnd, attribute: attrs.Attribute[Any], value: Secret | None) -> None:
    if value is not None:
        parse_url(value)


def _not_in_url(instance: PostgresEnd, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and instance.url is not None:
        raise FieldError(attribute.name, "cannot be combined with `url`, which already sets it")


def _params(instance: PostgresEnd, attribute: attrs.Attribute[Any], value: dict[str, str]) -> None:
    own = {"user": "username", "dbname": "database"}
    keys = {field.name for field in attrs.fields(PostgresEnd)}
    errors = []
    for name in value:
        place = (attribute.name, name)
        key = own.get(name, name)
        if key in keys:
            errors.append(FieldError(place, f"has its own key: write `{key}` beside `params`, not inside"))
        elif name in SECRET_KEYWORDS:
            errors.append(FieldError(place, "is a secret, but `params` are displayed: put it in `url`"))
        elif name not in KEYWORDS:
            near = difflib.get_close_matches(name, KEYWORDS, n=1)
            suggestion = f"; did you mean {near[0]!r}?" if near else ""
            errors.append(FieldError(place, f"libpq does not have this parameter{suggestion}"))
    if errors:
        raise ExceptionGroup(attribute.name, errors)


def _table_or_query(instance: PostgresSourceConfig, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and instance.query is not None:
        raise FieldError((), "expected either `table` or `query`, found both")


def _alone(instance: PostgresSourceConfig, attribute: attrs.Attribute[Any], value: bool) -> None:
    if value and instance.query is not None:
        raise FieldError(attribute.name, "needs `table`; in a query, write ONLY yourself")


def _name_if_any(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value != attribute.default:
        check_name(attribute.name, value)


def _not_empty(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not value.strip():
        raise FieldError(attribute.name, "must not be empty")


def _at_most_max_size(instance: Pool, attribute: attrs.Attribute[Any], value: int) -> None:
    if value < 0:
        raise FieldError(attribute.name, f"expected zero or more, found {value}")
    if value > instance.max_size:
        raise FieldError(attribute.name, f"expected at most `max_size`, which is {instance.max_size}, found {value}")


#: Stands for a size: the server's setting stays.
SERVER = "server"
_SIZE = re.compile(r"[1-9][0-9]*(kB|MB|GB)")


def _memory(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if value not in ("auto", SERVER) and not _SIZE.fullmatch(value):
        raise FieldError(attribute.name, f"expected auto, server, or a size such as 512MB, found {value!r}")


class SSLMode(enum.StrEnum):
    """libpq's ``sslmode`` (manual, 32.19.1)."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class RowSecurity(enum.StrEnum):
    """PostgreSQL's ``row_security`` (manual, 20.11.1)."""

    OFF = "off"
    ON = "on"


class Compression(enum.StrEnum):
    """How PostgreSQL compresses large values (manual, CREATE TABLE, COMPRESSION)."""

    LZ4 = "lz4"
    PGLZ = "pglz"


@attrs.frozen(kw_only=True)
class Pool:
    """The pool of connections to one side."""

    #: Connections kept open.
    min_size: int = attrs.field(default=0, validator=_at_most_max_size)
    #: The most connections.
    max_size: int = attrs.field(default=4, validator=_positive)
    #: Seconds to wait for a free connection.
    timeout: float = attrs.field(default=30.0, validator=_positive)


# A base for the two classes below, which generate the methods.
@attrs.frozen(kw_only=True, slots=False, init=False, repr=False, eq=False)
class PostgresEnd:
    """How to connect to a database. Omitted keys have libpq's defaults, including PGHOST, PGUSER and so on."""

    #: A libpq URI or conninfo string, instead of host, port, database and username.
    url: Secret | None = attrs.field(default=None, validator=_url)
    #: The server's name, address or socket directory.
    host: str | None = attrs.field(default=None, validator=_not_in_url)
    #: The server's port.
    port: int | None = attrs.field(default=None, validator=[_port, _not_in_url])
    #: The database's name.
    database: str | None = attrs.field(default=None, validator=[_name, _not_in_url])
    #: The role to connect as.
    username: str | None = attrs.field(default=None, validator=[_name, _not_in_url])
    #: The role's password. Write it as ${NAME} rather than in the file.
    password: Secret | None = None
    #: The schema of the table; for a query, the schema where its names are looked up first.
    schema: str = attrs.field(default="public", validator=_name)
    #: disable, allow, prefer, require, verify-ca or verify-full.
    sslmode: SSLMode | None = None
    #: A file with the CA certificates to trust.
    sslrootcert: str | None = None
    #: A file with the client certificate.
    sslcert: str | None = None
    #: A file with the key of the client certificate.
    sslkey: str | None = None
    #: Seconds to wait for a connection.
    connect_timeout: int = attrs.field(default=10, validator=_positive)
    #: Seconds of silence after which a server that should answer is considered lost; a busy server is not silent. 0:
    #: never.
    network_timeout: float = attrs.field(default=60.0, validator=_timeout)
    #: The name that pg_stat_activity shows.
    application_name: str = "portl"
    #: Any other libpq parameter, by libpq's name.
    params: dict[str, str] = attrs.field(factory=dict, validator=_params)
    #: The pool of connections: {min_size, max_size, timeout}.
    pool: Pool = attrs.Factory(Pool)
    #: Seconds that one statement may take; 0 for no limit.
    statement_timeout: float = attrs.field(default=0.0, validator=_timeout)
    #: Seconds to wait for a lock; 0 for no limit.
    lock_timeout: float = attrs.field(default=0.0, validator=_timeout)


#: The keys that say how to connect to a database, and how its sessions behave.
_CONNECTION = ("type", *(field.name for field in attrs.fields(PostgresEnd) if field.name != "schema"))


@attrs.frozen(kw_only=True)
class PostgresSourceConfig(PostgresEnd, SourceConfig):
    """A table, a view or a query to read."""

    CONNECTION: ClassVar[tuple[str, ...]] = _CONNECTION

    #: The table, view, materialized view or foreign table in `schema`, by its exact name.
    table: str | None = attrs.field(default=None, validator=[_name, _table_or_query])
    #: One SELECT, WITH, VALUES or TABLE, instead of a table. It runs in a read-only transaction.
    query: str | None = attrs.field(default=None, validator=_not_empty)
    #: An SQL condition on the rows to read.
    where: str | None = attrs.field(default=None, validator=_not_empty)
    #: The column whose values split a query, a view or a table without a key into chunks. The query or view must return
    #: the same rows each time.
    split_by: str | None = attrs.field(default=None, validator=_name)
    #: off: a policy that would hide rows from the role is a problem; on: only the rows that policies let the role see
    #: are copied.
    row_security: RowSecurity = RowSecurity.OFF
    #: True: rows of tables that inherit from `table` are not read with it.
    only: bool = attrs.field(default=False, validator=_alone)

    @property
    def lacks(self) -> FieldError | None:
        """See ``SourceConfig.lacks``."""
        if self.table is not None or self.query is not None:
            return None
        return FieldError((), "expected either `table` or `query`, found neither")


@attrs.frozen(kw_only=True)
class PostgresDestinationConfig(PostgresEnd, DestinationConfig):
    """A table to write to."""

    ONE_TABLE: ClassVar[tuple[str, ...]] = ("table",)
    CONNECTION: ClassVar[tuple[str, ...]] = (*_CONNECTION, "maintenance_work_mem")

    #: The table in `schema`, by its exact name.
    table: str = attrs.field(default="", validator=_name_if_any)
    #: The primary key of a table that this run creates. By default the source's.
    primary_key: tuple[str, ...] | None = attrs.field(default=None, validator=[_names, _columns])
    #: lz4 or pglz, for the text, json and bytea columns of a table that this run creates.
    compression: Compression | None = None
    #: True: a table that this run creates is not written to the WAL. Fast, but empty after a crash.
    unlogged: bool = False
    #: True: enums, domains and composite types that the destination lacks are created; false: they are a problem.
    create_types: bool = True
    #: The memory for building an index. auto: a 16th of the server's `effective_cache_size`, at most 1 GB, and never
    #: less than the server's own setting; server: the server's own setting; or a size such as 512MB.
    maintenance_work_mem: str = attrs.field(default="auto", validator=_memory)
    #: True: rows are compared with those of `table` alone, not with those of tables that inherit from it.
    only: bool = False

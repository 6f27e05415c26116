"""The keys of a job file under ``source`` and ``destination`` where ``type`` is ``sqlite``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import unquote

import attrs

from portl import DestinationConfig, FieldError, Secret, SourceConfig


def _name(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and (not value or "\0" in value):
        raise FieldError(attribute.name, "must be neither empty nor contain a NUL character")


def _one_of(instance: SqliteSourceConfig, attribute: attrs.Attribute[Any], value: str | None) -> None:
    _name(instance, attribute, value)
    if value is not None and instance.table is not None:
        raise FieldError(attribute.name, "cannot be combined with `table`")


def from_url(url: Secret) -> Mapping[str, Any]:
    """Return the keys for ``sqlite:///absolute/path`` or ``sqlite://relative/path``."""
    path = unquote(url.reveal().strip().partition("://")[2])
    if not path or "\0" in path or "@" in path:
        raise FieldError("path", "is not of the form sqlite:///path/to/file.db")
    return {"path": path}


def from_name(name: str) -> Mapping[str, Any]:
    """Return the key for a table's name, which may be in double quotes."""
    quoted = len(name) > 2 and name[0] == name[-1] == '"'
    return {"table": name[1:-1].replace('""', '"') if quoted else name}


@attrs.frozen(kw_only=True)
class SqliteSourceConfig(SourceConfig):
    """The keys of the source."""

    CONNECTION: ClassVar[tuple[str, ...]] = ("type", "path")

    #: The file.
    path: str = attrs.field(validator=_name)
    #: The table or view.
    table: str | None = attrs.field(default=None, validator=_name)
    #: A SELECT statement in place of a table.
    query: str | None = attrs.field(default=None, validator=_one_of)
    #: Which rows to read: an SQL expression over the columns.
    where: str | None = attrs.field(default=None, validator=_name)

    @property
    def lacks(self) -> FieldError | None:
        """See ``SourceConfig.lacks``."""
        found = self.table or self.query
        return None if found else FieldError("table", "missing; it is required, unless there is a `query`")


@attrs.frozen(kw_only=True)
class SqliteDestinationConfig(DestinationConfig):
    """The keys of the destination."""

    ONE_TABLE: ClassVar[tuple[str, ...]] = ("table",)
    CONNECTION: ClassVar[tuple[str, ...]] = ("type", "path")

    #: The file; it is created if it does not exist.
    path: str = attrs.field(validator=_name)
    #: The table.
    table: str = attrs.field(default="", validator=lambda i, a, v: _name(i, a, v or None))
    #: The columns of the primary key, if the table is created; by default those of the source.
    primary_key: tuple[str, ...] | None = None

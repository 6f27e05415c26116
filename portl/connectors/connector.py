"""A plugin's offer, and the mapping between native and generic types."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from portl.config.models import DestinationConfig, SourceConfig
from portl.connectors.destination import Destination
from portl.connectors.source import Source
from portl.schema.types import Type
from portl.values.secrets import Secret

if TYPE_CHECKING:
    pass


class TypeMapper(abc.ABC):
    """Maps the native types of one system to the generic ones and back."""

    @abc.abstractmethod
    def generic(self, native: str) -> Type:
        """Return the generic type of a native one; ``text`` for what has none."""

    @abc.abstractmethod
    def native(self, type: Type) -> str:
        """Return the native type that holds every value of a generic one."""


@attrs.frozen(kw_only=True)
class Connector:
    """A plugin's offer: a name, and for each side a config class and a class."""

    name: str
    #: One line for people.
    summary: str = ""
    source: type[Source[Any]] | None = None
    source_config: type[SourceConfig] | None = None
    destination: type[Destination[Any]] | None = None
    destination_config: type[DestinationConfig] | None = None
    #: The schemes of the URLs that it understands, without ``://``.
    schemes: tuple[str, ...] = ()
    #: Such a URL, without a password, to show how they are made.
    url_example: str = ""
    #: Turns a URL of these schemes into the keys of a job file that reach the same place, for ``portl copy`` and
    #: ``portl init``: plain data, what is secret as ``Secret``. Raises ``FieldError``, whose text repeats no part of
    #: the URL, for any may be a password.
    from_url: Callable[[Secret], Mapping[str, Any]] | None = None
    #: Turns a table's name as a person writes it into keys of a job file. By default it is the key ``table``.
    from_name: Callable[[str], Mapping[str, Any]] | None = None

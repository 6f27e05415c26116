"""What a plugin provides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from portl.config.models import DestinationConfig, SourceConfig
from portl.connectors.destination import Destination
from portl.connectors.source import Source
from portl.values.secrets import Secret


@attrs.frozen(kw_only=True)
class Connector:
    """What a plugin provides: a name, and for each side a class and a config class."""

    name: str
    #: One line, for display.
    summary: str = ""
    source: type[Source[Any]] | None = None
    source_config: type[SourceConfig] | None = None
    destination: type[Destination[Any]] | None = None
    destination_config: type[DestinationConfig] | None = None
    #: The URL schemes that it understands, without ``://``.
    schemes: tuple[str, ...] = ()
    #: An example of such a URL, without a password.
    url_example: str = ""
    #: Turns a URL with one of these schemes into keys of a job file, for ``portl copy`` and ``portl init``: plain data,
    #: with passwords as ``Secret``. Raises ``FieldError``, whose text must not repeat any part of the URL, which may be
    #: a password.
    from_url: Callable[[Secret], Mapping[str, Any]] | None = None
    #: Turns a table name as the user writes it into keys of a job file; by default, into the key ``table``.
    from_name: Callable[[str], Mapping[str, Any]] | None = None

"""The entry point of the connector ``sqlite``."""

from __future__ import annotations

import portl
from portl_sqlite.config import SqliteDestinationConfig, SqliteSourceConfig, from_name, from_url
from portl_sqlite.destination import SqliteDestination
from portl_sqlite.source import SqliteSource


@portl.hookimpl
def portl_connector() -> portl.Connector:
    """Return the connector."""
    return portl.Connector(
        name="sqlite",
        summary="SQLite files",
        source=SqliteSource,
        source_config=SqliteSourceConfig,
        destination=SqliteDestination,
        destination_config=SqliteDestinationConfig,
        schemes=("sqlite",),
        url_example="sqlite:///path/to/file.db",
        from_url=from_url,
        from_name=from_name,
    )

"""The entry point of the connector ``postgres``."""

from __future__ import annotations

import portl
from portl_postgres.catalog import addresses
from portl_postgres.config import PostgresDestinationConfig, PostgresSourceConfig
from portl_postgres.destination.destination import PostgresDestination
from portl_postgres.source.source import PostgresSource


@portl.hookimpl
def portl_connector() -> portl.Connector:
    """Return the connector."""
    return portl.Connector(
        name="postgres",
        summary="PostgreSQL tables, views and queries",
        source=PostgresSource,
        source_config=PostgresSourceConfig,
        destination=PostgresDestination,
        destination_config=PostgresDestinationConfig,
        schemes=addresses.SCHEMES,
        url_example="postgresql://user@host:5432/database",
        from_url=addresses.from_url,
        from_name=addresses.from_name,
    )

"""The object of the entry point ``jsonl`` in the group ``portl``."""

from __future__ import annotations

import portl
from portl_jsonl.connector import (
    JsonLinesDestination,
    JsonLinesDestinationConfig,
    JsonLinesSource,
    JsonLinesSourceConfig,
    from_name,
    from_url,
)


@portl.hookimpl
def portl_connector() -> portl.Connector:
    """Return the connector."""
    return portl.Connector(
        name="jsonl",
        summary="JSON Lines files",
        source=JsonLinesSource,
        source_config=JsonLinesSourceConfig,
        destination=JsonLinesDestination,
        destination_config=JsonLinesDestinationConfig,
        schemes=("jsonl",),
        url_example="jsonl:///path/to/folder",
        from_url=from_url,
        from_name=from_name,
    )

"""Direct further connections to the same server as an existing connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

#: Keywords that choose between servers or locate one; explicit keywords take precedence over a service.
_CHOICE = {"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"}


def same_server(connection: psycopg.Connection[Any], parameters: Mapping[str, str] | None) -> dict[str, str]:
    """Return the keywords for another connection to the server that a connection leads to."""
    info = connection.info
    if parameters is None:
        parameters = {**info.get_parameters(), "password": info.password}
    found = {name: value for name, value in parameters.items() if name not in _CHOICE and value}
    found.update(host=info.host, port=str(info.port))
    if not info.host.startswith(("/", "@")) and info.hostaddr:
        found["hostaddr"] = info.hostaddr  # a name may resolve to several servers
    return found

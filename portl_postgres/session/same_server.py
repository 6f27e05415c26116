"""Find the server that a connection leads to once more, for further connections to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

#: What chooses between several servers, or says where one is; a service gives way to what is said besides.
_CHOICE = {"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"}


def same_server(connection: psycopg.Connection[Any], parameters: Mapping[str, str] | None) -> dict[str, str]:
    """Return the keywords of another connection to the very server that a connection leads to."""
    info = connection.info
    if parameters is None:
        parameters = {**info.get_parameters(), "password": info.password}
    found = {name: value for name, value in parameters.items() if name not in _CHOICE and value}
    found.update(host=info.host, port=str(info.port))
    if not info.host.startswith(("/", "@")) and info.hostaddr:
        found["hostaddr"] = info.hostaddr  # a name may lead to several servers in turn
    return found

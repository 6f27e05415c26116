"""The parameters of connections, and the settings of sessions."""

from __future__ import annotations

from collections.abc import Mapping

import portl
from portl_postgres.config import PostgresEnd
from portl_postgres.conninfo import SECRET_KEYWORDS, parse_url
from portl_postgres.sql.text import Expression, bound, literal

#: The setting, and the expression for its value: a 16th of the presumed cache size, at most 1 GB, as each of a few
#: workers may use it; never less than the server's own setting.
MEMORY, AUTO = "maintenance_work_mem", "auto"
MORE_MEMORY = (
    f"(greatest(pg_size_bytes(current_setting('{MEMORY}')), least(1073741824,"
    " pg_size_bytes(current_setting('effective_cache_size')) / 16)) / 1024) || 'kB'"
)
#: A setting that raises an error if the server's system does not support it (manual, 20.3.2); Linux always does.
LINUX_ALONE = "client_connection_check_interval"

#: Settings that fix how values are printed and parsed, so that text means the same on both sides (manual, 20.11).
#: TimeZone and the field order of DateStyle are left to the user, because they decide what a query means.
PRINTING = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",  # before version 12, less than 3 loses digits
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "xmloption": "content",
    "array_nulls": "on",  # off, {a,NULL} is read as two texts
    "standard_conforming_strings": "on",  # off, a backslash in a literal is an escape
    # A transaction that waits for the other side is not idle in the sense of these limits: the source's holds the
    # snapshot while the destination works, and the destination's holds its rows while the source does. The purpose of
    # the limits, locks left behind by dead clients, is served by the server's own check of the client (``_LIMITS``).
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}

#: Identifies the answering server process: its pid, the server's start time, and its current time.
SERVER_FACTS = (
    "pg_backend_pid(), (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text,"
    " extract(epoch FROM clock_timestamp())::float8"
)

#: Seconds between the server's checks, during a statement, whether its client is still there.
CHECK_SECONDS = 10


def _watch_over(seconds: float) -> tuple[int, int, int]:
    """Return TCP's keepalive idle time and interval in seconds, and the number of probes."""
    return max(1, round(seconds / 2)), max(1, round(seconds / 8)), 3


def watchfulness(seconds: float, role: str) -> dict[str, str]:
    """Return the settings that make the server notice that its client is gone, and release its locks.

    ``tcp_user_timeout`` also ends a connection whose peer is alive but reads nothing for a while (tcp(7)), as happens
    to rows while the destination waits for a lock. So it is not set where rows are sent: on the source's server, and in
    libpq towards the destination, where the watchdog takes its place.
    """
    if not seconds:
        return {}
    idle, interval, count = _watch_over(seconds)
    found = {
        "tcp_keepalives_idle": str(idle),
        "tcp_keepalives_interval": str(interval),
        "tcp_keepalives_count": str(count),
        LINUX_ALONE: f"{min(CHECK_SECONDS, idle)}s",
    }
    if role != "source":
        found["tcp_user_timeout"] = str(round(seconds * 1000))
    return found


def _keepalives(seconds: float, role: str) -> dict[str, str]:
    """Return the keywords that make libpq notice that the server is gone; see ``watchfulness``."""
    if not seconds:
        return {}
    idle, interval, count = _watch_over(seconds)
    found = {
        "keepalives": "1",
        "keepalives_idle": str(idle),
        "keepalives_interval": str(interval),
        "keepalives_count": str(count),
    }
    if role == "source":
        found["tcp_user_timeout"] = str(round(seconds * 1000))
    return found


def keywords(config: PostgresEnd, role: str) -> dict[str, str]:
    """Return libpq's keywords for a config."""
    found: dict[str, str] = {
        **_keepalives(config.network_timeout, role),
        "application_name": config.application_name,
        "connect_timeout": str(config.connect_timeout),
        **config.params,
    }
    if config.url is not None:
        found.update(parse_url(config.url))
    keys = {"host": "host", "port": "port", "database": "dbname", "username": "user"}
    keys.update({name: name for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")})
    for key, keyword in keys.items():
        value = getattr(config, key)
        if value is not None:
            found[keyword] = str(value)
    if config.password is not None:
        found["password"] = config.password.reveal()
    return found


def secrets_of(config: PostgresEnd, parameters: Mapping[str, str]) -> tuple[portl.Secret, ...]:
    """Return the secrets that must not appear in messages."""
    passwords = (parameters.get(name) for name in SECRET_KEYWORDS)
    found = [portl.Secret(value) for value in passwords if value]
    return (*found, *([config.url] if config.url is not None else []))


def changing(wanted: Mapping[str, str], *, local: bool) -> str:
    """Return the statement that changes a session's settings, and returns their old values and who has answered.

    Args:
        wanted: the settings by name; those that this server version does not have are skipped.
        local: True to change them for the transaction only.
    """
    names, values = (Expression(f"ARRAY[{', '.join(map(literal, of))}]::text[]") for of in (wanted, wanted.values()))
    return bound(
        # OFFSET 0 separates the steps, so that all old values are read first.
        f"SELECT n, before, CASE WHEN before <> v THEN set_config(n, v, $3) END IS NOT NULL, {SERVER_FACTS}"
        f" FROM (SELECT n, CASE WHEN n = '{MEMORY}' AND v = '{AUTO}' THEN {MORE_MEMORY} ELSE v END AS v,"
        " current_setting(n, true) AS before FROM unnest($1, $2) AS s(n, v)"
        f" WHERE n <> '{LINUX_ALONE}' OR version() LIKE '%linux%' OFFSET 0) AS known",
        names,
        values,
        Expression(str(local)),
    )

"""What a connection is opened with, and what a session on it is set to."""

from __future__ import annotations

from collections.abc import Mapping

import portl
from portl_postgres.config import PostgresEnd
from portl_postgres.conninfo import SECRET_KEYWORDS, parse_url
from portl_postgres.session.memory import AUTO, MEMORY, MORE_MEMORY
from portl_postgres.sql.text import Expression, bound, literal

#: A setting that an error answers where the server's system cannot do it (manual, 20.3.2): on Linux it always can.
LINUX_ALONE = "client_connection_check_interval"

#: Settings that fix how values are printed and read, so that text means the same at both sides (manual, 20.11). Left
#: as the user has them: TimeZone and the order of DateStyle, which decide what a query means.
PRINTING = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",  # before version 12, less than 3 loses digits
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "xmloption": "content",
    "array_nulls": "on",  # off, {a,NULL} is read as two texts
    "standard_conforming_strings": "on",  # off, a backslash in a text of portl's own, or of the user's, is an escape
    # A transaction that waits for the other side is not idle in the sense of these limits: the source's holds the
    # snapshot while the destination works, the destination's its rows while the source does. What the limits are for,
    # locks that a dead client leaves behind, the server's own look after the client is for (``_LIMITS``).
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}

#: Which process of which server answers: its number, when the server was started, and what the time is there.
SERVER_FACTS = (
    "pg_backend_pid(), (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text,"
    " extract(epoch FROM clock_timestamp())::float8"
)

#: Seconds between two looks of the server, amid a statement, at whether its client is there.
CHECK_SECONDS = 10


def _watch_over(seconds: float) -> tuple[int, int, int]:
    """Return after how many idle seconds TCP asks the peer, how many seconds apart, and how often."""
    return max(1, round(seconds / 2)), max(1, round(seconds / 8)), 3


def watchfulness(seconds: float, role: str) -> dict[str, str]:
    """Return the settings by which the server notices that its client is gone, and gives up what it has locked.

    ``tcp_user_timeout`` also ends a connection whose peer is well but reads nothing for a while (tcp(7)). That happens
    to rows while the destination waits for a lock. So it is not set where rows are sent: on the source's server, and in
    libpq towards the destination, where the watchdog does its work.
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
    """Return the keywords by which libpq notices that the server is gone; see ``watchfulness``."""
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
    """Return what must not stand in a message."""
    passwords = (parameters.get(name) for name in SECRET_KEYWORDS)
    found = [portl.Secret(value) for value in passwords if value]
    return (*found, *([config.url] if config.url is not None else []))


def changing(wanted: Mapping[str, str], *, local: bool) -> str:
    """Return the statement that changes settings of a session, and says what they were and who has answered.

    Args:
        wanted: by their names; those that this version of the server does not have are left out.
        local: True to change them for the transaction alone.
    """
    names, values = (Expression(f"ARRAY[{', '.join(map(literal, of))}]::text[]") for of in (wanted, wanted.values()))
    return bound(
        # What was so is read first, whole: OFFSET keeps the two steps apart.
        f"SELECT n, before, CASE WHEN before <> v THEN set_config(n, v, $3) END IS NOT NULL, {SERVER_FACTS}"
        f" FROM (SELECT n, CASE WHEN n = '{MEMORY}' AND v = '{AUTO}' THEN {MORE_MEMORY} ELSE v END AS v,"
        " current_setting(n, true) AS before FROM unnest($1, $2) AS s(n, v)"
        f" WHERE n <> '{LINUX_ALONE}' OR version() LIKE '%linux%' OFFSET 0) AS known",
        names,
        values,
        Expression(str(local)),
    )

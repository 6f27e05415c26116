"""Parse a libpq URI or conninfo string.

libpq does this itself, but its error for a malformed string repeats the string with the password in it, and for
``user:p@ss@host`` it sends part of the password to the name server. So the string is parsed here, and libpq gets
keywords. The result is the same as libpq's (manual, 32.1.1, Connection Strings), except that the password in a URI may
contain an @, and that ambiguous passwords are refused. No message repeats any part of the string, as any part may be
the password.
"""

from __future__ import annotations

import difflib
import re
from urllib.parse import unquote_to_bytes

from psycopg import pq

from portl import FieldError, Secret

_OPTIONS = pq.Conninfo.get_defaults()
#: The keywords of the libpq in use.
KEYWORDS = frozenset(option.keyword.decode() for option in _OPTIONS)
#: Those whose value is a secret.
SECRET_KEYWORDS = frozenset(
    {option.keyword.decode() for option in _OPTIONS if option.dispchar == b"*"}
    | (KEYWORDS & {"oauth_client_secret", "scram_client_key", "scram_server_key"})
)

_SCHEME = re.compile(r"postgres(?:ql)?://")
# libpq looks for the first @ before the first /.
_CREDENTIALS = re.compile(r"([^@/]*)@")
_LOCATION = re.compile(r"[^/?]*")
_HOST = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::(\d*))?")
# keyword = value | keyword = 'value with spaces', with a backslash before ' and \
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)?)(?=\s|$)", re.DOTALL)
_WRONG = "is neither a URI (postgresql://user@host:port/database) nor a conninfo string (host=... dbname=...)"
_ADVICE = "inside a user, password or database name write @ as %40, / as %2F, : as %3A, ? as %3F and % as %25"


def parse_url(url: Secret) -> dict[str, str]:
    """Return libpq's keywords and values.

    Raises:
        FieldError: the text is neither; it is not repeated, as it may contain a password.
    """
    text = url.reveal().strip()
    if "\0" in text:
        raise FieldError("url", "must not contain a NUL character")
    scheme = _SCHEME.match(text)
    found = _uri(text[scheme.end() :]) if scheme else _pairs(text)
    for name in found:
        if name not in KEYWORDS:
            near = difflib.get_close_matches(name, KEYWORDS, n=1)
            suggestion = f"; did you mean {near[0]!r}?" if near else ""
            raise FieldError("url", f"has a parameter that libpq does not know{suggestion}")
    return found


def _uri(rest: str) -> dict[str, str]:
    found: dict[str, str] = {}
    credentials = _CREDENTIALS.match(rest)
    user = credentials[1] if credentials else None
    rest = rest[credentials.end() :] if credentials else rest
    location = _match(_LOCATION, rest)
    rest = rest[len(location) :]
    if user is not None and "@" in location:  # no host contains an @: it belongs to the password
        more, _, location = location.rpartition("@")
        user = f"{user}@{more}"
    path, _, query = rest.partition("?")
    if "@" in path and ":" in f"{user or ''}{location}":
        raise FieldError("url", f"has an @ behind a /, so that the password may end in two places; {_ADVICE}")
    if user is not None:
        name, colon, password = user.partition(":")
        found["user"] = _decoded(name)
        if colon:
            found["password"] = _decoded(password)
    found.update(_hosts(location))
    if path[1:]:
        found["dbname"] = _decoded(path[1:])
    found.update(_query(query))
    return {name: value for name, value in found.items() if value or name not in ("user", "password")}


def _match(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return match[0] if match else ""


def _hosts(location: str) -> dict[str, str]:
    hosts, ports = [], []
    for item in location.split(","):
        match = _HOST.fullmatch(item)
        if match is None or (match[3] and not 0 < int(match[3][:9]) < 65536):
            raise FieldError("url", f"has a host or port that cannot be read; {_ADVICE}")
        hosts.append(_decoded(match[1] or match[2] or ""))
        ports.append(match[3] or "")
    found = {"host": ",".join(hosts), "port": ",".join(ports)}
    return {name: value for name, value in found.items() if value}


def _query(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in query.split("&") if query else ():
        name, equals, value = item.partition("=")
        if not equals or "=" in value:
            raise FieldError("url", f"has something behind ? that is not name=value pairs joined by &; {_ADVICE}")
        name, value = _decoded(name), _decoded(value)
        if (name, value) == ("ssl", "true"):  # JDBC's spelling, which libpq accepts too
            name, value = "sslmode", "require"
        found[name] = value
    return found


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise FieldError("url", f"has a % that is not followed by two hexadecimal digits; {_ADVICE}")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise FieldError("url", "has a percent-encoded part that is not UTF-8 text")
    return decoded


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise FieldError("url", _WRONG)
        value = match[2] if match[2] is not None else match[3] or ""
        found[match[1]] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        position = match.end()
    if not found:
        raise FieldError("url", _WRONG)
    return found

"""Take a libpq URI or conninfo string apart.

libpq does this itself, but its error for a malformed one repeats the string with the password in it, and of
``user:p@ss@host`` it sends a part of the password to the name server. So the parts are found here, and libpq gets
keywords. (Manual, 32.1.1, Connection Strings.)
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from portl import FieldError, Secret

_SCHEMES = ("postgresql://", "postgres://")
# keyword = value | keyword = 'value with spaces', a backslash before ' and \
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)", re.DOTALL)
_WRONG = "is neither a URI (postgresql://user@host:port/database) nor a conninfo string (host=... dbname=...)"


def parse_url(url: Secret) -> dict[str, str]:
    """Return libpq's keywords and values.

    Raises:
        FieldError: if the text is neither; the text is not repeated, it may hold a password.
    """
    text = url.reveal().strip()
    for scheme in _SCHEMES:
        if text.startswith(scheme):
            return _uri(text.removeprefix(scheme))
    return _pairs(text)


def _uri(rest: str) -> dict[str, str]:
    rest, _, query = rest.partition("?")
    # A password may hold an unescaped @ or /: the host begins after the last @ in front of the path.
    credentials, at, remainder = rest.rpartition("@")
    location, _, path = (remainder if at else rest).partition("/")
    found: dict[str, str] = {}
    if at:
        user, colon, password = credentials.partition(":")
        found["user"] = unquote(user)
        if colon:
            found["password"] = unquote(password)
    if location:
        found.update(_hosts(location))
    if path:
        found["dbname"] = unquote(path)
    try:
        found.update(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise FieldError("url", "has a part after ? that is not name=value pairs joined by &") from None
    if found.pop("ssl", None) == "true":  # JDBC's spelling, which libpq takes too
        found["sslmode"] = "require"
    return {name: value for name, value in found.items() if value}


def _hosts(location: str) -> dict[str, str]:
    hosts, ports = [], []
    for item in location.split(","):
        match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", item)
        if match is None:
            raise FieldError("url", "has a host or port that cannot be read; is an @ of the password written as %40?")
        hosts.append(unquote(match[1].strip("[]")))
        ports.append(match[2] or "")
    found = {"host": ",".join(hosts)}
    if any(ports):
        found["port"] = ",".join(ports)
    return found


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(text.rstrip()):
        match = _PAIR.match(text, position)
        if match is None:
            raise FieldError("url", _WRONG)
        value = match[2] if match[2] is not None else match[3]
        found[match[1]] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        position = match.end()
    if not found:
        raise FieldError("url", _WRONG)
    return found

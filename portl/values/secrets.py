"""A string that does not print itself."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NoReturn

MASK = "********"

_carried: ContextVar[bool] = ContextVar("carried", default=False)


@contextmanager
def carried() -> Iterator[None]:
    """Include secrets in what is pickled inside this context.

    A worker in a process pool needs them and has no other way to get them. They are XORed with random bytes, new for
    each pickle and stored beside them, so that a log, dump or dashboard of the raw bytes does not show them. This is
    not encryption: anyone who can unpickle the data can read them. Over a network, use TLS.
    """
    before = _carried.set(True)
    try:
        yield
    finally:
        _carried.reset(before)


def _arrived(noise: bytes, mixed: bytes) -> Secret:
    return Secret(bytes(a ^ b for a, b in zip(noise, mixed, strict=True)).decode("utf-8", "surrogatepass"))


class Secret:
    """A password, or text that contains one. Only ``reveal()`` returns it; ``str`` and ``repr`` print a mask.

    It is left out of pickles, unless it is ``carried``: the copy in the other process is equal only to itself, and its
    ``reveal()`` raises.
    """

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret in clear text."""
        return self._value

    def scrub(self, text: str) -> str:
        """Return ``text`` with every occurrence of the secret replaced by the mask, in any escaped form."""
        return self._anywhere.sub(MASK, text) if self._value else text

    @cached_property
    def _anywhere(self) -> re.Pattern[str]:
        return re.compile("".join(map(_escaped, self._value)))

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if not _carried.get():
            return _LeftBehind, ()
        plain = self._value.encode("utf-8", "surrogatepass")
        noise = secrets.token_bytes(len(plain))
        return _arrived, (noise, bytes(a ^ b for a, b in zip(noise, plain, strict=True)))


class _LeftBehind(Secret):
    """Takes the place of a secret that was left out of a pickle."""

    def __init__(self) -> None:
        super().__init__("")

    def __reduce__(self) -> tuple[Any, ...]:
        return _LeftBehind, ()

    def reveal(self) -> NoReturn:
        """Raise: the secret is not here."""
        raise ValueError("passwords are left out of pickles; load the job where it runs")

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def _escaped(character: str) -> str:
    """Return a pattern for one character: as it is, percent-encoded, or escaped for conninfo, SQL or repr."""
    encoded = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    # Longest form first: for the password %, the 25 of %25 must not be left over.
    ways = [f"(?i:{encoded})", re.escape(character)]
    if character in "'\\\"":
        ways.insert(0, re.escape(f"\\{character}"))
    if character in "'\\":
        ways.insert(0, re.escape(character * 2))
    if character == " ":
        ways.append(r"\+")
    return f"(?:{'|'.join(ways)})"

"""A string that does not print itself."""

from __future__ import annotations

from urllib.parse import quote

import attrs

MASK = "********"


@attrs.frozen(repr=False)
class Secret:
    """A password, or a text that holds one. Only ``reveal()`` gives it away; ``str`` and ``repr`` print a mask."""

    _value: str

    def reveal(self) -> str:
        """Return the secret in clear."""
        return self._value

    def scrub(self, text: str) -> str:
        """Return ``text`` with every occurrence of the secret, percent-encoded ones too, replaced by the mask."""
        for form in {self._value, quote(self._value), quote(self._value, safe="")}:
            if form:
                text = text.replace(form, MASK)
        return text

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

"""Hide values of masked columns in errors, logs and the reasons in the quarantine.

Where a server's message contains values depends on its language and version. So the part that describes the row
(``detail``) is hidden as a whole, unless it names only columns that are not masked; in the rest, every occurrence of a
masked value is hidden, and every quoted part of one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from portl.values.errors import DataError

COVER = "********"

#: ``(columns)=(values)``: how servers name a key, whatever the language around it.
_KEY = re.compile(r"\((?P<columns>[^()]*)\)=\(")
_QUOTED = re.compile(r'"([^"]*)"')
#: A value shorter than this is hidden only where it is not part of a longer word.
_SHORT = 4


def masked(error: DataError, values: Mapping[str, str | None] | None, mask: Collection[str]) -> DataError:
    """Hide the values of masked columns in ``error``, and return it.

    Args:
        error: as raised by the connector. Its ``values``, ``message``, ``hint`` and ``detail`` are changed in place.
        values: the row's values as text, by column, if known; those in ``error.values`` count too.
        mask: the masked columns.
    """
    if not mask:
        return error
    hidden = {
        text for found in (values or {}, error.values or {}) for name, text in found.items() if name in mask and text
    }
    hidden.discard(COVER)
    if error.detail and not _names_others_only(error.detail, mask):
        error.message = error.message.replace(error.detail, COVER)
        error.detail = COVER
    error.message = _covered(error.message, hidden)
    if error.detail:
        error.detail = _covered(error.detail, hidden)
    if error.hint:
        error.hint = _covered(error.hint, hidden)
    if error.values is not None:
        error.values = {
            name: COVER if name in mask and text is not None else text for name, text in error.values.items()
        }
    error.args = (error.message,)
    return error


def _names_others_only(detail: str, mask: Collection[str]) -> bool:
    """Return whether a server's description of a row names a key without any masked column."""
    found = _KEY.search(detail)
    if found is None:
        return False
    # Names appear bare or quoted, and within expressions: any word that is a masked column's name counts.
    return not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", found["columns"]) for name in mask)


def _covered(text: str, hidden: Collection[str]) -> str:
    if not hidden:
        return text

    def quoted(match: re.Match[str]) -> str:
        return f'"{COVER}"' if match[1] and any(match[1] in value for value in hidden) else match[0]

    for value in sorted(hidden, key=len, reverse=True):
        if len(value) >= _SHORT:
            text = text.replace(value, COVER)
        else:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", COVER, text)
    return _QUOTED.sub(quoted, text)

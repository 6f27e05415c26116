"""The source's SELECT list, which does the casts and renames, so that the relay only relays.

A conversion that cannot fail is done by the source (``a::bigint``), and the row travels in binary form. One that may
refuse a row is left to the destination's input function, from text form: a failure in the source's SELECT would end the
whole stream without naming the row, while a failure at the destination can be rolled back, named and quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from portl import Field, Kind, Verdict
from portl_postgres.catalog.tables import ColumnDetails, details
from portl_postgres.catalog.types import PgType, has_generic, is_text
from portl_postgres.sql.text import quoted

_WHOLE = {Kind.SMALLINT, Kind.INT, Kind.BIGINT}
_REALS = {Kind.FLOAT, Kind.DOUBLE}
_CLOCKS = {Kind.DATE, Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL}
#: Types whose text changes its meaning with DateStyle or TimeZone.
_READ_BY_SETTINGS = {"date", "timestamp", "timestamptz", "timetz"}


@attrs.frozen
class Item:
    """One entry of the SELECT list."""

    sql: str
    #: Why the row cannot travel in binary form because of it; None if it can.
    obstacle: str | None = None
    #: True if it still has the type of ``Field.sent``.
    keeps_type: bool = True


def item(field: Field) -> Item:
    """Return how a field is selected."""
    sent, target = details(field.sent), details(field.target)
    expression = _base(field, sent)
    if target is None:
        return Item(expression)
    name = field.source.name
    if sent is None:
        return Item(expression, f"the type {field.sent.native} of {name!r} is not known at the source", False)
    s, t = sent.pg, target.pg
    if s.same_as(t) or s.root.same_as(t.root):
        binary = s.binary(target.version) and t.binary(target.version) and s.makeup == t.makeup
        return Item(expression, None if binary else f"the binary form of {s.spelled} ({name!r}) is not portable")
    if is_text(s) and is_text(t) and s.root.name != "bpchar":
        return Item(expression)
    if is_text(t):
        return Item(f"CAST({expression} AS text)", keeps_type=False)
    obstacle = f"{name!r} becomes {field.target.native} at the destination, from its text"
    if is_text(s) or not (has_generic(s) and has_generic(t)):
        return Item(expression, obstacle)
    return _between_generics(expression, field, t.root, obstacle)


def _base(field: Field, sent: ColumnDetails | None) -> str:
    expression = f"({field.using})" if field.using else quoted(field.source.name)
    if field.sent is field.source or field.sent == field.source:
        return expression
    return f"CAST({expression} AS {field.sent.native if sent is not None else 'text'})"


def _between_generics(expression: str, field: Field, target: PgType, obstacle: str) -> Item:
    sent, wanted = field.sent.type.kind, field.target.type.kind
    left_to_destination = Item(expression, obstacle)
    if field.conversion.verdict is Verdict.IMPOSSIBLE:
        return left_to_destination  # the plan has a problem; what the source could not even parse adds nothing to it
    if not target.builtin or wanted is Kind.TIME:
        # A cast to time makes NULL of an infinite timestamp; time's input function refuses it.
        return left_to_destination
    cast = Item(f"CAST({expression} AS {target.spelled})", keeps_type=False)
    if field.conversion.verdict is Verdict.LOSSLESS or sent in _CLOCKS:
        return cast
    if sent in _WHOLE and wanted not in _WHOLE:
        return cast  # the modifier is applied, and an overflow found, at the destination
    if wanted in _WHOLE and sent is Kind.DECIMAL:
        return Item(f"pg_catalog.round({expression})", obstacle)
    if wanted in _WHOLE and sent in _REALS:
        return Item(_whole_text(expression), obstacle, keeps_type=False)
    return left_to_destination


def _whole_text(expression: str) -> str:
    """Return the text of a float as an integer: every digit, where the float's own text may be 1e+15.

    What no bigint holds keeps the float's text, which the destination refuses.
    """
    fits = f"{expression} >= -9223372036854775808 AND {expression} < 9223372036854775808"
    return f"CASE WHEN {fits} THEN CAST(CAST({expression} AS bigint) AS text) ELSE CAST({expression} AS text) END"


def select_item(field: Field, *, named: bool = True) -> str:
    """Return a field's entry of the SELECT list, under the destination's name."""
    text = item(field).sql
    if not named or text == quoted(field.target.name):
        return text
    return f"{text} AS {quoted(field.target.name)}"


def keeps_type(field: Field) -> bool:
    """Return whether a field leaves the source with the type of ``Field.sent``."""
    return item(field).keeps_type


def binary_obstacle(fields: Sequence[Field]) -> str | None:
    """Return why these fields cannot travel in binary form together; None if they can."""
    return next((found for field in fields if (found := item(field).obstacle) is not None), None)


def keeps_value(field: Field) -> bool:
    """Return whether a column is passed on without conversion."""
    sent, target = details(field.sent), details(field.target)
    if sent is None or target is None or field.using or field.sent != field.source:
        return False
    return sent.pg.same_as(target.pg) or sent.pg.root.same_as(target.pg.root)


def text_obstacle(fields: Sequence[Field]) -> str | None:
    """Return which of these fields the destination has to parse from text; None if none."""
    return next((found for f in fields if (found := item(f).obstacle) is not None and not _same(f)), None)


def settings(fields: Sequence[Field]) -> Mapping[str, str]:
    """Return the source's settings by which texts among these fields become dates and times; none if there are none.

    Both sides read such a text by them: the destination when it is copied, the source when it is compared.
    """
    for field in fields:
        source, target = details(field.source), details(field.target)
        if source is None or target is None or text_obstacle([field]) is None:
            continue
        if _READ_BY_SETTINGS & {part.name for part in target.pg.parts()}:
            return source.settings
    return {}


def _same(field: Field) -> bool:
    sent, target = details(field.sent), details(field.target)
    return sent is not None and target is not None and sent.pg.root.same_as(target.pg.root)

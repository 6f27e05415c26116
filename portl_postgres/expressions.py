"""The SELECT list of the source: casts and renames belong there, so that the relay stays a relay.

A conversion that cannot fail is done by the source (``a::bigint``), and the row travels in binary form. One that may
refuse a row is left to the destination's input function, from the text form: a failure in the source's SELECT would
end the whole stream without saying which row it was, one at the destination can be rolled back, named and put aside.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from portl import Field, Kind, Verdict
from portl_postgres.catalog import ColumnDetails, details
from portl_postgres.sqltext import quoted
from portl_postgres.types import PgType, has_generic, is_text

_WHOLE = {Kind.SMALLINT, Kind.INT, Kind.BIGINT}
_CLOCKS = {Kind.DATE, Kind.TIME, Kind.TIMETZ, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.INTERVAL}


@attrs.frozen
class Item:
    """One entry of the SELECT list."""

    sql: str
    #: Why the row cannot travel in binary form because of it; None if it can.
    obstacle: str | None = None
    #: True if it has the type of ``Field.sent`` still.
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
        binary = s.binary(target.version) and t.binary(target.version)
        return Item(expression, None if binary else f"the binary form of {s.spelled} ({name!r}) is not portable")
    if is_text(s) and is_text(t) and s.root.name != "bpchar":
        return Item(expression)
    if is_text(t):
        return Item(f"CAST({expression} AS text)", keeps_type=False)
    left_to_destination = f"{name!r} becomes {field.target.native} at the destination, from its text"
    if is_text(s) or not (has_generic(s) and has_generic(t)):
        return Item(expression, left_to_destination)
    return _between_generics(expression, field, t.root, left_to_destination)


def _base(field: Field, sent: ColumnDetails | None) -> str:
    expression = f"({field.using})" if field.using else quoted(field.source.name)
    if field.sent is field.source or field.sent == field.source:
        return expression
    return f"CAST({expression} AS {field.sent.native if sent is not None else 'text'})"


def _between_generics(expression: str, field: Field, target: PgType, left_to_destination: str) -> Item:
    source_kind, target_kind = field.sent.type.kind, field.target.type.kind
    cast = Item(f"CAST({expression} AS {target.spelled})", keeps_type=False)
    if field.conversion.verdict is Verdict.LOSSLESS or source_kind in _CLOCKS:
        return cast
    if source_kind in _WHOLE and target_kind not in _WHOLE:
        return cast  # the modifier is applied, and an overflow found, at the destination
    if target_kind in _WHOLE and source_kind not in _WHOLE:
        return Item(f"round({expression})", left_to_destination)
    return Item(expression, left_to_destination)


def select_item(field: Field, *, named: bool = True) -> str:
    """Return a field's entry of the SELECT list, under the destination's name."""
    text = item(field).sql
    if not named or text == quoted(field.target.name):
        return text
    return f"{text} AS {quoted(field.target.name)}"


def keeps_type(field: Field) -> bool:
    """Tell whether a field leaves the source with the type of ``Field.sent``."""
    return item(field).keeps_type


def binary_obstacle(fields: Sequence[Field]) -> str | None:
    """Return why these fields cannot travel in binary form together; None if they can."""
    return next((found for field in fields if (found := item(field).obstacle) is not None), None)

"""Find rows by key: to read them again, to tell which comes last, or to find an equal key at the destination."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from portl import Field, Intent, Texts
from portl_postgres.catalog.equality import key_operators
from portl_postgres.catalog.tables import details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import literal, quoted
from portl_postgres.verification.images import JUDGES_INPUT, Way, judged_by_text, native, produced, shown, way
from portl_postgres.wire import select_list


def selection(fields: Sequence[Field], key: Sequence[str], wanted: Mapping[Texts, int], rows: str, version: int) -> str:
    """Return the SELECT that reads rows with certain keys again.

    Args:
        fields: the columns.
        key: the key columns, by their names at the destination; empty for the whole row.
        wanted: the keys as text, each with the most rows to return.
        rows: what follows FROM.
        version: the version of the source's server.
    """
    parts = []
    for field in fields:
        found = details(field.target)
        if (not key or field.target.name in key) and found is not None:
            value = produced(field, version)
            text = shown(value, found.pg, by_text=judged_by_text(field, version))
            parts.append((field.target.name, text))
    texts = [dict(parts)[name] for name in key] if key else [text for _, text in parts]
    names, arrays = _arrays(wanted)
    counts = _array([str(n) for n in wanted.values()], "int8")
    # A row's text tells NULL from an empty string, and both sides of the comparison use the same function.
    keys = (
        f"SELECT {_row_text(names)} AS portl_key, portl_count"
        f" FROM unnest({', '.join([*arrays, counts])}) AS portl_wanted({', '.join([*names, 'portl_count'])})"
    )
    columns = [f"{select_list.select_item(f, named=False)} AS c{n}" for n, f in enumerate(fields)]
    named = ", ".join(f"c{n} AS {quoted(f.target.name)}" for n, f in enumerate(fields))
    columns += [f"{_row_text(texts)} AS portl_key", "row_number() OVER () AS portl_order"]
    inner = f"SELECT {', '.join(columns)} FROM {rows}"
    counted = "" if key else " WHERE portl_number <= portl_count"
    return (
        f"SELECT {named} FROM (SELECT r.*, w.portl_count, row_number() OVER (PARTITION BY r.portl_key"
        f" ORDER BY r.portl_order) AS portl_number FROM ({inner}) AS r JOIN ({keys}) AS w USING (portl_key)) AS portl_s"
        f"{counted} ORDER BY portl_order"
    )


def places(rows: str, key: Sequence[str], wanted: Collection[Texts], *, last: bool) -> str:
    """Return the query for the positions of rows with some keys: the key's number, from 1, and the position.

    Args:
        rows: what follows FROM, with ``portl_order``.
        key: expressions for the key columns as text.
        wanted: the keys.
        last: True for the last row of each key, False for the first.
    """
    names, arrays = _arrays(wanted)
    return (
        f"SELECT portl_number, {'max' if last else 'min'}(portl_order) FROM {rows}"
        f" JOIN unnest({', '.join(arrays)}) WITH ORDINALITY AS portl_wanted({', '.join(names)}, portl_number)"
        f" ON {_row_text(names)} = {_row_text(key)} GROUP BY 1"
    )


def equals(
    key: Sequence[Field],
    wanted: Collection[Texts],
    operators: Mapping[str, str],
    versions: tuple[int, int],
    *,
    nulls: bool,
) -> str:
    """Return the join that finds the destination's row for each key, using the key's own equality and its index.

    Args:
        key: the key's fields.
        wanted: the keys, as printed by the source's side of a comparison.
        operators: the equality operators of columns that belong to an extension.
        versions: those of the source's and the destination's server.
        nulls: True if two NULLs are equal.
    """
    names, arrays = _arrays(wanted)
    conditions = [
        _equal(field, name, operators.get(field.target.name, "="), versions, nulls=nulls)
        for field, name in zip(key, names, strict=True)
    ]
    return (
        f"JOIN unnest({', '.join(arrays)}) WITH ORDINALITY AS portl_wanted({', '.join(names)}, portl_number)"
        f" ON {' AND '.join(conditions)}"
    )


def removal(session: Session, name: str, intent: Intent, keys: Collection[Texts]) -> str:
    """Return the statement that deletes the rows with some keys and counts them.

    Args:
        session: that of the destination.
        name: the table's quoted name.
        intent: the job.
        keys: key values as text input of the key columns' types.
    """
    assert intent.key is not None, "rows are found by it"
    key = [intent.target.by_name[column] for column in intent.key.columns]
    operators = key_operators(session, name, intent.key.columns)
    names, arrays = _arrays(keys)
    equal = " AND ".join(
        f"({quoted(c.name)} {operators.get(c.name, '=')} CAST({text} AS {native(c)})"
        f" OR ({quoted(c.name)} IS NULL AND {text} IS NULL))"
        for c, text in zip(key, names, strict=True)
    )
    # ctid is qualified: a join has none, and unqualified it would be that of the row to delete.
    found = f"{name} AS portl_r JOIN unnest({', '.join(arrays)}) AS portl_w({', '.join(names)}) ON {equal}"
    return (
        f"WITH done AS (DELETE FROM {name} WHERE (tableoid, ctid) IN (SELECT portl_r.tableoid, portl_r.ctid"
        f" FROM {found}) RETURNING 1) SELECT count(*) FROM done"
    )


def _equal(field: Field, text: str, operator: str, versions: tuple[int, int], *, nulls: bool) -> str:
    """Return the condition that a column equals the value printed as ``text``, which its type may refuse."""
    column, type = quoted(field.target.name), native(field.target)
    value = f"CAST({text} AS {type})"
    found = details(field.target)
    any_text = found is not None and found.pg.root.extension == "citext"
    if way(field, versions[0]) in (Way.TRIED, Way.TEXT) and not any_text:
        if versions[1] < JUDGES_INPUT:
            column, value, operator = f"CAST({column} AS text)", text, "="
        else:
            value = f"CASE WHEN pg_catalog.pg_input_is_valid({text}, {literal(type)}) THEN {value} END"
    equal = f"{column} {operator} {value}"
    return f"({equal} OR ({column} IS NULL AND {text} IS NULL))" if nulls else equal


def _row_text(texts: Iterable[str]) -> str:
    return f"CAST(ROW({', '.join(texts)}) AS text)"


def _arrays(wanted: Collection[Texts]) -> tuple[list[str], list[str]]:
    """Return names for the key columns, and the keys' texts as arrays."""
    arrays = [_array(texts) for texts in zip(*wanted, strict=True)]
    return [f"portl_k{number}" for number in range(len(arrays))], arrays


def _array(values: Iterable[str | None], type: str = "text") -> str:
    items = ",".join("NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)
    return f"{_literal('{' + items + '}')}::{type}[]"


def _literal(text: str) -> str:
    """Return a constant; bytes from an SQL_ASCII database, which are surrogates in ``text``, are preserved."""
    try:
        return literal(text)
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape")
        return f"pg_catalog.convert_from(pg_catalog.decode('{data.hex()}', 'hex'), 'SQL_ASCII')"

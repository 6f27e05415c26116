"""Split a table, view or query into chunks: by ranges of a unique key, of blocks, or of a column's values.

Split points come from all rows of a small table, otherwise from the rows of some blocks spread over the table. A wrong
estimate only makes chunks uneven: a chunk's contents are decided by its bounds alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs

from portl import Chunk, Split, Splitting, Table
from portl_postgres.catalog.tables import details, table_details
from portl_postgres.config import PostgresSourceConfig
from portl_postgres.session.session import Session
from portl_postgres.source.ranges import BLOCK, KEY, VALUE, Order, block_order, column_order, relation_of
from portl_postgres.sql.text import bound, statement

#: A table of at most this many blocks (4 MiB) is sampled as a whole.
EXACT_BLOCKS = 512
#: Blocks sampled from a larger one: for each chunk, at least, at most.
SAMPLE_BLOCKS, SAMPLE_BLOCKS_MIN, SAMPLE_BLOCKS_MAX = 20, 1000, 8000
#: Rows of these to sort: for each chunk, and at least.
SAMPLE_ROWS, SAMPLE_ROWS_MIN = 200, 20_000
#: Blocks sampled to estimate the rows of a table that was never analyzed.
DENSITY_BLOCKS = 100
#: The most chunks, each a line in the ledger; beyond that, chunks become larger.
MAX_CHUNKS = 50_000
#: Below this correlation of key and physical order, reading by key goes back and forth over the whole table.
SCATTERED = 0.5
#: The version that can scan a range of blocks alone (release notes of 14, E.23.3.1.2).
TID_RANGES = 14
#: The smallest size of a row in a block, header and line pointer, and the block's own overhead.
_ROW_BYTES, _BLOCK_BYTES = 28, 24

_KINDS_WITH_BLOCKS = ("r", "m", "p")


@attrs.frozen(kw_only=True)
class _Storage:
    """The storage of a table, partitions included."""

    has_parts: bool
    #: True if it can be read by block ranges.
    by_blocks: bool
    blocks: int
    bytes: int
    #: As of the last ANALYZE; None if there was none.
    rows: float | None
    block_size: int

    @property
    def most_rows(self) -> int:
        """An upper bound on its rows."""
        return self.blocks * ((self.block_size - _BLOCK_BYTES) // _ROW_BYTES)


@attrs.frozen(kw_only=True)
class _Cuts:
    """Where a table is split."""

    points: tuple[tuple[str, ...], ...]
    rows: int
    #: The correlation of the order with the blocks, from -1 to 1; None if there is nothing to compare.
    correlation: float | None = None


def look(table: Table) -> list[str]:
    """Return what cutting a table asks ``Session.looking`` for first; nothing for what is not cut by its blocks."""
    found = None if table.kind == "query" else table_details(table)
    if found is None or found.kind not in _KINDS_WITH_BLOCKS:
        return []
    return [bound(statement("storage"), found.oid), bound(statement("ranges"), found.oid)]


def whole(reason: str) -> Split:
    """Return the split for a source that cannot be split."""
    return Split(reason=reason)


class Splitter:
    """Splits one source.

    Args:
        session: in the reading transaction.
        table: that of the source.
        config: that of the source.
        from_: what follows FROM, without conditions.
        select: the statement that reads everything.
        splitting: what the engine asks for.
    """

    def __init__(
        self,
        session: Session,
        table: Table,
        config: PostgresSourceConfig,
        from_: str,
        select: str,
        splitting: Splitting,
    ) -> None:
        self._session = session
        self._table = table
        self._config = config
        self._from = from_
        self._select = select
        self._splitting = splitting
        self._relation = relation_of(table)
        #: The columns of each key that can define ranges, best first.
        self._keys: list[tuple[Any, ...]] = []
        self._kind = "" if table.kind == "query" else table_details(table).kind

    def split(self) -> Split:
        """Return how to read the source in chunks."""
        if self._config.limit is not None:
            return whole("`limit` takes rows in no stable order")
        if self._kind in _KINDS_WITH_BLOCKS:
            return self._split_table()
        if self._config.split_by is None:
            kind = self._table.kind
            return whole(f"a {kind} has no key to range over; `split_by` names a column that can stand in for one")
        return self._split_by_values(self._config.split_by, None)

    def _split_table(self) -> Split:
        storage = self._storage()
        parent = self._kind == "r" and storage.has_parts
        by_blocks = storage.by_blocks and not parent
        column, ordered = self._config.split_by, not self._splitting.any_order
        if column is None and by_blocks and self._fits(storage):
            return self._one(by_blocks, None, None)  # no key is needed
        key = None if parent or ordered else self._key(column)
        if column is not None and key is None and not ordered:
            return self._split_by_values(column, storage)
        if not by_blocks and key is None:
            return whole(self._no_way(parent=parent, ordered=ordered))
        if self._fits(storage):
            return self._one(by_blocks, key, None)
        if key is None:
            return self._by_blocks(storage, "its rows must keep their order" if ordered else "it has no usable key")
        cuts = self._cuts(key, storage, correlated=by_blocks)
        scattered = cuts.correlation is not None and abs(cuts.correlation) < SCATTERED
        if scattered and storage.blocks > EXACT_BLOCKS and self._session.version >= TID_RANGES and column is None:
            return self._by_blocks(
                storage, f"the order of its key {_listed(key)} is not the physical order of its rows"
            )
        if not cuts.points:
            return self._one(by_blocks, key, cuts.rows)
        return self._ranges(key, cuts, f"{_listed(key)} is unique and never NULL")

    def _no_way(self, *, parent: bool, ordered: bool) -> str:
        if parent:
            return "it has child tables, over which no key is unique"
        if ordered:
            return "its rows must keep their order, and it has no blocks of its own to range over"
        return "it has no unique key without NULLs to range over; `split_by` names a column that can stand in for one"

    def _fits(self, storage: _Storage) -> bool:
        """Return whether all rows certainly fit into one chunk."""
        wanted = self._splitting.chunk_rows
        return storage.bytes <= self._splitting.chunk_bytes if wanted is None else storage.most_rows <= wanted

    def _one(self, by_blocks: bool, key: Order | None, rows: int | None) -> Split:
        """Return the single chunk of a small table, in physical order."""
        order = block_order(self._relation) if by_blocks or key is None else key
        chunk = Chunk(bounds=order.bounds(None, None), rows=rows)
        return Split(
            chunks=(chunk,), by=_by(order), reason="it is smaller than a chunk", resumable=True, divisible=True
        )

    def _ranges(self, order: Order, cuts: _Cuts, reason: str) -> Split:
        ends = (None, *cuts.points, None)
        share = cuts.rows // (len(ends) - 1)
        chunks = tuple(
            Chunk(number=number, bounds=order.bounds(start, end), rows=share)
            for number, (start, end) in enumerate(pairwise(ends), 1)
        )
        return Split(chunks=chunks, by=_by(order), reason=reason, resumable=True, divisible=True)

    def _by_blocks(self, storage: _Storage, reason: str) -> Split:
        order = block_order(self._relation)
        if self._session.version < TID_RANGES:
            return self._one(True, None, None)
        if storage.blocks <= EXACT_BLOCKS or self._config.where is not None:
            cuts = self._cuts(order, storage)
        else:
            rows = self._rows(storage)
            step = max(1, round(self._chunk_rows(storage, rows) * storage.blocks / max(1.0, rows)))
            cuts = _Cuts(points=tuple((f"({b},0)",) for b in range(step, storage.blocks, step)), rows=round(rows))
        if not cuts.points:
            return self._one(True, None, cuts.rows)
        return self._ranges(order, cuts, reason)

    def _split_by_values(self, column: str, storage: _Storage | None) -> Split:
        if not self._splitting.any_order:
            return whole("its rows must keep their order, which ranges of values do not")
        order = column_order(self._session, self._table, self._relation, VALUE, [column])
        assert order is not None  # a single column always has an order
        cuts = self._cuts(order, storage) if storage is not None else self._cuts_of_query(order)
        by, reason = f"ranges of {column}", "the job asks for it with `split_by`"
        if not cuts.points:
            chunk = Chunk(bounds=order.bounds(None, None), rows=cuts.rows)
            return Split(chunks=(chunk,), by=by, reason=reason, resumable=True)
        split = self._ranges(order, cuts, reason)
        apart = [{**order.bounds(None, None), "nulls": True}] if self._may_be_null(column) else []
        chunks = [*split.chunks, *(Chunk(number=len(split.chunks) + 1, bounds=bounds) for bounds in apart)]
        return attrs.evolve(split, chunks=tuple(chunks), by=by, divisible=False)

    def _may_be_null(self, name: str) -> bool:
        column = self._table.by_name[name]
        found = details(column)
        # The NOT NULL of a domain has loopholes (manual, CREATE DOMAIN, Notes).
        return column.nullable or found is None or found.pg.kind == "d"

    def _key(self, column: str | None) -> Order | None:
        """Return the order of the best usable key; with ``column``, of a key of that column alone."""
        for (columns,) in self._keys:
            if column is None or columns == [column]:
                order = column_order(self._session, self._table, self._relation, KEY, columns)
                if order is not None:
                    return order
        return None

    def _storage(self) -> _Storage:
        rows, self._keys = self._session.looking(look(self._table), what="looking at the table's size")
        parts, by_blocks, blocks, size, estimate, block_size = rows[0]
        return _Storage(
            has_parts=parts, by_blocks=by_blocks, blocks=blocks, bytes=size, rows=estimate, block_size=block_size
        )

    def _rows(self, storage: _Storage) -> float:
        """Return the approximate number of rows, disregarding conditions."""
        if storage.rows is not None and storage.rows >= 1:
            return storage.rows
        share = min(1.0, DENSITY_BLOCKS / max(1, storage.blocks))
        found = self._session.query(f"SELECT count(*) FROM {self._from} {_sample(share)}", what="estimating the rows")
        return max(1.0, int(found[0][0]) / share)

    def _chunk_rows(self, storage: _Storage, rows: float) -> float:
        """Return how many rows make a chunk."""
        wanted = self._splitting.chunk_rows or max(1.0, self._splitting.chunk_bytes * rows / max(1, storage.bytes))
        return max(wanted, rows / MAX_CHUNKS)

    def _cuts(self, order: Order, storage: _Storage, *, correlated: bool = False) -> _Cuts:
        if storage.blocks <= EXACT_BLOCKS:
            size = self._splitting.chunk_rows or self._chunk_rows(storage, self._rows(storage))
            return self._quantiles(order, size, 1.0, 1.0, correlated=correlated)
        rows = self._rows(storage)
        size = self._chunk_rows(storage, rows)
        chunks = rows / size
        blocks = min(max(SAMPLE_BLOCKS_MIN, round(SAMPLE_BLOCKS * chunks)), SAMPLE_BLOCKS_MAX, storage.blocks)
        share = blocks / storage.blocks
        wanted = max(SAMPLE_ROWS_MIN, SAMPLE_ROWS * chunks)
        return self._quantiles(order, size, share, min(1.0, wanted / (rows * share)), correlated=correlated)

    def _cuts_of_query(self, order: Order) -> _Cuts:
        """Split a source without blocks to sample: execute it once, and sort some of its rows."""
        found = self._session.query(f"EXPLAIN (FORMAT JSON) {self._select}", what="estimating the rows")
        plan = found[0][0][0]["Plan"]
        rows = max(1, int(plan["Plan Rows"]))
        size = self._splitting.chunk_rows or max(1, self._splitting.chunk_bytes // max(1, int(plan["Plan Width"])))
        wanted = max(SAMPLE_ROWS_MIN * 5, SAMPLE_ROWS * rows / size)
        return self._quantiles(order, max(size, rows / MAX_CHUNKS), 1.0, min(1.0, wanted / rows))

    def _quantiles(self, order: Order, size: float, share: float, thin: float, *, correlated: bool = False) -> _Cuts:
        """Return the values that split the rows into parts of ``size``.

        Args:
            order: the sort order.
            size: rows in a part.
            share: the share of blocks to sample.
            thin: the share of rows to take from these.
            correlated: True to also compute the correlation with the blocks.
        """
        conditions = [f"(\n{self._config.where}\n)"] if self._config.where is not None else []
        if order.by == VALUE:
            conditions.append(f"{order.expressions[0]} IS NOT NULL")
        if thin < 1:
            conditions.append(f"random() < {thin!r}")
        exact = share == 1 and thin == 1
        whole_size = max(1, round(size))
        if exact and self._splitting.chunk_rows is not None:
            cut = f"(n - 1) % {whole_size} = 0"
        else:
            parts = f"greatest(1, ceil(total / {share * thin!r} / {float(whole_size)!r}))::bigint"
            cut = f"(n - 1) * {parts} / total > (n - 2) * {parts} / total"
        names = [f"k{number}" for number in range(len(order.expressions))]
        values = [f"{expression} AS {name}" for expression, name in zip(order.expressions, names, strict=True)]
        place = f"({self._relation}.ctid::text::point)[0]" if correlated else "NULL::float8"
        texts = ", ".join(f"pg_catalog.format('%s', {name})" for name in names)
        # Of equal values, only the first is a split point, and never the smallest value: nothing is below it.
        rows = self._session.query(
            f"SELECT coalesce(max(total), 0), corr(n, place),"
            f" coalesce(array_agg(ARRAY[{texts}] ORDER BY n) FILTER (WHERE cut), '{{}}'),"
            f" coalesce(array_agg(r ORDER BY n) FILTER (WHERE cut), '{{}}')"
            f" FROM (SELECT *, n > 1 AND r > 1 AND {cut} AS cut"
            f" FROM (SELECT {', '.join(values)}, {place} AS place, count(*) OVER () AS total,"
            f" row_number() OVER portl_order AS n, rank() OVER portl_order AS r"
            f" FROM {self._from} {_sample(share)}"
            f"{' WHERE ' + ' AND '.join(conditions) if conditions else ''}"
            f" WINDOW portl_order AS (ORDER BY {order.sorting})) AS portl_ranked) AS portl_cut",
            what="cutting it into chunks",
        )
        total, correlation, points, ranks = rows[0]
        return _Cuts(points=_distinct(points, ranks), rows=round(total / (share * thin)), correlation=correlation)


def _distinct(points: Sequence[Sequence[str]], ranks: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Return each point once; rows of the same rank are equal."""
    by_rank: dict[int, tuple[str, ...]] = {}
    for point, rank in zip(points, ranks, strict=True):
        by_rank.setdefault(rank, tuple(point))
    return tuple(by_rank.values())


def _sample(share: float) -> str:
    return f"TABLESAMPLE SYSTEM ({100 * share!r})" if share < 1 else ""


def _listed(order: Order) -> str:
    return ", ".join(order.columns)


def _by(order: Order) -> str:
    return "block ranges" if order.by == BLOCK else f"key ranges of {_listed(order)}"

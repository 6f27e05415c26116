"""Write rows, each chunk in one transaction.

==========  ==========================================================================================================
strategy    how
==========  ==========================================================================================================
fail        INSERT
skip        INSERT … ON CONFLICT (key) DO NOTHING
overwrite   the batch goes into a temporary table, and from there by INSERT … ON CONFLICT (key) DO UPDATE, where a row
            differs: SQLite counts changed rows, but not which of them were there before
==========  ==========================================================================================================
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence

from portl import Batch, Counts, Intent, Rejection, RowBatch, Strategy, Writer
from portl_sqlite.catalog import column_sql, create_sql, quoted
from portl_sqlite.connection import failure
from portl_sqlite.values import dumped

_SAVEPOINT = "portl"
SUFFIX = "__rejected"


def quarantine_sql(name: str) -> str:
    """Return the statement that makes a table of quarantined rows, which are kept as JSON."""
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(name)} (id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL,"
        " chunk INTEGER NOT NULL, position TEXT NOT NULL, reason TEXT NOT NULL, row TEXT NOT NULL,"
        " at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT"
    )


def quarantine_name(intent: Intent) -> str:
    """Return the table that rejected rows go to."""
    named = intent.quarantine.table if intent.quarantine is not None else None
    return named or f"{intent.target.name}{SUFFIX}"


class SqliteWriter(Writer):
    """See the module.

    Args:
        connected: returns the connection, and creates the file if need be.
        intent: the job.
        label: where this is, for messages.
        made: True if nothing has to be created before the rows.
    """

    def __init__(
        self, connected: Callable[[], sqlite3.Connection], intent: Intent, label: str, *, made: bool = False
    ) -> None:
        self._connected = connected
        self._intent = intent
        self._label = label
        self._made = made
        self._counts = Counts()
        self._saved = Counts()
        self._columns = [field.target.name for field in intent.fields]
        # Tables with as many columns share it: a temporary table has no types.
        self._stage = f"portl_stage_{len(self._columns)}"

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._connected()

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        with failure(self._label):
            return self._connection.execute(statement, values)

    def begin(self) -> None:
        """See ``Writer.begin``."""
        if self._intent.conflict.strategy is Strategy.OVERWRITE and self._intent.key is not None and self._columns:
            columns = ", ".join(f"c{number}" for number in range(len(self._columns)))
            self._execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._stage} ({columns})")
        self._execute("BEGIN IMMEDIATE")
        self._counts = Counts()
        if not self._made:
            for statement in prepared(self._intent):
                self._execute(statement)
        if self._intent.quarantine is not None:
            self._execute(quarantine_sql(quarantine_name(self._intent)))

    def write(self, batch: Batch) -> int:
        """See ``Writer.write``."""
        assert isinstance(batch, RowBatch), "of the format ROWS"
        rows = [
            tuple([dumped(value, name) for name, value in zip(self._columns, row, strict=True)]) for row in batch.data
        ]
        if self._intent.conflict.strategy is Strategy.OVERWRITE and self._intent.key is not None and self._columns:
            self._counts += self._overwrite(rows)
        else:
            self._counts += self._insert(rows)
        return batch.size

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> Counts:
        table = quoted(self._intent.target.name)
        if not self._columns:
            for _ in rows:
                self._execute(f"INSERT INTO {table} DEFAULT VALUES")
            return Counts(inserted=len(rows))
        key = self._intent.key
        skips = self._intent.conflict.strategy is Strategy.SKIP and key is not None
        clause = f" ON CONFLICT ({', '.join(map(quoted, key.columns))}) DO NOTHING" if skips and key else ""
        names, places = ", ".join(map(quoted, self._columns)), ", ".join("?" * len(self._columns))
        with failure(self._label):
            count = self._connection.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({places}){clause}", rows
            ).rowcount
        return Counts(inserted=count, skipped=len(rows) - count)

    def _overwrite(self, rows: Sequence[tuple[object, ...]]) -> Counts:
        """Write rows of which those that are there already are replaced; the last of several with one key wins."""
        key = self._intent.key
        assert key is not None, "the caller has looked"
        table, names = quoted(self._intent.target.name), list(map(quoted, self._columns))
        with failure(self._label):
            self._connection.execute(f"DELETE FROM temp.{self._stage}")
            self._connection.executemany(f"INSERT INTO temp.{self._stage} VALUES ({', '.join('?' * len(names))})", rows)
        staged = {name: f"c{number}" for number, name in enumerate(self._columns)}
        same = " AND ".join(f"t.{quoted(name)} = s.{staged[name]}" for name in key.columns)
        keys = ", ".join(f"s.{staged[name]}" for name in key.columns)
        ((new,),) = self._execute(
            f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM temp.{self._stage} AS s"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {same}))"
        )
        updates = ", ".join(f"{name} = excluded.{name}" for name in names)
        differs = f"({', '.join(f't.{name}' for name in names)}) IS NOT ({', '.join(f'excluded.{n}' for n in names)})"
        columns = ", ".join(staged.values())
        target = ", ".join(map(quoted, key.columns))
        changed = self._execute(
            f"INSERT INTO {table} AS t ({', '.join(names)}) SELECT {columns} FROM temp.{self._stage} WHERE true"
            f" ORDER BY rowid ON CONFLICT ({target}) DO UPDATE SET {updates} WHERE {differs}"
        ).rowcount
        return Counts(inserted=new, updated=changed - new, unchanged=len(rows) - changed)

    def check(self) -> Counts:
        """See ``Writer.check``. Rows are checked as they are written."""
        counts, self._counts = self._counts, Counts()
        return counts

    def save(self) -> None:
        """See ``Writer.save``."""
        self.release()
        self._execute(f"SAVEPOINT {_SAVEPOINT}")
        self._saved = self._counts

    def restore(self) -> None:
        """See ``Writer.restore``."""
        self._execute(f"ROLLBACK TO {_SAVEPOINT}")
        self._counts = self._saved

    def release(self) -> None:
        """See ``Writer.release``."""
        try:
            self._connection.execute(f"RELEASE {_SAVEPOINT}")
        except sqlite3.OperationalError:
            pass  # there was none

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """See ``Writer.reject``."""
        for rejection in rejections:
            values = rejection.row.values(0, self._intent.fields)
            self._execute(
                f"INSERT INTO {quoted(quarantine_name(self._intent))} (run, chunk, position, reason, row)"
                " VALUES (?, ?, ?, ?, ?)",
                self._intent.run,
                rejection.chunk,
                rejection.position,
                rejection.error.message,
                json.dumps(values, ensure_ascii=False),
            )

    def unreject(self, run: str, chunk: int | None = None) -> None:
        """See ``Writer.unreject``."""
        self._execute(
            f"DELETE FROM {quoted(quarantine_name(self._intent))} WHERE run = ?1 AND (?2 IS NULL OR chunk = ?2)",
            run,
            chunk,
        )

    def commit(self) -> Counts:
        """See ``Writer.commit``."""
        self._execute("COMMIT")
        self._made = True
        return self.check()

    def rollback(self) -> None:
        """See ``Writer.rollback``."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def finish(self, record: Callable[[], None] | None = None) -> None:
        """See ``Writer.finish``."""
        if record is None:
            return
        opened = not self._connection.in_transaction
        if opened:
            self.begin()
        record()
        if opened:
            self.commit()

    def abandon(self, *, resumable: bool = False) -> None:
        """See ``Writer.abandon``."""
        self.rollback()


def prepared(intent: Intent) -> list[str]:
    """Return the statements that come before the rows."""
    if intent.create:
        return [create_sql(intent.target)]
    return [f"ALTER TABLE {quoted(intent.target.name)} ADD COLUMN {column_sql(column)}" for column in intent.add]

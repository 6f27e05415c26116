"""What every source should do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import portl
from portl.config.incremental import By
from portl.connectors import registry
from portl.connectors.exchange import ROWS
from portl.testing import memory
from portl.testing.conformance.common import (
    ID,
    MANY,
    NOTE,
    Change,
    Conformance,
    Fill,
    insist_same,
    migrate_at_once,
    multiset,
    some,
)


class SourceConformance(Conformance):
    """What every source should do. The subclass has a fixture ``fill``.

    The fixture is a function that stores rows in a new table and returns the ``source`` of a job. Its arguments: the
    columns (``portl.Column``), the rows, and ``key``, the names of the key's columns.
    """

    @pytest.fixture
    def fill(self) -> Fill:
        """Supplied by the subclass."""
        raise NotImplementedError("the subclass supplies the fixture `fill`")

    @pytest.fixture
    def change(self) -> Change | None:
        """Supplied by subclasses whose tables can be changed, to test modes: a function that changes a table.

        Its arguments: the ``source`` returned by ``fill``, the ids of rows to delete, and rows to insert.
        """
        return None

    def job(self, source: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
        """Return a job into memory."""
        return {
            "source": dict(source),
            "destination": {"type": "memory", "database": "target", "table": "t"},
            "conflict": "fail",
            **keys,
        }

    @staticmethod
    def arrived() -> list[tuple[Any, ...]]:
        """Return the rows that arrived in memory."""
        return memory.database("target").rows("t")

    def test_values_of_every_type_arrive(self, fill: Fill) -> None:
        """Each value arrives as the Python value that ``portl.schema`` defines for its type."""
        for type, values in self.types.items():
            rows = list(enumerate([*values, None], 1))
            memory.forget("target")
            portl.migrate(self.job(fill([ID, memory.column("v", type)], rows)))
            insist_same(self.arrived(), rows)

    def test_columns_are_described(self, fill: Fill) -> None:
        """Column names and order are those of the source, and describing writes nothing."""
        plan = portl.plan(self.job(fill([ID, NOTE], some(3))))
        assert [field.source.name for field in plan.tables[0].fields] == ["id", "note"]
        assert plan.problems == ()
        assert "t" not in memory.database("target").tables

    def test_hostile_names(self, fill: Fill) -> None:
        """Column names are treated as plain text."""
        columns = [ID, *(memory.column(name, "text") for name in self.names)]
        rows = [(1, *self.names), (2, *([None] * len(self.names)))]
        portl.migrate(self.job(fill(columns, rows)))
        insist_same(self.arrived(), rows)
        assert [c.name for c in memory.database("target").tables["t"].columns] == ["id", *self.names]

    def test_an_empty_table(self, fill: Fill) -> None:
        """An empty table is copied as an empty table."""
        assert portl.migrate(self.job(fill([ID, NOTE], []))).rows_read == 0
        assert memory.database("target").tables["t"].columns[0].name == "id"

    def test_many_rows(self, fill: Fill) -> None:
        """Every row arrives exactly once."""
        result = portl.migrate(self.job(fill([ID, NOTE], some(MANY), key=["id"]), batch_size=700, chunk_rows=3000))
        assert result.rows_read == MANY
        assert multiset(self.arrived()) == multiset(some(MANY))

    def test_limit_and_columns(self, fill: Fill) -> None:
        """``limit``, ``columns`` and ``exclude_columns`` take effect."""
        keys = fill([ID, NOTE], some(50))
        assert portl.migrate(self.job({**keys, "limit": 7})).rows_read == 7
        memory.forget("target")
        portl.migrate(self.job({**keys, "columns": ["note"]}))
        assert multiset(self.arrived()) == multiset([(note,) for _, note in some(50)])
        memory.forget("target")
        portl.migrate(self.job({**keys, "exclude_columns": ["note"]}))
        assert multiset(self.arrived()) == multiset([(id,) for id, _ in some(50)])

    def test_the_preview_shows_what_will_arrive(self, fill: Fill) -> None:
        """The plan's preview shows the first rows as text."""
        preview = portl.plan(self.job(fill([ID, NOTE], [(1, "one"), (2, None)]))).tables[0].preview
        assert sorted(preview, key=str) == [("1", "one"), ("2", None)]

    def test_a_source_that_is_not_there(self, fill: Fill) -> None:
        """A missing source raises one of portl's errors."""
        keys = dict(fill([ID], [(1,)]))
        word = next(key for key in ("table", "path", "query") if isinstance(keys.get(key), str))
        with pytest.raises(portl.Error):
            portl.migrate(self.job({**keys, word: f"{keys[word]}_is_not_there"}))

    def test_cancel(self, fill: Fill) -> None:
        """A token ends the run before the next batch is read."""
        token = portl.CancelToken()
        keys = fill([ID, NOTE], some(5000), key=["id"])

        def stop(event: portl.Event) -> None:
            if isinstance(event, portl.TableStarted):
                token.cancel()

        with pytest.raises(portl.Cancelled):
            portl.migrate(self.job(keys, chunk_rows=500, batch_size=100, parallel=1), observers=[stop], cancel=token)

    def test_migrations_at_the_same_time(self, fill: Fill) -> None:
        """Migrations in several threads do not disturb each other."""
        sources = [fill([ID, NOTE], some(500 + number)) for number in range(3)]
        destinations = [{"type": "memory", "database": "target", "table": f"t{number}"} for number in range(3)]
        migrate_at_once(
            {"source": dict(source), "destination": destination, "conflict": "fail"}
            for source, destination in zip(sources, destinations, strict=True)
        )
        assert [len(memory.database("target").rows(f"t{n}")) for n in range(3)] == [500, 501, 502]

    def test_a_kill_between_any_two_calls(self, fill: Fill) -> None:
        """A resumable run ends with the right rows, wherever it was killed."""
        rows = some(60)
        job = self.job(fill([ID, NOTE], rows, key=["id"]), chunk_rows=20, batch_size=7, parallel=1)
        self.killed(job, lambda: memory.forget("target"), self.arrived, rows)

    @pytest.mark.parametrize("mode", ["mirror", "replace"])
    def test_a_mirror_holds_exactly_the_rows(self, fill: Fill, change: Change | None, mode: str) -> None:
        """With digests declared, a source can be mirrored: inserts, updates and deletes arrive."""
        if ROWS.name not in self.source_class(fill([ID, NOTE], [])).digests:
            pytest.skip("this source does not declare that its rows can be compared")
        keys = fill([ID, NOTE], some(50), key=["id"])
        job = self.job(keys, mode=mode, conflict="overwrite")
        self.made(50)
        insist_same(self.arrived(), some(50))
        memory.database("target").delete("t", lambda row: row[0] == 7)
        memory.database("target").insert("t", [(1000, "extra")])
        result = portl.migrate(job)
        assert (result.rows_inserted, result.tables[0].rows_deleted, result.rows_unchanged) == (1, 1, 49)
        insist_same(self.arrived(), some(50))
        if change is not None:
            change(keys, [1, 2], [(2, "changed"), (99, None)])
            result = portl.migrate(job)
            counts = result.rows_inserted, result.rows_updated, result.tables[0].rows_deleted, result.rows_unchanged
            assert counts == (1, 1, 1, 48)
            insist_same(self.arrived(), [(2, "changed"), *some(50)[2:], (99, None)])

    @pytest.mark.parametrize("by", [By.CURSOR, By.XMIN])
    def test_an_incremental_run_reads_what_has_changed(self, fill: Fill, change: Change | None, by: By) -> None:
        """A method declared in ``increments`` misses no row; any other is a problem of the plan."""
        keys = fill([ID, NOTE], some(50), key=["id"])
        wanted = {"cursor": "id"} if by is By.CURSOR else {"by": by.value}
        job = self.job(keys, mode="incremental", incremental=wanted, conflict="overwrite")
        declared = self.source_class(keys).increments
        if by not in declared:
            with pytest.raises(portl.PlanError, match=r"cannot tell what has changed|does not know"):
                portl.migrate(job)
            return
        self.made(0)
        first = portl.migrate(job)
        assert (first.rows_read, first.tables[0].watermark_before) == (50, None)
        if change is None:
            pytest.skip("the subclass has no fixture `change`")
        change(keys, [], [(100, "more")])
        second = portl.migrate(job)
        assert (second.rows_inserted, second.rows_read < 50) == (1, True)
        assert second.tables[0].watermark_before == first.tables[0].watermark != second.tables[0].watermark
        if By.XMIN in declared:  # sees which rows the earlier snapshot included
            change(keys, [3], [(3, "changed"), (60, "late")])
            assert portl.migrate(job).rows_read < 50
            insist_same(self.arrived(), [*some(2), (3, "changed"), *some(50)[3:], (60, "late"), (100, "more")])
        assert portl.migrate(job, full_refresh=True).rows_unchanged >= 51

    @staticmethod
    def made(rows: int) -> None:
        """Create the table in memory, with a key and the first rows of ``some``."""
        target = memory.database("target")
        target.create("t", [ID, NOTE], key=["id"])
        target.insert("t", some(rows))

    @staticmethod
    def source_class(keys: Mapping[str, Any]) -> type[portl.Source[Any]]:
        """Return the class that declares what the source can do."""
        found = registry.load(keys["type"]).source
        assert found is not None, "it is read from"
        return found

    def test_urls(self, fill: Fill) -> None:
        """The connector's URLs make jobs, and no part of a malformed one is repeated."""
        self.reached_by_url("source", fill([ID], [(1,)]))

    def test_secrets(self, fill: Fill) -> None:
        """No secret shows in what is printed or emitted."""
        self.without_secrets(self.job(fill([ID, NOTE], some(3))))

"""What every destination should do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import portl
from portl.connectors import registry
from portl.connectors.exchange import ROWS
from portl.schema.tables import Column
from portl.testing import memory
from portl.testing.conformance.common import (
    ID,
    MANY,
    NOTE,
    Conformance,
    Rows,
    Target,
    insist_same,
    migrate_at_once,
    multiset,
    some,
)


class DestinationConformance(Conformance):
    """What every destination should do. The subclass has a fixture ``place``.

    The fixture is a function that returns a new ``Target``. Its arguments: the columns (``portl.Column``; None if there
    is to be no table), the rows of the table, and ``key``, the names of the key's columns.
    """

    @pytest.fixture
    def place(self) -> Callable[..., Target]:
        """Supplied by the subclass."""
        raise NotImplementedError("the subclass supplies the fixture `place`")

    @staticmethod
    def fill(columns: Sequence[Column], rows: Rows, key: Sequence[str] = (), name: str = "t") -> dict[str, Any]:
        """Store rows in memory and return the source of a job."""
        shop = memory.database("shop")
        shop.create(name, columns, key=key)
        shop.insert(name, rows)
        return {"type": "memory", "database": "shop", "table": name}

    def job(self, columns: Sequence[Column], rows: Rows, target: Target, key: Sequence[str] = (), **keys: Any) -> Any:
        """Return a job from memory."""
        return {
            "source": self.fill(columns, rows, key),
            "destination": dict(target.destination),
            "conflict": "fail",
            **keys,
        }

    def destination(self, target: Target) -> type[portl.Destination[Any]]:
        """Return the connector's class."""
        found = registry.load(target.destination["type"]).destination
        assert found is not None
        return found

    def test_values_of_every_type_arrive(self, place: Callable[..., Target]) -> None:
        """Each value is stored as the Python value that ``portl.schema`` defines for its type."""
        for type, values in self.types.items():
            rows = list(enumerate([*values, None], 1))
            target = place()
            columns = [ID, memory.column("v", type)]
            portl.migrate(self.job(columns, rows, target))
            insist_same(target.rows(columns), rows)

    def test_hostile_names(self, place: Callable[..., Target]) -> None:
        """Column names are treated as plain text."""
        columns = [ID, *(memory.column(name, "text") for name in self.names)]
        rows = [(1, *self.names), (2, *([None] * len(self.names)))]
        target = place()
        portl.migrate(self.job(columns, rows, target))
        insist_same(target.rows(columns), rows)

    def test_an_empty_table(self, place: Callable[..., Target]) -> None:
        """An empty table is copied as an empty table."""
        target = place()
        assert portl.migrate(self.job([ID, NOTE], [], target)).rows_read == 0
        assert list(target.rows([ID, NOTE])) == []

    def test_many_rows(self, place: Callable[..., Target]) -> None:
        """Every row arrives exactly once."""
        target = place()
        result = portl.migrate(self.job([ID, NOTE], some(MANY), target, key=["id"], batch_size=700, chunk_rows=3000))
        assert (result.rows_read, result.rows_inserted) == (MANY, MANY)
        assert multiset(target.rows([ID, NOTE])) == multiset(some(MANY))

    def test_a_plan_writes_nothing(self, place: Callable[..., Target]) -> None:
        """A plan writes nothing, not even the table that it would create."""
        target = place()
        job = self.job([ID, NOTE], some(3), target)
        assert portl.plan(job).problems == ()
        assert list(target.rows([ID, NOTE])) == []
        assert portl.plan(job).tables[0].intent.create

    def test_rows_are_added_to_those_that_are_there(self, place: Callable[..., Target]) -> None:
        """Existing rows stay."""
        target = place([ID, NOTE], [(1000, "there")])
        portl.migrate(self.job([ID, NOTE], some(5), target))
        assert multiset(target.rows([ID, NOTE])) == multiset([(1000, "there"), *some(5)])

    def test_a_column_that_is_not_there_is_a_problem(self, place: Callable[..., Target]) -> None:
        """A source column without a counterpart is a problem of the plan."""
        target = place([ID, NOTE], [])
        with pytest.raises(portl.PlanError):
            portl.migrate(self.job([ID, NOTE, memory.column("more", "int")], [(1, "a", 2)], target))
        assert list(target.rows([ID, NOTE])) == []

    @pytest.mark.parametrize("strategy", ["overwrite", "skip", "fail", "merge"])
    def test_conflict_strategies(self, place: Callable[..., Target], strategy: str) -> None:
        """A claimed strategy does what its name says; any other is a problem of the plan."""
        claimed = {word.value for word in self.destination(place()).strategies}
        there, sent = [(1, "old"), (2, "same"), (9, "other")], [(1, "new"), (2, "same"), (3, "more")]
        target = place([ID, NOTE], there, key=["id"])
        job = self.job([ID, NOTE], sent, target, key=["id"], conflict=strategy)
        if strategy not in claimed:
            with pytest.raises(portl.PlanError, match="conflict"):
                portl.migrate(job)
            return
        if strategy == "fail":
            if portl.plan(job).tables[0].destination.primary_key is None:
                pytest.skip("this destination knows no keys")
            with pytest.raises(portl.DataError):
                portl.migrate(job)
            assert multiset(target.rows([ID, NOTE])) == multiset(there)
            return
        result = portl.migrate(job)
        first = (1, "old") if strategy == "skip" else (1, "new")
        assert multiset(target.rows([ID, NOTE])) == multiset([first, (2, "same"), (3, "more"), (9, "other")])
        skipped = 2 if strategy == "skip" else 0
        assert (result.rows_inserted, result.rows_skipped) == (1, skipped)
        assert result.rows_updated + result.rows_unchanged == 2 - skipped

    def refused(self, place: Callable[..., Target], **keys: Any) -> tuple[Target, dict[str, Any]]:
        """Return a job of 30 rows in batches of 5 whose 13th is refused."""
        target = place([ID, NOTE], [], key=["id"])
        if portl.plan(self.job([ID, NOTE], [], target)).tables[0].destination.primary_key is None:
            pytest.skip("this destination knows no keys, so no row of this test is refused")
        rows = some(30)
        rows[12] = (rows[3][0], "twice")
        return target, self.job([ID, NOTE], rows, target, batch_size=5, chunk_rows=30, parallel=1, **keys)

    def test_a_refused_row_is_named_and_the_batches_before_it_are_kept(self, place: Callable[..., Target]) -> None:
        """The error names the row; its batch leaves nothing behind."""
        target, job = self.refused(place)
        with pytest.raises(portl.DataError) as caught:
            portl.migrate(job)
        assert (caught.value.row, caught.value.batch) == (13, 3)
        assert caught.value.values is not None
        assert multiset(target.rows([ID, NOTE])) in (multiset(some(10)), multiset([]))

    def test_a_refused_row_is_quarantined(self, place: Callable[..., Target]) -> None:
        """With savepoints, only the bad row is missing."""
        target, job = self.refused(place, on_error="quarantine")
        if not self.destination(target).savepoints:
            with pytest.raises(portl.PlanError, match="on_error"):
                portl.migrate(job)
            return
        result = portl.migrate(job)
        assert (result.rows_inserted, result.rows_rejected) == (29, 1)
        assert multiset(target.rows([ID, NOTE])) == multiset([row for row in some(30) if row[0] != 13])
        if target.rejected is not None:
            assert [str(row["note"]) for row in target.rejected()] == ["twice"]

    def test_a_job_can_be_one_transaction(self, place: Callable[..., Target]) -> None:
        """With savepoints, an atomic job leaves nothing behind when it fails."""
        target, job = self.refused(place, atomic=True)
        savepoints = self.destination(target).savepoints
        with pytest.raises(portl.DataError if savepoints else portl.PlanError):
            portl.migrate(job)
        assert list(target.rows([ID, NOTE])) == []

    def test_cancel(self, place: Callable[..., Target]) -> None:
        """A token ends the run; exactly the rows reported as committed are there."""
        target, token = place([ID, NOTE], [], key=["id"]), portl.CancelToken()

        def stop(event: portl.Event) -> None:
            if isinstance(event, portl.BatchCommitted):
                token.cancel()

        job = self.job([ID, NOTE], some(3000), target, key=["id"], chunk_rows=500, batch_size=100, parallel=1)
        with pytest.raises(portl.Cancelled) as caught:
            portl.migrate(job, observers=[stop], cancel=token)
        assert caught.value.committed is not None
        assert len(list(target.rows([ID, NOTE]))) == caught.value.committed.rows_inserted

    def test_an_observer_that_raises_ends_the_run(self, place: Callable[..., Target]) -> None:
        """The program's exception propagates, and the connector is closed."""
        target = place()

        def stop(event: portl.Event) -> None:
            if isinstance(event, portl.TableStarted):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            portl.migrate(self.job([ID, NOTE], some(10), target), observers=[stop])
        portl.migrate(self.job([ID, NOTE], some(10), target))
        assert len(list(target.rows([ID, NOTE]))) == 10

    def test_migrations_at_the_same_time(self, place: Callable[..., Target]) -> None:
        """Migrations in several threads do not disturb each other."""
        targets = [place() for _ in range(3)]
        jobs = []
        for number, target in enumerate(targets):
            source = self.fill([ID, NOTE], some(500 + number), name=f"t{number}")
            jobs.append({"source": source, "destination": dict(target.destination), "conflict": "fail"})
        migrate_at_once(jobs)
        assert [len(list(target.rows([ID, NOTE]))) for target in targets] == [500, 501, 502]

    def test_a_kill_between_any_two_calls(self, place: Callable[..., Target]) -> None:
        """A resumable run ends with the right rows, wherever it was killed."""
        targets: list[Target] = []
        job: dict[str, Any] = {}

        def prepare() -> None:
            targets[:] = [place([ID, NOTE], [])]
            job.update(self.job([ID, NOTE], some(60), targets[0], chunk_rows=20, batch_size=7, parallel=1))

        self.killed(job, prepare, lambda: [tuple(row) for row in targets[0].rows([ID, NOTE])], some(60))

    @pytest.mark.parametrize(("mode", "deletes"), [("mirror", "delete"), ("mirror", "keep"), ("replace", "delete")])
    def test_a_mirror_holds_exactly_the_rows(self, place: Callable[..., Target], mode: str, deletes: str) -> None:
        """With digests declared, new and changed rows are written, surplus rows are removed, and equal rows stay."""
        there = [(1, "old"), *some(20)[1:], (1000, "extra")]
        target = place([ID, NOTE], there, key=["id"])
        job = self.job(
            [ID, NOTE], some(25), target, key=["id"], mode=mode, mirror={"deletes": deletes}, conflict="overwrite"
        )
        if ROWS.name not in self.destination(target).digests:
            with pytest.raises(portl.PlanError):
                portl.migrate(job)
            return
        result = portl.migrate(job)
        kept = deletes == "keep"
        counts = result.rows_inserted, result.rows_updated, result.tables[0].rows_deleted, result.rows_unchanged
        assert counts == (5, 1, 0 if kept else 1, 19)
        wanted = [*some(25), (1000, "extra")] if kept else some(25)
        assert multiset(target.rows([ID, NOTE])) == multiset(wanted)
        assert portl.migrate(job).rows_unchanged == 25

    def test_a_mirror_deletes_no_more_than_it_may(self, place: Callable[..., Target]) -> None:
        """If more rows than ``max_deletes`` would be deleted, nothing changes."""
        target = place([ID, NOTE], some(20), key=["id"])
        job = self.job([ID, NOTE], some(5), target, key=["id"], mode="mirror", conflict="overwrite")
        with pytest.raises((portl.OperationError, portl.PlanError)):
            portl.migrate(job)
        assert multiset(target.rows([ID, NOTE])) == multiset(some(20))

    def test_an_incremental_job_goes_on_from_its_watermark(self, place: Callable[..., Target]) -> None:
        """With a ledger and a strategy that may repeat rows, each run adds what is new."""
        target = place([ID, NOTE], [], key=["id"])
        job = self.job([ID, NOTE], some(20), target, key=["id"], mode="incremental", incremental={"cursor": "id"})
        job["conflict"] = "overwrite"
        if portl.plan(job).problems:
            with pytest.raises(portl.PlanError):
                portl.migrate(job)
            return
        assert portl.migrate(job).rows_inserted == 20
        memory.database("shop").insert("t", [(21, "more")])
        second = portl.migrate(job)
        assert (second.rows_read, second.tables[0].watermark_before, second.tables[0].watermark) == (1, "20", "21")
        assert multiset(target.rows([ID, NOTE])) == multiset([*some(20), (21, "more")])

    def test_a_mirror_that_is_killed_is_right_after_the_next_run(self, place: Callable[..., Target]) -> None:
        """Wherever a mirror was killed, the next one compares again and ends with the right rows."""
        if ROWS.name not in self.destination(place()).digests:
            pytest.skip("this destination does not declare that it can be a mirror")
        targets: list[Target] = []
        job: dict[str, Any] = {}

        def prepare() -> None:
            targets[:] = [place([ID, NOTE], [(1, "old"), *some(20)[1:], (1000, "extra")], key=["id"])]
            job.update(self.job([ID, NOTE], some(25), targets[0], key=["id"], mode="mirror", conflict="overwrite"))

        self.killed(job, prepare, lambda: [tuple(row) for row in targets[0].rows([ID, NOTE])], some(25))

    def test_urls(self, place: Callable[..., Target]) -> None:
        """The connector's URLs make jobs, and no part of a malformed one is repeated."""
        self.reached_by_url("destination", place().destination)

    def test_secrets(self, place: Callable[..., Target]) -> None:
        """No secret shows in what is printed or emitted."""
        self.without_secrets(self.job([ID, NOTE], some(3), place()))

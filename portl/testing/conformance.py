"""What every connector should do, as tests: subclass, supply a fixture, run pytest.

::

    from portl.testing.conformance import DestinationConformance, SourceConformance, Target

    class TestSource(SourceConformance):
        @pytest.fixture
        def fill(self, tmp_path):
            def fill(columns, rows, key=()):
                ...                      # store the rows somewhere
                return {"type": "mine", "path": str(tmp_path / "t.mine")}  # the `source` of a job
            return fill

    class TestDestination(DestinationConformance):
        @pytest.fixture
        def place(self, tmp_path):
            def place(columns=None, rows=(), key=()):
                ...                      # make the table, unless ``columns`` is None
                return Target(end={…}, rows=lambda columns: [...])   # the `destination` of a job, and what is there now
            return place

What a connector does not claim is not asked of it: tests go by its strategies, its savepoints, by whether the plan says
that a run can be resumed, and by the attributes ``types`` and ``names`` of the class. pytest is needed to use this.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest

import portl
from portl.connectors import registry as plugins
from portl.job.loading import load
from portl.planning.delivery import Delivery
from portl.schema.tables import Column
from portl.schema.types import Type
from portl.testing import memory
from portl.testing.killing import Killed, killing
from portl.testing.values import NAMES, VALUES, alike

Rows = Sequence[tuple[Any, ...]]
Fill = Callable[..., Mapping[str, Any]]

ID = memory.column("id", "int", nullable=False)
NOTE = memory.column("note", "text")
#: Rows that fill several chunks and batches.
MANY = 20_000


@attrs.frozen(kw_only=True)
class Target:
    """A place to write to."""

    #: The ``destination`` of a job.
    end: Mapping[str, Any]
    #: Returns the rows that are there, in the order of the columns, which it is told; none where nothing is there.
    rows: Callable[[Sequence[Column]], Iterable[Sequence[Any]]]
    #: Returns the rows that were quarantined, as column to value; None: it puts none aside.
    rejected: Callable[[], Iterable[Mapping[str, Any]]] | None = None


def some(count: int) -> list[tuple[Any, ...]]:
    """Return rows of ``ID`` and ``NOTE``."""
    return [(number, None if number % 5 == 0 else f"note {number}") for number in range(1, count + 1)]


def multiset(rows: Iterable[Sequence[Any]]) -> Counter[str]:
    """Return how often each row is there."""
    return Counter(repr(tuple(row)) for row in rows)


def same(found: Iterable[Sequence[Any]], wanted: Iterable[Sequence[Any]]) -> None:
    """Insist that two tables hold the same values, row by row in the order of the first column."""
    one, other = (sorted((tuple(row) for row in rows), key=lambda row: row[0]) for rows in (found, wanted))
    assert [row[0] for row in one] == [row[0] for row in other]
    for left, right in zip(one, other, strict=True):
        for number, (value, expected) in enumerate(zip(left, right, strict=True)):
            assert alike(value, expected), f"row {left[0]}, column {number}: {value!r} in place of {expected!r}"


class _Conformance:
    """What both suites share."""

    #: The types that it is asked for, and the values of each that it can hold.
    types: ClassVar[Mapping[Type, Sequence[Any]]] = VALUES
    #: The names of columns that it is asked for.
    names: ClassVar[Sequence[str]] = NAMES
    #: Of all moments at which a migration can be killed, every n-th is tried.
    kill_step: ClassVar[int] = 1

    @pytest.fixture(autouse=True)
    def _nothing_stays(self) -> Iterator[None]:
        memory.forget("target", "shop")
        yield
        memory.forget("target", "shop")

    def killed(
        self, job: Mapping[str, Any], prepare: Callable[[], Any], rows: Callable[[], Rows], wanted: Rows
    ) -> None:
        """Kill a job between any two calls, run it again, and insist on the rows; once for each moment.

        Args:
            job: the job.
            prepare: makes everything as it was before.
            rows: returns what is at the destination.
            wanted: what must be there in the end.
        """
        prepare()
        plan = portl.plan(job)
        if plan.tables[0].delivery is not Delivery.CHUNKS:
            pytest.skip(f"a run of this job cannot be resumed: {plan.tables[0].split.reason}")
        with killing(None) as killer:
            portl.migrate(job)
        assert multiset(rows()) == multiset(wanted)
        for moment in range(0, killer.calls, self.kill_step):
            prepare()
            with killing(moment) as killer:
                with pytest.raises(Killed):
                    portl.migrate(job)
                killer.bury()
            runs = portl.status(job).runs
            if not runs or runs[0].state is not portl.RunState.DONE:
                portl.migrate(job)
            assert multiset(rows()) == multiset(wanted), f"killed before call {moment + 1} of {killer.calls}"

    def without_secrets(self, job: Mapping[str, Any]) -> None:
        """Insist that no secret of a job shows in its config, its plan, its events, and in an error with its causes."""
        config = load(job)
        secrets = [value.reveal() for end in (config.source, config.destination) for value in _secrets(end)]
        if not secrets:
            pytest.skip("this job has no secrets")
        seen: list[str] = [repr(config)]
        plan = portl.plan(job, observers=[lambda event: seen.append(repr(event.to_dict()))])
        seen += [str(plan), repr(plan), repr(plan.to_dict())]
        seen.append(repr(portl.migrate(job, observers=[lambda event: seen.append(repr(event.to_dict()))])))
        with pytest.raises(portl.Error) as caught:
            portl.migrate({**job, "schema_mapping": {"a column that is not there": "id"}})
        seen += [repr(caught.value), "".join(traceback.format_exception(caught.value))]
        for text in seen:
            assert not any(secret in text for secret in secrets)

    def reached_by_url(self, end: str, keys: Mapping[str, Any]) -> None:
        """Insist that the connector's URLs make jobs, and that one which cannot be read is not repeated to people.

        Args:
            end: ``source`` or ``destination``.
            keys: that end of a job.
        """
        connector = plugins.load(keys["type"])
        if connector.from_url is None:
            pytest.skip("this connector has no URLs")
        url = connector.url_example
        assert url.partition("://")[0] in connector.schemes
        urls = {"source": "memory://shop", "destination": "memory://target", end: url}
        job = portl.job_from_urls(urls["source"], urls["destination"], table="t")
        assert getattr(load(job), end).type == connector.name
        for scheme in connector.schemes:
            for wrong in ("", "u:pass-word@[", "u:pass-word@\0", "u:pass-word@host:port/%zz"):
                assert "pass-word" not in _refusal({**urls, end: f"{scheme}://{wrong}"})


def _refusal(urls: Mapping[str, str]) -> str:
    """Return what is said of URLs, with its causes; nothing where they make a job."""
    try:
        portl.job_from_urls(urls["source"], urls["destination"], table="t")
    except portl.ConfigError as error:
        return "".join(traceback.format_exception(error))
    return ""


def _secrets(end: Any) -> Iterator[portl.Secret]:
    for field in attrs.fields(type(end)):
        value = getattr(end, field.name)
        if isinstance(value, portl.Secret) and value.reveal():
            yield value


def _taken(keys: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"conflict": "fail", **(keys or {})}


class SourceConformance(_Conformance):
    """What every source should do. The subclass has a fixture ``fill``.

    It returns a function that stores rows and returns the ``source`` of a job; each call makes another table. Its
    arguments: the columns (``portl.Column``), the rows, and ``key``, the names of the key's columns.
    """

    @pytest.fixture
    def fill(self) -> Fill:
        """Supplied by the subclass."""
        raise NotImplementedError("the subclass supplies the fixture `fill`")

    def job(self, source: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
        """Return a job into memory."""
        return {
            "source": dict(source),
            "destination": {"type": "memory", "database": "target", "table": "t"},
            **_taken(keys),
        }

    @staticmethod
    def arrived() -> list[tuple[Any, ...]]:
        """Return what has arrived in memory."""
        return memory.database("target").rows("t")

    def test_values_of_every_type_arrive(self, fill: Fill) -> None:
        """Each value comes as the Python value that ``portl.schema`` fixes for its type."""
        for type, values in self.types.items():
            rows = list(enumerate([*values, None], 1))
            memory.forget("target")
            portl.migrate(self.job(fill([ID, memory.column("v", type)], rows)))
            same(self.arrived(), rows)

    def test_columns_are_described(self, fill: Fill) -> None:
        """Names and order of the columns are those of the source, and describing writes nothing."""
        plan = portl.plan(self.job(fill([ID, NOTE], some(3))))
        assert [field.source.name for field in plan.tables[0].fields] == ["id", "note"]
        assert plan.problems == ()
        assert "t" not in memory.database("target").tables

    def test_hostile_names(self, fill: Fill) -> None:
        """Names of columns mean nothing to a source."""
        columns = [ID, *(memory.column(name, "text") for name in self.names)]
        rows = [(1, *self.names), (2, *([None] * len(self.names)))]
        portl.migrate(self.job(fill(columns, rows)))
        same(self.arrived(), rows)
        assert [c.name for c in memory.database("target").tables["t"].columns] == ["id", *self.names]

    def test_an_empty_table(self, fill: Fill) -> None:
        """A table without rows makes a table without rows."""
        assert portl.migrate(self.job(fill([ID, NOTE], []))).rows_read == 0
        assert memory.database("target").tables["t"].columns[0].name == "id"

    def test_many_rows(self, fill: Fill) -> None:
        """All rows come once."""
        result = portl.migrate(self.job(fill([ID, NOTE], some(MANY), key=["id"]), batch_size=700, chunk_rows=3000))
        assert result.rows_read == MANY
        assert multiset(self.arrived()) == multiset(some(MANY))

    def test_limit_and_columns(self, fill: Fill) -> None:
        """``limit``, ``columns`` and ``exclude_columns`` are heeded."""
        end = fill([ID, NOTE], some(50))
        assert portl.migrate(self.job({**end, "limit": 7})).rows_read == 7
        memory.forget("target")
        portl.migrate(self.job({**end, "columns": ["note"]}))
        assert multiset(self.arrived()) == multiset([(note,) for _, note in some(50)])
        memory.forget("target")
        portl.migrate(self.job({**end, "exclude_columns": ["note"]}))
        assert multiset(self.arrived()) == multiset([(id,) for id, _ in some(50)])

    def test_the_preview_shows_what_will_arrive(self, fill: Fill) -> None:
        """The plan's preview has the first rows as texts."""
        preview = portl.plan(self.job(fill([ID, NOTE], [(1, "one"), (2, None)]))).tables[0].preview
        assert sorted(preview, key=str) == [("1", "one"), ("2", None)]

    def test_a_source_that_is_not_there(self, fill: Fill) -> None:
        """What is missing is told as an error of portl's."""
        end = dict(fill([ID], [(1,)]))
        word = next(key for key in ("table", "path", "query") if isinstance(end.get(key), str))
        with pytest.raises(portl.Error):
            portl.migrate(self.job({**end, word: f"{end[word]}_is_not_there"}))

    def test_cancel(self, fill: Fill) -> None:
        """A token ends the run before the next batch is read."""
        token = portl.CancelToken()
        end = fill([ID, NOTE], some(5000), key=["id"])

        def stop(event: portl.Event) -> None:
            if isinstance(event, portl.TableStarted):
                token.cancel()

        with pytest.raises(portl.Cancelled):
            portl.migrate(self.job(end, chunk_rows=500, batch_size=100, parallel=1), observers=[stop], cancel=token)

    def test_migrations_at_the_same_time(self, fill: Fill) -> None:
        """Several migrations in threads do not get into each other's way."""
        ends = [fill([ID, NOTE], some(500 + number)) for number in range(3)]
        failures: list[BaseException] = []

        def move(number: int) -> None:
            destination = {"type": "memory", "database": "target", "table": f"t{number}"}
            try:
                portl.migrate({"source": dict(ends[number]), "destination": destination, "conflict": "fail"})
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=move, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [len(memory.database("target").rows(f"t{n}")) for n in range(3)] == [500, 501, 502]

    def test_a_kill_between_any_two_calls(self, fill: Fill) -> None:
        """Where a run can be resumed, it ends with the right rows whenever it was killed."""
        rows = some(60)
        job = self.job(fill([ID, NOTE], rows, key=["id"]), chunk_rows=20, batch_size=7, parallel=1)
        self.killed(job, lambda: memory.forget("target"), self.arrived, rows)

    def test_urls(self, fill: Fill) -> None:
        """Its URLs make jobs, and no part of one that cannot be read is told."""
        self.reached_by_url("source", fill([ID], [(1,)]))

    def test_secrets(self, fill: Fill) -> None:
        """No secret shows in what is printed or told."""
        self.without_secrets(self.job(fill([ID, NOTE], some(3))))


class DestinationConformance(_Conformance):
    """What every destination should do. The subclass has a fixture ``place``.

    It returns a function that returns a ``Target``; each call makes another. Its arguments: the columns
    (``portl.Column``; None: nothing is there yet), the rows that are there, and ``key``, the names of the key's
    columns.
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
        return {"source": self.fill(columns, rows, key), "destination": dict(target.end), **_taken(keys)}

    def destination(self, target: Target) -> type[portl.Destination[Any]]:
        """Return the connector's class."""
        found = plugins.load(target.end["type"]).destination
        assert found is not None
        return found

    def test_values_of_every_type_arrive(self, place: Callable[..., Target]) -> None:
        """Each value is there as the Python value that ``portl.schema`` fixes for its type."""
        for type, values in self.types.items():
            rows = list(enumerate([*values, None], 1))
            target = place()
            columns = [ID, memory.column("v", type)]
            portl.migrate(self.job(columns, rows, target))
            same(target.rows(columns), rows)

    def test_hostile_names(self, place: Callable[..., Target]) -> None:
        """Names of columns mean nothing to a destination."""
        columns = [ID, *(memory.column(name, "text") for name in self.names)]
        rows = [(1, *self.names), (2, *([None] * len(self.names)))]
        target = place()
        portl.migrate(self.job(columns, rows, target))
        same(target.rows(columns), rows)

    def test_an_empty_table(self, place: Callable[..., Target]) -> None:
        """A table without rows makes a table without rows."""
        target = place()
        assert portl.migrate(self.job([ID, NOTE], [], target)).rows_read == 0
        assert list(target.rows([ID, NOTE])) == []

    def test_many_rows(self, place: Callable[..., Target]) -> None:
        """All rows are there once."""
        target = place()
        result = portl.migrate(self.job([ID, NOTE], some(MANY), target, key=["id"], batch_size=700, chunk_rows=3000))
        assert (result.rows_read, result.rows_inserted) == (MANY, MANY)
        assert multiset(target.rows([ID, NOTE])) == multiset(some(MANY))

    def test_a_plan_writes_nothing(self, place: Callable[..., Target]) -> None:
        """A plan shows what would be done, and does none of it."""
        target = place()
        job = self.job([ID, NOTE], some(3), target)
        assert portl.plan(job).problems == ()
        assert list(target.rows([ID, NOTE])) == []
        assert portl.plan(job).tables[0].intent.create

    def test_rows_are_added_to_those_that_are_there(self, place: Callable[..., Target]) -> None:
        """What is there stays."""
        target = place([ID, NOTE], [(1000, "there")])
        portl.migrate(self.job([ID, NOTE], some(5), target))
        assert multiset(target.rows([ID, NOTE])) == multiset([(1000, "there"), *some(5)])

    def test_a_column_that_is_not_there_is_a_problem(self, place: Callable[..., Target]) -> None:
        """A column of the source without a counterpart stops the plan."""
        target = place([ID, NOTE], [])
        with pytest.raises(portl.PlanError):
            portl.migrate(self.job([ID, NOTE, memory.column("more", "int")], [(1, "a", 2)], target))
        assert list(target.rows([ID, NOTE])) == []

    @pytest.mark.parametrize("strategy", ["overwrite", "skip", "fail", "merge"])
    def test_conflict_strategies(self, place: Callable[..., Target], strategy: str) -> None:
        """A strategy that is claimed does what its name says; any other is a problem of the plan."""
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
        """The error names the row; the batch that holds it leaves nothing behind."""
        target, job = self.refused(place)
        with pytest.raises(portl.DataError) as caught:
            portl.migrate(job)
        assert (caught.value.row, caught.value.batch) == (13, 3)
        assert caught.value.values is not None
        assert multiset(target.rows([ID, NOTE])) in (multiset(some(10)), multiset([]))

    def test_a_refused_row_is_put_aside(self, place: Callable[..., Target]) -> None:
        """With savepoints, a bad row costs no good one."""
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
        """A token ends the run; what is told as committed is there, and no more."""
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
        """What the program itself raises passes through, and the connector is closed."""
        target = place()

        def stop(event: portl.Event) -> None:
            if isinstance(event, portl.TableStarted):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            portl.migrate(self.job([ID, NOTE], some(10), target), observers=[stop])
        portl.migrate(self.job([ID, NOTE], some(10), target))
        assert len(list(target.rows([ID, NOTE]))) == 10

    def test_migrations_at_the_same_time(self, place: Callable[..., Target]) -> None:
        """Several migrations in threads do not get into each other's way."""
        targets = [place() for _ in range(3)]
        jobs = []
        for number, target in enumerate(targets):
            source = self.fill([ID, NOTE], some(500 + number), name=f"t{number}")
            jobs.append({"source": source, "destination": dict(target.end), "conflict": "fail"})
        failures: list[BaseException] = []

        def move(job: Any) -> None:
            try:
                portl.migrate(job)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=move, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [len(list(target.rows([ID, NOTE]))) for target in targets] == [500, 501, 502]

    def test_a_kill_between_any_two_calls(self, place: Callable[..., Target]) -> None:
        """Where a run can be resumed, it ends with the right rows whenever it was killed."""
        targets: list[Target] = []
        job: dict[str, Any] = {}

        def prepare() -> None:
            targets[:] = [place([ID, NOTE], [])]
            job.update(self.job([ID, NOTE], some(60), targets[0], chunk_rows=20, batch_size=7, parallel=1))

        self.killed(job, prepare, lambda: [tuple(row) for row in targets[0].rows([ID, NOTE])], some(60))

    def test_urls(self, place: Callable[..., Target]) -> None:
        """Its URLs make jobs, and no part of one that cannot be read is told."""
        self.reached_by_url("destination", place().end)

    def test_secrets(self, place: Callable[..., Target]) -> None:
        """No secret shows in what is printed or told."""
        self.without_secrets(self.job([ID, NOTE], some(3), place()))


__all__ = ["DestinationConformance", "SourceConformance", "Target", "some"]

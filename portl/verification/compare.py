"""Compare what a job's source should have produced with what is at its destination: ``portl.verify(job)``.

Both sides compute at the same time: each sums the digests of its rows up by buckets (``portl.connectors.comparer``).
Where all buckets agree, the tables do, and two scans were enough. Where some differ, their rows are fetched and
matched by key: a row is missing, extra, or different. What is kept in memory is a bucket at a time, about a thousand
rows, and the rows that are named in the result.

What counts as unequal depends on the job:

* rows that are missing always count;
* different rows count under overwrite and fail. Under skip and merge the destination's own values may stay, so they
  are reported, and do not count;
* extra rows are reported. They count only where there is no key: there a row that was copied twice looks like this.

Of source rows with one key, the last counts under overwrite and merge, the first under skip.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TextIO, TypeVar

import attrs

from portl.config.models import MigrationConfig, Strategy, Verify
from portl.connectors.comparer import BucketSum, Comparer, Comparison, RowLine
from portl.planning.delivery import begun, job_name
from portl.planning.plan import Plan, PlanError
from portl.planning.planner import plan_table
from portl.planning.request import Job, Request, Sides
from portl.planning.tasks import TableTask
from portl.values.cancel import CancelToken
from portl.values.differences import DIFFERENT, EXTRA, MISSING, RowDifference, TableVerification, Verification
from portl.values.errors import ConfigError, Error, LedgerError, PermissionDenied, SchemaError
from portl.values.events import Observer
from portl.values.findings import Severity, note
from portl.values.masking import COVER
from portl.values.runs import ChunkState, RunState
from portl.verification.match import ahead, as_multisets, by_key, portions, side_by_side
from portl.verification.repair import Repair

T = TypeVar("T")

#: Rows in a bucket, about: what is fetched where one row differs.
BUCKET_ROWS = 1000
MOST_BUCKETS = 1 << 20
#: Rows that a result names, if the caller does not say.
NAMED = 100
#: Up to this many rows in differing buckets, their texts are fetched in the scan that finds the differences.
FETCH_AT_ONCE = 50_000
#: Keys for which the source is asked in one statement when rows are copied once more.
REPAIR_KEYS = 5000
#: Where a problem of the plan stands that keeps rows from being compared; the others concern writing alone.
_FATAL = ("source", "column", "types", "schema_mapping", "exclude_columns", "mask")


def verify(
    job: Job,
    *,
    mode: Verify | str | None = None,
    repair: bool = False,
    named: int = NAMED,
    source: object | None = None,
    destination: object | None = None,
    observers: Sequence[Observer] = (),
    cancel: CancelToken | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Verification:
    """Compare what the job should have put at its destination with what is there.

    Args:
        job: as for ``portl.migrate``.
        mode: ``count`` compares numbers of rows; ``checksum`` digests that the servers compute, and the rows of what
            differs; ``full`` fetches every column of every row. By default the job's ``verify``, else ``checksum``.
        repair: True to copy rows that are missing or different once more. Extra rows stay.
        named: how many differing rows the result names.
        source: as for ``portl.migrate``.
        destination: as for ``portl.migrate``.
        observers: as for ``portl.migrate``.
        cancel: as for ``portl.migrate``.
        overrides: as for ``portl.migrate``.

    Returns:
        What was found; after a repair, what was found then.

    Raises:
        ConfigError: the job, or ``mode``, is wrong.
        PlanError: rows of the source cannot become rows of the destination.
        SchemaError: the destination's table does not exist.
        PermissionDenied: a role may not read its end.
        LedgerError: rows are to be copied once more, and the job was interrupted: it has to be run to its end first.
        AlreadyRunning: rows are to be copied once more, and another process is at work on the job.
        OperationError: rows are to be copied once more, some stand in the quarantine, and there is no key.
    """
    request = Request.of(
        job, source=source, destination=destination, observers=observers, cancel=cancel, overrides=overrides
    )
    config = request.config
    chosen = _mode(mode, config, repair=repair)
    started = time.monotonic()
    with request.reported(), request.opened() as sides, _alone(config, sides, repair):
        unfinished = _unfinished(config, sides)
        with closing(_Verifier(config, sides, chosen, named)) as comparing:
            table = comparing.run(repair=repair)
            repaired = comparing.repair() if repair and (table.missing or table.different) else 0
    if repaired:
        # Both sides anew: the snapshot of the source is as old as the comparison.
        with request.reported(), request.opened() as sides:
            table = _Verifier(config, sides, chosen, named).run()
    table = attrs.evolve(table, notes=(*unfinished, *table.notes))
    seconds = time.monotonic() - started
    return Verification(name=config.name, tables=(table,), repaired=repaired, seconds=seconds)


def _unfinished(config: MigrationConfig, sides: Sides) -> list[str]:
    """Return what the ledger says of a run that has not come to its end, for people."""
    ledger = sides.ledger
    run = ledger.find(job_name(config, sides.destination)) if ledger is not None else None
    if run is None or run.state is RunState.DONE or not begun(run.chunks):
        return []
    done = sum(line.state is ChunkState.DONE for line in run.chunks)
    stands = "is under way" if run.locked else "was interrupted"
    return [
        f"the run of {run.began} {stands} with {done:,} of {len(run.chunks):,} chunks done: what it lacks is missing"
    ]


@contextmanager
def _alone(config: MigrationConfig, sides: Sides, repair: bool) -> Iterator[None]:
    """Keep others from working on the job while rows are copied once more.

    Raises:
        LedgerError: a run of the job was interrupted: what it has not brought yet would come twice.
        AlreadyRunning: another process is at work on it.
    """
    ledger = sides.ledger if repair else None
    if ledger is None:
        yield
        return
    job = job_name(config, sides.destination)
    ledger.lock(job)
    try:
        run = ledger.find(job)
        if run is not None and run.state is not RunState.DONE and begun(run.chunks):
            raise LedgerError(
                f"the job {config.name!r} was interrupted: what it lacks is not missing yet",
                hint="run the job to its end first, then compare and repair",
            )
        yield
    finally:
        ledger.unlock()


def compare(config: MigrationConfig, sides: Sides, mode: Verify) -> TableVerification:
    """Compare two open sides after a run: the source in the state that it has read."""
    return _Verifier(config, sides, mode, NAMED).run()


def _mode(mode: Verify | str | None, config: MigrationConfig, *, repair: bool) -> Verify:
    wanted = [word.value for word in Verify if word is not Verify.NONE]
    if mode is None:
        mode = config.verify if config.verify is not Verify.NONE else Verify.CHECKSUM
        if repair and mode is Verify.COUNT:
            mode = Verify.CHECKSUM
    if mode not in wanted:
        raise ConfigError([f"mode: expected one of {', '.join(wanted)}, found {str(mode)!r}"], origin="verify")
    if repair and mode == Verify.COUNT:
        raise ConfigError(["repair: goes with checksum or full: a count does not say which rows"], origin="verify")
    return Verify(mode)


class _Verifier:
    """One comparison over two open ends."""

    def __init__(self, config: MigrationConfig, sides: Sides, mode: Verify, named: int) -> None:
        self._config = config
        self._source = sides.source
        self._destination = sides.destination
        self._mode = mode
        self._named = named
        self._task = self._planned()
        self._intent = self._task.intent
        self._tally = _Tally()
        self._spool: TextIO | None = None

    def _planned(self) -> TableTask:
        config, ends = self._config, (self._source, self._destination)
        task = plan_table(config, *ends, note("ledger", "a comparison needs none"), exact=False)
        if task.intent.create:
            raise SchemaError(
                f"{self._destination.label()}: there is no table {task.destination.name} to compare with",
                hint="run the job first, or mend `destination.schema` and `destination.table`",
            )
        fatal = [f for f in task.findings if f.severity is Severity.PROBLEM and f.where.startswith(_FATAL)]
        if task.intent.add or fatal:
            kept = [f for f in task.findings if f.severity is not Severity.PROBLEM]
            if task.intent.add:
                names = ", ".join(column.name for column in task.intent.add)
                raise SchemaError(f"{task.destination.name} lacks columns that the job adds: {names}; run it first")
            task = attrs.evolve(task, findings=(*fatal, *kept))
            labels = [end.label() for end in ends]
            raise PlanError(Plan(config=config, source=labels[0], destination=labels[1], tables=(task,)))
        return task

    def run(self, *, repair: bool = False) -> TableVerification:
        """Compare; with ``repair``, remember which rows are to be copied once more."""
        started = time.monotonic()
        left, right = self._source.comparer(self._intent), self._destination.comparer(self._intent)
        if repair:
            self._spool = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115
        try:
            counts = self._compare(left, right)
        finally:
            try:
                right.close()
            finally:
                left.close()
        tally = self._tally
        return TableVerification(
            source=self._task.source.name,
            destination=self._task.destination.name,
            mode=self._mode.value,
            key=self._key,
            rows_source=counts[0],
            rows_destination=counts[1],
            missing=tally.missing,
            extra=tally.extra,
            different=tally.different,
            repeated=tally.repeated,
            rows=tuple(tally.rows),
            equal=self._equal(),
            notes=tuple(self._notes()),
            seconds=time.monotonic() - started,
        )

    @property
    def _key(self) -> tuple[str, ...]:
        """The columns by which rows are matched: those of the job's key, else of one without NULLs."""
        filled = {field.target.name for field in self._intent.fields}
        if self._intent.key is not None and set(self._intent.key.columns) <= filled:
            return self._intent.key.columns
        known = self._intent.target.by_name
        for key in sorted(self._intent.target.keys, key=lambda k: not k.primary):
            if set(key.columns) <= filled and not any(known[name].nullable for name in key.columns):
                return key.columns
        return ()

    @property
    def _strategy(self) -> Strategy:
        return self._config.conflict.strategy if self._intent.key is not None else Strategy.FAIL

    @property
    def _repeats(self) -> bool:
        return bool(self._key) and self._strategy is not Strategy.FAIL and not self._intent.distinct

    def _equal(self) -> bool:
        tally = self._tally
        keeps_own = self._strategy in (Strategy.SKIP, Strategy.MERGE)
        return not (tally.missing or (tally.different and not keeps_own) or (tally.extra and not self._key))

    def _notes(self) -> Iterator[str]:
        tally, strategy = self._tally, self._strategy
        if tally.extra and self._key:
            yield "extra rows may be others' and are left alone; they do not count as a difference"
        if tally.extra and not self._key:
            yield "without a key, a row that was copied twice is an extra row: it counts as a difference"
        if tally.different and strategy is Strategy.SKIP:
            yield "`skip` leaves rows that were there before as they are: different rows do not count as a difference"
        if tally.different and strategy is Strategy.MERGE:
            yield "`merge` joins the source's values to those that were there: different rows do not count"
        if tally.missing and self._task.rejected_to:
            yield f"rows that were rejected count as missing; they are in {self._task.rejected_to}"
        if tally.repeated:
            first = strategy is Strategy.SKIP
            yield f"of source rows with one key, the {'first' if first else 'last'} was compared"
        if self._config.source.limit is not None:
            yield "`source.limit` without an order reads whichever rows the source gives first"

    def _compare(self, left: Comparer, right: Comparer) -> tuple[int, int]:
        """Compare both sides into the tally; return their numbers of rows."""
        comparison = self._agree(left, right)
        if self._mode is Verify.COUNT and not self._repeats:
            counts = self._both(left, right, lambda end: end.count())
            self._tally.missing = max(0, counts[0] - counts[1])
            self._tally.extra = max(0, counts[1] - counts[0])
            return counts
        if self._mode is Verify.FULL:
            return self._rows(left, right, comparison, None, texts=True, by_texts=True)
        sums = self._both(left, right, lambda end: end.sums())
        differing = {b for b in {*sums[0], *sums[1]} if sums[0].get(b) != sums[1].get(b)}
        if differing:
            self._descend(left, right, comparison, differing, sums)
        return _total(sums[0]), _total(sums[1])

    def _descend(
        self,
        left: Comparer,
        right: Comparer,
        comparison: Comparison,
        differing: set[int],
        sums: tuple[Mapping[int, BucketSum], Mapping[int, BucketSum]],
    ) -> None:
        """Look at the rows of buckets that differ."""
        rows = sum(found[bucket].rows for found in sums for bucket in differing if bucket in found)
        every = differing == {*sums[0], *sums[1]}
        # Without a key, only the texts of all columns say which row it is that is to be copied.
        at_once = rows <= FETCH_AT_ONCE or (self._spool is not None and not self._key)
        self._rows(left, right, comparison, None if every else differing, texts=at_once, by_texts=False)
        if not at_once and self._tally.places and self._named:
            again, self._tally = self._tally, _Tally()
            spool, self._spool = self._spool, None
            self._rows(left, right, comparison, again.places, texts=True, by_texts=False)
            self._tally, self._spool = attrs.evolve(again, rows=self._tally.rows), spool
        if self._mode is Verify.COUNT:
            self._tally = attrs.evolve(self._tally, different=0, rows=[])

    def _agree(self, left: Comparer, right: Comparer) -> Comparison:
        try:
            offers = self._both(left, right, lambda end: end.offers(self._intent))
            digest = next(name for name, proof in offers[0].items() if offers[1].get(name) == proof)
            terms = left.terms()
            expected = max(1, self._task.count.rows if self._task.count else 0)
            buckets = 1 << max(0, min(expected // BUCKET_ROWS, MOST_BUCKETS - 1)).bit_length()
            comparison = Comparison(
                intent=self._intent,
                key=self._key,
                digest=digest,
                buckets=buckets,
                terms=terms,
                repeats=self._repeats,
            )
            self._digest = digest
            left.agree(comparison)
            self._readable(lambda: right.agree(comparison))
        except StopIteration:
            raise Error("the two sides have no digest in common") from None
        return comparison

    def _both(self, left: Comparer, right: Comparer, work: Callable[[Comparer], T]) -> tuple[T, T]:
        """Do the same at both sides at the same time; if one fails, end the other."""
        found: list[T] = []
        failed: list[BaseException] = []

        def there() -> None:
            try:
                found.append(self._readable(lambda: work(right)))
            except BaseException as error:
                failed.append(error)
                left.cancel()

        thread = threading.Thread(target=there, name="portl-verify", daemon=True)
        thread.start()
        try:
            here = work(left)
        except BaseException:
            if failed:
                raise failed[0] from None
            right.cancel()
            raise
        finally:
            thread.join()
        if failed:
            raise failed[0]
        return here, found[0]

    def _readable(self, work: Callable[[], T]) -> T:
        """Say what a refusal to read the destination means here."""
        try:
            return work()
        except PermissionDenied as error:
            raise PermissionDenied(
                error.message,
                hint=f"to verify, the destination's role needs SELECT on {self._task.destination.name},"
                " and must see all of its rows (row security)",
                sqlstate=error.sqlstate,
            ) from None

    def _rows(
        self,
        left: Comparer,
        right: Comparer,
        comparison: Comparison,
        buckets: Collection[int] | None,
        *,
        texts: bool,
        by_texts: bool,
    ) -> tuple[int, int]:
        """Match the rows of buckets; return how many there are at each side."""
        counts = [0, 0]
        with (
            closing(ahead(left.lines(buckets, texts=texts))) as ours,
            closing(ahead(right.lines(buckets, texts=texts))) as theirs,
        ):
            for bucket, sent, there in side_by_side(ours, theirs):
                counts[0] += len(sent)
                counts[1] += len(there)
                for kind, source, destination in self._differences(sent, there, by_texts=by_texts):
                    self._found(bucket, kind, source, destination)
        return counts[0], counts[1]

    def _differences(
        self, sent: list[RowLine], there: list[RowLine], *, by_texts: bool
    ) -> Iterator[tuple[str, RowLine | None, RowLine | None]]:
        """Yield kind, the source's row and the destination's for what differs in a bucket."""
        if not self._key:
            yield from as_multisets(sent, there, by_texts=by_texts)
            return
        ours, theirs = by_key(sent), by_key(there)
        for key, lines in ours.items():
            if len(lines) > 1 and self._repeats and (None not in key or self._nulls_equal):
                self._tally.repeated += len(lines) - 1
                lines = [lines[0] if self._strategy is Strategy.SKIP else lines[-1]]
            rest = list(as_multisets(lines, theirs.pop(key, []), by_texts=by_texts))
            lacking = [source for _, source, _ in rest if source is not None]
            besides = [destination for _, _, destination in rest if destination is not None]
            for source, destination in zip(lacking, besides, strict=False):
                yield DIFFERENT, source, destination
            shared = min(len(lacking), len(besides))
            yield from ((MISSING, line, None) for line in lacking[shared:])
            yield from ((EXTRA, None, line) for line in besides[shared:])
        for lines in theirs.values():
            yield from ((EXTRA, None, line) for line in lines)

    @property
    def _nulls_equal(self) -> bool:
        return self._intent.key is not None and self._intent.key.nulls_equal

    def _found(self, bucket: int, kind: str, source: RowLine | None, destination: RowLine | None) -> None:
        """Take a difference into the tally."""
        tally = self._tally
        line = source or destination
        assert line is not None
        tally.add(kind, bucket, self._named)
        if self._spool is not None and self._worth_repair(kind):
            json.dump(line.key or line.texts, self._spool)
            self._spool.write("\n")
        if line.texts is None or len(tally.rows) >= self._named:
            return
        names = [field.target.name for field in self._intent.fields]
        whole = dict(zip(names, line.texts, strict=True))
        key = {name: whole[name] for name in self._key} if self._key else whole
        columns: dict[str, tuple[str | None, str | None]] = {}
        if source is not None and destination is not None:
            pairs = zip(names, source.texts or (), destination.texts or (), strict=True)
            columns = {name: (ours, theirs) for name, ours, theirs in pairs if ours != theirs}
        tally.rows.append(
            RowDifference(
                kind=kind,
                key={name: self._covered(name, value) for name, value in key.items()},
                columns={n: (self._covered(n, a), self._covered(n, b)) for n, (a, b) in columns.items()},
            )
        )

    def _covered(self, name: str, value: str | None) -> str | None:
        return COVER if name in self._intent.mask and value is not None else value

    def _worth_repair(self, kind: str) -> bool:
        keeps_own = self._strategy in (Strategy.SKIP, Strategy.MERGE)
        return kind == MISSING or (kind == DIFFERENT and not keeps_own)

    def repair(self) -> int:
        """Copy the rows that are missing or different once more; return how many were written."""
        assert self._spool is not None, "run(repair=True) comes first"
        problems = [f for f in self._task.findings if f.severity is Severity.PROBLEM]
        if problems:
            task = attrs.evolve(self._task, findings=tuple(problems))
            labels = (self._source.label(), self._destination.label())
            raise PlanError(Plan(config=self._config, source=labels[0], destination=labels[1], tables=(task,)))
        self._spool.seek(0)
        mender = Repair(
            self._source, self._destination, self._intent, self._key, in_python=self._digest == Comparer.PYTHON
        )
        return mender.carry_out(portions(self._spool, REPAIR_KEYS))

    def close(self) -> None:
        """Forget which rows differ."""
        if self._spool is not None:
            self._spool.close()


@attrs.define
class _Tally:
    """What has been found so far."""

    missing: int = 0
    extra: int = 0
    different: int = 0
    repeated: int = 0
    rows: list[RowDifference] = attrs.field(factory=list)
    #: The buckets in which the first rows that differ are.
    places: set[int] = attrs.field(factory=set)

    def add(self, kind: str, bucket: int, named: int) -> None:
        """Count a difference."""
        if self.missing + self.extra + self.different < named:
            self.places.add(bucket)
        setattr(self, kind, getattr(self, kind) + 1)


def _total(sums: Mapping[int, BucketSum]) -> int:
    return sum(found.rows for found in sums.values())

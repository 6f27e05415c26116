"""The ledger in tables at the destination, written in the transactions of the rows.

It is in ``portl.migrations`` and ``portl.chunks`` or, if the role can neither use nor create that schema, in
``portl_migrations`` and ``portl_chunks`` of the destination's schema.
``sql/ledger.sql`` creates the tables; a comment on the first of them records their layout.

Who waits for whom:

* A job is locked by a session-level advisory lock, which dies with the connection.
* The transaction that records a new run holds another advisory lock, which ``settled`` waits for.
* A transaction with a chunk line locks that line, and the run's row FOR SHARE: ``settled`` waits for the former;
  ``resume``, which updates the row, for the latter. A later line then finds another attempt there, and is refused.

A transaction whose client is gone may stay open for hours until the server notices. It will never be committed, so its
backend is terminated after ``PATIENCE_SECONDS``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import portl
from portl import ChunkLine, Run, RunState
from portl_postgres.ledger.lines import all_done, one_line
from portl_postgres.ledger.location import Location, Locations
from portl_postgres.ledger.locks import Holders, JobLock, end, holders_of, lock_key, who_holds, writers
from portl_postgres.ledger.rows import COUNTS, line_of, run_of, snapshots, tables_text, with_holders
from portl_postgres.ledger.runs import attempted, closed, filled, forgotten, new_run, standing, taken_over
from portl_postgres.session.endings import Ending
from portl_postgres.session.session import Session
from portl_postgres.sql.text import bound, literal, statement

logger = logging.getLogger("portl.postgres")
T = TypeVar("T")
_Rows = list[tuple[Any, ...]]

#: How long to wait for a transaction without a client. Nothing slow happens between its line and its COMMIT.
PATIENCE_SECONDS = 15.0

_LOCK_TIMEOUT = "55P03"
#: What the server says where an attempt that was superseded would close its run.
_REFUSED = "portl: superseded, runs closed: "


class PostgresLedger(portl.Ledger):
    """The ledger of one session.

    Args:
        session: that of the destination, or of a worker.
        candidates: schema and table names of each possible location, the preferred one first.
        token: the run's cancel token.
    """

    def __init__(self, session: Session, candidates: Sequence[tuple[str, str, str]], token: portl.CancelToken) -> None:
        self._session = session
        self.locations = Locations(session, candidates)
        self._lock = JobLock(session, token)
        #: What was read of a job in the round trip that locked it, for the following ``find``: the job, the locations
        #: read, and the rows.
        self._ahead: tuple[str, list[Location], list[_Rows]] | None = None
        #: The locations of runs, by id.
        self._homes: dict[str, Location] = {}

    @property
    def place(self) -> str:
        """See ``Ledger.place``."""
        return self.locations.chosen().shown

    def lock(self, job: str) -> None:
        """See ``Ledger.lock``."""
        places = self.locations.readable()
        rows = self._lock.take(job, self._look(places, job, latest=True))
        self._ahead = (job, places, rows) if rows else None

    def unlock(self) -> None:
        """See ``Ledger.unlock``."""
        self._ahead = None
        self._lock.release()

    def find(self, job: str, *, idempotency_key: str | None = None) -> Run | None:
        """See ``Ledger.find``."""
        found = self._runs(job, latest=True, idempotency_key=idempotency_key)
        return found[0] if found else None

    def runs(self, job: str | None = None) -> Sequence[Run]:
        """See ``Ledger.runs``."""
        return self._runs(job)

    def hidden(self) -> tuple[str, str] | None:
        """See ``Ledger.hidden``."""
        return self.locations.hidden()

    def prepare(self) -> None:
        """See ``Ledger.prepare``."""
        if self.locations.chosen().exists:
            return
        with self._transaction():
            self.locations.ready(self.locations.chosen(look=True))

    def start(self, run: Run) -> None:
        """See ``Ledger.start``."""
        self._homes.pop(run.id, None)
        with self._transaction():
            # The locations are re-checked in the same round trip, unless what is known of them is out of date.
            hold = f"SELECT pg_catalog.pg_advisory_xact_lock({lock_key('run', run.id)})"
            known = self.locations.chosen()
            rows = (
                attempted(self._session, [hold, self.locations.query, self._new(known, run)]) if known.exists else None
            )
            if rows is None:
                _, seen = self._session.queries([hold, self.locations.query], what="the ledger")
                place = self.locations.ready(self.locations.seen(seen).chosen())
                self._session.queries([self._new(place, run)], what="the ledger")
            elif not self.locations.seen(rows[1]).chosen().same(place := known):
                raise portl.LedgerError(
                    f"{self._session.label}: the ledger in {place.shown} was changed while a run began", transient=True
                )
        self._homes[run.id] = place

    def _new(self, place: Location, run: Run) -> str:
        """Return the statement that records a new run and its chunks."""
        identity = json.dumps(run.identity, sort_keys=True)
        return new_run(
            place,
            run.id,
            self._escaped(run.job),
            identity,
            hashlib.sha256(identity.encode()).hexdigest(),
            run.attempt,
            RunState.RUNNING.value,
            self._session.readable(run.source),
            self._session.readable(run.destination),
            snapshots(run.snapshots),
            run.resumable,
            run.incarnation,
            place.of_migrations,
            *self._process(),
            self._key(run),
            [line.number for line in run.chunks],
            [None if line.bounds is None else json.dumps(line.bounds) for line in run.chunks],
            tables_text(run),
        )

    def resume(self, run: Run) -> None:
        """See ``Ledger.resume``.

        Raises:
            Superseded: the stored attempt is not the one before ``run.attempt``.
        """
        place = self._home(run)
        where = "id = $1::uuid", [run.id]
        taken = self._patiently(
            lambda: self._take_over(place, run), lambda: writers(self._session, place.of_migrations, *where), run
        )
        if not taken:
            raise self._superseded(place, run)

    def _take_over(self, place: Location, run: Run) -> bool:
        found = self._query(
            f"SELECT snapshots::text FROM {place.of_migrations} WHERE id = $1::uuid AND attempt = $2 FOR UPDATE",
            run.id,
            run.attempt - 1,
        )
        if not found:
            return False
        stored = {int(attempt): snapshot for attempt, snapshot in json.loads(found[0][0]).items()}
        self._query(
            taken_over(place),
            run.id,
            run.attempt,
            snapshots({**stored, **run.snapshots}),
            RunState.RUNNING.value,
            *self._process(),
            self._key(run),
        )
        return True

    def lines(self, run: Run) -> Sequence[ChunkLine]:
        """See ``Ledger.lines``."""
        return [line_of(stored) for stored in self._stored_lines(self._home(run), [run.id])]

    def record(self, run: Run, line: ChunkLine, before: ChunkLine | None = None) -> None:
        """See ``Ledger.record``."""
        place = self._home(run)
        expected = () if before is None else (before.attempt, before.state.value, before.rows)
        written = filled(
            one_line(place, shared=before is not None),
            run.id,
            run.attempt,
            line.number,
            None if line.bounds is None else json.dumps(line.bounds),
            line.state.value,
            *(getattr(line, name) for name in COUNTS),
            *expected,
        )
        self._write(place, run, written, [line])

    def record_all(self, run: Run, lines: Sequence[ChunkLine]) -> None:
        """See ``Ledger.record_all``."""
        place = self._home(run)
        written = filled(
            all_done(place),
            run.id,
            run.attempt,
            [line.number for line in lines],
            *([getattr(line, name) for line in lines] for name in COUNTS),
        )
        self._write(place, run, written, lines)

    def _write(self, place: Location, run: Run, written: str, lines: Sequence[ChunkLine]) -> None:
        """Write lines, and wait for the answer: only then ``settled`` waits for what the COMMIT becomes of."""
        with self._transaction():
            (found,) = self._session.queries([written], what="the ledger")
            if len(found) != len(lines):
                raise self._superseded(place, run, lines[0].number)

    def settled(self, run: Run, number: int) -> ChunkLine | None:
        """See ``Ledger.settled``."""
        key = lock_key("run", run.id)
        self._homes.pop(run.id, None)
        self._patiently(
            lambda: self._query("SELECT pg_catalog.pg_advisory_xact_lock($1::int8)", key),
            lambda: [pid for pid, _ in who_holds(self._session, [key]).values() if pid is not None],
            run,
        )
        try:
            place = self._home(run)
        except portl.Superseded:
            return None
        where = "run = $1::uuid AND number = $2::int4"
        found = self._patiently(
            lambda: self._query(
                f"SELECT pg_catalog.row_to_json(c)::text FROM {place.of_chunks} AS c WHERE {where} FOR SHARE",
                run.id,
                number,
            ),
            lambda: writers(self._session, place.of_chunks, where, [run.id, number]),
            run,
        )
        return line_of(json.loads(found[0][0])) if found else None

    def close(self, run: Run, state: RunState, error: str | None = None) -> None:
        """See ``Ledger.close``. An attempt that was superseded leaves the run alone.

        Raises:
            Superseded: it was, and ``state`` says that the run is done.
        """
        place = self._home(run)
        values = run.id, run.attempt, state.value, None if error is None else self._session.readable(error)
        with self._transaction():
            if state is RunState.DONE:
                written = filled(closed(place, _REFUSED), *values)
                self._session.at_commit(Ending(written, _REFUSED, lambda: self._superseded(place, run)))
            else:
                self._session.queries([filled(closed(place, None), *values)], what="the ledger")

    def acknowledge(self, run: str) -> None:
        """See ``Ledger.acknowledge``."""
        for place in [self._homes[run]] if run in self._homes else self.locations.readable(look=True):
            update = (
                f"UPDATE {place.of_migrations} SET acknowledged = pg_catalog.clock_timestamp()"
                f" WHERE id = {literal(run)}::uuid AND state = 'done' AND acknowledged IS NULL"
            )
            # One round trip, and a COMMIT that waits for the disk: a result reported once must never be reported again.
            self._session.begin(later=True)
            self._session.commit(["SET LOCAL synchronous_commit = on", update])

    def forget(self, job: str) -> int:
        """See ``Ledger.forget``."""
        removed = 0
        with self._transaction():
            for place in self.locations.readable(look=True):
                ((count,),) = self._query(forgotten(place), self._escaped(job))
                removed += count
        self._homes.clear()
        return removed

    def _query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._session.query(sql, *parameters, what="the ledger")

    @property
    def _inside(self) -> bool:
        """True while a transaction is open on the session."""
        return self._session.open

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Work in the open transaction or, if there is none, in a new one."""
        self._ahead = None
        if self._inside:
            yield
            return
        # Must see what another transaction committed while this one waited.
        self._session.begin("ISOLATION LEVEL READ COMMITTED", later=True)
        try:
            yield
        except BaseException:
            self._session.rollback()
            raise
        self._session.commit()

    def _patiently(self, call: Callable[[], T], blockers: Callable[[], list[int]], run: Run) -> T:
        """Call a function that may wait for an earlier attempt's transaction; terminate that if its client is gone."""
        if self._inside:
            return call()
        for last in (False, True):
            try:
                with self._transaction():
                    self._session.execute(f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS * 1000:.0f}ms'")
                    return call()
            except portl.OperationError as error:
                if error.sqlstate != _LOCK_TIMEOUT:
                    raise
            pids = blockers()
            if not last:
                end(self._session, pids, run)
        listed = ", ".join(map(str, pids)) or "unknown"
        raise portl.OperationError(
            f"{self._session.label}: a transaction of an earlier attempt at {run.job!r} is still open"
            f" (backend {listed})",
            hint=f"end it: SELECT pg_terminate_backend({listed})",
            sqlstate=_LOCK_TIMEOUT,
            transient=True,
        )

    def _home(self, run: Run) -> Location:
        """Return the location of a run.

        Raises:
            Superseded: it is in none.
        """
        if run.id not in self._homes:
            for place in self.locations.readable(look=True):
                if self._query(f"SELECT 1 FROM {place.of_migrations} WHERE id = $1::uuid", run.id):
                    self._homes[run.id] = place
                    break
            else:
                raise _removed(run)
        return self._homes[run.id]

    def _superseded(self, place: Location, run: Run, number: int | None = None) -> portl.LedgerError:
        """Return why an attempt may not write."""
        found = self._query(f"SELECT attempt, state FROM {place.of_migrations} WHERE id = $1::uuid", run.id)
        if not found:
            return _removed(run)
        attempt, state = found[0]
        if attempt == run.attempt and number is not None:
            if state != RunState.RUNNING.value:
                return portl.Superseded(f"this attempt at {run.job!r} has ended: it is {state}")
            known = self._query(
                f"SELECT state FROM {place.of_chunks} WHERE run = $1::uuid AND number = $2::int4", run.id, number
            )
            if known:
                return portl.Superseded(
                    f"another process has written chunk {number} of {run.job!r}: it is {known[0][0]}"
                )
            return portl.LedgerError(f"the run of {run.job!r} has no chunk {number}")
        return portl.Superseded(
            f"another attempt at {run.job!r} has taken the run over: the ledger has attempt {attempt}, this one is"
            f" {run.attempt}",
            hint="the other attempt goes on; portl status shows how far it is",
        )

    def _runs(self, job: str | None, *, latest: bool = False, idempotency_key: str | None = None) -> list[Run]:
        found: list[Run] = []
        stands, holders = self._stored(job, latest=latest, idempotency_key=idempotency_key)
        for place, rows, chunks in stands:
            stored = [{**json.loads(text), "table": oid} for text, oid in rows]
            lines: dict[str, list[Mapping[str, Any]]] = {row["id"]: [] for row in stored}
            for (text,) in chunks:
                line = json.loads(text)
                lines[line["run"]].append(line)
            found += [run_of(row, lines[row["id"]]) for row in stored]
            self._homes.update({row["id"]: place for row in stored})
        found.sort(key=lambda run: run.started.timestamp() if run.started else 0.0, reverse=True)
        if holders is None:
            holders = who_holds(self._session, [lock_key("job", name) for name in {run.job for run in found}])
        return with_holders(found[:1] if latest else found, holders)

    def _stored(
        self, job: str | None, *, latest: bool, idempotency_key: str | None
    ) -> tuple[list[tuple[Location, _Rows, _Rows]], Holders | None]:
        """Return the rows of runs and their chunks at each location, and the holder of the job's lock.

        All of it comes from one round trip, based on the last known locations, and is repeated if these were out of
        date.

        It is put together from what was seen at the places before, and counts if that is still so.
        """
        ahead, self._ahead = self._ahead, None
        while True:
            known = self.locations.known
            places = self.locations.readable()
            try:
                if ahead is not None and latest and idempotency_key is None and ahead[:2] == (job, places):
                    seen, *rows = ahead[2]
                else:
                    asked = self._look(places, job, latest=latest, idempotency_key=idempotency_key)
                    seen, *rows = self._session.looking(asked, what="the ledger")
                ahead = None
            except portl.Error:
                if self._session.broken or self.locations.readable(look=True) == places:
                    raise
                continue
            if self.locations.seen(seen).known == known:
                holders = None if job is None else holders_of(rows.pop())
                return list(zip(places, rows[::2], rows[1::2], strict=True)), holders

    def _look(
        self, places: Sequence[Location], job: str | None, *, latest: bool, idempotency_key: str | None = None
    ) -> list[str]:
        """Return the queries for ``_stored``."""
        key = None if idempotency_key is None else self._escaped(idempotency_key)
        name = None if job is None else self._escaped(job)
        holders = [] if job is None else [bound(statement("ledger_holders"), [lock_key("job", job)])]
        return [self.locations.query, *standing(places, name, latest=latest, idempotency_key=key), *holders]

    def _stored_lines(self, place: Location, runs: Sequence[str]) -> list[Mapping[str, Any]]:
        rows = self._query(
            f"SELECT pg_catalog.row_to_json(c)::text FROM {place.of_chunks} AS c WHERE run = ANY($1::uuid[])"
            " ORDER BY run, number",
            list(runs),
        )
        return [json.loads(text) for (text,) in rows]

    def _key(self, run: Run) -> str | None:
        return None if run.idempotency_key is None else self._escaped(run.idempotency_key)

    def _process(self) -> tuple[str, int, str]:
        return self._session.readable(socket.gethostname()), os.getpid(), portl.__version__

    def _escaped(self, text: str) -> str:
        """Return text escaped as in a JSON string, using only characters of the server's encoding."""
        unicode = self._session.speaks_unicode and not any("\ud800" <= character <= "\udfff" for character in text)
        return json.dumps(text, ensure_ascii=not unicode)[1:-1]


def _removed(run: Run) -> portl.Superseded:
    hint = "somebody has removed it; run it again"
    return portl.Superseded(f"the run of {run.job!r} is not in the ledger any more", hint=hint)

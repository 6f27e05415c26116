"""Every mode keeps its promise: sessions write in any order, runs in between are killed, and all modes take turns.

Sessions at the source insert, update, delete and bring back rows, with savepoints, and end in any order. Others change
the destination. A run of any mode goes through, is killed before its n-th statement, or loses its connection at a
COMMIT. In the end, once all sessions have ended, another run makes the destination what its mode promises.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import portl
from tests.jobs import through
from tests.killing import Victim
from tests.servers import Db

TABLE = "CREATE TABLE t (id serial PRIMARY KEY, v text, at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON t (at)"
COLUMNS = "id, v, at"
#: What a mode needs in a job, those that promise least first; the name tells them apart in the ledger.
MODES: dict[str, dict[str, Any]] = {
    "by at": {"mode": "incremental", "incremental": {"cursor": "at"}},
    "by id": {"mode": "incremental", "incremental": {"cursor": "id"}},
    "by xmin": {"mode": "incremental", "incremental": {"by": "xmin"}},
    "full": {"mode": "full"},
    "keep": {"mode": "mirror", "mirror": {"deletes": "keep"}},
    "soft": {"mode": "mirror", "mirror": {"deletes": "soft", "column": "gone", "max_deletes": "100%"}},
    "delete": {"mode": "mirror", "mirror": {"max_deletes": "100%"}},
    "replace": {"mode": "replace"},
}
INCREMENTAL = {name for name in MODES if name.startswith("by")}
WHICH = st.integers(0, len(MODES) - 1)
IDS = st.integers(1, 8)
WRITES = {
    "insert": "INSERT INTO t (v) VALUES ({v})",
    "update": "UPDATE t SET v = {v}, at = now() WHERE id = {id}",
    "delete": "DELETE FROM t WHERE id = {id} AND id > 1",
    "bring back": "INSERT INTO t (id, v) VALUES ({id}, {v}) ON CONFLICT (id) DO UPDATE SET v = {v}, at = now()",
}


class Modes(RuleBasedStateMachine):
    """What the module says. ``source``, ``destination``, ``victim`` and ``modes`` are set by a subclass."""

    source: Db
    destination: Db
    victim: Victim
    #: The modes that take turns, those that promise least first.
    modes: tuple[str, ...]
    numbers = itertools.count()

    @initialize(chunk=st.sampled_from([None, 3]))
    def begin(self, chunk: int | None) -> None:
        self.stack = ExitStack()
        for db in (self.source, self.destination):
            db.execute(f"DROP TABLE IF EXISTS t; DROP SCHEMA IF EXISTS portl CASCADE; {TABLE}")
        self.destination.execute("ALTER TABLE t ADD gone timestamptz")
        self.source.execute("INSERT INTO t (v) SELECT 'v' || g FROM generate_series(1, 5) AS g")
        self.proxy, reached = self.stack.enter_context(through(self.destination))
        self.common = {"source": self.source.end(table="t"), "chunk_rows": chunk, "parallel": 1, "batch_size": 2}
        self.ends = self.destination.end(table="t"), {**reached, "table": "t"}
        info = self.source.connection.info
        self.sessions = [
            self.stack.enter_context(psycopg.connect(info.dsn, password=info.password, options="-c lock_timeout=50ms"))
            for _ in range(2)
        ]
        #: Jobs whose last run has not ended, and whether rows at the destination are not as any run has left them.
        self.interrupted: set[str] = set()
        self.disturbed = False

    def job(self, name: str, *, proxied: bool = False) -> dict[str, Any]:
        return {**self.common, **MODES[name], "name": name, "destination": self.ends[proxied]}

    @rule(which=st.integers(0, 1), id=IDS, savepoint=st.booleans(), what=st.sampled_from(sorted(WRITES)))
    def write(self, which: int, id: int, savepoint: bool, what: str) -> None:
        connection = self.sessions[which]
        try:
            if savepoint:
                connection.execute("SAVEPOINT s")
            connection.execute(WRITES[what].format(id=id, v=f"'n{next(self.numbers)}'").encode())
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UniqueViolation):
            connection.rollback()

    @rule(which=st.integers(0, 1), commit=st.booleans())
    def end(self, which: int, commit: bool) -> None:
        self.sessions[which].commit() if commit else self.sessions[which].rollback()

    @precondition(lambda self: not INCREMENTAL.issuperset(self.modes))
    @rule(id=IDS, what=st.sampled_from(["update", "delete", "bring back"]))
    def disturb(self, id: int, what: str) -> None:
        self.destination.execute(WRITES[what].format(id=id, v="'disturbed'"))
        self.disturbed = True

    @rule(which=WHICH)
    def run(self, which: int) -> None:
        self.finish(self.modes[which % len(self.modes)])

    @rule(which=WHICH, statement=st.integers(1, 90))
    def kill(self, which: int, statement: int) -> None:
        name = self.modes[which % len(self.modes)]
        found = self.victim.run(self.job(name), statement=statement)
        assert found.get("error") is None, found
        self.ended(name, done=not found["killed"])

    @rule(which=WHICH, number=st.integers(1, 4), after=st.booleans(), again=st.booleans())
    def fail_at_commit(self, which: int, number: int, after: bool, again: bool) -> None:
        name = self.modes[which % len(self.modes)]
        self.proxy.cut_at_commit(after=after, number=number)
        retry = {"attempts": 3 if again else 1, "max_delay": 0.1}
        done = True
        try:
            portl.migrate({**self.job(name, proxied=True), "retry": retry})
        except portl.Error as error:
            done = False
            if not error.transient and not isinstance(error, portl.CommitInDoubt):
                raise
        finally:
            self.proxy.heal()
        self.ended(name, done=done)

    def finish(self, name: str) -> None:
        portl.migrate(self.job(name))
        if name in self.interrupted:  # that run was resumed, so what it had copied was not read again
            portl.migrate(self.job(name))
        self.ended(name, done=True)

    def ended(self, name: str, *, done: bool) -> None:
        if not done:
            self.interrupted.add(name)
            return
        self.interrupted.discard(name)
        if name not in INCREMENTAL:
            self.disturbed = False

    def teardown(self) -> None:
        if not hasattr(self, "ends"):
            return
        with self.stack:
            for connection in self.sessions:
                connection.commit()
            self.insist()

    def insist(self) -> None:
        """Insist on what each mode promises."""
        for name in self.modes:
            if self.disturbed and name in INCREMENTAL:
                continue  # these do not look at the rows there
            self.finish(name)
            here = self.rows(self.source)
            there = self.rows(self.destination, "gone IS NULL" if name == "soft" else "true")
            if name in ("soft", "delete", "replace"):
                assert there == here, name
            else:
                assert {id: row for id, row in there.items() if id in here} == here, name

    def rows(self, db: Db, condition: str = "true") -> dict[int, Any]:
        return {row[0]: row for row in db.execute(f"SELECT {COLUMNS} FROM t WHERE {condition}")}


def check(source: Db, destination: Db, victim: Victim, modes: tuple[str, ...], examples: int, steps: int) -> None:
    kept = {"source": source, "destination": destination, "victim": victim, "modes": modes}
    run_state_machine_as_test(
        type("Machine", (Modes,), kept),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


FEW = [("by at",), ("by id",), tuple(MODES)]
MANY = [*FEW, ("by xmin",), ("keep", "soft", "delete"), ("replace",)]


@pytest.mark.parametrize("modes", FEW, ids=" ".join)
def test_every_mode_keeps_its_promise(source: Db, destination: Db, victim: Victim, modes: tuple[str, ...]) -> None:
    check(source, destination, victim, modes, 2, 12)


@pytest.mark.parametrize("modes", MANY, ids=" ".join)
@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_every_mode_keeps_it_for_long(source: Db, destination: Db, victim: Victim, modes: tuple[str, ...]) -> None:
    check(source, destination, victim, modes, 40, 30)

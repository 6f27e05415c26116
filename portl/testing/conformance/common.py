"""Shared by the suites of both sides."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest

import portl
from portl.connectors import registry
from portl.job.loading import load
from portl.planning.delivery import Delivery
from portl.schema.tables import Column
from portl.schema.types import Type
from portl.testing import memory
from portl.testing.killing import Killed, killing
from portl.testing.values import NAMES, VALUES, alike

Rows = Sequence[tuple[Any, ...]]
Fill = Callable[..., Mapping[str, Any]]
#: Changes a source's table. Takes the source's keys, the ids of rows to delete, and rows to insert.
Change = Callable[[Mapping[str, Any], Sequence[int], Rows], None]

ID = memory.column("id", "int", nullable=False)
NOTE = memory.column("note", "text")
#: Enough rows for several chunks and batches.
MANY = 20_000


@attrs.frozen(kw_only=True)
class Target:
    """A place to write to."""

    #: The ``destination`` of a job.
    destination: Mapping[str, Any]
    #: Returns the rows that are there, their values in the order of the columns that it is given.
    rows: Callable[[Sequence[Column]], Iterable[Sequence[Any]]]
    #: Returns the quarantined rows, as column to value; None if it has no quarantine.
    rejected: Callable[[], Iterable[Mapping[str, Any]]] | None = None


def some(count: int) -> list[tuple[Any, ...]]:
    """Return rows of ``ID`` and ``NOTE``."""
    return [(number, None if number % 5 == 0 else f"note {number}") for number in range(1, count + 1)]


def multiset(rows: Iterable[Sequence[Any]]) -> Counter[str]:
    """Return how often each row occurs."""
    return Counter(repr(tuple(row)) for row in rows)


def insist_same(found: Iterable[Sequence[Any]], wanted: Iterable[Sequence[Any]]) -> None:
    """Assert that two tables hold the same values, row by row in the order of the first column."""
    one, other = (sorted((tuple(row) for row in rows), key=lambda row: row[0]) for rows in (found, wanted))
    assert [row[0] for row in one] == [row[0] for row in other]
    for left, right in zip(one, other, strict=True):
        for number, (value, expected) in enumerate(zip(left, right, strict=True)):
            assert alike(value, expected), f"row {left[0]}, column {number}: {value!r} in place of {expected!r}"


class Conformance:
    """The base class of both suites."""

    #: The types to test, each with values that the connector can store.
    types: ClassVar[Mapping[Type, Sequence[Any]]] = VALUES
    #: The column names to test.
    names: ClassVar[Sequence[str]] = NAMES
    #: Of all points at which a migration can be killed, every n-th is tested.
    kill_step: ClassVar[int] = 1

    @pytest.fixture(autouse=True)
    def _nothing_stays(self) -> Iterator[None]:
        memory.forget("target", "shop")
        yield
        memory.forget("target", "shop")

    def killed(
        self, job: Mapping[str, Any], prepare: Callable[[], Any], rows: Callable[[], Rows], wanted: Rows
    ) -> None:
        """Kill a job between any two calls, run it again, and assert that the rows are right; once for each point.

        Args:
            job: the job.
            prepare: restores the state before the run.
            rows: returns the destination's rows.
            wanted: the rows that must be there in the end.
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
        """Assert that no secret shows in a job's config, plan, events, errors, or their causes."""
        config = load(job)
        secrets = [value.reveal() for side in (config.source, config.destination) for value in _secrets(side)]
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

    def reached_by_url(self, side: str, keys: Mapping[str, Any]) -> None:
        """Assert that the connector's URLs make jobs, and that errors repeat no part of a malformed URL.

        Args:
            side: ``source`` or ``destination``.
            keys: that side of a job.
        """
        connector = registry.load(keys["type"])
        if connector.from_url is None:
            pytest.skip("this connector has no URLs")
        url = connector.url_example
        assert url.partition("://")[0] in connector.schemes
        urls = {"source": "memory://shop", "destination": "memory://target", side: url}
        job = portl.job_from_urls(urls["source"], urls["destination"], table="t")
        assert getattr(load(job), side).type == connector.name
        for scheme in connector.schemes:
            for wrong in ("", "u:pass-word@[", "u:pass-word@\0", "u:pass-word@host:port/%zz"):
                assert "pass-word" not in _refusal({**urls, side: f"{scheme}://{wrong}"})


def _refusal(urls: Mapping[str, str]) -> str:
    """Return the error that URLs raise, with its causes, as text; empty if they make a job."""
    try:
        portl.job_from_urls(urls["source"], urls["destination"], table="t")
    except portl.ConfigError as error:
        return "".join(traceback.format_exception(error))
    return ""


def _secrets(side: Any) -> Iterator[portl.Secret]:
    for field in attrs.fields(type(side)):
        value = getattr(side, field.name)
        if isinstance(value, portl.Secret) and value.reveal():
            yield value


def migrate_at_once(jobs: Iterable[Mapping[str, Any]]) -> None:
    """Run jobs concurrently, each in its own thread, and assert that none fails."""
    failures: list[BaseException] = []

    def move(job: Mapping[str, Any]) -> None:
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

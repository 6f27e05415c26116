"""Make both sides of a comparison do the same thing concurrently, each in its own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from portl.connectors.comparer import Comparer, Comparison
from portl.connectors.exchange import Intent
from portl.values.errors import Error, PermissionDenied

L = TypeVar("L", bound=Comparer)
R = TypeVar("R", bound=Comparer)
T = TypeVar("T")

MOST_BUCKETS = 1 << 20


class Both(Generic[L, R]):
    """Both sides of a comparison.

    Args:
        left: that of the source.
        right: that of the destination.
        destination: the destination table's name, for messages.
        purpose: what the rows are read for, for messages.
    """

    def __init__(self, left: L, right: R, destination: str, purpose: str = "to verify") -> None:
        self.left = left
        self.right = right
        self._destination = destination
        self._purpose = purpose

    def agree(
        self,
        intent: Intent,
        key: tuple[str, ...],
        *,
        repeats: bool,
        rows: int,
        bucket_rows: int,
        most: int = MOST_BUCKETS,
    ) -> Comparison:
        """Agree with both sides on what is compared, and how.

        Args:
            intent: the job, with the columns to compare.
            key: the destination's columns that identify a row.
            repeats: True if source rows can share a key.
            rows: the approximate number of rows.
            bucket_rows: the approximate number of rows in a bucket.
            most: the most buckets.

        Raises:
            Error: the two sides have no digest in common.
        """
        ours, theirs = self.do(lambda side: side.offers(intent))
        digest = next((name for name, proof in ours.items() if theirs.get(name) == proof), "")
        if not digest:
            raise Error("source and destination have no digest in common")
        comparison = Comparison(
            intent=intent,
            key=key,
            digest=digest,
            buckets=1 << max(0, min(max(1, rows) // bucket_rows, most - 1)).bit_length(),
            terms=self.left.terms(),
            repeats=repeats,
        )
        self.left.agree(comparison)
        self.readable(lambda: self.right.agree(comparison))
        return comparison

    def do(self, work: Callable[[Comparer], T]) -> tuple[T, T]:
        """Do the same on both sides concurrently; if one fails, cancel the other."""
        found: list[T] = []
        failed: list[BaseException] = []

        def at_destination() -> None:
            try:
                found.append(self.readable(lambda: work(self.right)))
            except BaseException as error:
                failed.append(error)
                self.left.cancel()

        thread = threading.Thread(target=at_destination, name="portl-verify", daemon=True)
        thread.start()
        try:
            here = work(self.left)
        except BaseException:
            if failed:
                raise failed[0] from None
            self.right.cancel()
            raise
        finally:
            thread.join()
        if failed:
            raise failed[0]
        return here, found[0]

    def readable(self, work: Callable[[], T]) -> T:
        """Explain a refusal to read the destination."""
        try:
            return work()
        except PermissionDenied as error:
            raise PermissionDenied(
                error.message,
                hint=f"{self._purpose}, the destination's role needs SELECT on {self._destination},"
                " and must see all of its rows (row security)",
                sqlstate=error.sqlstate,
            ) from None

"""Match the rows of both sides, with no more than one bucket in memory."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

from portl.connectors.comparer import RowLine, Texts

T = TypeVar("T")

#: A difference: the source's row, None if extra, and the destination's row, None if missing.
Difference = tuple[RowLine | None, RowLine | None]


def by_key(lines: Iterable[RowLine]) -> dict[Texts, list[RowLine]]:
    """Return the rows by key."""
    found: dict[Texts, list[RowLine]] = {}
    for line in lines:
        found.setdefault(line.key, []).append(line)
    return found


def as_multisets(sent: Iterable[RowLine], there: Iterable[RowLine], *, by_texts: bool) -> Iterator[Difference]:
    """Yield the rows that one side has more often than the other."""

    def value(line: RowLine) -> object:
        return line.texts if by_texts else line.digest

    left = Counter(map(value, there))
    for line in sent:
        if left[value(line)] > 0:
            left[value(line)] -= 1
        else:
            yield line, None
    for line in there:
        if left[value(line)] > 0:
            left[value(line)] -= 1
            yield None, line


def side_by_side(
    ours: Iterator[tuple[int, list[RowLine]]], theirs: Iterator[tuple[int, list[RowLine]]]
) -> Iterator[tuple[int, list[RowLine], list[RowLine]]]:
    """Merge two ascending streams of buckets: yield the bucket, the source's rows, and the destination's rows."""
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        bucket = min(found[0] for found in (left, right) if found is not None)
        sent = there = None
        if left is not None and left[0] == bucket:
            sent, left = left[1], next(ours, None)
        if right is not None and right[0] == bucket:
            there, right = right[1], next(theirs, None)
        yield bucket, sent or [], there or []


def ahead(items: Iterator[T], most: int = 4) -> Generator[T, None, None]:
    """Yield the items of an iterator that runs ahead, by a limited number of items, in another thread."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=most)
    stopped = threading.Event()

    def put(kind: str, item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    break
            else:
                put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="portl-verify-rows", daemon=True)
    thread.start()

    def results() -> Generator[T, None, None]:
        try:
            while True:
                kind, item = ready.get()
                if kind == "error":
                    raise item
                if kind == "end":
                    return
                yield item
        finally:
            stopped.set()
            thread.join()

    return results()

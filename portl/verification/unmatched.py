"""Rows without a counterpart whose key prints alike, until the destination says which keys are equal.

Equal keys need not print alike (``Column.exact``): ``1.0`` and ``1.00``, ``'ABC'`` and ``'Abc'``. The destination's
type, operator class and collation decide which are equal. Hashing a canonical form of each key on both sides would
require that collation, in the same version, at the source, which may not have it at all. So rows are matched by the
text of their keys, and the destination, using its index, is only asked about the remaining ones, a portion of keys at a
time. These wait on disk.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from typing import IO

from portl.config.models import Strategy
from portl.connectors.comparer import Comparer, RowLine, Texts
from portl.verification.criteria import Criteria
from portl.verification.match import Difference
from portl.verification.tally import Tally

#: Keys to ask about at a time.
PORTION = 5000
#: Bytes kept in memory before going to disk.
MEMORY_BYTES = 1024 * 1024


class Unmatched:
    """Rows of both sides that wait for a counterpart.

    Args:
        criteria: those of the comparison.
        texts: True to include the values of all columns.
    """

    def __init__(self, criteria: Criteria, *, texts: bool) -> None:
        self._criteria = criteria
        self._texts = texts
        self._missing = _spool()
        self._extra = _spool()
        #: The key hashes of extra rows, with their buckets.
        self._buckets: dict[int, int] = {}
        #: The hashes of those that turned out to have a counterpart.
        self._paired: set[int] = set()

    def take(self, difference: Difference, bucket: int) -> bool:
        """Keep a row that is missing or extra so far; return False for rows that are different."""
        source, destination = difference
        if source is not None and destination is not None:
            return False
        line = source or destination
        assert line is not None
        json.dump([bucket, line.key, line.digest, line.texts], self._extra if source is None else self._missing)
        (self._extra if source is None else self._missing).write("\n")
        if source is None:
            self._buckets[hash(line.key)] = bucket
        return True

    def settle(self, tally: Tally, source: Comparer, destination: Comparer) -> None:
        """Count the rows: as different if they have a counterpart, otherwise as missing or extra."""
        shared: dict[Texts, _Shared] = {}
        missing = _lines(self._missing)
        while portion := list(islice(missing, PORTION)):
            keys = list(dict.fromkeys(line.key for _, line in portion if _sayable(line.key)))
            asked = bool(keys) and (self._criteria.repeats or bool(self._buckets))
            found = destination.alike(keys, texts=self._texts) if asked else {}
            for bucket, line in portion:
                counterpart = found.get(line.key)
                if counterpart is not None and self._criteria.repeats:
                    shared.setdefault(counterpart.key, _Shared(counterpart)).rows.append((bucket, line))
                elif counterpart is not None and self._free(counterpart):
                    self._pair(tally, bucket, line, counterpart)
                else:
                    tally.add((line, None), bucket)
        groups = iter(shared.values())
        while some := list(islice(groups, PORTION)):
            self._choose(tally, source, some)
        for bucket, line in _lines(self._extra):
            if hash(line.key) not in self._paired:
                tally.add((None, line), bucket)

    def _free(self, counterpart: RowLine) -> bool:
        """Return whether a row of the destination is extra so far."""
        return hash(counterpart.key) in self._buckets and hash(counterpart.key) not in self._paired

    def _pair(self, tally: Tally, bucket: int, line: RowLine, counterpart: RowLine) -> None:
        there = hash(counterpart.key)
        tally.add((line, counterpart), bucket, self._buckets.get(there, bucket))
        self._paired.add(there)

    def _choose(self, tally: Tally, source: Comparer, groups: list[_Shared]) -> None:
        """Settle source rows that share a key: the last counts, or under skip, the first."""
        last = self._criteria.strategy is not Strategy.SKIP
        keys = {line.key for group in groups for _, line in group.rows} | {group.counterpart.key for group in groups}
        places = source.places(list(keys), last=last)
        for group in groups:
            # A counterpart that is not extra matches a source row that prints alike.
            rival = None if self._free(group.counterpart) else places.get(group.counterpart.key)
            place = (max if last else min)(places[line.key] for _, line in group.rows)
            rows = len(group.rows)
            if rival is not None and (rival > place) is last:
                tally.repeated += rows
                continue
            tally.repeated += rows - (rival is None)
            bucket, line = next(row for row in group.rows if places[row[1].key] == place)
            self._pair(tally, bucket, line, group.counterpart)

    def close(self) -> None:
        """Remove what waits on disk."""
        self._missing.close()
        self._extra.close()


class _Shared:
    """Source rows that share a counterpart at the destination."""

    def __init__(self, counterpart: RowLine) -> None:
        self.counterpart = counterpart
        self.rows: list[tuple[int, RowLine]] = []


def _spool() -> IO[str]:
    return tempfile.SpooledTemporaryFile(MEMORY_BYTES, "w+", encoding="ascii")


def _lines(spool: IO[str]) -> Iterator[tuple[int, RowLine]]:
    spool.seek(0)
    for text in spool:
        bucket, key, digest, texts = json.loads(text)
        yield bucket, RowLine(tuple(key), digest, None if texts is None else tuple(texts))


def _sayable(key: Texts) -> bool:
    """Return whether a key is valid text throughout; other bytes match nothing."""
    return not any(text is not None and any("\ud800" <= character <= "\udfff" for character in text) for text in key)

"""A tiny connector over Python lists, with the least that its author must write.

The fixture ``tiny`` installs it for the length of a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

import portl

#: The made-up system: what is stored, by table.
STORE: dict[str, list[tuple[Any, ...]]] = {}
#: What was called on writers, in order.
CALLS: list[str] = []

COLUMNS = (
    portl.Column(name="id", type=portl.Type(kind=portl.Kind.INT), native="whole", nullable=False),
    portl.Column(name="name", type=portl.Type(kind=portl.Kind.TEXT), native="words"),
    portl.Column(name="price", type=portl.Type(kind=portl.Kind.DECIMAL, precision=8, scale=2), native="money"),
)


class LettingGo(portl.RowBatch):
    """Reports when it may release what it can compute again."""

    def release(self) -> None:
        CALLS.append(f"release {self.number}")


@attrs.frozen(kw_only=True)
class TinySourceConfig(portl.SourceConfig):
    #: The name in the store.
    table: str
    #: True: its batches are of the kind above.
    lets_go: bool = False


class TinySource(portl.Source[TinySourceConfig]):
    def describe(self) -> portl.Table:
        key = portl.Key(name="key", columns=("id",), primary=True)
        return portl.Table(name=self.config.table, columns=COLUMNS, keys=(key,))

    def rows(self) -> Iterable[tuple[Any, ...]]:
        return iter(STORE[self.config.table])

    def read(self, reading: portl.Reading) -> Iterator[portl.Batch]:
        for batch in super().read(reading):
            assert isinstance(batch, portl.RowBatch)
            fields = {field.name: getattr(batch, field.name) for field in attrs.fields(portl.RowBatch)}
            yield LettingGo(**fields) if self.config.lets_go else batch


@attrs.frozen(kw_only=True)
class TinyDestinationConfig(portl.DestinationConfig):
    #: The name in the store.
    table: str


class TinyWriter(portl.Writer):
    """Refuses a negative id in ``write``, an id that it has in ``commit``."""

    def __init__(self, table: str, positions: list[int]) -> None:
        self._rows = STORE.setdefault(table, [])
        self._positions = positions
        self._new: list[tuple[Any, ...]] = []

    def begin(self) -> None:
        CALLS.append("begin")
        self._new = []

    def write(self, batch: portl.Batch) -> int:
        CALLS.append("write")
        assert isinstance(batch, portl.RowBatch)
        for row in batch.data:
            if row[self._positions[0]] < 0:
                raise portl.DataError("a negative id", column="id", table="tiny")
            self._new.append(tuple(row[i] for i in self._positions))
        return batch.size

    def check(self) -> portl.Counts:
        ids = [row[0] for row in (*self._rows, *self._new)]
        if len(set(ids)) < len(ids):
            raise portl.ConflictError("an id twice", constraint="key")
        return portl.Counts()

    def commit(self) -> portl.Counts:
        CALLS.append("commit")
        self.check()
        self._rows += self._new
        return portl.Counts(inserted=len(self._new))

    def rollback(self) -> None:
        CALLS.append("rollback")
        self._new = []


class TinyDestination(portl.Destination[TinyDestinationConfig]):
    def describe(self) -> portl.Table | None:
        if self.config.table not in STORE:
            return None
        return self._table()

    def _table(self) -> portl.Table:
        key = portl.Key(name="key", columns=("id",), primary=True)
        return portl.Table(name=self.config.table, columns=COLUMNS, keys=(key,))

    def propose(self, source: portl.Table, columns: Mapping[str, portl.Column]) -> portl.Table:
        return self._table()

    def writer(self, intent: portl.Intent) -> portl.Writer:
        names = [field.target.name for field in intent.fields]
        return TinyWriter(self.config.table, [names.index(column.name) for column in COLUMNS])


@portl.hookimpl
def portl_connector() -> portl.Connector:
    return portl.Connector(
        name="tiny",
        source=TinySource,
        source_config=TinySourceConfig,
        destination=TinyDestination,
        destination_config=TinyDestinationConfig,
    )


def install(folder: Path, module: str) -> None:
    """Write what an installed package leaves in site-packages."""
    info = folder / "portl_tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: portl-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[portl]\ntiny = {module}\n")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the tiny connector for the length of a test."""
    install(tmp_path, __name__)
    monkeypatch.syspath_prepend(tmp_path)
    STORE.clear()
    CALLS.clear()
    yield
    STORE.clear()


def job(**keys: Any) -> dict[str, object]:
    ends = {name: {"type": "tiny", "table": table} for name, table in (("source", "a"), ("destination", "b"))}
    return {**ends, "conflict": "fail", **keys}


def some(count: int) -> list[tuple[Any, ...]]:
    return [(n, f"name {n}" if n % 3 else None, Decimal(n) / 4) for n in range(1, count + 1)]

"""What must not grow with the rows: statements and round trips of a chunk, bytes beside the rows, memory."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator

import pytest

import portl
from benchmarks.alone import run_alone
from tests.proxy import Proxy
from tests.servers import Db

#: Most statements that one more chunk may take, at both sides together, and most exchanges with the destination.
STATEMENTS, EXCHANGES = 7, 6
#: Most exchanges of a job of a few rows with the source, and with the destination, by whether the table is there.
SMALL = {True: (5, 12), False: (7, 14)}
#: What a message adds to what it carries: its kind and its length (manual, 55.7).
HEADER = 5
#: Bytes of a large value: many times what a chunk may hold in memory otherwise.
LARGE = 40_000_000


class Statements(logging.Handler):
    """Keeps what was sent to either side."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        side, statement = re.fullmatch(r"(\w+) [^ ]+: (.*)", record.getMessage(), re.DOTALL).groups()  # type: ignore[union-attr]
        self.sent.append((side, statement.strip()))

    def of(self, side: str) -> int:
        return sum(found == side for found, _ in self.sent)

    def copies(self) -> Counter[str]:
        return Counter(side for side, statement in self.sent if re.search("(^|; )COPY ", statement))

    @property
    def exchanges(self) -> int:
        """Times that the destination was asked something and waited for; the end of a COPY is one of its own."""
        return self.of("destination") + self.copies()["destination"]


@pytest.fixture
def statements() -> Iterator[Statements]:
    handler, logger = Statements(), logging.getLogger("portl.postgres.sql")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def fill(db: Db, rows: int, table: str = "t") -> None:
    db.execute(f"""
        CREATE TABLE {table} (id int NOT NULL, n int);
        INSERT INTO {table} SELECT g, g % 1000 FROM generate_series(1, {rows}) AS g;
        ALTER TABLE {table} ADD PRIMARY KEY (id);
        ANALYZE {table}
    """)


def run(source: Db, destination: Db, statements: Statements, **keys: object) -> tuple[int, int, int]:
    """Return how many statements, exchanges with the destination, and COPY statements there a run takes."""
    statements.sent.clear()
    destination.execute("CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, n int)")
    portl.migrate({"source": source.end(table="t"), "destination": destination.end(table="t"), "parallel": 1, **keys})
    return len(statements.sent), statements.exchanges, statements.copies()["destination"]


def empty(destination: Db) -> None:
    destination.execute("DROP TABLE IF EXISTS t")


@pytest.mark.parametrize("strategy", ["overwrite", "skip", "fail"])
@pytest.mark.parametrize("there", [False, True], ids=["new rows", "rows that are there"])
def test_a_chunk_more_takes_a_few_statements_more(
    source: Db, destination: Db, statements: Statements, strategy: str, there: bool
) -> None:
    if there and strategy == "fail":
        pytest.skip("rows that are there end a run that fails on conflicts")
    fill(source, 12_000)
    found = []
    for chunks in (2, 12):
        empty(destination)
        if there:
            portl.migrate({"source": source.end(table="t"), "destination": destination.end(table="t")})
        found.append(run(source, destination, statements, chunk_rows=12_000 // chunks, conflict=strategy))
    (few, few_exchanges, few_copies), (many, many_exchanges, many_copies) = found
    chunks = many_copies - few_copies
    assert 8 <= chunks <= 12, "the bounds below say nothing if the rows were not cut"
    assert many - few <= STATEMENTS * chunks
    assert many_exchanges - few_exchanges <= EXCHANGES * chunks


def test_statements_of_a_chunk_do_not_depend_on_its_rows(source: Db, destination: Db, statements: Statements) -> None:
    counts = []
    for rows in (4_000, 4_000, 40_000):  # the first run ever makes the ledger's tables
        for db in (source, destination):
            empty(db)
        fill(source, rows)
        counts.append(run(source, destination, statements, chunk_rows=rows // 4))
    assert counts[1] == counts[2]


def test_statements_of_a_chunk_do_not_depend_on_its_batches(
    source: Db, destination: Db, statements: Statements
) -> None:
    fill(source, 20_000)
    counts = []
    for size in (10_000, 10_000, 100):
        empty(destination)
        counts.append(run(source, destination, statements, batch_size=size, chunk_rows=10_000))
    assert counts[1] == counts[2]


def test_one_wide_table_and_one_narrow_take_the_same_statements(
    source: Db, destination: Db, statements: Statements
) -> None:
    """A query for each column would show here."""
    counts = []
    for columns in (2, 2, 60):
        for db in (source, destination):
            empty(db)
        named = ", ".join(f"c{i} int" for i in range(columns))
        for db in (source, destination):
            db.execute(f"CREATE TABLE t (id text PRIMARY KEY, {named})")
        source.execute("INSERT INTO t (id) VALUES ('a'), ('b')")
        counts.append(run(source, destination, statements)[0])
    assert counts[2] == counts[1]


def test_bytes_on_the_wire_are_those_of_the_rows(source: Db, destination: Db) -> None:
    """What grows from 20 000 rows to 60 000 is the rows and their messages' headers, at both sides, to the byte."""
    taken = []
    for rows in (20_000, 20_000, 60_000):
        for db in (source, destination):
            empty(db)
        fill(source, rows)
        with Proxy(source.endpoint) as reading, Proxy(destination.endpoint) as writing:
            result = portl.migrate(
                {
                    "source": source.end(table="t", port=reading.port),
                    "destination": destination.end(table="t", port=writing.port),
                    "parallel": 1,
                    "chunk_rows": 1_000_000,
                }
            )
            taken.append((result.bytes, reading.forwarded("down"), writing.forwarded("up")))
    _, (few, few_down, few_up), (many, many_down, many_up) = taken
    row = 2 + 2 * (4 + 4)  # columns, and two lengths and values (manual, COPY, Binary Format)
    assert (few, many) == (20_000 * row, 60_000 * row)
    # Digits in statements and statistics differ by a few bytes from run to run.
    assert abs((many_down - few_down) - 40_000 * (row + HEADER)) < 500
    # A message goes out as it came in, or, over a slow link, joined with others.
    assert -500 < (many_up - few_up) - 40_000 * row < 40_000 * HEADER + 500


def test_memory_does_not_grow_with_the_rows(source: Db, destination: Db) -> None:
    peaks = {}
    for rows in (50_000, 1_000_000):
        fill(source, rows, f"t{rows}")
        job = {"source": source.end(table=f"t{rows}"), "destination": destination.end(table=f"t{rows}")}
        peaks[rows] = run_alone(job)["peak_kib"] / 1024
    assert destination.value("SELECT count(*) FROM t1000000") == 1_000_000
    # A chunk stays in memory until it is safe: 24 MiB at most for each worker, and what batches add.
    assert peaks[1_000_000] < 150
    assert peaks[1_000_000] - peaks[50_000] < 80, peaks


@pytest.mark.parametrize("there", [False, True], ids=["a new table", "a table that is there"])
def test_a_small_job_asks_each_end_a_few_times(
    source: Db, destination: Db, statements: Statements, there: bool
) -> None:
    """Over a link each time is a round trip. The first job of all, which makes the ledger's tables, is not counted."""
    fill(source, 10)
    job = {"source": source.end(table="t"), "destination": destination.end(table="t")}
    portl.migrate(job)
    if not there:
        empty(destination)
    statements.sent.clear()
    assert portl.migrate(job).rows_read == 10
    # A COPY is two: its end is answered, too.
    copies = statements.copies()
    of_source, of_destination = SMALL[there]
    assert statements.of("source") + copies["source"] <= of_source, statements.sent
    assert statements.of("destination") + copies["destination"] <= of_destination, statements.sent


def test_decoded_rows_do_not_stay_in_memory_until_their_commit(source: Db, destination: Db) -> None:
    """One chunk, one transaction of 24 MiB of text: as Python's objects it would be five times that."""
    source.execute("CREATE TABLE t (id int PRIMARY KEY, u uuid, tags text[], day date)")
    source.execute(
        "INSERT INTO t SELECT g, md5(g::text)::uuid, ARRAY['a' || g, 'b' || g, 'c' || g], current_date + g % 100"
        " FROM generate_series(1, 300000) AS g"
    )
    ends = {"source": source.end(table="t"), "destination": destination.end(table="t")}
    keys = {"chunk_rows": 1_000_000, "parallel": 1}
    peaks = {route: run_alone({**ends, **keys, "route": route})["peak_kib"] / 1024 for route in ("rows", "relay")}
    assert destination.value("SELECT count(*) FROM t") == 300_000
    assert peaks["rows"] - peaks["relay"] < 50, peaks


def large(db: Db, rows: int) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, b bytea); ALTER TABLE t ALTER b SET STORAGE EXTERNAL")
    if rows:
        db.execute(f"INSERT INTO t SELECT 0, decode(repeat('ab', {LARGE}), 'hex')")
        db.execute(f"INSERT INTO t SELECT g, b FROM t, generate_series(1, {rows} - 1) AS g")
    db.execute("ANALYZE t")


@pytest.mark.parametrize(
    ("keys", "there", "values"),
    [
        ({"route": "relay", "parallel": 1}, False, 1),
        ({"route": "relay", "parallel": 1}, True, 1),
        ({"route": "relay", "parallel": 2}, False, 2),
        (
            {"route": "rows", "parallel": 1},
            False,
            7,
        ),  # a text of twice the length, a value, a text again
    ],
    ids=["straight", "staged", "parallel", "rows"],
)
def test_a_large_value_is_in_memory_once(
    source: Db, destination: Db, keys: dict[str, object], there: bool, values: int
) -> None:
    """However many follow each other; with several workers, once for each."""
    peaks = {}
    for rows in (0, 1, 3):
        for db in (source, destination):
            empty(db)
        large(source, rows)
        if there:
            large(destination, 0)
            destination.execute("INSERT INTO t VALUES (0, 'other')")
        found = run_alone({"source": source.end(table="t"), "destination": destination.end(table="t"), **keys})
        assert found["rows"] == rows
        peaks[rows] = found["peak_kib"] * 1024
    assert destination.execute("SELECT DISTINCT length(b), count(*) FROM t GROUP BY 1") == [(LARGE, 3)]
    assert peaks[1] - peaks[0] < (values + 0.5) * LARGE, peaks
    assert peaks[3] - peaks[0] < (values + 0.5) * LARGE, peaks


def test_rejected_rows_become_texts_a_few_at_a_time(source: Db, destination: Db) -> None:
    """They are kept as they came until then, and each as a text takes several times that."""
    peaks = {}
    for rows in (1, 3):
        for db in (source, destination):
            empty(db)
        large(source, rows)
        destination.execute("CREATE TABLE t (id int PRIMARY KEY, b bytea CHECK (length(b) < 1000))")
        keys = {"name": f"{rows} rows", "on_error": "quarantine", "parallel": 1}
        found = run_alone({"source": source.end(table="t"), "destination": destination.end(table="t"), **keys})
        peaks[rows] = found["peak_kib"] * 1024
    look = "SELECT length(\"row\" ->> 'b'), count(*) FROM t__rejected GROUP BY 1"
    assert destination.execute(look) == [(2 + 2 * LARGE, 4)]
    assert peaks[1] < 14 * LARGE, peaks
    assert peaks[3] - peaks[1] < 5 * LARGE, peaks

"""Read only what has changed since an earlier run: by a growing column, by transactions, or by both.

Each row version records the transaction that wrote it (``xmin``). Along with the watermark, the ledger keeps the oldest
transaction still running at the snapshot. Whatever the snapshot did not see was written by that transaction or a later
one, whatever its values: by one that committed late, in a subtransaction (which a snapshot does not list), or with a
value that its session had cached from a sequence. So a row is read if its cursor is at or beyond the watermark, **or**
if its xmin is not older than that transaction. Rows read twice do no harm, because writing is idempotent.

The second condition takes a scan, which sees every change of the table. If the cursor is an indexed ``timestamptz``,
the scan is limited to a range of it, so that the cost depends on the amount of change: every change is assumed to set
the cursor by the server's clock (``lag`` is for other clocks), no earlier than its transaction began. So the ledger
also keeps the start of the oldest transaction open just before the snapshot was taken. Whatever this snapshot did not
see has later values; the bound is where the last run before that moment ended. Without such a bound, the table is
scanned: if the role may not see other sessions (``pg_read_all_stats``), with prepared transactions, on standbys, and
for partitions and rewritten tables.

xmin has 32 bits. ``age()`` compares it with the present, as the server itself does; a row version old enough to be
ambiguous is read again. A failover to another timeline, or two billion transactions, invalidate xmin: then all rows are
read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

import portl
from portl import By, Column, Finding, IncrementalConfig, Kind, Nulls, Table
from portl_postgres.catalog.tables import table_details
from portl_postgres.session.session import Session
from portl_postgres.sql.text import literal, quoted

#: Allowance for a transaction that has taken its timestamp but does not show it yet.
MARGIN = "interval '10 seconds'"
#: The most watermarks kept for the bound: so many runs may end while one transaction is open.
MOST_EARLIER = 100
#: Rows that are counted to tell how far behind a watermark is, and for how long.
MOST_BEHIND, BEHIND_SECONDS = 100_000, 5
#: Half of the range of transaction ids, beyond which older and newer ones cannot be told apart.
HALF = 2**31
_WITH_CLOCKS = (Kind.TIMESTAMP, Kind.TIMESTAMPTZ)
_REFRESH = "`--full-refresh` reads all rows again"

_OPEN = (
    "SELECT pg_catalog.to_json(least(min(a.xact_start), pg_catalog.clock_timestamp()) - " + MARGIN + ") #>> '{}',"
    " pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AND NOT pg_catalog.pg_is_in_recovery()"
    " AND NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database = current_database())"
    " FROM pg_catalog.pg_stat_activity AS a"
    " WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.datname = current_database()"
)
_STATE = (
    "SELECT pg_catalog.pg_snapshot_xmin(s)::text::int8, pg_catalog.pg_snapshot_xmax(s)::text::int8,"
    " pg_catalog.to_json(pg_catalog.clock_timestamp()) #>> '{}', CASE WHEN pg_catalog.pg_is_in_recovery()"
    " THEN (SELECT pg_catalog.to_hex(c.timeline_id) FROM pg_catalog.pg_control_checkpoint() AS c)"
    " ELSE lower(ltrim(left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8), '0')) END"
    " FROM pg_catalog.pg_current_snapshot() AS s"
)


@attrs.frozen(kw_only=True)
class Increment:
    """What a run reads, and where the next one starts."""

    #: A condition on the rows; None to read all.
    condition: str | None
    #: For the ledger.
    watermark: Mapping[str, Any]


@attrs.frozen
class Rows:
    """The rows of an incremental job."""

    #: In the reading transaction.
    session: Session
    table: Table
    #: What follows FROM.
    origin: str
    #: The job's condition.
    where: str | None
    #: What identifies the server and the database.
    system: tuple[str, ...]
    #: The start of the oldest transaction open before the snapshot was taken; None if unknown.
    opened: str | None


def opened(session: Session) -> str | None:
    """Return the start of the oldest open transaction, before a snapshot is taken; None if not all are visible."""
    ((since, known),) = session.query(_OPEN, what="looking at open transactions")
    return since if known else None


def confined(
    rows: Rows, wanted: IncrementalConfig, before: Mapping[str, Any] | None
) -> tuple[Increment | None, list[Finding]]:
    """Return what a run reads, and what the user should know about it; no increment if there is a problem.

    Args:
        rows: those of the job.
        wanted: the job's settings.
        before: the watermark of the earlier run; None to read everything.
    """
    return _Inquiry(rows, wanted, before).increment()


def behind(rows: Rows, wanted: IncrementalConfig, watermark: Mapping[str, Any]) -> portl.Behind | None:
    """See ``Source.behind``: no more than MOST_BEHIND rows are counted, for BEHIND_SECONDS. Arguments as above."""
    column = rows.table.by_name.get(wanted.cursor or "")
    if column is None or watermark["value"] is None or watermark["system"] != list(rows.system):
        return None
    name, mark = quoted(column.name), f"{literal(watermark['value'])}::{column.native}"
    where = f" AND (\n{rows.where}\n)" if rows.where is not None else ""
    time = f"EXTRACT(epoch FROM max(v) - {mark})::float8" if column.type.kind in _WITH_CLOCKS else "NULL"
    rows.session.query(f"SET LOCAL statement_timeout = {BEHIND_SECONDS * 1000}")
    counted = f"SELECT {name} FROM {rows.origin} WHERE {name} > {mark}{where} LIMIT {MOST_BEHIND + 1}"
    ((count,),) = rows.session.query(f"SELECT count(*) FROM ({counted}) AS b", what="counting what has changed")
    last = f"SELECT {name} AS v FROM {rows.origin} WHERE {name} > {mark}{where} ORDER BY 1 DESC LIMIT 1"
    ((value, seconds),) = rows.session.query(
        f"SELECT pg_catalog.to_json(max(v)) #>> '{{}}', {time} FROM ({last}) AS b", what="looking for the last value"
    )
    return portl.Behind(rows=min(count, MOST_BEHIND), more=count > MOST_BEHIND, value=value, seconds=seconds)


class _Inquiry:
    def __init__(self, rows: Rows, wanted: IncrementalConfig, before: Mapping[str, Any] | None) -> None:
        self._rows = rows
        self._session, self._table = rows.session, rows.table
        self._wanted = wanted
        self._before = before
        self._findings: list[Finding] = []
        #: True if row versions have an xmin.
        self._versions = rows.table.kind != "query" and table_details(rows.table).kind in ("r", "p", "m")
        self._plain = self._versions and table_details(rows.table).kind == "r"

    def increment(self) -> tuple[Increment | None, list[Finding]]:
        column = self._column()
        if any(finding.severity is portl.Severity.PROBLEM for finding in self._findings):
            return None, self._findings
        ((floor, top, taken, timeline),) = self._session.query(_STATE, what="looking at the snapshot")
        mark: dict[str, Any] = {
            "value": self._last(column) if column is not None else None,
            "type": column.native if column is not None else None,
            "taken": taken,
            "floor": floor,
            "system": list(self._rows.system),
            "timeline": timeline,
            "table": self._file(),
            "opened": self._rows.opened,
        }
        self._nulls(column)
        condition = self._condition(column, mark, top)
        mark["since"] = {k: v for k, v in self._before.items() if k != "since"} if self._before is not None else None
        mark["earlier"] = self._earlier(column, mark)
        if any(finding.severity is portl.Severity.PROBLEM for finding in self._findings):
            return None, self._findings
        return Increment(condition=condition, watermark=mark), self._findings

    def _column(self) -> Column | None:
        """Return the cursor column, or None to go by xmin."""
        name = self._wanted.cursor
        if name is None:
            if not self._versions:
                said = f"a {self._table.kind} has no xmin: its rows do not say which transaction wrote them"
                self._findings.append(portl.problem("incremental.by", said, "name a column with `incremental.cursor`"))
            elif self._wanted.by is By.AUTO:
                said = "by xmin: it sees every change of this table, and takes one scan of it"
                self._findings.append(portl.note("incremental", said))
            return None
        column = self._table.by_name.get(name)
        if column is None:
            said = f"{self._table.name} has no column {name!r}"
            columns = f"its columns: {', '.join(self._table.by_name)}"
            self._findings.append(portl.problem("incremental.cursor", said, columns))
        elif self._wanted.lag_microseconds and column.type.kind not in _WITH_CLOCKS:
            said = f"{name!r} is {column.native}: only a timestamp can lag"
            self._findings.append(portl.problem("incremental.lag", said, "remove `lag`"))
        if not self._versions:
            said = (
                f"a {self._table.kind} has no xmin: rows of transactions that commit later than others with a higher"
                f" {name!r} are found only within `lag`"
            )
            self._findings.append(
                portl.warning("incremental", said, "set `incremental.lag` to the longest transaction")
            )
        return column

    def _last(self, column: Column) -> str | None:
        """Return the greatest cursor value as text that the server reads back under any settings."""
        name = quoted(column.name)
        conditions = [f"{name} IS NOT NULL", *([f"(\n{self._rows.where}\n)"] if self._rows.where is not None else [])]
        if column.type.kind in (*_WITH_CLOCKS, Kind.DATE):
            conditions.append(f"pg_catalog.isfinite({name})")
        elif column.type.kind in (Kind.FLOAT, Kind.DOUBLE, Kind.DECIMAL):
            conditions.append(f"{name} < 'Infinity'")
        found = self._session.query(
            f"SELECT pg_catalog.to_json({name}) #>> '{{}}' FROM {self._rows.origin} WHERE {' AND '.join(conditions)}"
            f" ORDER BY {name} DESC LIMIT 1",
            what="looking for the last value of the cursor",
        )
        return found[0][0] if found else None

    def _nulls(self, column: Column | None) -> None:
        if column is None or not column.nullable or self._wanted.nulls is not Nulls.FAIL:
            return
        where = f" AND (\n{self._rows.where}\n)" if self._rows.where is not None else ""
        ((count,),) = self._session.query(
            f"SELECT count(*) FROM {self._rows.origin} WHERE {quoted(column.name)} IS NULL{where}",
            what="counting NULLs",
        )
        if count:
            said = f"{column.name!r} is NULL in {count:,} row{'s' * (count != 1)}"
            remedy = "set `incremental.nulls` to include (they are read each time) or exclude (never)"
            self._findings.append(portl.problem("incremental.nulls", said, remedy))

    def _file(self) -> list[int] | None:
        """Return what changes when the table is replaced or rewritten; None for a relation without a file."""
        if not self._versions:
            return None
        oid = table_details(self._table).oid
        ((file,),) = self._session.query(f"SELECT pg_catalog.pg_relation_filenode({oid})::int8")
        return [oid, file or 0]

    def _condition(self, column: Column | None, mark: Mapping[str, Any], top: int) -> str | None:
        """Return the condition for the rows to read; None for all."""
        read = self._changed(column, mark, top)
        if column is None:
            return read
        name = quoted(column.name)
        parts = [read] if read is not None else []
        if self._wanted.from_ is not None:
            parts.append(f"{name} >= {literal(self._wanted.from_)}::{column.native}")
        elif self._wanted.nulls is Nulls.EXCLUDE and column.nullable:
            parts.append(f"{name} IS NOT NULL")
        if not parts:
            return None
        condition = " AND ".join(parts)
        return f"({condition} OR {name} IS NULL)" if self._wanted.nulls is Nulls.INCLUDE else condition

    def _changed(self, column: Column | None, mark: Mapping[str, Any], top: int) -> str | None:
        """Return the condition for rows changed since the earlier run; None without one that is still usable."""
        before = self._before
        if before is None:
            return None
        if self._another(before, mark):
            return None
        trusted = self._trusted(before, mark, top)
        unseen = f"pg_catalog.age(xmin) <= pg_catalog.age('{before['floor'] % 2**32}'::pg_catalog.xid)"
        if column is None or before["value"] is None:
            return unseen if trusted else None
        if self._versions and not trusted:
            return None
        name, as_type = quoted(column.name), f"::{column.native}"
        lag = self._wanted.lag_microseconds
        behind = f" - interval '{lag} microseconds'" if lag else ""
        new = f"{name} >= {literal(before['value'])}{as_type}{behind}"
        self._backwards(column, before, mark)
        if not self._versions:
            self._findings.append(portl.note("incremental", f"rows from {column.name} = {before['value']}{_lag(lag)}"))
            return new
        bound = before["earlier"]["bound"] if before["table"] == mark["table"] and self._indexed(column) else None
        said = f"rows from {column.name} = {before['value']}{_lag(lag)}, and those written by transactions that"
        said += f" had not ended at {before['taken']}"
        if bound is None:
            self._findings.append(portl.note("incremental", f"{said}, found by one scan"))
            return f"({new} OR {unseen})"
        self._findings.append(portl.note("incremental", f"{said}, looked for from {column.name} = {bound}{_lag(lag)}"))
        return f"({name} >= {literal(bound)}{as_type}{behind} AND ({new} OR {unseen}))"

    def _another(self, before: Mapping[str, Any], mark: Mapping[str, Any]) -> bool:
        """Report a source that is not the one that the watermark belongs to."""
        what = None
        if before["system"] != mark["system"]:
            what = f"the source is another server or database than that of {before['taken']}"
        elif self._versions and before["table"] is not None and before["table"][0] != mark["table"][0]:
            what = f"{self._table.name} is another table than that of {before['taken']}"
        elif before["type"] != mark["type"] and None not in (before["type"], mark["type"]):
            what = f"{self._wanted.cursor!r} was {before['type']} and is {mark['type']}"
        if what is not None:
            self._findings.append(portl.problem("incremental", f"{what}: the watermark does not apply to it", _REFRESH))
        return what is not None

    def _trusted(self, before: Mapping[str, Any], mark: Mapping[str, Any], top: int) -> bool:
        """Return whether transaction ids are comparable with those of the earlier run; warn if not."""
        if not self._versions:
            return False
        why = None
        if before["timeline"] != mark["timeline"]:
            why = "the server has failed over since"
        elif not 0 <= top - before["floor"] < HALF:
            why = "more than two billion transactions have passed since"
        if why is not None:
            said = f"all rows are read again: {why} (the last run read the state of {before['taken']})"
            self._findings.append(portl.warning("incremental", said))
        return why is None

    def _backwards(self, column: Column, before: Mapping[str, Any], mark: Mapping[str, Any]) -> None:
        """Warn if the cursor's greatest value has decreased."""
        now = mark["value"]
        less = (
            "true" if now is None else f"{literal(now)}::{column.native} < {literal(before['value'])}::{column.native}"
        )
        ((fallen,),) = self._session.query(f"SELECT {less}", what="comparing watermarks")
        if fallen:
            said = f"the greatest {column.name!r} was {before['value']} and is now {now}: rows were deleted or changed"
            self._findings.append(portl.warning("incremental", said))

    def _indexed(self, column: Column) -> bool:
        """Return whether an index finds the rows from a value of the cursor on."""
        ((found,),) = self._session.query(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i"
            " JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
            " JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am AS m ON m.oid = c.relam"
            " WHERE i.indrelid = $1 AND a.attname = $2 AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL)",
            table_details(self._table).oid,
            column.name,
            what="looking for an index on the cursor",
        )
        return bool(found)

    def _earlier(self, column: Column | None, mark: Mapping[str, Any]) -> dict[str, Any]:
        """Return the watermarks of earlier runs that may become the bound, and the current one.

        That is the watermark of the last run whose snapshot was taken before the oldest transaction open at this one's
        had begun.
        """
        before = self._before
        bounded = column is not None and column.type.kind is Kind.TIMESTAMPTZ and self._plain
        if not bounded or before is None or mark["opened"] is None or before["table"] != mark["table"]:
            return {"runs": [], "bound": None}
        runs = [*before["earlier"]["runs"], [before["taken"], before["value"]]]
        runs = [run for run in runs if run[1] is not None][-MOST_EARLIER:]
        usable = self._session.query(
            # A value in the future says nothing about values to come.
            "SELECT n, pg_catalog.to_json(least(taken, value)) #>> '{}'"
            " FROM unnest($1::timestamptz[], $2::timestamptz[]) WITH ORDINALITY AS r(taken, value, n)"
            " WHERE taken <= $3::timestamptz ORDER BY n DESC LIMIT 1",
            [taken for taken, _ in runs],
            [value for _, value in runs],
            mark["opened"],
            what="comparing watermarks",
        )
        if not usable:
            return {"runs": runs, "bound": None}
        ((number, bound),) = usable
        return {"runs": runs[number - 1 :], "bound": bound}


def _lag(microseconds: int) -> str:
    return f" less {microseconds / 1_000_000:g} s" if microseconds else ""

"""The exceptions of portl, as one tree.

::

Error:
    ├── ConfigError          the job is wrong; ``problems`` lists everything that is
    ├── PluginError          the connector that the job names is missing or does not import
    ├── PlanError            the plan has problems; ``plan`` holds it
    ├── ConnectionFailed     a server cannot be reached, or the connection to it was lost
    │   ├── AuthenticationFailed   it refused the role, the password or the database
    │   └── CommitInDoubt          it was lost during COMMIT: the ledger knows whether the rows are there
    ├── PermissionDenied     the role lacks a privilege
    ├── SchemaError          a table, column or type is not what the job needs
    ├── QueryError           the source's query, or an expression of the job, is refused
    ├── DataError            a row was refused; says which
    │   └── ConflictError    … because its key exists already
    ├── VerificationFailed   the rows were moved, but both sides differ; says how
    ├── OperationError       the server refused or failed for a reason of its own
    ├── LedgerError          the ledger does not allow it, for example because the job or its source has changed
    │   ├── AlreadyRunning   another process is running the same job
    │   └── Superseded       a later attempt has resumed the run
    └── Cancelled            the caller's token ended the run
        └── Interrupted      Ctrl-C ended it (a KeyboardInterrupt too)

Connectors raise these classes or subclasses of them. ``transient`` says whether the same call may succeed when simply
repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from portl.values.differences import TableVerification
    from portl.values.results import Result
    from portl.values.runs import Run


class Error(Exception):
    """The base class of all errors that portl raises on purpose.

    Args:
        message: what failed, where, and the server's own words.
        hint: what to try, in one or two sentences; shown on a separate line.
        sqlstate: the server's error code (five characters), if it sent one.
        transient: True if trying again may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        sqlstate: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.sqlstate = sqlstate
        self.transient = transient
        #: True if it persisted through all the retries that the job allows.
        self.exhausted = False
        #: What the run had committed when it failed; None before anything was written.
        self.committed: Result | None = None

    @property
    def without_values(self) -> str:
        """The message without values from rows, fit for a report that others read."""
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def __str__(self) -> str:
        parts = [self.message]
        if self.committed is not None:
            rows = self.committed.rows_read
            parts.append(f"committed before this: {self.committed.summary()}" if rows else "nothing was committed")
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


#: Why a row is refused, by SQLSTATE or its class (ISO/IEC 9075-2; PostgreSQL manual, appendix A).
_REASONS = {
    "22": "a value that the type does not accept",
    "22001": "text that is too long",
    "22003": "a number out of range",
    "22007": "a date or time in the wrong format",
    "22008": "a date or time out of range",
    "22021": "characters that the encoding does not have",
    "22P02": "text that the type cannot parse",
    "23": "a constraint",
    "23502": "NULL where it is not allowed",
    "23503": "a foreign key",
    "23505": "a key that already exists",
    "23514": "a check constraint",
    "23P01": "an exclusion constraint",
}


class ConfigError(Error):
    """The job is wrong. ``problems`` has one message for each thing to correct."""

    def __init__(self, problems: Sequence[str], *, origin: str = "job") -> None:
        count = len(problems)
        head = f"{origin}: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in problems)]))
        self.problems = list(problems)


class PluginError(Error):
    """A connector is missing or cannot be imported."""


class ConnectionFailed(Error):
    """A server cannot be reached, or the connection to it was lost."""


class AuthenticationFailed(ConnectionFailed):
    """The server refused the role, the password, the database or the encryption."""


class CommitInDoubt(ConnectionFailed):
    """The connection was lost during COMMIT. The next run of the job asks the ledger whether the rows are there."""

    def __init__(
        self, message: str, *, hint: str | None = None, sqlstate: str | None = None, transient: bool = True
    ) -> None:
        super().__init__(message, hint=hint, sqlstate=sqlstate, transient=transient)
        #: The run and the chunk's number, to look up in the ledger.
        self.run: Run | None = None
        self.number = 0


class PermissionDenied(Error):
    """The role lacks a privilege."""


class SchemaError(Error):
    """A table, a column or a type is not what the job needs."""


class QueryError(Error):
    """The source's query, or an SQL expression of the job, is refused."""


class DataError(Error):
    """A row was refused. ``row`` is its position in the source, from 1."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        sqlstate: str | None = None,
        table: str | None = None,
        column: str | None = None,
        constraint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, sqlstate=sqlstate)
        self.table = table
        self.column = column
        self.constraint = constraint
        self.row: int | None = None
        self.batch: int | None = None
        self.chunk: int | None = None
        self.values: dict[str, str | None] | None = None
        #: The part of ``message`` in which the server describes the row; it may contain any value, in any form.
        self.detail: str | None = None

    @property
    def reason(self) -> str:
        """Why the row was refused, without its values, so that rows refused for one reason can be counted together."""
        state = self.sqlstate or ""
        said = _REASONS.get(state) or _REASONS.get(state[:2]) or "the server refused it"
        named = self.constraint or (f"column {self.column}" if self.column else None)
        return "".join([said, f" ({state})" if state else "", f": {named}" if named else ""])

    @property
    def without_values(self) -> str:
        """See ``Error.without_values``."""
        row = f"row {self.row:,}" if self.row is not None else "a row"
        where = f" of chunk {self.chunk:,}" if self.chunk is not None else ""
        table = f" for {self.table}" if self.table else ""
        return f"{row}{where}{table} was refused: {self.reason}"


class ConflictError(DataError):
    """A row's key already exists at the destination, or twice in the source, and the strategy does not allow that."""


class VerificationFailed(Error):
    """Comparing both sides after the last row, as the job asks, found differences; they are in ``verification``."""

    def __init__(self, message: str, verification: TableVerification) -> None:
        super().__init__(message, hint="`portl verify JOB` shows the rows; with `--repair` it copies them again")
        self.verification = verification


class OperationError(Error):
    """A server refused or failed for a reason of its own."""

    #: See ``Error.without_values``; None if the message contains no values.
    general: str | None = None

    @property
    def without_values(self) -> str:
        """See ``Error.without_values``."""
        return super().without_values if self.general is None else self.general


class LedgerError(Error):
    """The ledger does not allow what was asked for."""


class AlreadyRunning(LedgerError):
    """Another process is running the same job, or has finished it while this one was starting."""


class Superseded(LedgerError):
    """A later attempt resumed the run after this one had lost its connection."""


class Cancelled(Error):
    """The run was cancelled. Open transactions are rolled back; committed ones stay."""


class Interrupted(Cancelled, KeyboardInterrupt):
    """Ctrl-C, or another KeyboardInterrupt, ended the run as cleanly as a cancel token would."""

    @classmethod
    def of(cls, error: KeyboardInterrupt, what: str = "") -> Interrupted:
        """Return portl's error for Python's; its argument, if a signal handler set one, names the signal."""
        if isinstance(error, Interrupted):
            return error
        return cls(f"interrupted by {error.args[0] if error.args else 'Ctrl-C'}{what}")


def _rebuild(cls: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error

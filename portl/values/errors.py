"""What can go wrong, as one tree of exceptions.

::

Error:
    ├── ConfigError          the job file, or the dict in its place, is wrong; ``problems`` lists everything
    ├── PluginError          the connector that the job names is missing or does not import
    ├── PlanError            the plan has problems; ``plan`` holds it
    ├── ConnectionFailed     a server was not reached, or was lost
    │   ├── AuthenticationFailed   it was reached and refused the role, the password or the database
    │   └── CommitInDoubt          it was lost during COMMIT: whether the rows are there, the ledger knows
    ├── PermissionDenied     the role lacks a privilege
    ├── SchemaError          a table, column or type is not what the job needs
    ├── QueryError           the source's query, or an expression of the job, is refused
    ├── DataError            a row was refused; says which
    │   └── ConflictError    … because its key is there already
    ├── VerificationFailed   the rows were moved, and a comparison of both sides finds a difference; says which
    ├── OperationError       the server refused or failed for a reason of its own
    ├── LedgerError          the ledger does not allow what was asked for: the job has changed, or its source has
    │   ├── AlreadyRunning   another process is at work on the same job
    │   └── Superseded       a later attempt has taken the run over
    └── Cancelled            the caller's token ended the run
        └── Interrupted      Ctrl-C ended it (a KeyboardInterrupt too)

A connector raises these classes or subclasses of them. ``transient`` says whether the same call may succeed when it is
made again without anybody mending anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from portl.values.differences import TableVerification
    from portl.values.results import Result
    from portl.values.runs import Run


class Error(Exception):
    """The root of all that portl raises on purpose.

    Args:
        message: what failed, where, and the server's own words.
        hint: what to try, as one or two sentences; shown on a line of its own.
        sqlstate: the five characters of the SQL standard, where a server gave them.
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
        #: True once it was tried as often as the job allows.
        self.exhausted = False
        #: What the run had committed when it failed; None before anything was written.
        self.committed: Result | None = None

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


class ConfigError(Error):
    """The job is wrong. ``problems`` holds one text for each thing to mend."""

    def __init__(self, problems: Sequence[str], *, origin: str = "job") -> None:
        count = len(problems)
        head = f"{origin}: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in problems)]))
        self.problems = list(problems)


class PluginError(Error):
    """A connector is missing, or failed to import."""


class ConnectionFailed(Error):
    """A server was not reached, or the connection to it was lost."""


class AuthenticationFailed(ConnectionFailed):
    """The server refused the role, the password, the database or the encryption."""


class CommitInDoubt(ConnectionFailed):
    """The connection was lost during COMMIT. Running the job again asks the ledger whether the rows are there."""

    def __init__(
        self, message: str, *, hint: str | None = None, sqlstate: str | None = None, transient: bool = True
    ) -> None:
        super().__init__(message, hint=hint, sqlstate=sqlstate, transient=transient)
        #: The run and the number of its chunk, for the ledger to be asked about.
        self.run: Run | None = None
        self.number = 0


class PermissionDenied(Error):
    """The role lacks a privilege."""


class SchemaError(Error):
    """A table, a column or a type is not what the job needs."""


class QueryError(Error):
    """The source's query, or an SQL expression of the job, is refused."""


class DataError(Error):
    """A row was refused. ``row`` is its position in the source, counted from 1."""

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
        #: The part of ``message`` in which the server describes the row; it may hold any of its values, in any form.
        self.detail: str | None = None


class ConflictError(DataError):
    """A row's key is at the destination already, or twice in the source, and the strategy does not allow it."""


class VerificationFailed(Error):
    """Both sides were compared after the last row, as the job asks, and differ. ``verification`` says in what."""

    def __init__(self, message: str, verification: TableVerification) -> None:
        super().__init__(message, hint="`portl verify JOB` shows the rows; with `--repair` it copies them once more")
        self.verification = verification


class OperationError(Error):
    """A server refused or failed for a reason of its own."""


class LedgerError(Error):
    """The ledger does not allow what was asked for."""


class AlreadyRunning(LedgerError):
    """Another process is at work on the same job, or has carried it out while this one was getting ready."""


class Superseded(LedgerError):
    """A later attempt has taken the run over while this one was cut off."""


class Cancelled(Error):
    """The run was cancelled; what was open is rolled back, what was committed stays."""


class Interrupted(Cancelled, KeyboardInterrupt):
    """Ctrl-C, or another KeyboardInterrupt, ended the run in the same orderly way."""

    @classmethod
    def of(cls, error: KeyboardInterrupt, what: str = "") -> Interrupted:
        """Return portl's error for Python's; the text that a signal handler gave it says by what."""
        if isinstance(error, Interrupted):
            return error
        return cls(f"interrupted by {error.args[0] if error.args else 'Ctrl-C'}{what}")


def _rebuild(cls: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error

"""Move table data between databases from inside a Python program: ``portl.migrate(job)``.

What a name stands for is imported when it is used first: a program that imports portl and runs no job pays next to
nothing.
"""

import importlib
import logging
from typing import TYPE_CHECKING

from portl._version import __version__

if TYPE_CHECKING:
    from portl.api import migrate, plan
    from portl.config.models import (
        MERGE_WORDS,
        Auto,
        Conflict,
        CreateTable,
        DestinationConfig,
        FieldError,
        LedgerConfig,
        LedgerMode,
        MigrationConfig,
        OnError,
        Quarantine,
        Resume,
        Retry,
        Route,
        SourceConfig,
        Strategy,
        TypeRule,
        Verify,
    )
    from portl.connectors.comparer import BucketSum, Comparer, Comparison, RowLine, Texts
    from portl.connectors.connector import Connector, TypeMapper
    from portl.connectors.context import Context
    from portl.connectors.destination import Destination
    from portl.connectors.exchange import (
        ROWS,
        Batch,
        Chunk,
        Counts,
        Examination,
        Field,
        Format,
        Intent,
        Reading,
        Rejected,
        Rejection,
        RowBatch,
        RowCount,
        Split,
        Splitting,
    )
    from portl.connectors.ledger import Ledger
    from portl.connectors.registry import Installed, hookimpl, installed, register
    from portl.connectors.source import Source, TableEntry
    from portl.connectors.writer import Writer
    from portl.execution.rejected import retry_rejected
    from portl.job.explain import Explanation, explain
    from portl.job.json_schema import schema as schema_of_jobs
    from portl.job.urls import job_from_urls
    from portl.planning.plan import Plan, PlanError
    from portl.planning.tasks import TableTask
    from portl.runs import Cleaned, Status, clean, status
    from portl.schema.conversions import Conversion, Risk, Verdict, conversion
    from portl.schema.tables import Column, Key, Table
    from portl.schema.types import Kind, Type
    from portl.values.cancel import CancelToken
    from portl.values.differences import RowDifference, TableVerification, Verification
    from portl.values.errors import (
        AlreadyRunning,
        AuthenticationFailed,
        Cancelled,
        CommitInDoubt,
        ConfigError,
        ConflictError,
        ConnectionFailed,
        DataError,
        Error,
        Interrupted,
        LedgerError,
        OperationError,
        PermissionDenied,
        PluginError,
        QueryError,
        SchemaError,
        Superseded,
        VerificationFailed,
    )
    from portl.values.events import (
        BatchCommitted,
        Done,
        Event,
        Failed,
        Observer,
        Resumed,
        Retrying,
        RowsRejected,
        Started,
        TableDone,
        TableStarted,
        Warned,
    )
    from portl.values.findings import Finding, Severity, note, problem, warning
    from portl.values.masking import masked
    from portl.values.results import Result, TableResult
    from portl.values.runs import ChunkLine, ChunkState, Run, RunState
    from portl.values.secrets import Secret
    from portl.verification.verify import verify

__all__ = [
    "MERGE_WORDS",
    "ROWS",
    "AlreadyRunning",
    "AuthenticationFailed",
    "Auto",
    "Batch",
    "BatchCommitted",
    "BucketSum",
    "CancelToken",
    "Cancelled",
    "Chunk",
    "ChunkLine",
    "ChunkState",
    "Cleaned",
    "Column",
    "CommitInDoubt",
    "Comparer",
    "Comparison",
    "ConfigError",
    "Conflict",
    "ConflictError",
    "ConnectionFailed",
    "Connector",
    "Context",
    "Conversion",
    "Counts",
    "CreateTable",
    "DataError",
    "Destination",
    "DestinationConfig",
    "Done",
    "Error",
    "Event",
    "Examination",
    "Explanation",
    "Failed",
    "Field",
    "FieldError",
    "Finding",
    "Format",
    "Installed",
    "Intent",
    "Interrupted",
    "Key",
    "Kind",
    "Ledger",
    "LedgerConfig",
    "LedgerError",
    "LedgerMode",
    "MigrationConfig",
    "Observer",
    "OnError",
    "OperationError",
    "PermissionDenied",
    "Plan",
    "PlanError",
    "PluginError",
    "Quarantine",
    "QueryError",
    "Reading",
    "Rejected",
    "Rejection",
    "Result",
    "Resume",
    "Resumed",
    "Retry",
    "Retrying",
    "Risk",
    "Route",
    "RowBatch",
    "RowCount",
    "RowDifference",
    "RowLine",
    "RowsRejected",
    "Run",
    "RunState",
    "SchemaError",
    "Secret",
    "Severity",
    "Source",
    "SourceConfig",
    "Split",
    "Splitting",
    "Started",
    "Status",
    "Strategy",
    "Superseded",
    "Table",
    "TableDone",
    "TableEntry",
    "TableResult",
    "TableStarted",
    "TableTask",
    "TableVerification",
    "Texts",
    "Type",
    "TypeMapper",
    "TypeRule",
    "Verdict",
    "Verification",
    "VerificationFailed",
    "Verify",
    "Warned",
    "Writer",
    "__version__",
    "clean",
    "conversion",
    "explain",
    "hookimpl",
    "installed",
    "job_from_urls",
    "masked",
    "migrate",
    "note",
    "plan",
    "problem",
    "register",
    "retry_rejected",
    "schema_of_jobs",
    "status",
    "verify",
    "warning",
]

#: The modules that the public names come from; type checkers have the imports above.
_HOMES = {
    "portl.api": (
        "migrate",
        "plan",
    ),
    "portl.config.models": (
        "Auto",
        "Conflict",
        "CreateTable",
        "DestinationConfig",
        "FieldError",
        "LedgerConfig",
        "LedgerMode",
        "MERGE_WORDS",
        "MigrationConfig",
        "OnError",
        "Quarantine",
        "Resume",
        "Retry",
        "Route",
        "SourceConfig",
        "Strategy",
        "TypeRule",
        "Verify",
    ),
    "portl.connectors.comparer": (
        "BucketSum",
        "Comparer",
        "Comparison",
        "RowLine",
        "Texts",
    ),
    "portl.connectors.connector": (
        "Connector",
        "TypeMapper",
    ),
    "portl.connectors.context": ("Context",),
    "portl.connectors.destination": ("Destination",),
    "portl.connectors.exchange": (
        "Batch",
        "Chunk",
        "Counts",
        "Examination",
        "Field",
        "Format",
        "Intent",
        "ROWS",
        "Reading",
        "Rejected",
        "Rejection",
        "RowBatch",
        "RowCount",
        "Split",
        "Splitting",
    ),
    "portl.connectors.ledger": ("Ledger",),
    "portl.connectors.registry": (
        "Installed",
        "hookimpl",
        "installed",
        "register",
    ),
    "portl.connectors.source": (
        "Source",
        "TableEntry",
    ),
    "portl.connectors.writer": ("Writer",),
    "portl.execution.rejected": ("retry_rejected",),
    "portl.job.explain": (
        "Explanation",
        "explain",
    ),
    "portl.job.json_schema": ("schema_of_jobs",),
    "portl.job.urls": ("job_from_urls",),
    "portl.planning.plan": (
        "Plan",
        "PlanError",
    ),
    "portl.planning.tasks": ("TableTask",),
    "portl.runs": (
        "Cleaned",
        "Status",
        "clean",
        "status",
    ),
    "portl.schema.conversions": (
        "Conversion",
        "Risk",
        "Verdict",
        "conversion",
    ),
    "portl.schema.tables": (
        "Column",
        "Key",
        "Table",
    ),
    "portl.schema.types": (
        "Kind",
        "Type",
    ),
    "portl.values.cancel": ("CancelToken",),
    "portl.values.differences": (
        "RowDifference",
        "TableVerification",
        "Verification",
    ),
    "portl.values.errors": (
        "AlreadyRunning",
        "AuthenticationFailed",
        "Cancelled",
        "CommitInDoubt",
        "ConfigError",
        "ConflictError",
        "ConnectionFailed",
        "DataError",
        "Error",
        "Interrupted",
        "LedgerError",
        "OperationError",
        "PermissionDenied",
        "PluginError",
        "QueryError",
        "SchemaError",
        "Superseded",
        "VerificationFailed",
    ),
    "portl.values.events": (
        "BatchCommitted",
        "Done",
        "Event",
        "Failed",
        "Observer",
        "Resumed",
        "Retrying",
        "RowsRejected",
        "Started",
        "TableDone",
        "TableStarted",
        "Warned",
    ),
    "portl.values.findings": (
        "Finding",
        "Severity",
        "note",
        "problem",
        "warning",
    ),
    "portl.values.masking": ("masked",),
    "portl.values.results": (
        "Result",
        "TableResult",
    ),
    "portl.values.runs": (
        "ChunkLine",
        "ChunkState",
        "Run",
        "RunState",
    ),
    "portl.values.secrets": ("Secret",),
    "portl.verification.verify": ("verify",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
#: Public names that are called otherwise at home.
_RENAMED = {"schema_of_jobs": "schema"}

# What the standard library asks of libraries: without it, warnings of an unconfigured application go to stderr.
logging.getLogger("portl").addHandler(logging.NullHandler())


if not TYPE_CHECKING:  # to a type checker it would mean that there is any name at all

    def __getattr__(name: str) -> object:
        """Import what is used for the first time."""
        if name in _HOME:
            found = getattr(importlib.import_module(_HOME[name]), _RENAMED.get(name, name))
            globals()[name] = found
            return found
        if f"{__name__}.{name}" in _HOMES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})

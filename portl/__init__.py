"""Move table data between databases from inside a Python program: ``portl.migrate(job)``.

Public names are imported on first use, so that ``import portl`` costs next to nothing until a job runs.
"""

import importlib
import logging
from typing import TYPE_CHECKING

from portl._version import __version__

if TYPE_CHECKING:  # for type checkers and the docs; at run time _HOMES counts, and a test compares the two
    from portl.api import migrate as migrate
    from portl.api import plan as plan
    from portl.config.incremental import By as By
    from portl.config.incremental import IncrementalConfig as IncrementalConfig
    from portl.config.incremental import Nulls as Nulls
    from portl.config.models import MERGE_WORDS as MERGE_WORDS
    from portl.config.models import Auto as Auto
    from portl.config.models import Conflict as Conflict
    from portl.config.models import CreateTable as CreateTable
    from portl.config.models import Deletes as Deletes
    from portl.config.models import DestinationConfig as DestinationConfig
    from portl.config.models import LedgerConfig as LedgerConfig
    from portl.config.models import LedgerMode as LedgerMode
    from portl.config.models import MigrationConfig as MigrationConfig
    from portl.config.models import MirrorConfig as MirrorConfig
    from portl.config.models import Mode as Mode
    from portl.config.models import OnError as OnError
    from portl.config.models import OnSchemaChange as OnSchemaChange
    from portl.config.models import OnTableError as OnTableError
    from portl.config.models import Quarantine as Quarantine
    from portl.config.models import Resume as Resume
    from portl.config.models import Retry as Retry
    from portl.config.models import Route as Route
    from portl.config.models import SourceConfig as SourceConfig
    from portl.config.models import Strategy as Strategy
    from portl.config.models import TableChoice as TableChoice
    from portl.config.models import Tables as Tables
    from portl.config.models import TypeRule as TypeRule
    from portl.config.models import Verify as Verify
    from portl.config.objects import ForeignKeys as ForeignKeys
    from portl.config.objects import ObjectGroup as ObjectGroup
    from portl.config.objects import Objects as Objects
    from portl.config.validators import FieldError as FieldError
    from portl.connectors.comparer import BucketSum as BucketSum
    from portl.connectors.comparer import Comparer as Comparer
    from portl.connectors.comparer import Comparison as Comparison
    from portl.connectors.comparer import RowLine as RowLine
    from portl.connectors.comparer import Texts as Texts
    from portl.connectors.comparer import canonical as canonical
    from portl.connectors.connector import Connector as Connector
    from portl.connectors.context import Context as Context
    from portl.connectors.destination import Destination as Destination
    from portl.connectors.exchange import ROWS as ROWS
    from portl.connectors.exchange import Batch as Batch
    from portl.connectors.exchange import Chunk as Chunk
    from portl.connectors.exchange import Counts as Counts
    from portl.connectors.exchange import Examination as Examination
    from portl.connectors.exchange import Field as Field
    from portl.connectors.exchange import Format as Format
    from portl.connectors.exchange import Intent as Intent
    from portl.connectors.exchange import Reading as Reading
    from portl.connectors.exchange import Rejected as Rejected
    from portl.connectors.exchange import Rejection as Rejection
    from portl.connectors.exchange import RowBatch as RowBatch
    from portl.connectors.exchange import RowCount as RowCount
    from portl.connectors.exchange import Split as Split
    from portl.connectors.exchange import Splitting as Splitting
    from portl.connectors.ledger import Ledger as Ledger
    from portl.connectors.mirroring import PLACES as PLACES
    from portl.connectors.mirroring import Differences as Differences
    from portl.connectors.mirroring import MirrorDestination as MirrorDestination
    from portl.connectors.mirroring import Mirroring as Mirroring
    from portl.connectors.mirroring import MirrorSource as MirrorSource
    from portl.connectors.objects import Building as Building
    from portl.connectors.objects import Changes as Changes
    from portl.connectors.objects import ForeignKey as ForeignKey
    from portl.connectors.objects import Placement as Placement
    from portl.connectors.objects import SchemaObject as SchemaObject
    from portl.connectors.objects import Stage as Stage
    from portl.connectors.objects import Standing as Standing
    from portl.connectors.registry import Installed as Installed
    from portl.connectors.registry import hookimpl as hookimpl
    from portl.connectors.registry import installed as installed
    from portl.connectors.registry import register as register
    from portl.connectors.retry import retrying as retrying
    from portl.connectors.side import Side as Side
    from portl.connectors.side import TableEntry as TableEntry
    from portl.connectors.source import Source as Source
    from portl.connectors.writer import Writer as Writer
    from portl.execution.rejected import retry_rejected as retry_rejected
    from portl.job.explain import Explanation as Explanation
    from portl.job.explain import explain as explain
    from portl.job.json_schema import schema_of_jobs as schema_of_jobs
    from portl.job.urls import job_from_urls as job_from_urls
    from portl.planning.plan import Plan as Plan
    from portl.planning.plan import PlanError as PlanError
    from portl.planning.tasks import TableTask as TableTask
    from portl.runs import Cleaned as Cleaned
    from portl.runs import Status as Status
    from portl.runs import clean as clean
    from portl.runs import status as status
    from portl.schema.conversions import Conversion as Conversion
    from portl.schema.conversions import Risk as Risk
    from portl.schema.conversions import Verdict as Verdict
    from portl.schema.conversions import conversion as conversion
    from portl.schema.tables import Column as Column
    from portl.schema.tables import Key as Key
    from portl.schema.tables import Table as Table
    from portl.schema.types import Kind as Kind
    from portl.schema.types import Type as Type
    from portl.values.cancel import CancelToken as CancelToken
    from portl.values.differences import RowDifference as RowDifference
    from portl.values.differences import TableVerification as TableVerification
    from portl.values.differences import Verification as Verification
    from portl.values.errors import AlreadyRunning as AlreadyRunning
    from portl.values.errors import AuthenticationFailed as AuthenticationFailed
    from portl.values.errors import Cancelled as Cancelled
    from portl.values.errors import CommitInDoubt as CommitInDoubt
    from portl.values.errors import ConfigError as ConfigError
    from portl.values.errors import ConflictError as ConflictError
    from portl.values.errors import ConnectionFailed as ConnectionFailed
    from portl.values.errors import DataError as DataError
    from portl.values.errors import Error as Error
    from portl.values.errors import Interrupted as Interrupted
    from portl.values.errors import LedgerError as LedgerError
    from portl.values.errors import OperationError as OperationError
    from portl.values.errors import PermissionDenied as PermissionDenied
    from portl.values.errors import PluginError as PluginError
    from portl.values.errors import QueryError as QueryError
    from portl.values.errors import SchemaError as SchemaError
    from portl.values.errors import Superseded as Superseded
    from portl.values.errors import VerificationFailed as VerificationFailed
    from portl.values.events import BatchCommitted as BatchCommitted
    from portl.values.events import ChunkMoved as ChunkMoved
    from portl.values.events import Compared as Compared
    from portl.values.events import Done as Done
    from portl.values.events import Event as Event
    from portl.values.events import Failed as Failed
    from portl.values.events import ObjectProgress as ObjectProgress
    from portl.values.events import ObjectsMade as ObjectsMade
    from portl.values.events import ObjectsStarted as ObjectsStarted
    from portl.values.events import Observer as Observer
    from portl.values.events import Resumed as Resumed
    from portl.values.events import Retrying as Retrying
    from portl.values.events import RowsRejected as RowsRejected
    from portl.values.events import Started as Started
    from portl.values.events import TableDone as TableDone
    from portl.values.events import TableStarted as TableStarted
    from portl.values.events import Warned as Warned
    from portl.values.findings import Finding as Finding
    from portl.values.findings import Severity as Severity
    from portl.values.findings import note as note
    from portl.values.findings import problem as problem
    from portl.values.findings import warning as warning
    from portl.values.history import History as History
    from portl.values.history import Incident as Incident
    from portl.values.history import Reason as Reason
    from portl.values.history import Span as Span
    from portl.values.masking import masked as masked
    from portl.values.results import Result as Result
    from portl.values.results import TableResult as TableResult
    from portl.values.results import TableResults as TableResults
    from portl.values.runs import Behind as Behind
    from portl.values.runs import ChunkLine as ChunkLine
    from portl.values.runs import ChunkState as ChunkState
    from portl.values.runs import DroppedKey as DroppedKey
    from portl.values.runs import Run as Run
    from portl.values.runs import RunState as RunState
    from portl.values.runs import RunTable as RunTable
    from portl.values.secrets import Secret as Secret
    from portl.verification.verify import verify as verify

#: Module to the public names defined in it.
_HOMES = {
    "portl.api": "migrate plan",
    "portl.config.incremental": "By IncrementalConfig Nulls",
    "portl.config.models": (
        "MERGE_WORDS Auto Conflict CreateTable Deletes DestinationConfig LedgerConfig LedgerMode MigrationConfig "
        "MirrorConfig Mode OnError OnSchemaChange OnTableError Quarantine Resume Retry Route SourceConfig "
        "Strategy TableChoice Tables TypeRule Verify"
    ),
    "portl.config.objects": "ForeignKeys ObjectGroup Objects",
    "portl.config.validators": "FieldError",
    "portl.connectors.comparer": "BucketSum Comparer Comparison RowLine Texts canonical",
    "portl.connectors.connector": "Connector",
    "portl.connectors.context": "Context",
    "portl.connectors.destination": "Destination",
    "portl.connectors.exchange": (
        "ROWS Batch Chunk Counts Examination Field Format Intent Reading Rejected Rejection RowBatch RowCount "
        "Split Splitting"
    ),
    "portl.connectors.ledger": "Ledger",
    "portl.connectors.mirroring": "PLACES Differences MirrorDestination MirrorSource Mirroring",
    "portl.connectors.objects": "Building Changes ForeignKey Placement SchemaObject Stage Standing",
    "portl.connectors.registry": "Installed hookimpl installed register",
    "portl.connectors.retry": "retrying",
    "portl.connectors.side": "Side TableEntry",
    "portl.connectors.source": "Source",
    "portl.connectors.writer": "Writer",
    "portl.execution.rejected": "retry_rejected",
    "portl.job.explain": "Explanation explain",
    "portl.job.json_schema": "schema_of_jobs",
    "portl.job.urls": "job_from_urls",
    "portl.planning.plan": "Plan PlanError",
    "portl.planning.tasks": "TableTask",
    "portl.runs": "Cleaned Status clean status",
    "portl.schema.conversions": "Conversion Risk Verdict conversion",
    "portl.schema.tables": "Column Key Table",
    "portl.schema.types": "Kind Type",
    "portl.values.cancel": "CancelToken",
    "portl.values.differences": "RowDifference TableVerification Verification",
    "portl.values.errors": (
        "AlreadyRunning AuthenticationFailed Cancelled CommitInDoubt ConfigError ConflictError ConnectionFailed "
        "DataError Error Interrupted LedgerError OperationError PermissionDenied PluginError QueryError "
        "SchemaError Superseded VerificationFailed"
    ),
    "portl.values.events": (
        "BatchCommitted ChunkMoved Compared Done Event Failed ObjectProgress ObjectsMade ObjectsStarted Observer "
        "Resumed Retrying RowsRejected Started TableDone TableStarted Warned"
    ),
    "portl.values.findings": "Finding Severity note problem warning",
    "portl.values.history": "History Incident Reason Span",
    "portl.values.masking": "masked",
    "portl.values.results": "Result TableResult TableResults",
    "portl.values.runs": "Behind ChunkLine ChunkState DroppedKey Run RunState RunTable",
    "portl.values.secrets": "Secret",
    "portl.verification.verify": "verify",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *_HOME]

# As the logging HOWTO asks of libraries: otherwise warnings go to stderr if the application configures no logging.
logging.getLogger("portl").addHandler(logging.NullHandler())


if not TYPE_CHECKING:  # a type checker would accept any name as public

    def __getattr__(name: str) -> object:
        """Import a public name on first use."""
        if name in _HOME:
            found = getattr(importlib.import_module(_HOME[name]), name)
            globals()[name] = found
            return found
        if f"{__name__}.{name}" in _HOMES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})

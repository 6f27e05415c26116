"""How rows are divided into transactions, and the bounds of partly finished chunks."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from portl.config.models import DestinationConfig, MigrationConfig
from portl.connectors.destination import Destination
from portl.values.runs import ChunkLine, ChunkState


class Delivery(enum.StrEnum):
    """How rows are divided into transactions. The planner chooses."""

    #: Each chunk in one transaction with its ledger line. An interrupted run is resumed.
    CHUNKS = "chunks"
    #: Piece by piece. An interrupted run starts over, which does no harm, as no row is inserted twice.
    REPEAT = "repeat"
    #: Everything in one transaction. An interrupted run leaves nothing behind and starts over.
    WHOLE = "whole"


@attrs.frozen
class Bounds:
    """The bounds of a chunk, and of its remainder if some of its rows are done."""

    whole: Mapping[str, Any] | None
    rest: Mapping[str, Any] | None

    def left(self, rest: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return the ``bounds`` for the chunk's line when ``rest`` remains."""
        return {_WHOLE: self.whole, _REST: rest}


_WHOLE, _REST = "chunk", "left"


def whole_bounds(line: ChunkLine) -> Bounds:
    """Return the bounds recorded in a line."""
    if line.state is ChunkState.PARTIAL and line.bounds is not None and set(line.bounds) == {_WHOLE, _REST}:
        return Bounds(line.bounds[_WHOLE], line.bounds[_REST])
    return Bounds(line.bounds, line.bounds)


def again(line: ChunkLine) -> ChunkLine:
    """Return a pending line for a chunk, so that it is copied again from its beginning."""
    return ChunkLine(number=line.number, bounds=whole_bounds(line).whole)


def begun(lines: Sequence[ChunkLine]) -> bool:
    """Return whether any rows of a run are committed."""
    return any(line.state is not ChunkState.PENDING for line in lines)


def job_name(config: MigrationConfig, destination: Destination[DestinationConfig]) -> str:
    """Return a job's name in the ledger. The job's own name is not unique: other jobs may have the same default."""
    if config.tables is not None:
        return f"{config.name} -> many tables"
    return f"{config.name} -> {destination.target()}"

"""How rows and transactions go together, and what a chunk's line says of what is left of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from portl.config.models import DestinationConfig, MigrationConfig
from portl.connectors.destination import Destination
from portl.values.runs import ChunkLine, ChunkState


class Delivery(enum.StrEnum):
    """How rows and transactions go together. The planner chooses."""

    #: Each chunk in one transaction with its ledger line. What is interrupted is resumed.
    CHUNKS = "chunks"
    #: Piece by piece; what is interrupted starts over, which does no harm: a row that is there is not written twice.
    REPEAT = "repeat"
    #: Everything in one transaction; what is interrupted starts over from nothing.
    WHOLE = "whole"


@attrs.frozen
class Bounds:
    """The bounds of a chunk, and of what is left of it where some of its rows are done."""

    whole: Mapping[str, Any] | None
    rest: Mapping[str, Any] | None

    def left(self, rest: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return what a line of a chunk bears of which ``rest`` is left."""
        return {_WHOLE: self.whole, _REST: rest}


_WHOLE, _REST = "chunk", "left"


def whole_bounds(line: ChunkLine) -> Bounds:
    """Return the bounds that a line bears."""
    if line.state is ChunkState.PARTIAL and line.bounds is not None and set(line.bounds) == {_WHOLE, _REST}:
        return Bounds(line.bounds[_WHOLE], line.bounds[_REST])
    return Bounds(line.bounds, line.bounds)


def again(line: ChunkLine) -> ChunkLine:
    """Return the line of a chunk that is copied once more from its beginning."""
    return ChunkLine(number=line.number, bounds=whole_bounds(line).whole)


def begun(lines: Sequence[ChunkLine]) -> bool:
    """Tell whether any row of a run is committed."""
    return any(line.state is not ChunkState.PENDING for line in lines)


def job_name(config: MigrationConfig, destination: Destination[DestinationConfig]) -> str:
    """Return what a job goes by in the ledger: its own name may be a default, and is then that of others too."""
    return f"{config.name} -> {destination.target()}"

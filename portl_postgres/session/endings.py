"""Statements that a session sends along with others, to save round trips: the BEGIN, and what goes with the COMMIT."""

from __future__ import annotations

from collections.abc import Callable

import attrs

import portl


@attrs.frozen
class Ending:
    """A statement that is sent with COMMIT, and that fails if nothing may be committed."""

    statement: str
    #: Part of the server's error message if it fails for that reason.
    mark: str
    #: Returns the error to raise then; called after the rollback.
    refused: Callable[[], portl.Error]


@attrs.define
class Waiting:
    """Statements to be sent along with others."""

    #: Statements to send with the next one: the BEGIN of a transaction in which nothing has been done yet, and others.
    opening: list[str] = attrs.field(factory=list)
    #: Statements to send with COMMIT, in order.
    endings: list[Ending] = attrs.field(factory=list)

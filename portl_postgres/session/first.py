"""Look ahead: make a session's first queries in one round trip, together with its settings.

Queries that a session is going to make anyway are sent together with its settings, to save round trips;
``Session.looking`` finds the answers. If any statement is refused, nothing of it counts, and everything is repeated
step by step, so that the error belongs to the right statement.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import portl
from portl_postgres.session.session import Session
from portl_postgres.session.settings import changing

logger = logging.getLogger("portl.postgres")

_LOOK = "portl_look"
_BACK = (f"ROLLBACK TO SAVEPOINT {_LOOK}", f"RELEASE SAVEPOINT {_LOOK}")


@attrs.frozen(kw_only=True)
class First:
    """What a session does first, in addition to changing its settings."""

    #: The mode of the transaction to begin; None for no transaction.
    mode: str | None = None
    #: The first statements in it.
    then: Sequence[str] = ()
    #: Statements to send ahead, each as later passed to ``Session.looking``.
    looks: Sequence[Sequence[str]] = ()
    #: The same, as later passed to ``Session.bare``.
    bare: Sequence[Sequence[str]] = ()


def start(session: Session, wanted: Mapping[str, str], first: First) -> bool:
    """Do a session's first steps in one round trip; return False if they were refused, leaving nothing done.

    Args:
        session: on portl's own connection, outside a transaction.
        wanted: its settings.
        first: what comes after them.
    """
    looks = [*first.looks, *map(session.barely, first.bare)]
    then = [*first.then, *_apart(looks)]
    if first.mode is None:
        then.append("ROLLBACK")
    try:
        before = ["BEGIN", changing(wanted, local=False), "COMMIT"]
        _, answered, _, *found = session.begin(first.mode or "", then, "opening the session", before=before)
    except (portl.ConnectionFailed, portl.Cancelled):
        raise
    except portl.Error as error:
        logger.debug("%s: %s", session.label, error.message)
        session.rollback()
        return False
    session.answered(answered)
    if first.mode is None:
        session.rollback()  # notes that it was rolled back
    elif session.pgconn.backend_pid not in session.backends:
        session.rollback()  # a pooler answers; its kind only shows outside a transaction
        return False
    _keep(session, looks, found[len(first.then) :])
    return True


def look_ahead(session: Session, looks: Sequence[Sequence[str]]) -> None:
    """Send several queries in one round trip, in the open transaction, for ``Session.looking`` to find the answers."""
    try:
        found = session.queries(_apart(looks), what="looking ahead")
    except (portl.ConnectionFailed, portl.Cancelled):
        raise
    except portl.Error as error:
        logger.debug("%s: %s", session.label, error.message)
        session.queries(_BACK)
    else:
        _keep(session, looks, found)


def _apart(looks: Sequence[Sequence[str]]) -> list[str]:
    """Return the statements of several queries, each without the settings of the others."""
    return [statement for look in looks for statement in (f"SAVEPOINT {_LOOK}", *look, *_BACK)]


def _keep(session: Session, looks: Sequence[Sequence[str]], found: Sequence[list[tuple[Any, ...]]]) -> None:
    """Keep the answers to looks that were taken apart."""
    position = 1
    for look in looks:
        session.ahead[tuple(look)] = list(found[position : position + len(look)])
        position += len(look) + len(_BACK) + 1

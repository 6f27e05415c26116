"""Look ahead: ask in one exchange what will be asked one after the other, the settings of the session included.

Over a link, each exchange is a round trip. What a session is going to ask anyway is asked together with its settings;
``Session.looking`` finds the answers. If any of it is refused, nothing of it counts: it is asked once more, each by
itself, so that a refusal means what it says.
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
    """What a session does first, besides changing its settings."""

    #: Of the transaction that begins; None: none begins.
    mode: str | None = None
    #: What is executed first in it.
    then: Sequence[str] = ()
    #: The looks that are taken ahead, as ``Session.looking`` is asked for them.
    looks: Sequence[Sequence[str]] = ()
    #: The same, as ``Session.bare`` is asked for them.
    bare: Sequence[Sequence[str]] = ()


def start(session: Session, wanted: Mapping[str, str], first: First) -> bool:
    """Do what a session does first in one exchange; return False if that was refused, and nothing of it is done.

    Args:
        session: on a connection of portl's own, outside a transaction.
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
        session.rollback()  # takes note that it was rolled back
    elif session.pgconn.backend_pid not in session.backends:
        session.rollback()  # a pooler answers: of what kind it is shows outside a transaction alone
        return False
    _keep(session, looks, found[len(first.then) :])
    return True


def look_ahead(session: Session, looks: Sequence[Sequence[str]]) -> None:
    """Take several looks in one exchange, in the open transaction, for ``Session.looking`` to find the answers."""
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
    """Return the statements of several looks, each without what another has set."""
    return [statement for look in looks for statement in (f"SAVEPOINT {_LOOK}", *look, *_BACK)]


def _keep(session: Session, looks: Sequence[Sequence[str]], found: Sequence[list[tuple[Any, ...]]]) -> None:
    """Keep the answers to looks that were taken apart."""
    position = 1
    for look in looks:
        session.ahead[tuple(look)] = list(found[position : position + len(look)])
        position += len(look) + len(_BACK) + 1

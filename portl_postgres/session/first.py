"""The first exchange of a session: its settings, the transaction that it reads in, and what will be asked first.

Over a link, each exchange is a round trip. What a session is going to ask anyway is asked together with its settings;
``Session.looking`` finds the answers. If any of it is refused, nothing of it counts: it is asked once more, each by
itself, so that a refusal means what it says.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import attrs

import portl
from portl_postgres.session.session import Session
from portl_postgres.session.settings import changing

logger = logging.getLogger("portl.postgres")

_LOOK = "portl_look"


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
    then, looks = list(first.then), [*first.looks, *map(session.barely, first.bare)]
    for look in looks:
        then += [f"SAVEPOINT {_LOOK}", *look, f"ROLLBACK TO SAVEPOINT {_LOOK}", f"RELEASE SAVEPOINT {_LOOK}"]
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
    position = len(first.then)
    for look in looks:
        session.ahead[tuple(look)] = found[position + 1 : position + 1 + len(look)]
        position += len(look) + 3
    return True

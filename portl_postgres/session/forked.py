"""Leave the connections of a run to the process that opened them.

A process forked during a run inherits its sockets: a worker of a forking pool, or anything else that the application
starts. While such a process lives, the server does not notice that the run's process was killed, and keeps the job's
lock. So a child closes the sockets immediately, without sending anything: each descriptor is redirected to the null
device, because libpq's copy of the connection still knows its number.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol

import psycopg


class Holder(Protocol):
    """Whatever has the descriptor of a socket."""

    def fileno(self) -> int:
        """Return the descriptor."""


#: Weak references without callbacks: Ctrl-C in a callback would be swallowed.
_held: set[weakref.ref[Holder]] = set()
#: The number of references above which dead ones are dropped.
_MANY = 64


def hold(holder: Holder) -> None:
    """Keep a socket from the children of this process, as long as its holder lives."""
    if len(_held) >= _MANY:
        _held.difference_update([reference for reference in list(_held) if reference() is None])
    _held.add(weakref.ref(holder))


def release(holder: Holder) -> None:
    """Let child processes inherit a socket."""
    _held.discard(weakref.ref(holder))


def _let_go() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for reference in _held:
        with contextlib.suppress(OSError, psycopg.Error):  # closed in the meantime
            if (holder := reference()) is not None:
                os.dup2(nothing, holder.fileno(), inheritable=False)
    os.close(nothing)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)

"""Wait for a socket, whatever its descriptor: ``select`` refuses those above 1023, which servers do have."""

from __future__ import annotations

import select


def ready(descriptor: int, seconds: float, *, reading: bool = True, writing: bool = False) -> tuple[bool, bool]:
    """Wait until a socket can be read from or written to; return which.

    Args:
        descriptor: that of the socket.
        seconds: the longest wait.
        reading: True to wait for something to read.
        writing: True to wait for room to write.

    Returns:
        Whether it can be read from, and whether it can be written to. An error counts as ready: the next call on the
        socket reports it.
    """
    if not hasattr(select, "poll"):  # on Windows, where select has no such limit
        readable, writable, _ = select.select(
            [descriptor] if reading else [], [descriptor] if writing else [], [], seconds
        )
        return bool(readable), bool(writable)
    wanted = (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0)
    poll = select.poll()
    poll.register(descriptor, wanted)
    found = 0
    for _, event in poll.poll(seconds * 1000):
        found |= event
    failed = found & ~(select.POLLIN | select.POLLOUT)
    return (
        reading and bool(failed or found & select.POLLIN),
        writing and bool(failed or found & select.POLLOUT),
    )

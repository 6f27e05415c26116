"""A link with a delay and a bandwidth, on loopback: ``python -m benchmarks.link HOST PORT DELAY RATE WINDOW``.

It runs in a separate process, which prints the port it listens on. All connections share the bandwidth, as on a real
link: with a limit for each connection, opening several would defeat the limit. ``WINDOW`` is what one connection may
have in flight, so that one connection carries at most a window per delay, whatever the bandwidth.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: 100 Mbit/s, and half of a round trip of 20 ms.
LINK_RATE, LINK_DELAY = 100e6 / 8, 0.010
#: A piece takes about a millisecond at 100 Mbit/s: small enough for connections to take turns.
PIECE_BYTES = 16 * 1024


class Wire:
    """One direction of the link.

    Args:
        delay: seconds that a byte takes.
        rate: bytes a second, of all connections together.
    """

    def __init__(self, delay: float, rate: float) -> None:
        self.delay = delay
        self._rate = rate
        self._free = 0.0

    async def carry(self, data: bytes) -> float:
        """Wait until the wire has taken the data; return when they arrive."""
        clock = asyncio.get_running_loop().time
        now = clock()
        self._free = max(self._free, now) + len(data) / self._rate
        gone = self._free
        if gone - now > 0.001:
            await asyncio.sleep(gone - now)
        return gone + self.delay


async def direction(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire, window: int) -> None:
    """Carry one direction of one connection."""
    clock = asyncio.get_running_loop().time
    arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    room = asyncio.Semaphore(max(1, window // PIECE_BYTES))

    async def deliver() -> None:
        while True:
            due, data = await arriving.get()
            if (pause := due - clock()) > 0:
                await asyncio.sleep(pause)
            if not data:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            room.release()

    delivery = asyncio.create_task(deliver())
    with suppress(OSError):
        while data := await reader.read(PIECE_BYTES):
            await room.acquire()
            arriving.put_nowait((await wire.carry(data), data))
    arriving.put_nowait((clock() + wire.delay, b""))
    with suppress(OSError):
        await delivery


async def serve(host: str, port: int, delay: float, rate: float, window: int) -> None:
    """Forward until the process is terminated."""
    up, down = Wire(delay, rate), Wire(delay, rate)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port, limit=PIECE_BYTES)
        await asyncio.gather(direction(reader, back, up, window), direction(there, writer, down, window))
        for end in (writer, back):
            end.close()

    listener = await asyncio.start_server(connection, "127.0.0.1", 0, limit=PIECE_BYTES)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


@contextmanager
def link(host: str, port: int, *, delay: float, rate: float, window: int) -> Iterator[int]:
    """Start a link; yield the port that it listens on."""
    call = [sys.executable, "-m", __name__, host, str(port), str(delay), str(rate), str(window)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    host, port, delay, rate, window = sys.argv[1:]
    asyncio.run(serve(host, int(port), float(delay), float(rate), int(window)))

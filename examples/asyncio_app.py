"""asyncio: run a job beside other tasks; a timeout or a cancelled task ends it in order."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import portl


async def migrate(job: str, **arguments: Any) -> portl.Result:
    """Run a job in a thread; when the task is cancelled, end the run, wait until it has ended, and pass it on."""
    token = portl.CancelToken()
    run = asyncio.create_task(asyncio.to_thread(portl.migrate, job, cancel=token, **arguments))
    try:
        # Shielded, for a thread cannot be cancelled: it is asked, through the token.
        return await asyncio.shield(run)
    except asyncio.CancelledError:
        token.cancel()
        await asyncio.wait([run])
        if not run.cancelled():
            run.exception()  # looked at, or asyncio complains that nobody did
        raise


async def main(job: str) -> None:
    """Run a job for at most an hour."""
    async with asyncio.timeout(3600):
        result = await migrate(job)
    print(result.summary())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

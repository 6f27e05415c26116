"""FastAPI: start a job by a request, watch it by others, end it by another; it runs in a thread meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException

import portl

#: Only jobs from this folder can be started: a job file says which servers are talked to.
JOBS = Path(os.environ.get("PORTL_JOBS", "jobs"))


class Copy:
    """A run of a job, and how it stands."""

    def __init__(self, job: Path) -> None:
        self.token = portl.CancelToken()
        self.rows = 0
        self.state = "running"
        self.error: str | None = None
        self.task = asyncio.create_task(self._run(job))

    async def _run(self, job: Path) -> None:
        try:
            result = await asyncio.to_thread(portl.migrate, job, observers=[self._watch], cancel=self.token)
        except portl.Cancelled:
            self.state = "cancelled"
        except portl.Error as error:
            self.state, self.error = "failed", error.message  # portl's messages hold no secrets
        else:
            self.state, self.rows = "done", result.rows_read

    def _watch(self, event: portl.Event) -> None:
        if isinstance(event, portl.BatchCommitted):  # called in the thread of the run
            self.rows = event.total_rows

    def to_dict(self) -> dict[str, Any]:
        """Return how it stands, for the answer to a request."""
        return {"state": self.state, "rows": self.rows, "error": self.error}


copies: dict[str, Copy] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """End the runs with the application: what is committed stays, and the next run goes on from there."""
    yield
    for copy in copies.values():
        copy.token.cancel()
    await asyncio.gather(*(copy.task for copy in copies.values()))


app = FastAPI(lifespan=lifespan)


@app.post("/copies/{name}", status_code=HTTPStatus.ACCEPTED)
async def start(name: str) -> dict[str, Any]:
    """Start a job. A second run of it at the same time would be refused by the ledger; here it is refused at once."""
    job = next((path for path in JOBS.glob("*.yaml") if path.stem == name), None)
    if job is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no job {name!r}")
    if name in copies and copies[name].state == "running":
        raise HTTPException(HTTPStatus.CONFLICT, f"{name!r} is running")
    copies[name] = Copy(job)
    return copies[name].to_dict()


@app.get("/copies/{name}")
async def show(name: str) -> dict[str, Any]:
    """Say how a run stands."""
    return _found(name).to_dict()


@app.delete("/copies/{name}")
async def end(name: str) -> dict[str, Any]:
    """End a run: what is open is rolled back."""
    copy = _found(name)
    copy.token.cancel()
    await copy.task
    return copy.to_dict()


def _found(name: str) -> Copy:
    if name not in copies:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"{name!r} was not started")
    return copies[name]

"""Jobs in processes that are killed: the fixture ``victim`` runs them in ``tests.victim``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

import attrs
import pytest


@attrs.frozen
class Victim:
    """The process that runs jobs in processes of their own."""

    orders: IO[str]
    answers: IO[str]

    def run(self, job: dict[str, Any], **how: object) -> dict[str, Any]:
        """Have a job run, and killed as ``how`` says."""
        self.orders.write(json.dumps({"job": job, **how}) + "\n")
        self.orders.flush()
        line = self.answers.readline()
        assert line, "the victim's process has ended"
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.victim"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Victim(process.stdin, process.stdout)
        process.stdin.close()

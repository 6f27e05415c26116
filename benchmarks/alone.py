"""Run one job in a separate process and report its cost: ``python -m benchmarks.alone`` with the job as JSON."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path


def peak_kib() -> int:
    """Return the peak memory of this process, in KiB.

    ``ru_maxrss`` of a child starts at its parent's value at the fork; VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_alone(job: Mapping[str, object]) -> dict[str, float]:
    """Return ``seconds``, ``processor`` (seconds), ``rows`` and ``peak_kib`` of a job in a fresh process."""
    call, here = [sys.executable, "-m", "benchmarks.alone"], Path(__file__).parents[1]
    done = subprocess.run(call, cwd=here, input=json.dumps(job), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Run the job on standard input."""
    import portl

    seen = 0

    def observe(_event: object) -> None:
        nonlocal seen
        seen += 1

    job = json.load(sys.stdin)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = portl.migrate(job, observers=[observe])
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": seconds, "processor": processor, "rows": result.rows_read, "peak_kib": peak_kib()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Move the chunks of a job by two processes: ``python process_pool.py JOB``."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import portl


def main() -> None:
    """Run the job."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may lock up
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        result = portl.migrate(sys.argv[1], executor=executor, overrides={"parallel": "2"})
    print(result.summary())


if __name__ == "__main__":  # a process that is spawned imports this file
    main()

"""Move the chunks of a job by a Dask cluster: ``python dask_cluster.py JOB [SCHEDULER]``."""

from __future__ import annotations

import sys

from distributed import Client, LocalCluster

import portl


def copy(job: str, client: Client) -> portl.Result:
    """Run a job with one chunk on its way for each thread of the cluster."""
    threads = sum(client.nthreads().values())
    return portl.migrate(job, executor=client.get_executor(), overrides={"parallel": str(threads)})


def main() -> None:
    """Run the job on the cluster that is named, or on one of two processes here."""
    if len(sys.argv) > 2:
        with Client(sys.argv[2]) as client:
            print(copy(sys.argv[1], client).summary())
    else:
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
            Client(cluster) as client,
        ):
            print(copy(sys.argv[1], client).summary())


if __name__ == "__main__":
    main()

"""``portl retry-rejected``: write quarantined rows again."""

from __future__ import annotations

from pathlib import Path

import click

from portl.cli.app import DONE, REJECTED, guarded
from portl.cli.options import JobFile, events, settings, traces
from portl.cli.output import Output


@click.command("retry-rejected")
@click.argument("job", type=JobFile())
@traces
@events
@settings
def retry_rejected(job: Path, verbose: bool, as_json: bool, overrides: dict[str, str]) -> int:
    """Write the quarantined rows of a job again.

    Those that the destination accepts are removed from the quarantine. The exit code is 3 if some are still refused.
    """
    from portl.execution.rejected import retry_rejected as retry

    output = Output(as_json=as_json, verbose=verbose)

    def work() -> int:
        result = retry(job, observers=[output.observe], overrides=overrides)
        if result.rows_read or as_json:
            output.result(result)
        else:
            output.say(f"there are no rejected rows in {result.tables[0].source}", "good")
        return REJECTED if result.rows_rejected else DONE

    return guarded(output, work, verbose=verbose)

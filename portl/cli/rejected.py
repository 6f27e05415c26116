"""``portl retry-rejected``: take rows that were quarantined through again."""

from __future__ import annotations

from pathlib import Path

import click

from portl.cli.app import DONE, REJECTED, JobFile, guarded, settings_of
from portl.cli.output import Output


@click.command("retry-rejected")
@click.argument("job", type=JobFile())
@click.option("--verbose", "-v", is_flag=True, help="Show stack traces of errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one event a line as JSON on standard output.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key: --set source.limit=10.")
def retry_rejected(job: Path, verbose: bool, as_json: bool, settings: tuple[str, ...]) -> int:
    """Take the rejected rows of a job through again.

    Those that go through are removed from where they were quarantined. The exit code is 3 if some are refused still.
    """
    from portl.execution.rejected import retry_rejected as retry

    output = Output(as_json=as_json, verbose=verbose)

    def work() -> int:
        result = retry(job, observers=[output.observe], overrides=settings_of(settings))
        if result.rows_read or as_json:
            output.result(result)
        else:
            output.say(f"there is no rejected row in {result.tables[0].source}", "good")
        return REJECTED if result.rows_rejected else DONE

    return guarded(output, work, verbose=verbose)

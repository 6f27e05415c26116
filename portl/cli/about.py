"""``portl connectors``, ``explain``, ``schema`` and ``new-connector``: installed connectors and the job file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

import portl
from portl.cli.app import DONE, FAILED, guarded
from portl.cli.output import Output
from portl.job.explain import Explanation, every
from portl.values.text import WIDTH, Line, wrapped


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per connector on standard output.")
def connectors(as_json: bool) -> int:
    """List the installed connectors and what they can do."""
    output = Output(as_json=as_json)
    found = portl.installed()
    if as_json:
        for connector in found:
            output.json(connector.to_dict())
    else:
        output.lines([line for connector in found for line in _connector(connector)])
    return FAILED if any(connector.error for connector in found) else DONE


def _connector(found: portl.Installed) -> Iterator[Line]:
    origin = f"{found.package} {found.version}" if found.package else "registered by this program"
    yield Line(f"{found.name} ({origin})", "title")
    if found.error:
        yield from wrapped("  ", found.error, style="problem")
        return
    yield from wrapped("  ", found.summary)
    sides = [word for word, can in (("reads", found.source), ("writes", found.destination)) if can]
    yield from wrapped("  ", " and ".join(sides))
    if found.destination:
        yield from wrapped("  ", f"conflicts: {', '.join(found.strategies)}")
        can = "yes" if found.savepoints else "no"
        yield from wrapped("  ", f"quarantines rows, and can make a job one transaction: {can}")


@click.command()
@click.argument("key", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per key on standard output.")
def explain(key: str | None, as_json: bool) -> int:
    """Explain KEY of a job file, or list all keys."""
    output = Output(as_json=as_json)

    def work() -> int:
        found = portl.explain(key) if key else every()
        if as_json:
            for item in found:
                output.json(item.to_dict())
        elif key:
            output.lines([line for item in found for line in _whole(item)])
        else:
            output.lines(list(_list(found)))
        return DONE

    return guarded(output, work)


def _list(found: Sequence[Explanation]) -> Iterator[Line]:
    """Yield a line for each key: its name, and the beginning of its explanation."""
    width = max(len(item.key) for item in found)
    owner = None
    for item in found:
        if item.connector != owner:
            owner = item.connector
            yield Line()
            yield Line(f"# keys of {owner}", "head")
        # The list is for finding a name; `portl explain KEY` prints the whole explanation.
        text = textwrap.shorten(item.meaning, max(20, WIDTH - width - 2), placeholder=" ...")
        yield Line(f"{item.key:<{width}}  {text}")


@click.command()
def schema() -> int:
    """Print the JSON Schema of the job file, for completion and checks in editors."""
    click.echo(json.dumps(portl.schema_of_jobs(), indent=2, ensure_ascii=False))
    return DONE


def _whole(found: Explanation) -> Iterator[Line]:
    owner = f" ({found.connector})" if found.connector else ""
    yield Line(f"{found.key}{owner}", "title")
    yield from wrapped("  ", found.meaning or "not documented")
    takes = f"one of {', '.join(found.choices)}" if found.choices else found.takes
    yield from wrapped("  ", f"takes {takes}" + ("; required" if found.required else ""), style="dim")
    if found.default is not None:
        yield from wrapped("  ", f"by default {found.default}", style="dim")
    if found.keys:
        yield from wrapped("  ", f"its keys: {', '.join(found.keys)}", style="dim")


@click.command("new-connector")
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), default=".", help="The parent folder.")
def new_connector(name: str, into: Path) -> int:
    """Create a package for a new connector.

    NAME will be the `type` in job files. The folder is called portl-NAME; its tests pass as they are.
    """
    from portl.skeleton import new_connector as write

    output = Output()

    def work() -> int:
        folder = write(name, into)
        lines = [f"wrote {folder}", f"  cd {folder}", "  python -m pip install -e '.[test]'", "  python -m pytest"]
        output.lines([Line(line, "plain" if number else "good") for number, line in enumerate(lines)])
        return DONE

    return guarded(output, work)

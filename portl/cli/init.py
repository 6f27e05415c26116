"""``portl init``: make a job file from two URLs and a table, by prompts on a terminal or by options."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

import portl
from portl.cli.app import DONE, FAILED, guarded
from portl.cli.output import Output
from portl.job.environment import escaped
from portl.job.urls import examples, named, side_of
from portl.job.writing import job_text, variables
from portl.planning.proposals import Proposal, propose
from portl.values.text import printable

#: The schema for editors, beside the job file.
SCHEMA = "portl.schema.json"
#: The most tables to list; if there are more, the user types part of a name.
MOST_TABLES = 20

_EXCLUDE, _ADD = "exclude", "add"
_ALL = "all"


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="job.yaml")
@click.option("--from", "source", metavar="URL", help="Where the rows come from: postgresql://reader@host/shop.")
@click.option("--to", "destination", metavar="URL", help="Where they go.")
@click.option("--table", metavar="NAME", help="The table to read: users, sales.orders; a pattern; or all.")
@click.option("--to-table", metavar="NAME", help="The table to write to; by default the same name.")
@click.option(
    "--conflict",
    type=click.Choice([strategy.value for strategy in portl.Strategy]),
    metavar="STRATEGY",
    help="overwrite, skip, fail or merge: what happens to a row whose key exists already.",
)
@click.option(
    "--missing",
    type=click.Choice([_EXCLUDE, _ADD]),
    help="Columns that the destination's table lacks: exclude them, or add them to it.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def init(
    file: Path,
    source: str | None,
    destination: str | None,
    table: str | None,
    to_table: str | None,
    conflict: str | None,
    missing: str | None,
    force: bool,
) -> int:
    """Write a job file, by default job.yaml.

    Looks at both sides, proposes key, conflict strategy and mapping, and shows the plan. On a terminal it prompts for
    missing options; elsewhere --from, --to and --table are required. Passwords are not written to the file: it names
    environment variables instead.
    """
    output = Output()
    wanted = _Wanted(
        file=file,
        urls={"source": source, "destination": destination},
        tables={"source": table, "destination": to_table},
        conflict=conflict,
        missing=missing,
        force=force,
    )
    return guarded(output, lambda: _Interview(output, wanted).write())


@attrs.frozen(kw_only=True)
class _Wanted:
    """The options."""

    file: Path
    #: By side: source, destination.
    urls: Mapping[str, str | None] = attrs.field(repr=False)
    tables: Mapping[str, str | None]
    conflict: str | None
    missing: str | None
    force: bool


@attrs.define
class _Side:
    """A side, after connecting."""

    connector: portl.Connector
    keys: Mapping[str, Any]
    #: The tables to choose from; None if the connector cannot list them.
    tables: Sequence[portl.TableEntry] | None


class _Interview:
    def __init__(self, output: Output, wanted: _Wanted) -> None:
        self._output = output
        self._wanted = wanted
        self._asks = sys.stdin.isatty()
        #: True once the user has been prompted, and so also confirms the result.
        self._asked = False

    def write(self) -> int:
        """Determine the job, show its plan, and write the file."""
        self._check()
        if self._asks and None in self._wanted.urls.values():
            for example in examples():
                self._output.say(f"example of a URL: {example}", "dim")
            self._output.say("leave out the password: you are prompted for it without echo", "dim")
        reading = self._connect("source", "URL of the source")
        table = self._table(reading)
        writing = self._connect("destination", "URL of the destination")
        if _many(reading, table):
            return self._write_many(reading, writing, table)
        job = {
            "name": escaped(self._wanted.file.stem),
            "source": _keys("source", reading, table),
            "destination": _keys("destination", writing, self._target(writing, table)),
        }
        proposal = propose(portl.plan(job))
        job = self._completed(job, proposal)
        plan = portl.plan(job)
        self._output.plan(plan)
        if not self._agreed(plan):
            self._output.say("nothing was written", "warning")
            return FAILED if plan.problems else DONE
        self._save(job, proposal.because)
        return DONE

    def _write_many(self, reading: _Side, writing: _Side, tables: str) -> int:
        """Write a job for all tables, or for those matching a pattern."""
        job = {
            "name": escaped(self._wanted.file.stem),
            "source": {"type": reading.connector.name, **escaped(reading.keys)},
            "destination": {"type": writing.connector.name, **escaped(writing.keys)},
            "tables": tables if tables == _ALL else escaped([tables]),
            "conflict": self._wanted.conflict or portl.Strategy.OVERWRITE.value,
        }
        plan = portl.plan(job)
        self._output.plan(plan)
        if not self._agreed(plan):
            self._output.say("nothing was written", "warning")
            return FAILED if plan.problems else DONE
        self._save(job, "Tables that do not exist are created, and have no rows to conflict with.")
        return DONE

    def _check(self) -> None:
        """Refuse wrong options before prompting for anything."""
        file, given = self._wanted.file, {**self._wanted.urls, "table": self._wanted.tables["source"]}
        if re.match(r"\w{2,}:/", str(file)):
            raise click.UsageError("FILE is the job file to write; URLs follow --from and --to")
        if file.exists() and not self._wanted.force:
            raise portl.ConfigError(["exists already: name another file, or replace it with --force"], origin=str(file))
        options = {"source": "--from URL", "destination": "--to URL", "table": "--table NAME"}
        lacking = [option for name, option in options.items() if given[name] is None]
        if lacking and not self._asks:
            raise click.UsageError(f"missing {', '.join(lacking)}: there is no terminal to prompt on")

    def _connect(self, side: str, question: str) -> _Side:
        """Connect to a side and return it."""
        given = self._wanted.urls[side]
        while True:
            url = given if given is not None else self._ask(question)
            try:
                connector, keys = side_of(side, url)
                return self._tested(side, connector, keys)
            except portl.Interrupted:
                raise
            except portl.Error as error:
                if given is not None:
                    raise
                self._output.error(error, None)

    def _tested(self, side: str, connector: portl.Connector, keys: Mapping[str, Any]) -> _Side:
        """Connect; prompt for the password if it is missing or wrong."""
        classes = {"source": connector.source, "destination": connector.destination}
        models = {"source": connector.source_config, "destination": connector.destination_config}
        cls, model = classes[side], models[side]
        if cls is None or model is None:
            raise portl.PluginError(f"the connector {connector.name!r} has no {side}")
        context = portl.Context(retry=portl.Retry(attempts=1))
        while True:
            try:
                tables = cls.tables(keys, context)
            except portl.AuthenticationFailed as error:
                if not self._asks or "password" not in attrs.fields_dict(model):
                    raise
                if "password" in keys or "url" in keys:
                    self._output.error(error, None)
                keys = {**keys, "password": portl.Secret(self._ask(f"Password of the {side}", hide=True))}
                continue
            if tables is not None:
                self._output.say(f"{side}: connected, {len(tables):,} table{'s' if len(tables) != 1 else ''}", "good")
            return _Side(connector, keys, tables)

    def _table(self, reading: _Side) -> str:
        """Return the name of the table to read."""
        given = self._wanted.tables["source"]
        if given is not None:
            return given
        if reading.tables is not None and not reading.tables:
            raise portl.SchemaError("source: there is no table that this role can read")
        return self._choice(reading, "Which table?", new=False)

    def _target(self, writing: _Side, table: str) -> str:
        """Return the name of the table to write to."""
        given = self._wanted.tables["destination"]
        if given is not None:
            return given
        if not self._asked:
            return table
        return self._choice(writing, "Which table there? A new name creates a table", new=True, default=table)

    def _choice(self, side: _Side, question: str, *, new: bool, default: str | None = None) -> str:
        """Offer the tables of a side until one is chosen, or a new name if allowed."""
        offered = list(side.tables or ())
        self._list(offered)
        while True:
            only = offered[0].name if len(offered) == 1 and not new else None
            ways = "number, name or part of a name" if new else "number, name, part of a name, pattern with *, or all"
            asked = f"{question} ({ways})" if offered else question
            answer = self._ask(asked, default=default or only)
            if not new and _many(side, answer):
                return answer
            try:
                chosen = _chosen(side, answer, offered)
            except portl.ConfigError as error:
                self._output.error(error, None)
                continue
            if chosen is not None:
                return chosen
            like = [entry for entry in side.tables or () if answer.casefold() in entry.name.casefold()]
            unseen = len(side.tables or ()) > MOST_TABLES and like != offered
            if new and (answer == default or not like or not unseen):
                return answer
            if not like:
                self._output.say(f"there is no table {printable(answer)}", "problem")
            elif new:
                self._output.say("the same name again creates a table; these contain it:")
            offered = like or offered
            self._list(offered)

    def _list(self, tables: Sequence[portl.TableEntry]) -> None:
        width = max((len(printable(entry.name)) for entry in tables[:MOST_TABLES]), default=0)
        for number, entry in enumerate(tables[:MOST_TABLES], 1):
            rows = "" if entry.rows is None else f", about {entry.rows:,} rows"
            self._output.say(f"  {number:>2}  {printable(entry.name):<{width}}  {entry.kind}{rows}")
        if len(tables) > MOST_TABLES:
            more = len(tables) - MOST_TABLES
            self._output.say(f"      and {more:,} more: type part of a name to list those that contain it", "dim")

    def _completed(self, job: Mapping[str, Any], proposal: Proposal) -> dict[str, Any]:
        """Return the job with the proposal."""
        found = {**job, "source": dict(job["source"]), "destination": dict(job["destination"])}
        if proposal.missing:
            if self._missing(proposal) == _ADD:
                found["destination"]["add_columns"] = True
            else:
                found["source"]["exclude_columns"] = escaped(list(proposal.missing))
        if proposal.mapping:
            found["schema_mapping"] = escaped(proposal.mapping)
        found["conflict"] = escaped(proposal.conflict(self._wanted.conflict))
        return found

    def _missing(self, proposal: Proposal) -> str:
        names = ", ".join(map(printable, proposal.missing))
        if self._wanted.missing is not None:
            return self._wanted.missing
        if not self._asked:
            self._output.say(f"excluded, missing at the destination (--missing add adds them): {names}", "warning")
            return _EXCLUDE
        question = f"The destination has no column {names}. Exclude or add?"
        return str(click.prompt(question, type=click.Choice([_EXCLUDE, _ADD]), default=_EXCLUDE, err=True))

    def _agreed(self, plan: portl.Plan) -> bool:
        """Return whether to write the file."""
        if not self._asked:
            return not plan.problems
        file = printable(str(self._wanted.file))
        for problem in plan.told_problems:
            remedy = f" -> {problem.remedy}" if problem.remedy else ""
            self._output.say(f"{problem.where}: {problem.message}{remedy}", "problem")
        question = f"The plan has problems. Write {file} anyway?" if plan.problems else f"Write {file}?"
        return click.confirm(question, default=not plan.problems, err=True)

    def _save(self, job: Mapping[str, Any], because: str) -> None:
        file, names = self._wanted.file, variables(job)
        calls = {
            f"portl run {file.name} --dry-run": "shows what would be done",
            f"portl run {file.name}": "runs the job, or resumes it after an interruption",
            "portl explain KEY": "explains a key",
        }
        width = max(map(len, calls))
        head = [f"{call:<{width}}  {text}" for call, text in calls.items()]
        if names:
            head += ["", f"Before a run, set in the environment: {', '.join(names)}"]
        comments = {
            "schema_mapping": ["Columns with other names at the destination. All others keep their names."],
            "tables": [
                "all, or a list of names, patterns with * and ?, and mappings with keys of their own; see also",
                "exclude, schemas and objects (what comes with tables: indexes, foreign keys, views, ...).",
            ],
            "conflict": [
                "What happens to a row whose key exists already: overwrite, skip, fail or merge.",
                because,
            ],
        }
        if "exclude_columns" in job["source"]:
            comments["source"] = ["exclude_columns: the destination's table has no such columns."]
        if "add_columns" in job["destination"]:
            comments["destination"] = ["add_columns: columns that the destination's table lacks are added to it."]
        body = {key: value for key, value in job.items() if key != "name"}
        _written(file, job_text(body, comments=comments, head=head, schema=SCHEMA), force=self._wanted.force)
        self._output.say(f"wrote {printable(str(file))}", "good")
        schema = file.parent / SCHEMA
        if not schema.exists():
            text = json.dumps(portl.schema_of_jobs(), indent=2, ensure_ascii=False)
            _written(schema, text + "\n", force=False)
            self._output.say(f"wrote {printable(str(schema))}, which editors use to complete and check it", "good")
        if names:
            self._output.say(f"before a run, set in the environment: {', '.join(names)}", "warning")
        self._output.say(f"now: portl run {printable(str(file))}")

    def _ask(self, question: str, *, default: str | None = None, hide: bool = False) -> str:
        self._asked = True
        return str(click.prompt(question, default=default, hide_input=hide, err=True)).strip()


def _keys(name: str, side: _Side, table: str) -> dict[str, Any]:
    chosen = named(name, side.connector, table)
    return {"type": side.connector.name, **escaped(side.keys), **escaped(chosen)}


def _many(side: _Side, answer: str) -> bool:
    """Return whether an answer means many tables: a pattern, or ``all``, unless that is a table's name."""
    names = {entry.name for entry in side.tables or ()}
    called = answer in names or any(name.endswith(f".{answer}") for name in names)
    return bool(names) and not called and (answer == _ALL or "*" in answer or "?" in answer)


def _chosen(side: _Side, answer: str, offered: Sequence[portl.TableEntry]) -> str | None:
    """Return the table that an answer means, by name or by number in the list, or None."""
    wanted = named("table", side.connector, answer)
    if side.tables is None:
        return answer
    for entry in side.tables:
        if named("table", side.connector, entry.name) == wanted:
            return entry.name
    if answer.isdecimal() and 0 < int(answer) <= min(len(offered), MOST_TABLES):
        return offered[int(answer) - 1].name
    return None


def _written(file: Path, text: str, *, force: bool) -> None:
    """Write a file; replace an existing one only with ``force``."""
    try:
        with file.open("w" if force else "x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except OSError as error:
        raise portl.ConfigError([f"cannot be written: {error.strerror}"], origin=str(file)) from None

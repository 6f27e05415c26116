"""Write the page of the command line from the commands themselves: ``python docs/commands.py``. A test compares."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from portl.cli.app import cli

PAGE = Path(__file__).with_name("cli.md")
_REGION = re.compile(r"(<!-- commands -->\n).*(<!-- end -->)", re.DOTALL)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield all commands in the order of their names."""
    context = click.Context(cli, info_name="portl")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None, f"the command {name!r} is listed and not there"
        yield name, command


def section(name: str, command: click.Command) -> str:
    """Return what there is to say of one command."""
    context = click.Context(command, info_name=name, parent=click.Context(cli, info_name="portl"))
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"## portl {name}", "", "```", usage, "```", "", _text(command), ""]
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    rows = [_row(option, context) for option in options if "--help" not in option.opts]
    if rows:
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _text(command: click.Command) -> str:
    """Return a command's help; a paragraph behind click's mark ``\\b`` stays as it is written."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(f"```\n{p[2:]}\n```" if p.startswith("\b\n") else p for p in paragraphs)


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag or option.count else f" `{_value(option, context)}`"
    notes = ["May be given several times."] if option.multiple else []
    if option.show_default and option.default is not None:
        notes.append(f"By default {option.default}.")
    return f"| {names}{value} | {' '.join([option.help or '', *notes]).replace('|', '&#124;')} |"


def _value(option: click.Option, context: click.Context) -> str:
    if option.metavar is None and isinstance(option.type, click.types.IntParamType):
        return "N"
    return option.make_metavar(context)


def filled(text: str) -> str:
    """Return the page with its commands as they should be."""
    sections = "\n".join(section(name, command) for name, command in commands())
    return _REGION.sub(lambda match: f"{match[1]}{sections}{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

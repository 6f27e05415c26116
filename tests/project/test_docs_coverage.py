"""What a user can name stands in the docs: keys, commands and options, public names, hooks, contracts, errors."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
import pytest

import portl
import portl_postgres
from portl.cli import app
from portl.config.validators import key_of
from portl.connectors.registry import Hooks
from portl.job.explain import every

DOCS = Path(__file__).parents[2] / "docs"
CLI = runpy.run_path(str(DOCS / "commands.py"))
#: What an author of a connector implements or is handed.
CONTRACTS = (
    portl.Batch,
    portl.Comparer,
    portl.Context,
    portl.Destination,
    portl.Ledger,
    portl.Side,
    portl.Source,
    portl.Writer,
)


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def reference() -> list[str]:
    """The names that the page of the Python reference shows."""
    return re.findall(r"^::: (\S+)$", page("api"), re.MULTILINE)


@pytest.mark.parametrize(("connector", "where"), [(None, "job-file"), ("postgres", "job-file"), ("sqlite", "sqlite")])
def test_every_key_stands_on_the_page_of_its_connector(connector: str | None, where: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page(where), re.MULTILINE)
    shown = {name for name, meaning in rows if meaning}
    missing = [
        found.key
        for found in every()
        if found.connector == connector and (found.key.rsplit(".", 1)[-1] not in shown or not found.meaning)
    ]
    assert not missing, "give the field a comment `#:` in its model, and run: python docs/keys.py"


def test_every_model_of_the_job_file_has_a_table() -> None:
    """A model below another one is not forgotten, though its keys may be called like others."""
    models = set(runpy.run_path(str(DOCS / "keys.py"))["MODELS"].values())
    keys = {found.key: found.keys for found in every() if found.connector in (None, "postgres")}
    listed = {tuple(sorted(key_of(field) for field in attrs.fields(model))) for model in models}
    for key, below in keys.items():
        if key in ("source", "destination"):  # of all connectors together
            continue
        names = tuple(sorted(name.removeprefix(f"{key}.") for name in below if "." not in name.removeprefix(f"{key}.")))
        assert not names or names in listed, f"{key}: add its model to docs/keys.py"


def test_the_page_of_the_command_line_is_that_of_the_commands() -> None:
    assert CLI["filled"](page("cli")) == page("cli"), "run: python docs/commands.py"


def test_every_command_and_option_says_what_it_is() -> None:
    silent = []
    for name, command in CLI["commands"]():
        if not command.help:
            silent.append(name)
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.help:
                silent.append(f"{name} {parameter.opts[0]}")
    assert not silent, "give it a help text"


def test_every_public_name_stands_in_the_reference() -> None:
    shown = {name.removeprefix("portl.") for name in reference()}
    missing = set(portl.__all__) - {"__version__"} - shown
    assert not missing, "add `::: portl.NAME` to docs/api.md"
    gone = {name for name in shown if "." not in name} - set(portl.__all__)
    assert not gone, "docs/api.md shows what is not public"
    assert len(reference()) == len(set(reference())), "docs/api.md shows something twice"


def test_every_public_class_and_function_has_a_docstring() -> None:
    found = {name: getattr(portl, name) for name in portl.__all__}
    silent = [name for name, it in found.items() if inspect.isclass(it) or inspect.isfunction(it) if not it.__doc__]
    assert not silent


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_method_of_a_contract_says_what_it_does(contract: type) -> None:
    silent = [
        name
        for name, member in vars(contract).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property))
        and not member.__doc__
    ]
    assert not silent
    assert f"portl.{contract.__name__}" in reference()


def test_every_hook_stands_in_the_reference() -> None:
    hooks = [name for name in vars(Hooks) if name.startswith("portl_")]
    assert hooks
    assert "portl.connectors.registry.Hooks" in reference()
    assert not [name for name in hooks if not vars(Hooks)[name].__doc__]


def errors(cls: type[portl.Error] = portl.Error) -> Iterator[type[portl.Error]]:
    """The public kinds of error; a plugin's own ones that users can catch are public too."""
    _ = portl.PlanError  # it stands with the plan, and is imported with it
    yield cls
    text = page("errors")
    for below in sorted(cls.__subclasses__(), key=lambda found: text.find(f"\n### {found.__name__}\n")):
        if below.__module__.split(".")[0] in ("portl", portl_postgres.__name__) and below.__name__ in portl.__all__:
            yield from errors(below)


@pytest.mark.parametrize("cls", list(errors()), ids=lambda cls: cls.__name__)
def test_every_error_has_its_remedy_and_its_exit_code(cls: type[portl.Error]) -> None:
    text = page("errors")
    section = re.search(rf"^### {cls.__name__}\n(.*?)(?=^### |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, f"docs/errors.md has no section {cls.__name__!r}"
    if cls is not portl.Error:
        assert "**When.**" in section[1]
        assert "**What to do.**" in section[1]
    row = re.search(rf"^\| \[`{cls.__name__}`\]\(#{cls.__name__.lower()}\) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert row is not None, f"the table of docs/errors.md has no row {cls.__name__!r}"
    sample = cls.__new__(cls)
    sample.message = ""
    codes = {app._code(sample)}
    sample.message = "interrupted by SIGTERM"
    codes.add(app._code(sample))
    assert {int(code) for code in row[1].split(" or ")} == codes


def test_the_tree_of_errors_is_the_one_in_the_code() -> None:
    text = page("errors")

    def tree(cls: type[portl.Error], indent: str = "") -> Iterator[str]:
        below = [found for found in errors() if found.__bases__[0] is cls]
        below.sort(key=lambda found: text.find(f"─ {found.__name__}\n"))
        for number, found in enumerate(below):
            last = number == len(below) - 1
            yield f"{indent}{'└── ' if last else '├── '}{found.__name__}"
            yield from tree(found, indent + ("    " if last else "│   "))

    assert "\n".join(["```", "Error", *tree(portl.Error), "```"]) in text


def test_the_exit_codes_are_those_of_the_commands() -> None:
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", page("cli"), re.MULTILINE)}
    assert shown == {app.DONE, app.FAILED, app.WRONG, app.REJECTED, app.RUNNING, app.INTERRUPTED, app.TERMINATED}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [path.name for path in DOCS.glob("*.md") if f": {path.name}\n" not in navigation]
    assert not missing, "add it to `nav` in mkdocs.yml"


def pages() -> list[Path]:
    return [*DOCS.parent.glob("*.md"), *DOCS.glob("*.md")]


def test_commands_and_options_in_the_text_are_there() -> None:
    options = {
        name: {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        for name, command in CLI["commands"]()
    }
    wrong, seen = [], 0
    for path in pages():
        text = path.read_text(encoding="utf-8")
        lines = [
            line
            for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
            for line in block.split("\n")
        ]
        for call in [*re.findall(r"`([^`\n]+)`", text), *lines]:
            words = call.split("#")[0].split()
            if words[:1] != ["portl"] or len(words) == 1 or words[1].startswith("-"):
                continue
            seen += 1
            given = {word for word in words[2:] if word.startswith("-")} - {"--help"}
            if given - options.get(words[1], set()) or words[1] not in {*options, "COMMAND"}:
                wrong.append(f"{path.name}: {call}")
    assert not wrong
    assert seen > 20


def test_sessions_and_files_in_the_text_are_there() -> None:
    noxfile = (DOCS.parent / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^def (\w+)\(session", noxfile, re.MULTILINE))
    folders = [DOCS.parent, *(DOCS.parent / name for name in ("tests", "portl", "portl_postgres"))]
    wrong = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        wrong += [f"{path.name}: {name}" for name in re.findall(r"nox -s ([a-z]+)", text) if name not in sessions]
        for name in re.findall(r"`((?:[\w.-]+/)*[\w*-]+\.(?:py|sql|svg))`", text):
            if not any(any(folder.glob(name if "/" in name else f"**/{name}")) for folder in folders):
                wrong.append(f"{path.name}: {name}")
    assert not wrong

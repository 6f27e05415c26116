"""What is installed, and what a key of the job file means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import portl
from portl.connectors import registry
from tests.commands import portl_cli as cli


@attrs.frozen(kw_only=True)
class Shelf(portl.SourceConfig):
    """A shelf."""

    #: Which shelf.
    shelf: int = 1


class Books(portl.Source[Shelf]):
    """What stands on a shelf."""

    def describe(self) -> portl.Table:
        kind = portl.Type(kind=portl.Kind.INT)
        return portl.Table(name="books", columns=(portl.Column(name="id", type=kind, native="int"),))

    def rows(self) -> list[tuple[Any, ...]]:
        return [(n,) for n in range(self.config.shelf)]


@pytest.fixture
def books() -> Iterator[None]:
    portl.register(portl.Connector(name="books", summary="books", source=Books, source_config=Shelf))
    yield
    del registry._registered["books"]


@pytest.mark.usefixtures("books")
def test_a_connector_of_the_application_itself_needs_no_package() -> None:
    found = {connector.name: connector for connector in portl.installed()}
    assert (found["books"].package, found["books"].source, found["books"].destination) == (None, True, False)
    assert found["postgres"].package == "portl"
    (explained,) = portl.explain("source.shelf")
    assert (explained.connector, explained.meaning, explained.takes) == ("books", "Which shelf.", "a whole number")
    with pytest.raises(portl.ConfigError, match="the connector 'books' is no destination"):
        portl.plan({"source": {"type": "books"}, "destination": {"type": "books"}})


@pytest.mark.usefixtures("books")
def test_rows_of_a_registered_connector_are_moved(destination: Any) -> None:
    job = {"source": {"type": "books", "shelf": 7}, "destination": destination.end(table="b"), "conflict": "fail"}
    assert portl.migrate(job).rows_inserted == 7
    assert destination.value("SELECT sum(id) FROM b") == 21


def test_the_name_of_an_installed_connector_is_taken() -> None:
    with pytest.raises(portl.PluginError, match="there is a connector 'postgres' already, from portl"):
        portl.register(portl.Connector(name="postgres"))


def test_connectors_on_the_command_line() -> None:
    done = cli("connectors")
    assert done.returncode == 0
    assert done.stdout.startswith(f"postgres (portl {portl.__version__})\n")
    assert "conflicts: fail, merge, overwrite, skip" in done.stdout
    found = {found["name"]: found for found in map(json.loads, cli("connectors", "--json").stdout.splitlines())}
    assert found["postgres"]["strategies"] == ["fail", "merge", "overwrite", "skip"]
    assert set(found) == {"postgres", "sqlite"}


def test_every_key_of_every_connector_is_explained() -> None:
    keys = [json.loads(line)["key"] for line in cli("explain", "--json").stdout.splitlines()]
    assert {"conflict.strategy", "source.table", "destination.pool.max_size", "quarantine.limit"} <= set(keys)
    for key in keys:
        for found in portl.explain(key):
            assert found.meaning, key


def test_without_a_key_all_are_listed_each_with_what_it_means_in_80_columns() -> None:
    lines = cli("explain").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    told = [re.sub(r"\s{2,}", "  ", line) for line in lines]
    assert "retry.attempts  Attempts in total; 1 means no retry." in told
    assert told.index("# keys of postgres") < told.index("source.type  The connector's name.")
    listed = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert listed == {json.loads(line)["key"] for line in cli("explain", "--json").stdout.splitlines()}


def test_an_end_is_explained_with_the_keys_that_connectors_have_there() -> None:
    (source,) = portl.explain("source")
    assert {"source.type", "source.table", "source.pool.max_size"} <= set(source.keys)
    assert all(key.startswith("source.") for key in source.keys)


def test_a_typo_is_answered_with_the_key_that_was_meant() -> None:
    assert "did you mean 'source'?" in cli("explain", "sorce").stderr
    said = cli("explain", "tabel").stderr
    assert "'source.table'" in said
    assert "'destination.table'" in said
    assert "`portl explain` without a key lists all" in cli("explain", "frobnicate").stderr


def test_a_key_is_explained_with_its_choices_and_its_default() -> None:
    done = cli("explain", "on_error")
    assert done.stdout == (
        "on_error\n  fail: the first row that the destination refuses ends the run; quarantine:\n"
        "  such rows go to a quarantine table.\n  takes one of fail, quarantine\n  by default fail\n"
    )
    done = cli("explain", "on_eror")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no key 'on_eror': did you mean 'on_error'?" in done.stderr

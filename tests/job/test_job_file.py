"""A job file, or the dict in its place, becomes the models."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import portl
from portl.job.loading import load
from portl_postgres.config import Compression, PostgresDestinationConfig, PostgresSourceConfig, SSLMode

WHOLE = """\
name: everything
source:
  type: postgres
  host: h
  port: 5433
  database: d
  username: u
  password: p
  schema: Shop
  query: |
    SELECT 1
  columns: [a, b]
  exclude_columns: [c]
  where: a > 1
  limit: 10
  sslmode: verify-full
  sslrootcert: root.crt
  sslcert: client.crt
  sslkey: client.key
  connect_timeout: 3
  application_name: mine
  params: {keepalives: 1, options: -c geqo=off}
  pool: {min_size: 1, max_size: 2, timeout: 2.5}
  statement_timeout: 1.5
  lock_timeout: 2
destination:
  type: postgres
  url: postgresql://u:p@h/d
  table: t
  create_table: never
  primary_key: [a]
  compression: lz4
  unlogged: true
  add_columns: true
  create_types: false
schema_mapping: {a: x}
conflict: {strategy: merge, key: [a], columns: {b: sum}}
batch_size: 7
types:
  - {column: price, to: "numeric(12,2)", using: "replace(price, ',', '.')::numeric"}
  - {type: money, to: numeric}
route: rows
retry: {attempts: 2, max_delay: 1}
"""

MINIMAL = """\
source:
  type: postgres
  table: a
destination:
  type: postgres
  table: b
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "job.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def minimal(**source: Any) -> dict[str, Any]:
    return {
        "source": {"type": "postgres", "table": "a", **source},
        "destination": {"type": "postgres", "table": "b"},
    }


def source_of(job: Any, **arguments: Any) -> PostgresSourceConfig:
    found = load(job, **arguments).source
    assert isinstance(found, PostgresSourceConfig)
    return found


def test_every_key_reaches_its_model(write) -> None:
    config = load(write(WHOLE))
    source, destination = config.source, config.destination
    assert isinstance(source, PostgresSourceConfig)
    assert isinstance(destination, PostgresDestinationConfig)
    assert (source.host, source.port, source.database, source.username) == ("h", 5433, "d", "u")
    assert source.password == portl.Secret("p")
    assert (source.schema, source.table, source.query, source.where) == ("Shop", None, "SELECT 1\n", "a > 1")
    assert (source.columns, source.exclude_columns, source.limit) == (("a", "b"), ("c",), 10)
    assert source.sslmode is SSLMode.VERIFY_FULL
    assert (source.sslrootcert, source.sslcert, source.sslkey) == ("root.crt", "client.crt", "client.key")
    assert (source.connect_timeout, source.application_name) == (3, "mine")
    assert source.params == {"keepalives": "1", "options": "-c geqo=off"}
    assert (source.pool.min_size, source.pool.max_size, source.pool.timeout) == (1, 2, 2.5)
    assert (source.statement_timeout, source.lock_timeout) == (1.5, 2.0)
    assert destination.url == portl.Secret("postgresql://u:p@h/d")
    assert (destination.table, destination.primary_key, destination.unlogged) == ("t", ("a",), True)
    assert (destination.create_table, destination.add_columns) == (portl.CreateTable.NEVER, True)
    assert (destination.compression, destination.create_types) == (Compression.LZ4, False)
    assert (config.name, config.schema_mapping, config.batch_size) == ("everything", {"a": "x"}, 7)
    assert config.conflict == portl.Conflict(strategy=portl.Strategy.MERGE, key=("a",), columns={"b": "sum"})
    assert config.types == (
        portl.TypeRule(column="price", to="numeric(12,2)", using="replace(price, ',', '.')::numeric"),
        portl.TypeRule(type="money", to="numeric"),
    )
    assert (config.route, config.retry) == (portl.Route.ROWS, portl.Retry(attempts=2, max_delay=1.0))


def test_what_is_left_out_has_its_default(write) -> None:
    config = load(write(MINIMAL, "nightly.yaml"))
    assert config == portl.MigrationConfig(
        name="nightly",
        source=PostgresSourceConfig(type="postgres", table="a"),
        destination=PostgresDestinationConfig(type="postgres", table="b"),
    )
    assert config.conflict.strategy is portl.Strategy.OVERWRITE
    assert config.source.schema == "public"  # type: ignore[attr-defined]


def test_a_dict_loads_as_the_file_does(write) -> None:
    from ruamel.yaml import YAML

    as_dict = YAML(typ="safe").load(WHOLE)
    as_dict["source"]["params"]["keepalives"] = "1"
    assert load(as_dict) == load(write(WHOLE))


def test_a_dict_is_neither_changed_nor_kept() -> None:
    job = minimal(columns=["a"])
    config = load(job, overrides={"source.table": "z", "source.pool.max_size": "9"})
    assert job == minimal(columns=["a"])
    job["source"]["columns"].append("b")
    assert config.source.columns == ("a",)


def test_models_pass_through_as_they_are() -> None:
    config = load(minimal())
    assert load(config) is config


def test_models_may_stand_inside_a_dict() -> None:
    end = PostgresSourceConfig(type="postgres", table="a")
    conflict = portl.Conflict(strategy=portl.Strategy.SKIP)
    config = load({**minimal(), "source": end, "conflict": conflict})
    assert config.source is end
    assert config.conflict is conflict


def test_values_that_are_models_enums_and_secrets_already_are_taken() -> None:
    secret = portl.Secret("x")
    source = source_of(minimal(password=secret, sslmode=SSLMode.REQUIRE, columns=("a",)))
    assert source.password is secret
    assert source.sslmode is SSLMode.REQUIRE


@pytest.mark.parametrize("text", ["012", "no", "on", "0x1F", "1e5", "1_000", "2023-01-01", "true", "1.0", "~x", "!"])
@pytest.mark.parametrize("key", ["password", "database"])
def test_a_text_is_taken_as_it_is_written(write, key: str, text: str) -> None:
    quoted = f'"{text}"' if text == "!" else text
    found = getattr(source_of(write(MINIMAL.replace("table: a", f"table: a\n  {key}: {quoted}"))), key)
    assert (found.reveal() if key == "password" else found) == text


def test_keys_that_look_like_other_things_are_texts(write) -> None:
    config = load(write(MINIMAL + "schema_mapping: {on: off, 012: no, null: nil, true: yes}"))
    assert config.schema_mapping == {"on": "off", "012": "no", "null": "nil", "true": "yes"}


@pytest.mark.parametrize(("written", "value"), [("true", True), ("True", True), ("FALSE", False)])
def test_a_boolean_is_true_or_false(write, written: str, value: bool) -> None:
    config = load(write(MINIMAL + f"  add_columns: {written}\n"))
    assert config.destination.add_columns is value


@pytest.mark.parametrize("written", ["yes", "no", "on", "1", "'true'"])
def test_nothing_else_is_a_boolean(write, written: str) -> None:
    with pytest.raises(portl.ConfigError, match=r"line 7: destination.add_columns: expected true or false, found"):
        load(write(MINIMAL + f"  add_columns: {written}\n"))


def test_variables_are_put_in_anywhere_in_a_text(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "db")
    monkeypatch.setenv("ZONE", "eu")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    text = MINIMAL.replace(
        "table: a",
        "table: ${HOST}\n  host: ${HOST}.${ZONE}.example.com\n  database: ${NOT_SET:-main}\n"
        "  schema: ${EMPTY:-public}\n  username: ${NOT_SET:-}x\n  application_name: $HOST $${HOST} $$5 50$",
    )
    source = source_of(write(text))
    assert (source.table, source.host, source.database) == ("db", "db.eu.example.com", "main")
    assert (source.schema, source.username, source.application_name) == ("public", "x", "$HOST ${HOST} $$5 50$")


def test_variables_are_put_into_a_dict_and_its_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMN", "c")
    assert source_of(minimal(columns=["a", "${COLUMN}"])).columns == ("a", "c")


def test_a_port_from_the_environment_is_a_number(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "5433")
    monkeypatch.delenv("NOT_SET", raising=False)
    text = MINIMAL.replace("table: a", "table: a\n  port: ${PORT}\n  statement_timeout: ${NOT_SET:-2.5}")
    text += "  unlogged: ${NOT_SET:-true}\n  compression: ${NOT_SET:-lz4}\nbatch_size: ${NOT_SET:-10}\n"
    config = load(write(text))
    assert isinstance(config.source, PostgresSourceConfig)
    assert (config.source.port, config.source.statement_timeout, config.batch_size) == (5433, 2.5, 10)
    assert isinstance(config.destination, PostgresDestinationConfig)
    assert (config.destination.unlogged, config.destination.compression) == (True, Compression.LZ4)


@pytest.mark.parametrize("value", ["[a, b]", "{x: y}", "no", "012", "# x", "a: b", "*x", "'q'", "${HOME}", "$$", " x "])
def test_a_value_of_the_environment_is_never_parsed(write, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("VALUE", value)
    source = source_of(write(MINIMAL.replace("table: a", "table: a\n  password: ${VALUE}\n  database: ${VALUE}")))
    assert source.password == portl.Secret(value)
    assert source.database == value


def test_a_quoted_number_in_the_file_is_a_text(write) -> None:
    with pytest.raises(portl.ConfigError, match=r"line 4: source.port: expected a whole number, found '5432'"):
        load(write(MINIMAL.replace("table: a", "table: a\n  port: '5432'")))


def test_overrides_replace_and_add(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "7")
    config = load(
        write(MINIMAL + "conflict: {strategy: fail}\n"),
        overrides={
            "source.port": "${PORT}",
            "source.pool.max_size": "9",
            "source.columns": "[a, b]",
            "conflict.strategy": "skip",
            "batch_size": "5",
            "destination.table": "012",
        },
    )
    assert isinstance(config.source, PostgresSourceConfig)
    assert (config.source.port, config.source.pool.max_size, config.source.columns) == (7, 9, ("a", "b"))
    assert (config.conflict.strategy, config.batch_size) == (portl.Strategy.SKIP, 5)
    assert isinstance(config.destination, PostgresDestinationConfig)
    assert config.destination.table == "012"


def test_problems_of_overrides_say_so_and_come_with_the_others(write) -> None:
    path = write(MINIMAL + "batch_size: 0\n")
    overrides = {"source.table.x": "1", "source.port": "high", "route": "[", "name": "a\nb: c: d", "sorce.host": "h"}
    with pytest.raises(portl.ConfigError) as caught:
        load(path, overrides=overrides)
    assert caught.value.problems == [
        "--set source.table.x: 'table' is not a mapping",
        "--set route: not valid YAML: a value is missing here, or needs quotes",
        "--set name: not valid YAML: a second `: ` in one line; a string that contains `: ` needs quotes",
        "--set sorce: unknown key; did you mean `source`? `portl explain` lists all keys",
        "--set source.port: expected a whole number, found 'high'",
        "line 7: batch_size: expected a number greater than zero, found 0",
    ]


def test_overrides_do_not_go_with_models() -> None:
    with pytest.raises(portl.ConfigError, match="overrides need a file or a dict, not a MigrationConfig"):
        load(load(minimal()), overrides={"name": "x"})


def test_aliases_and_merge_keys(write) -> None:
    text = """\
source: &end
  type: postgres
  host: &host h
  table: a
  pool: {max_size: 2}
destination:
  <<: *end
  host: other
  application_name: *host
"""
    config = load(write(text))
    assert config.destination == PostgresDestinationConfig(
        type="postgres",
        host="other",
        table="a",
        application_name="h",
        pool=config.source.pool,  # type: ignore[attr-defined]
    )


def test_of_several_merged_mappings_the_first_wins(write) -> None:
    text = """\
source: &a {type: postgres, table: a, host: x}
destination:
  <<: [{table: t, host: y}, *a]
"""
    destination = load(write(text)).destination
    assert isinstance(destination, PostgresDestinationConfig)
    assert (destination.table, destination.host, destination.type) == ("t", "y", "postgres")


def test_a_mistake_in_a_merged_mapping_is_reported_where_it_stands(write) -> None:
    text = "source: &a\n  type: postgres\n  table: a\n  port: x\ndestination:\n  <<: *a\n"
    with pytest.raises(portl.ConfigError) as caught:
        load(write(text))
    assert caught.value.problems == [
        "line 4: source.port: expected a whole number, found 'x'",
        "line 4: destination.port: expected a whole number, found 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: &a [1,2,3,4,5,6,7,8,9]\n"
            + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefg")),
            "line 1: the file has more than 20,000 values, aliases included",
        ),
        (
            "a: &a {x: 1}\n"
            + "\n".join(f"{b}: &{b}\n  <<: [{', '.join([f'*{a}'] * 40)}]" for a, b in itertools.pairwise("abcdefg")),
            "line 1: the file has more than 20,000 values, aliases included",
        ),
        ("source: &a\n  b: [*a]\n", "line 1: this value contains an alias (*) to itself"),
        ("source: &a\n  <<: *a\n", "line 1: this value contains an alias (*) to itself"),
        ("a: " + "[" * 5000, "not valid YAML: nested too deeply"),
    ],
)
def test_aliases_that_blow_up_are_refused(write, text: str, problem: str) -> None:
    with pytest.raises(portl.ConfigError) as caught:
        load(write(text))
    assert caught.value.problems == [problem]


def test_a_file_over_a_megabyte_is_refused(write) -> None:
    fits = MINIMAL + "#" * (1_000_000 - len(MINIMAL))
    assert load(write(fits)).name == "job"
    with pytest.raises(portl.ConfigError, match=r"1 problem\n  the file is larger than 1,000,000 bytes$"):
        load(write(fits + "#"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing.yaml"
    with pytest.raises(portl.ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: 1 problem\n  cannot be read: No such file or directory"


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(portl.ConfigError) as caught:
        load(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}: 1 problem\n  cannot be read: Is a directory"


def test_a_byte_order_mark_is_skipped(write) -> None:
    assert load(write(b"\xef\xbb\xbf" + MINIMAL.encode())).source.type == "postgres"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"name: x\nuser: J\xfcrgen\n", "line 2: the file is not UTF-8 (byte 15)"),
        (MINIMAL.encode("utf-16"), "line 1: the file is not UTF-8 (byte 0)"),
        (b"name: x\nb: a\x00b\n", "line 2: not valid YAML: the character U+0000 is not allowed"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(write, raw: bytes, problem: str) -> None:
    with pytest.raises(portl.ConfigError) as caught:
        load(write(raw))
    assert caught.value.problems == [problem]


def test_names_may_be_in_any_script(write) -> None:
    assert source_of(write(MINIMAL.replace("table: a", "table: 'Größe \"x\".日本'"))).table == 'Größe "x".日本'

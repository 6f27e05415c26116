"""Bad job files, each with the whole of its message."""

# ruff: noqa: E501  # whole messages, each in one piece

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

import portl
from portl.job.loading import load

pytestmark = pytest.mark.usefixtures("nothing_registered")

ENVIRONMENT = {"PORT": "5432x", "BIG": "9" * 500, "PASSWORD": "hunter2", "FLAG": "maybe", "LIST": "[a]"}

SOURCE = "source:\n  type: postgres\n  table: a\n"
DESTINATION = "destination:\n  type: postgres\n  table: b\n"


def source(keys: str) -> str:
    """A job with more keys under ``source``, from line 4."""
    return SOURCE + indent(keys + "\n", "  ") + DESTINATION


def destination(keys: str) -> str:
    """A job with more keys under ``destination``, from line 7."""
    return SOURCE + DESTINATION + indent(keys + "\n", "  ")


def top(keys: str) -> str:
    """A job with more keys of its own, from line 7."""
    return SOURCE + DESTINATION + keys + "\n"


#: What is wrong: the file, and the problems that are reported for it, in this order.
BAD: dict[str, tuple[str, list[str]]] = {
    "an empty file": ("", ["the file is empty; expected a mapping with the keys source and destination"]),
    "an entry of tables that connects elsewhere": (
        "source: {type: postgres, host: a}\ndestination: {type: postgres, host: b}\ntables:\n  - users\n"
        "  - table: events\n    host: c\n    destination:\n      table: other\n      url: postgres://d/e\n      type: postgres\n",
        [
            "line 6: tables[1].host: holds for all tables: write it under `source` at the top",
            "line 9: tables[1].destination.url: holds for all tables: write it under `destination` at the top",
            "line 10: tables[1].destination.type: holds for all tables: write it under `destination` at the top",
        ],
    ),
    "comments alone": (
        "# nothing yet\n",
        ["the file is empty; expected a mapping with the keys source and destination"],
    ),
    "a list": ("- a\n- b\n", ["expected a mapping with the keys source and destination, found a list"]),
    "a string": ("just words\n", ["expected a mapping with the keys source and destination, found 'just words'"]),
    "nothing but a name": (
        "name: x\n",
        ["line 1: source: missing; it is required", "line 1: destination: missing; it is required"],
    ),
    "no destination": (SOURCE, ["line 1: destination: missing; it is required"]),
    "no type": (
        "source:\n  table: a\n" + DESTINATION,
        ["line 1: source.type: missing: the name of a connector; installed: postgres, sqlite"],
    ),
    "an unknown connector": (
        "source:\n  type: mongodb\n  table: a\n" + DESTINATION,
        [
            "line 2: source.type: no connector 'mongodb' is installed; there are 'postgres', 'sqlite'; connectors are packages; this one may be: python -m pip install portl-mongodb"
        ],
    ),
    "a connector misspelt": (
        "source:\n  type: postgresql\n  table: a\n" + DESTINATION,
        [
            "line 2: source.type: no connector 'postgresql' is installed; there are 'postgres', 'sqlite'; did you mean 'postgres'?"
        ],
    ),
    "a type that is a list": (
        "source:\n  type: [postgres]\n  table: a\n" + DESTINATION,
        ["line 2: source.type: expected a string, found a list"],
    ),
    "an end that is a string": (
        "source: postgres\n" + DESTINATION,
        ["line 1: source: expected a mapping of keys to values, found 'postgres'"],
    ),
    "an end that is empty": (
        "source:\n" + DESTINATION,
        ["line 1: source: expected a mapping of keys to values, found nothing"],
    ),
    "an unknown key at the top": (
        top("shcema_mapping: {a: b}"),
        ["line 7: shcema_mapping: unknown key; did you mean `schema_mapping`? `portl explain` lists all keys"],
    ),
    "an unknown key like no other": (
        top("frobnicate: 1"),
        ["line 7: frobnicate: unknown key; `portl explain` lists all keys"],
    ),
    "an unknown key of an end": (
        "source:\n  type: postgres\n  tabel: a\n" + DESTINATION,
        [
            "line 3: source.tabel: unknown key; did you mean `table`? `portl explain` lists all keys",
        ],
    ),
    "a required key misspelt": (
        SOURCE + "destination:\n  type: postgres\n  tabel: b\n",
        ["line 6: destination.tabel: unknown key; did you mean `table`? `portl explain` lists all keys"],
    ),
    "an unknown key of the pool": (
        source("pool: {maxsize: 3}"),
        [
            "line 4: source.pool.maxsize: unknown key; did you mean `max_size`? allowed here: min_size, max_size, timeout"
        ],
    ),
    "an unknown key of conflict": (
        top("conflict:\n  strategy: skip\n  keys: [id]"),
        ["line 9: conflict.keys: unknown key; did you mean `key`? allowed here: strategy, key, columns, newest_by"],
    ),
    "an unknown key of retry": (
        top("retry: {tries: 3}"),
        ["line 7: retry.tries: unknown key; allowed here: attempts, max_delay"],
    ),
    "neither table nor query": (
        "source:\n  type: postgres\n" + DESTINATION,
        ["line 1: source: expected either `table` or `query`, found neither"],
    ),
    "both table and query": (
        source("query: SELECT 1"),
        ["line 1: source: expected either `table` or `query`, found both"],
    ),
    "no table to write to": (
        SOURCE + "destination:\n  type: postgres\n",
        ["line 4: destination.table: missing; it is required"],
    ),
    "an empty query": (
        "source:\n  type: postgres\n  query: ' '\n" + DESTINATION,
        ["line 3: source.query: must not be empty"],
    ),
    "an empty condition": (source("where: ''"), ["line 4: source.where: must not be empty"]),
    "an empty table": (
        "source:\n  type: postgres\n  table: ''\n" + DESTINATION,
        ["line 3: source.table: a name must not be empty"],
    ),
    "a table with nothing behind it": (
        SOURCE + "destination:\n  type: postgres\n  table:\n",
        ["line 6: destination.table: expected a string, found nothing"],
    ),
    "a name that is too long": (
        "source:\n  type: postgres\n  table: " + "ä" * 32 + "\n" + DESTINATION,
        [
            "line 3: source.table: 'ääääääääääääääääääääääääääääääää' is 64 bytes long; PostgreSQL truncates names to 63 bytes"
        ],
    ),
    "a name with a NUL": (
        'source:\n  type: postgres\n  table: "a\\0b"\n' + DESTINATION,
        ["line 3: source.table: a name must not contain a NUL character"],
    ),
    "a port that is a string": (source("port: '5432'"), ["line 4: source.port: expected a whole number, found '5432'"]),
    "a port that is a word": (
        source("port: default"),
        ["line 4: source.port: expected a whole number, found 'default'"],
    ),
    "a port out of range": (
        source("port: 65536"),
        ["line 4: source.port: expected a number from 1 to 65535, found 65536"],
    ),
    "a port with a fraction": (source("port: 5432.0"), ["line 4: source.port: expected a whole number, found 5432.0"]),
    "a port from the environment": (
        source("port: ${PORT}"),
        ["line 4: source.port: expected a whole number, found something else in ${PORT}"],
    ),
    "a number without end from the environment": (
        source("port: ${BIG}"),
        ["line 4: source.port: expected a whole number, found something else in ${BIG}"],
    ),
    "a truth value from the environment": (
        destination("unlogged: ${FLAG}"),
        ["line 7: destination.unlogged: expected true or false, found something else in ${FLAG}"],
    ),
    "a strategy from the environment": (
        top("conflict: ${PASSWORD}"),
        ["line 7: conflict: expected one of overwrite, skip, fail, merge; found something else in ${PASSWORD}"],
    ),
    "a list from the environment": (
        source("columns: ${LIST}"),
        ["line 4: source.columns: expected a list, found something else in ${LIST}"],
    ),
    "a variable that is not set": (
        source("password: ${NOT_SET}"),
        [
            "line 4: source.password: the environment variable NOT_SET is not set; set it, or write a default: ${NOT_SET:-default}"
        ],
    ),
    "a variable without a name": (
        source("password: a${}b"),
        ["line 4: source.password: expected ${NAME} or ${NAME:-default}; write $${ for a literal ${"],
    ),
    "a variable that is not closed": (
        source("password: ${PASSWORD"),
        ["line 4: source.password: expected ${NAME} or ${NAME:-default}; write $${ for a literal ${"],
    ),
    "a variable with a dash": (
        source("password: ${MY-NAME}"),
        ["line 4: source.password: expected ${NAME} or ${NAME:-default}; write $${ for a literal ${"],
    ),
    "a shell's variable with an error": (
        source("password: '${NOT_SET:?no password}'"),
        ["line 4: source.password: expected ${NAME} or ${NAME:-default}; write $${ for a literal ${"],
    ),
    "a password that is a mapping": (
        source("password: {from: env}"),
        ["line 4: source.password: expected a string, found a mapping"],
    ),
    "a password that is a list": (
        source("password: [hunter2]"),
        ["line 4: source.password: expected a string, found a list"],
    ),
    "a database that is a list": (
        source("database: [a, b]"),
        ["line 4: source.database: expected a string, found a list"],
    ),
    "columns that are a string": (source("columns: id"), ["line 4: source.columns: expected a list, found 'id'"]),
    "columns that are empty": (
        source("columns: []"),
        ["line 4: source.columns: expected at least one column, found an empty list"],
    ),
    "columns named twice": (source("columns: [id, id]"), ["line 4: source.columns: names the column 'id' twice"]),
    "a column that is a mapping": (
        source("columns: [id, {name: x}]"),
        ["line 4: source.columns[1]: expected a string, found a mapping"],
    ),
    "a column both chosen and excluded": (
        source("columns: [id, name]\nexclude_columns: [name]"),
        ["line 5: source.exclude_columns: 'name' is also in `columns`: name it in only one of the two"],
    ),
    "a limit below zero": (source("limit: -1"), ["line 4: source.limit: expected zero or more, found -1"]),
    "a timeout of zero": (
        source("connect_timeout: 0"),
        ["line 4: source.connect_timeout: expected a number greater than zero, found 0"],
    ),
    "a timeout below zero": (
        source("statement_timeout: -0.5"),
        ["line 4: source.statement_timeout: expected a number of seconds, 0 for no limit, found -0.5"],
    ),
    "a timeout without end": (
        source("lock_timeout: 1e999"),
        ["line 4: source.lock_timeout: expected a number, found 1e999"],
    ),
    "a pool that is a number": (
        source("pool: 5"),
        ["line 4: source.pool: expected a mapping of keys to values, found 5"],
    ),
    "a pool with more at least than at most": (
        source("pool: {min_size: 5}"),
        ["line 4: source.pool.min_size: expected at most `max_size`, which is 4, found 5"],
    ),
    "a pool with a bad minimum": (
        source("pool: {min_size: -1}"),
        ["line 4: source.pool.min_size: expected zero or more, found -1"],
    ),
    "an unknown sslmode": (
        source("sslmode: verify_full"),
        [
            "line 4: source.sslmode: expected one of disable, allow, prefer, require, verify-ca, verify-full; found 'verify_full'; did you mean 'verify-full'?"
        ],
    ),
    "an sslmode that is false": (
        source("sslmode: false"),
        [
            "line 4: source.sslmode: expected one of disable, allow, prefer, require, verify-ca, verify-full; found false"
        ],
    ),
    "a url with a host beside it": (
        source("url: postgresql://h/d\nhost: h\ndatabase: d"),
        [
            "line 5: source.host: cannot be combined with `url`, which already sets it",
            "line 6: source.database: cannot be combined with `url`, which already sets it",
        ],
    ),
    "a url that is none": (
        source("url: 'mysql://u:hunter2@h/d'"),
        [
            "line 4: source.url: is neither a URI (postgresql://user@host:port/database) nor a conninfo string (host=... dbname=...)"
        ],
    ),
    "a url with an @ behind a slash": (
        source("url: postgresql://u:hunter/2@h/d"),
        [
            "line 4: source.url: has an @ behind a /, so that the password may end in two places; inside a user, password or database name write @ as %40, / as %2F, : as %3A, ? as %3F and % as %25"
        ],
    ),
    "a url with a bad port": (
        source("url: postgresql://u:hunter2@h:70000/d"),
        [
            "line 4: source.url: has a host or port that cannot be read; inside a user, password or database name write @ as %40, / as %2F, : as %3A, ? as %3F and % as %25"
        ],
    ),
    "a url with a bad escape": (
        source("url: postgresql://u:hunter%2@h/d"),
        [
            "line 4: source.url: has a % that is not followed by two hexadecimal digits; inside a user, password or database name write @ as %40, / as %2F, : as %3A, ? as %3F and % as %25"
        ],
    ),
    "a url with an unknown parameter": (
        source("url: postgresql://u:hunter2@h/d?sslmod=require"),
        ["line 4: source.url: has a parameter that libpq does not know; did you mean 'sslmode'?"],
    ),
    "params that are a string": (
        source("params: sslmode=require"),
        ["line 4: source.params: expected a mapping of keys to values, found 'sslmode=require'"],
    ),
    "params that libpq does not know": (
        source("params:\n  keepalive: 1\n  frobnicate: 2"),
        [
            "line 5: source.params.keepalive: libpq does not have this parameter; did you mean 'keepalives'?",
            "line 6: source.params.frobnicate: libpq does not have this parameter",
        ],
    ),
    "params that have keys of their own": (
        source("params:\n  password: hunter2\n  user: me\n  sslmode: require"),
        [
            "line 5: source.params.password: has its own key: write `password` beside `params`, not inside",
            "line 6: source.params.user: has its own key: write `username` beside `params`, not inside",
            "line 7: source.params.sslmode: has its own key: write `sslmode` beside `params`, not inside",
        ],
    ),
    "a secret among the params": (
        source("params: {sslpassword: hunter2}"),
        ["line 4: source.params.sslpassword: is a secret, but `params` are displayed: put it in `url`"],
    ),
    "an unknown strategy": (
        top("conflict: overwrit"),
        ["line 7: conflict: expected one of overwrite, skip, fail, merge; found 'overwrit'; did you mean 'overwrite'?"],
    ),
    "a strategy like no other": (
        top("conflict: upsert"),
        ["line 7: conflict: expected one of overwrite, skip, fail, merge; found 'upsert'"],
    ),
    "a strategy that is empty": (
        top("conflict:"),
        ["line 7: conflict: expected a strategy or a mapping with the key strategy, found nothing"],
    ),
    "a strategy that is a list": (
        top("conflict: [skip]"),
        ["line 7: conflict: expected a strategy or a mapping with the key strategy, found a list"],
    ),
    "an empty conflict key": (
        top("conflict: {key: []}"),
        ["line 7: conflict.key: expected at least one column, found an empty list"],
    ),
    "merge's keys without merge": (
        top("conflict:\n  strategy: skip\n  columns: {a: sum}\n  newest_by: b"),
        [
            "line 9: conflict.columns: needs `strategy: merge`, found `strategy: skip`",
            "line 10: conflict.newest_by: needs `strategy: merge`, found `strategy: skip`",
        ],
    ),
    "columns and newest_by together": (
        top("conflict: {strategy: merge, columns: {a: sum}, newest_by: b}"),
        [
            "line 7: conflict.newest_by: cannot be combined with `columns`: the newer row wins as a whole, not column by column"
        ],
    ),
    "a batch size of zero": (
        top("batch_size: 0"),
        ["line 7: batch_size: expected a number greater than zero, found 0"],
    ),
    "a batch size with a unit": (top("batch_size: 10k"), ["line 7: batch_size: expected a whole number, found '10k'"]),
    "a mapping that is a list": (
        top("schema_mapping: [a, b]"),
        ["line 7: schema_mapping: expected a mapping of keys to values, found a list"],
    ),
    "a mapping to nothing": (
        top("schema_mapping:\n  a:\n  b: ''"),
        ["line 8: schema_mapping.a: expected a string, found nothing"],
    ),
    "a mapping of two columns to one": (
        top("schema_mapping:\n  a: x\n  b: x"),
        ["line 9: schema_mapping.b: goes to the column 'x', and so does 'a'"],
    ),
    "a type rule without a target": (top("types:\n  - {column: a}"), ["line 8: types[0].to: missing; it is required"]),
    "a type rule of nothing": (
        top("types:\n  - {to: text}"),
        ["line 8: types[0]: expected either `column` or `type`, found neither"],
    ),
    "a type rule of both": (
        top("types:\n  - {column: a, type: int4, to: text}"),
        ["line 8: types[0]: expected either `column` or `type`, found both"],
    ),
    "a conversion for a type": (
        top("types:\n  - {type: int4, to: text, using: a::text}"),
        ["line 8: types[0].using: needs `column`, found `type`"],
    ),
    "a type rule that is a string": (
        top("types: [int4]"),
        ["line 7: types[0]: expected a mapping of keys to values, found 'int4'"],
    ),
    "a type mapped to a list": (top("types:\n  int4: [text]"), ["line 8: types.int4: expected a string, found a list"]),
    "an unknown route": (
        top("route: wire"),
        ["line 7: route: expected one of auto, server, relay, rows; found 'wire'"],
    ),
    "a compression that is none": (
        destination("compression: zstd"),
        ["line 7: destination.compression: expected one of lz4, pglz; found 'zstd'"],
    ),
    "create_table as a truth value": (
        destination("create_table: false"),
        ["line 7: destination.create_table: expected one of auto, never; found false"],
    ),
    "unlogged in YAML 1.1": (
        destination("unlogged: yes"),
        ["line 7: destination.unlogged: expected true or false, found 'yes'"],
    ),
    "a primary key of nothing": (
        destination("primary_key: []"),
        ["line 7: destination.primary_key: expected at least one column, found an empty list"],
    ),
    "attempts below one": (
        top("retry: {attempts: 0, max_delay: -1}"),
        [
            "line 7: retry.attempts: expected a number greater than zero, found 0",
            "line 7: retry.max_delay: expected a number greater than zero, found -1",
        ],
    ),
    "a key twice": (source("host: a\nport: 1\nhost: b"), ["line 6: the key 'host' is already in line 4"]),
    "a key that is a list": (
        top("? [a, b]\n: c"),
        ["line 7: a key must be a string; a value that begins with { or [ needs quotes"],
    ),
    "a merge of a string": (source("<<: x"), ["line 4: << needs a mapping"]),
    "a tab": ("source:\n\ttype: postgres\n", ["line 2: not valid YAML: a tab cannot indent a line; use spaces"]),
    "a colon too many": (
        source("host: a: b"),
        ["line 4: not valid YAML: a second `: ` in one line; a string that contains `: ` needs quotes"],
    ),
    "a bracket that is not closed": (
        source("columns: [a, b"),
        ["line 4: not valid YAML: a list that begins with [ has no ], or a comma is missing"],
    ),
    "a string that is not closed": (
        source('password: "hunter2'),
        ["line 4: not valid YAML: a quoted string has no closing quote, or contains an invalid escape"],
    ),
    "a password that begins with a star": (
        source("password: *hunter2"),
        [
            "line 4: not valid YAML: an alias (*) of something that is not defined above; a string that begins with * needs quotes"
        ],
    ),
    "a password that begins with an exclamation mark": (
        source("password: !hunter2"),
        ["line 4: a tag (!) is not allowed; a string that begins with ! needs quotes"],
    ),
    "a password that begins with an ampersand": (
        source("password: &hunter2"),
        ["line 4: an anchor (&) with nothing after it; a string that begins with & needs quotes"],
    ),
    "a password with two ampersands": (
        source("password: &hunter&2"),
        ["line 4: an anchor (&) with nothing after it; a string that begins with & needs quotes"],
    ),
    "a bad backslash": (
        source('where: "\\d"'),
        ["line 4: not valid YAML: a quoted string has no closing quote, or contains an invalid escape"],
    ),
    "a brace that is not closed": (
        source("pool: {min_size: 1"),
        ["line 4: not valid YAML: a mapping that begins with { has no }, or a comma is missing"],
    ),
    "a key without its colon": (source("host a\nport: 1"), ["line 4: not valid YAML: a colon is missing after a key"]),
    "a string behind a string": (
        source("host: 'a' b"),
        ["line 4: not valid YAML: this does not fit the indentation of the lines above or the value before it"],
    ),
    "a password that begins with an at": (
        source("password: @hunter2"),
        ["line 4: not valid YAML: a string that begins with @, ` or % needs quotes"],
    ),
    "a password with a percent sign": (
        source("password: %hunter2"),
        ["line 4: not valid YAML: a string that begins with @, ` or % needs quotes"],
    ),
    "a tag": (
        source("limit: !!python/object:os.system 1"),
        ["line 4: a tag (!) is not allowed; a string that begins with ! needs quotes"],
    ),
    "a query without its bar": (
        source("query: SELECT a: b"),
        ["line 4: not valid YAML: a second `: ` in one line; a string that contains `: ` needs quotes"],
    ),
    "two documents": (
        top("---\nname: x"),
        ["line 7: not valid YAML: a second document begins here (---); a job file has only one"],
    ),
    "an indent that fits nothing": (
        "source:\n    type: postgres\n  table: a\n",
        ["line 3: not valid YAML: this does not fit the indentation of the lines above or the value before it"],
    ),
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET", raising=False)


@pytest.mark.parametrize(("text", "problems"), BAD.values(), ids=BAD)
def test_the_message_for(text: str, problems: list[str], tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(portl.ConfigError) as caught:
        load(path)
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    assert str(caught.value) == "\n  ".join([f"{path}: {count}", *problems])
    assert caught.value.problems == problems


@pytest.mark.parametrize("text", [text for text, _ in BAD.values() if "hunter" in text or "PASSWORD" in text])
def test_no_message_repeats_a_password(text: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(portl.ConfigError) as caught:
        load(path)
    assert "hunter" not in str(caught.value)


EVERYTHING_WRONG = """\
nmae: x
source:
  type: postgres
  port: 99999
  tabel: a
  pool: {min_size: 9, max_size: 3, tiemout: 1}
  statement_timeout: -1
  sslmode: sometimes
  columns: [a, a]
  host: ${NOT_SET}
  host: again
destination:
  type: postgres
  url: postgresql://u:hunter2@h:x/d
  port: ${PORT}
  primary_key: []
conflict: {strategy: skip, newest_by: x, keys: [a]}
batch_size: ten
types:
  - {column: a}
  - {to: text}
retry: {attempts: 0, max_delay: 0}
"""


def test_all_errors_of_a_file_come_at_once_and_in_the_order_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(EVERYTHING_WRONG)
    with pytest.raises(portl.ConfigError) as caught:
        load(path)
    shown = [problem.split(";")[0] for problem in caught.value.problems]
    assert shown == [
        "line 1: nmae: unknown key",
        "line 4: source.port: expected a number from 1 to 65535, found 99999",
        "line 5: source.tabel: unknown key",
        "line 6: source.pool.tiemout: unknown key",
        "line 6: source.pool.min_size: expected at most `max_size`, which is 3, found 9",
        "line 7: source.statement_timeout: expected a number of seconds, 0 for no limit, found -1",
        "line 8: source.sslmode: expected one of disable, allow, prefer, require, verify-ca, verify-full",
        "line 9: source.columns: names the column 'a' twice",
        "line 10: source.host: the environment variable NOT_SET is not set",
        "line 11: the key 'host' is already in line 10",
        "line 12: destination.table: missing",
        "line 14: destination.url: has a host or port that cannot be read",
        "line 15: destination.port: expected a whole number, found something else in ${PORT}",
        "line 16: destination.primary_key: expected at least one column, found an empty list",
        "line 17: conflict.keys: unknown key",
        "line 17: conflict.newest_by: needs `strategy: merge`, found `strategy: skip`",
        "line 18: batch_size: expected a whole number, found 'ten'",
        "line 20: types[0].to: missing",
        "line 21: types[1]: expected either `column` or `type`, found neither",
        "line 22: retry.attempts: expected a number greater than zero, found 0",
        "line 22: retry.max_delay: expected a number greater than zero, found 0",
    ]


def test_a_field_that_is_wrong_does_not_bring_errors_that_only_follow_from_it(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "source: {type: postgres, table: [a]}\n"
        "destination: {type: postgres, table: b, host: h, url: '${NOT_SET}'}\n"
        "conflict: {strategy: mrege, columns: {a: sum}}\n"
    )
    with pytest.raises(portl.ConfigError) as caught:
        load(path)
    assert [problem.split(":")[1].strip() for problem in caught.value.problems] == [
        "source.table",
        "destination.url",
        "conflict.strategy",
    ]


def test_a_dict_gets_the_same_messages_without_lines() -> None:
    job = {
        "source": {"type": "postgres", "tabel": "a", "port": "5432", "password": 12345},
        "destination": {"type": "postgres", "table": "b", "unlogged": 1},
        "batch_size": True,
        "conflict": 3,
    }
    with pytest.raises(portl.ConfigError) as caught:
        portl.migrate(job)
    assert [problem.split("; did")[0] for problem in caught.value.problems] == [
        "source.tabel: unknown key",
        "source.port: expected a whole number, found '5432'",
        "source.password: expected a string, found int",
        "destination.unlogged: expected true or false, found 1",
        "conflict: expected one of overwrite, skip, fail, merge; found 3",
        "batch_size: expected a whole number, found true",
    ]


def test_the_models_themselves_refuse_what_a_file_may_not_say() -> None:
    with pytest.raises(portl.FieldError, match=r"^newest_by: needs `strategy: merge`"):
        portl.Conflict(newest_by="x")
    with pytest.raises(portl.FieldError, match=r"^expected either `column` or `type`, found neither$"):
        portl.TypeRule(to="text")


def test_the_error_says_how_many_problems_there_are_and_pickles() -> None:
    import pickle

    error = portl.ConfigError(["a", "b"], origin="x.yaml")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == ("x.yaml: 2 problems\n  a\n  b", ["a", "b"])

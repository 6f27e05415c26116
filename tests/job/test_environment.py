"""Variables in a job: what ``${`` means, and that no other dollar means anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portl
from portl.job.environment import escaped, interpolated
from portl.job.loading import load
from portl.job.writing import job_text
from portl.testing.memory import MemoryDestinationConfig
from portl_postgres.config import PostgresSourceConfig
from tests.servers import Db


def expanded(text: str) -> Any:
    problems: list[str] = []
    found = interpolated(text, (), lambda path, message: problems.append(message))
    assert problems == []
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("$$", "$$"),
        ("$1 $x 5$", "$1 $x 5$"),
        ("$q$it's$q$", "$q$it's$q$"),
        ("$${V}", "${V}"),
        ("$${", "${"),
        ("$$$${V}", "$$${V}"),
        ("$${V}${V}", "${V}v"),
        ("${D:-$}${V}", "$v"),
        ("$$a$$ = '${V}'", "$$a$$ = 'v'"),
    ],
)
def test_only_a_dollar_with_a_brace_is_special(monkeypatch: pytest.MonkeyPatch, written: str, meant: str) -> None:
    monkeypatch.setenv("V", "v")
    monkeypatch.delenv("D", raising=False)
    assert expanded(written) == meant


@given(st.text(alphabet="${}aN:-", max_size=20))
def test_a_text_that_was_escaped_means_itself(text: str) -> None:
    assert expanded(escaped(text)) == text
    assert escaped({"a": [text]}) == {"a": [escaped(text)]}


def test_dollar_quotes_of_a_job_file_reach_the_server(source: Db, destination: Db, tmp_path: Path) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    source.execute("INSERT INTO t VALUES (1, 'it''s'), (2, 'b'), (3, 'it''s')")
    source.execute("CREATE FUNCTION same(a text, b text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT a = b'")
    where = "same(v, $$it's$$) AND id < 3"
    using = "v || $q$ ($$)$q$"
    job = {
        "source": source.end(table="t", where=where),
        "destination": destination.end(table="t"),
        "types": [{"column": "v", "to": "text", "using": using}],
        "conflict": {"strategy": "merge", "columns": {"v": "destination.v || $$+$$ || source.v"}},
    }
    portl.migrate(job)
    assert destination.execute("SELECT * FROM t") == [(1, "it's ($$)")]
    portl.migrate(job)
    assert destination.execute("SELECT * FROM t") == [(1, "it's ($$)+it's ($$)")]
    query = "SELECT id, $f$it's$f$ || $$ $$ || v AS v FROM t WHERE same(v, $$b$$)"
    portl.migrate({"source": source.end(query=query), "destination": destination.end(table="q"), "conflict": "fail"})
    assert destination.execute("SELECT * FROM q") == [(2, "it's b")]


def test_a_job_from_urls_means_names_with_dollars_as_they_are() -> None:
    job = portl.job_from_urls("postgresql://u@h/d$$", "memory://${db}", table='"${HOME}"."$1$${x}"')
    config = load(job)
    assert isinstance(config.source, PostgresSourceConfig)
    assert (config.source.database, config.source.schema, config.source.table) == ("d$$", "${HOME}", "$1$${x}")
    assert isinstance(config.destination, MemoryDestinationConfig)
    assert config.destination.database == "${db}"


def test_names_with_dollars_are_the_same_in_a_written_job_file(tmp_path: Path) -> None:
    names = ["$$", "${HOME}", "$${HOME}", "a$b"]
    source = {"type": "postgres", "table": "t", "columns": names, "password": portl.Secret("x")}
    job = {"source": source, "destination": {"type": "postgres", "table": "t"}}
    path = tmp_path / "job.yaml"
    path.write_text(job_text(escaped(job), comments={}), encoding="utf-8")
    assert "password: ${SOURCE_PASSWORD}" in path.read_text(encoding="utf-8")
    assert load(path, overrides={"source.password": "x"}).source.columns == tuple(names)

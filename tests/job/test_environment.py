"""Variables in a job: what ``${`` means, and that no other dollar means anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portl
from portl.job.environment import escaped, interpolated
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

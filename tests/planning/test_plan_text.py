"""A plan on a terminal of 80 columns: what matters is on the screen, and what is wide is cut."""

from __future__ import annotations

import pytest

import portl
from portl.planning.text import SCREEN, short_type
from tests.servers import Db
from tests.whole import job_of

NUMBERS = range(13)


def job(source: Db, destination: Db) -> dict[str, object]:
    return {"source": source.end(table="wide"), "destination": destination.end(table="wide")}


@pytest.fixture
def wide(source: Db) -> None:
    columns = ", ".join(
        f"code_{n} character varying(5), moment_{n} timestamp(3) with time zone DEFAULT now(),"
        f" long_text_{n} text DEFAULT repeat('lorem ipsum ', 40)"
        for n in NUMBERS
    )
    source.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns}); INSERT INTO wide SELECT generate_series(1, 20)")


@pytest.mark.usefixtures("wide")
def test_a_wide_table_leaves_the_verdict_on_the_screen(source: Db, destination: Db) -> None:
    lines = portl.plan(job(source, destination)).text(width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 45
    assert lines[-1] == "ready to run"
    assert "  code_0       varchar(5)      code_0       varchar(5)      lossless" in lines
    assert "  moment_0     timestamptz(3)  moment_0     timestamptz(3)  lossless" in lines
    assert "  … and 24 more under the same name and type, lossless (--json shows all)" in lines
    preview = lines[lines.index("preview (the first 5 rows as they will arrive)") + 1 : -2]
    assert len(preview) == 7
    assert preview[0].split()[:3] == ["id", "code_0", "moment_0"]
    assert "lorem ipsu..." in preview[1]
    assert preview[-1].endswith("more columns (--json shows all)")


@pytest.mark.usefixtures("wide")
def test_problems_are_above_the_verdict_of_a_long_plan_too(source: Db, destination: Db) -> None:
    destination.execute("CREATE TABLE wide (id int PRIMARY KEY, code_0 int)")
    plan = portl.plan(job(source, destination))
    lines = plan.text(width=80).splitlines()
    assert lines[2].startswith("problems (")
    assert len(plan.problems) > 5, plan.problems
    assert lines[-1] == f"{len(plan.problems)} problems: this plan does not run"
    end = lines[-SCREEN:]
    assert any(line.startswith("  - ") for line in end)
    assert end[-2] == f"  … and {len(plan.problems) - 5} more, at the top"


def test_problems_of_many_tables_are_above_the_verdict(source: Db, destination: Db) -> None:
    for number in NUMBERS:
        source.execute(f'CREATE TABLE t{number} (id int PRIMARY KEY, "<b>" int)')
        destination.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY)")
    plan = portl.plan(job_of(source, destination))
    *_, last, verdict = plan.text().splitlines()
    assert verdict == "13 problems: this plan does not run"
    assert "<b>" in last
    assert "&lt;b&gt;" in plan._repr_html_()
    assert "<b>" not in plan._repr_html_()


@pytest.mark.parametrize(
    ("native", "short"),
    [
        ("character varying(5)", "varchar(5)"),
        ("character varying", "varchar"),
        ("character(3)", "char(3)"),
        ("bit varying(8)[]", "varbit(8)[]"),
        ("double precision", "float8"),
        ("timestamp(3) with time zone", "timestamptz(3)"),
        ("timestamp without time zone[]", "timestamp[]"),
        ("time with time zone", "timetz"),
        ("numeric(12,2)", "numeric(12,2)"),
        ('"my character"', '"my character"'),
    ],
)
def test_types_have_short_names(native: str, short: str) -> None:
    assert short_type(native) == short

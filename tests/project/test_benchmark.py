"""The benchmark runs, and says of each figure what it should. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import Missing, Outcome, Reach, Way, Work, measure
from benchmarks.report import chart, markdown, summary

ROOT = Path(__file__).parents[2]


def outcome(reach: Reach, **figures: float) -> Outcome:
    ways = [Way(name=name, run=lambda value=value: value) for name, value in figures.items()]  # type: ignore[misc]
    return measure(Work(name="w", title="work", ways=ways, reaches=[reach]), 3, lambda: None, lambda line: None)


@pytest.mark.parametrize(
    ("reach", "found", "met"),
    [
        (Reach(way="portl", against=("pipe", "hand"), bound=1.1), 1.25, False),  # beside the better of both
        (Reach(way="portl", against=("pipe",), bound=1.1), 1.0, True),
        (Reach(way="portl", against=("pipe",), bound=1.0, kind="under"), 1.0, False),
        (Reach(way="hand", against=("portl",), bound=1.2, kind="at least"), 1.25, True),
        (Reach(way="portl", bound=9.0), 10.0, False),
        (Reach(way="portl", against=("dlt",), bound=1.0), None, None),
        (Reach(way="dlt", bound=1.0), None, None),
    ],
)
def test_a_figure_is_judged_by_its_bound(reach: Reach, found: float | None, met: bool | None) -> None:
    (verdict,) = outcome(reach, portl=10.0, pipe=10.0, hand=8.0).verdicts
    assert (verdict.found, verdict.met) == (found, met)


def test_ways_take_turns_and_one_that_fails_is_left_out_with_its_reason() -> None:
    ran = []

    def run(name: str) -> float:
        ran.append(name)
        if name == "c":
            raise Missing("c is not installed")
        if name == "d" and ran.count("d") == 2:
            raise RuntimeError("broken")
        return 1.0

    ways = [Way(name=name, run=lambda name=name: run(name)) for name in "abcd"]  # type: ignore[misc]
    work = Work(name="w", title="work", ways=ways, reaches=[Reach(way="a", against=("b",), bound=1.0)])
    found = measure(work, 3, lambda: None, lambda line: None)
    assert "".join(ran) == "abcd" + "bda" + "ab"
    assert [figure.missing for figure in found.figures] == [
        None,
        None,
        "c is not installed",
        "failed: RuntimeError: broken",
    ]
    assert "a: at most 1 x b" in summary([found])
    assert "left out: c is not installed" in markdown([found])
    assert chart([found]).count("<rect") == 3


def test_the_command_measures_and_writes_down_what_it_found(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "benchmarks", "--quick", "--scale", "0.0005", "--out", str(tmp_path)]
    only = ["--only", "existing-mixed", "--only", "skip", "--only", "processor", "--only", "link-wide"]
    done = subprocess.run([*call, *only], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [work["name"] for work in results["works"]] == ["existing-mixed", "skip", "link-wide", "processor"]
    assert all(way["median"] > 0 for work in results["works"] for way in work["ways"]), done.stdout
    assert results["machine"]["postgres"].startswith("18")
    assert (tmp_path / "chart.svg").read_text().startswith("<svg ")
    assert "| portl: at most 1.1 x psql pipe |" in (tmp_path / "results.md").read_text()

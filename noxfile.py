"""The checks to run before a change lands: ``nox`` runs lint, types, docs and tests on the current Python."""

from __future__ import annotations

import sys

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", f"tests-{HERE}"]
nox.options.reuse_existing_virtualenvs = True

#: Most packages installed for the checks are never imported, and compiling them takes as long as everything else.
LEAN = "--no-compile"


def _compile_once(session: nox.Session) -> None:
    """Have Python keep what it compiles, also where PYTHONDONTWRITEBYTECODE is set: tests start it by the hundred."""
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.env["PYTHONPYCACHEPREFIX"] = session.create_tmp()


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and the direction of imports."""
    session.install(LEAN, ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install(LEAN, ".[types]")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests against real servers; arguments go to pytest."""
    session.install(".[test]")
    _compile_once(session)
    # worksteal: the slowest files are ten times as long as others, and one that comes last would run alone.
    session.run("pytest", *(session.posargs or ["-n", "auto", "--dist", "worksteal"]))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, with warnings as errors; ``nox -s docs -- serve`` serves it while writing."""
    session.install(LEAN, *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "docs"))
    session.env["NO_MKDOCS_2_WARNING"] = "1"  # of the theme's, to leave MkDocs: not ours to heed in each build
    session.run("mkdocs", *(session.posargs or ["build", "--quiet"]))


@nox.session(python=HERE)
def build(session: nox.Session) -> None:
    """Build the sdist, and the wheel from it, into dist/."""
    session.install("build")
    session.run("python", "-m", "build", *session.posargs)


@nox.session(python=HERE)
def faults(session: nox.Session) -> None:
    """Run the slow tests, about half an hour: kills at many more points, lost connections, restarts, more examples."""
    session.install(".[test]")
    _compile_once(session)
    session.run("pytest", "-m", "faults", *(session.posargs or ["-n", "auto", "--dist", "worksteal"]))


@nox.session(python=HERE)
def bench(session: nox.Session) -> None:
    """Measure portl beside its peers; arguments go to the benchmark: ``nox -s bench -- --quick``."""
    session.install(".[demo]")
    # The peers are not dependencies of portl: those that cannot be installed are left out of the table.
    session.run("python", "-m", "pip", "install", "-q", "-r", "benchmarks/peers.txt", success_codes=[0, 1])
    session.run("python", "-m", "benchmarks", *session.posargs)

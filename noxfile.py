"""What is run before a change lands: ``nox`` runs lint, types, the docs and the tests on the Python at hand."""

from __future__ import annotations

import sys

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", f"tests-{HERE}"]
nox.options.reuse_existing_virtualenvs = True

#: Most of what is installed to look at the code is never imported, and compiling it takes as long as the rest.
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
    """Build the documentation into site/, warnings being errors; ``nox -s docs -- serve`` shows it while one writes."""
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
    """Run what takes long: kills at many more moments, cuts, restarts, more drawn examples; about half an hour."""
    session.install(".[test]")
    _compile_once(session)
    session.run("pytest", "-m", "faults", *(session.posargs or ["-n", "auto", "--dist", "worksteal"]))


@nox.session(python=HERE)
def bench(session: nox.Session) -> None:
    """Measure portl beside its peers; arguments go to the benchmark: ``nox -s bench -- --quick``."""
    session.install(".[demo]")
    # The peers are no dependency of portl's: what cannot be installed is left out of the table.
    session.run("python", "-m", "pip", "install", "-q", "-r", "benchmarks/peers.txt", success_codes=[0, 1])
    session.run("python", "-m", "benchmarks", *session.posargs)

"""The wheel and the sdist hold what they should, and the wheel works in an environment that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import portl

ROOT = Path(__file__).parents[2]
PACKAGES = ("portl", "portl_postgres", "portl_sqlite")
#: What somebody who builds, tests or reads portl from the sdist needs besides the packages.
NEEDED = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "mkdocs.yml",
    "noxfile.py",
    "pyproject.toml",
    "tests/conftest.py",
    "tests/servers.py",
    "docs/index.md",
    "docs/performance.svg",
    "examples/users.yaml",
    "benchmarks/__main__.py",
}


def run(*call: object, **environment: str) -> str:
    """Run a program away from the source tree, and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in call],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=Path(sys.prefix),
        env={**kept, **environment},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation: what builds is installed with the tests, and nothing is fetched.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh virtual environment with the wheel and its command line."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    call = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        programs / "python",
        "install",
        "--quiet",
        "--no-compile",
        f"{wheel}[cli]",
    ]
    run(*call, PIP_DISABLE_PIP_VERSION_CHECK="1")
    return programs


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert held == there
    for name in (
        "portl/py.typed",
        "portl/values/report/page.html",
        "portl_postgres/py.typed",
        "portl_postgres/demo/shop.sql",
    ):
        assert name in held
    assert sum(name.startswith("portl_postgres/sql/") and name.endswith(".sql") for name in held) >= 12


def test_the_sdist_holds_what_tests_docs_and_builds_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames()}
    assert held >= NEEDED
    for folder in ("tests", "docs", "examples"):
        there = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.*") if path.is_file()}
        assert held >= there


def test_an_installed_wheel_works(environment: Path) -> None:
    assert run(environment / "portl", "--version") == f"portl {portl.__version__}\n"
    found = map(json.loads, run(environment / "portl", "connectors", "--json").splitlines())
    connector = {connector["name"]: connector for connector in found}["postgres"]
    assert (connector["package"], connector["error"]) == ("portl", None)
    assert (connector["source"], connector["destination"]) == (True, True)
    code = "import portl, portl_postgres.catalog; print(portl.__file__, portl.explain('conflict.key')[0].meaning)"
    said = run(environment / "python", "-c", code)
    assert said.startswith(str(environment.parent))
    assert "columns that rows conflict on" in said


def test_an_installed_wheel_says_what_the_demo_needs(environment: Path) -> None:
    done = subprocess.run(
        [environment / "portl", "demo"], capture_output=True, text=True, check=False, cwd=environment, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'portl[demo]'" in done.stderr

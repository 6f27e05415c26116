"""Connectors are found through entry points, and imported only when a job names them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import portl
from portl.connectors import registry

pytestmark = pytest.mark.usefixtures("nothing_registered")

SHELF = '''
import attrs
import portl


@attrs.frozen(kw_only=True)
class ShelfSource(portl.SourceConfig):
    """Where the rows stand."""

    #: The shelf's number.
    shelf: int
    labels: list[str] = attrs.Factory(list)


@portl.hookimpl
def portl_connector():
    return portl.Connector(name="shelf", summary="a made-up store", source_config=ShelfSource)
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a package with an entry point on sys.path, as pip does."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, code: str) -> None:
        module = f"portl_plugin_of_test_{name}"
        (tmp_path / f"{module}.py").write_text(dedent(code))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: portl-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[portl]\n{name} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def job(**source: object) -> dict[str, object]:
    return {"source": source, "destination": {"type": "postgres", "table": "b"}}


def test_a_plugin_is_found_through_its_entry_point(install) -> None:
    install("shelf", SHELF)
    assert sorted(registry.available()) == ["postgres", "shelf", "sqlite"]
    assert "portl_plugin_of_test_shelf" not in sys.modules
    connector = registry.load("shelf")
    assert (connector.name, connector.summary) == ("shelf", "a made-up store")
    assert connector.source_config is not None
    assert connector.source_config.__name__ == "ShelfSource"


def test_its_keys_get_the_same_errors_as_any(install) -> None:
    install("shelf", SHELF)
    with pytest.raises(portl.ConfigError) as caught:
        portl.migrate(job(type="shelf", shelf="high", lables=["a"], limit=-1, labels=[1]))
    assert caught.value.problems == [
        "source.lables: unknown key; did you mean `labels`? allowed here: type, columns, exclude_columns, limit, "
        "shelf, labels",
        "source.shelf: expected a whole number, found 'high'",
        "source.labels[0]: expected a string, found 1",
        "source.limit: expected zero or more, found -1",
    ]


def test_an_end_that_a_connector_lacks_is_said(install) -> None:
    install("shelf", SHELF)
    with pytest.raises(portl.ConfigError) as caught:
        portl.migrate({"source": {"type": "postgres", "table": "a"}, "destination": {"type": "shelf"}})
    assert caught.value.problems == ["destination.type: the connector 'shelf' is no destination: it can only read from"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mysql",
            "no connector 'mysql' is installed; there are 'postgres', 'sqlite'; connectors are packages; this one may"
            " be: python -m pip install portl-mysql",
        ),
        ("postgers", "no connector 'postgers' is installed; there are 'postgres', 'sqlite'; did you mean 'postgres'?"),
        ("my sql; true", "no connector 'my sql; true' is installed; there are 'postgres', 'sqlite'"),
    ],
)
def test_a_missing_connector_is_named_with_those_that_there_are(name: str, message: str) -> None:
    with pytest.raises(portl.PluginError) as caught:
        registry.load(name)
    assert str(caught.value) == message


def test_several_installed_connectors_are_all_named(install) -> None:
    install("shelf", SHELF)
    with pytest.raises(
        portl.PluginError, match=r"^no connector 'x' is installed; there are 'postgres', 'shelf', 'sqlite'; conn"
    ):
        registry.load("x")


WHERE = r"\(portl_plugin_of_test_{0}, from the package portl-{0}\)"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        (
            "lacking",
            "import a_module_that_is_not_there",
            f"^the connector 'lacking' {WHERE} failed to import: "
            r"ModuleNotFoundError: No module named 'a_module_that_is_not_there'$",
        ),
        (
            "failing",
            "import portl\n@portl.hookimpl\ndef portl_connector():\n    raise RuntimeError('no shelf')",
            f"^the hook of the connector 'failing' {WHERE} failed: RuntimeError: no shelf$",
        ),
        (
            "hookless",
            "x = 1",
            f"^the plugin 'hookless' {WHERE} provides no connector: expected a portl.Connector from a function "
            "portl_connector marked @portl.hookimpl, found None$",
        ),
        (
            "odd",
            "import portl\n@portl.hookimpl\ndef portl_connector():\n    return 'shelf'",
            f"^the plugin 'odd' {WHERE} provides no connector: .*, found 'shelf'$",
        ),
    ],
)
def test_a_plugin_that_fails_says_why(install, name: str, code: str, message: str) -> None:
    install(name, code)
    with pytest.raises(portl.PluginError, match=message.format(name)):
        registry.load(name)
    with pytest.raises(portl.ConfigError, match=message.format(name).replace("^", r"\n  source\.type: ")):
        portl.migrate(job(type=name))


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_portl_imports_no_connector_and_no_parser() -> None:
    found = run("""
        import sys
        import portl
        unwanted = ("psycopg", "psycopg_pool", "portl_postgres", "ruamel", "cattrs", "click", "rich")
        print([name for name in unwanted if name in sys.modules])
    """)
    assert found == "[]"


def test_a_job_for_another_connector_does_not_import_postgres(tmp_path: Path, install) -> None:
    install(
        "shelf",
        SHELF.replace("source_config=ShelfSource", "source_config=ShelfSource, destination_config=Sink").replace(
            "@portl.hookimpl",
            "@attrs.frozen(kw_only=True)\nclass Sink(portl.DestinationConfig):\n    pass\n\n\n@portl.hookimpl",
        ),
    )
    found = run(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from portl.job.loading import load
        config = load({{"source": {{"type": "shelf", "shelf": 3}}, "destination": {{"type": "shelf"}}}})
        print(config.source.shelf, [name for name in ("psycopg", "portl_postgres") if name in sys.modules])
    """)
    assert found == "3 []"


def test_nothing_in_the_core_names_the_postgres_plugin_or_its_driver() -> None:
    folder = Path(portl.__file__).parent
    named = [
        f"{path.name}:{number}"
        for path in folder.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "import" in line and ("psycopg" in line or "portl_postgres" in line)
    ]
    assert named == []

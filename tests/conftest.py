"""The fixtures that every test may use; those that need a server stand in ``tests.servers``."""

import os

import pytest
from hypothesis import settings

from portl.connectors import registry

pytest_plugins = ["tests.servers"]

# Where a change is judged, the same examples each time; new ones are tried wherever else the tests run.
settings.register_profile("judged", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("judged")


@pytest.fixture
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave connectors out that other tests of this process have registered: memory does so when it is imported."""
    monkeypatch.setattr(registry, "_registered", {})

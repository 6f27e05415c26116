"""The fixtures that every test may use; the others stand in the modules of ``pytest_plugins``."""

import os
import signal

import pytest
from hypothesis import settings

import portl.testing.memory  # noqa: F401  # registered once, whichever test comes first
from portl.connectors import registry

pytest_plugins = ["tests.servers", "tests.killing", "tests.tiny"]
pytest.register_assert_rewrite("tests.jobs", "tests.sessions")

# A shell that runs the tests in the background has them ignore Ctrl-C, and with them every program that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where a change is judged, the same examples each time; new ones are tried wherever else the tests run.
settings.register_profile("judged", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("judged")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return what ``-n auto`` means: some workers more than processors, as the tests wait for much of their time."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) + 2


@pytest.fixture
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the connectors that this process has registered: importing memory does so."""
    monkeypatch.setattr(registry, "_registered", {})

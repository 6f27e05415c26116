"""The fixtures that every test may use; those that need a server stand in ``tests.servers``."""

import os

from hypothesis import settings

pytest_plugins = ["tests.servers"]

# Where a change is judged, the same examples each time; new ones are tried wherever else the tests run.
settings.register_profile("judged", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("judged")

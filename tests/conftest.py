"""The fixtures that every test may use; those that need a server stand in ``tests.servers``."""

pytest_plugins = ["tests.servers"]

"""Support for tests: an in-memory connector, and the suite that every connector should pass (``conformance``)."""

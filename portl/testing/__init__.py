"""For tests: an in-memory connector, and a suite that every connector should pass (``portl.testing.conformance``)."""

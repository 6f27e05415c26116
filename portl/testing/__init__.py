"""For tests: a connector in memory, and a suite that every connector should pass (``portl.testing.conformance``)."""

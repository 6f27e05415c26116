"""What every connector should do, as tests: subclass, supply a fixture, run pytest.

::

    from portl.testing.conformance import DestinationConformance, SourceConformance, Target

    class TestSource(SourceConformance):
        @pytest.fixture
        def fill(self, tmp_path):
            def fill(columns, rows, key=()):
                ...                      # store the rows somewhere
                return {"type": "mine", "path": str(tmp_path / "t.mine")}  # the `source` of a job
            return fill

    class TestDestination(DestinationConformance):
        @pytest.fixture
        def place(self, tmp_path):
            def place(columns=None, rows=(), key=()):
                ...                      # make the table, unless ``columns`` is None
                return Target(
                    destination={…},                    # the `destination` of a job
                    rows=lambda columns: [...],         # the rows that are there now
                )
            return place

Only what a connector claims is tested: its strategies, savepoints, digests and increments, runs that the plan says can
be resumed, and the ``types`` and ``names`` of the test class. Needs pytest.
"""

from portl.testing.conformance.common import Change, Fill, Target, some
from portl.testing.conformance.destination import DestinationConformance
from portl.testing.conformance.source import SourceConformance

__all__ = ["Change", "DestinationConformance", "Fill", "SourceConformance", "Target", "some"]

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
                    rows=lambda columns: [...],         # what is there now
                )
            return place

Only what a connector claims is tested: its strategies, savepoints, digests and increments, whether the plan says that a
run can be resumed, and the attributes ``types`` and ``names`` of the class. Needs pytest.
"""

from portl.testing.conformance.common import Change, Fill, Target, some
from portl.testing.conformance.destination import DestinationConformance
from portl.testing.conformance.source import SourceConformance

__all__ = ["Change", "DestinationConformance", "Fill", "SourceConformance", "Target", "some"]

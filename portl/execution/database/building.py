"""Report the progress of objects while workers create them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from portl.config.models import DestinationConfig
from portl.connectors.context import Context
from portl.connectors.destination import Destination
from portl.values.errors import Error
from portl.values.events import ObjectProgress

logger = logging.getLogger("portl.execution")

#: Seconds that an object must have taken before the server is asked about its progress.
AFTER_SECONDS = 0.5


@attrs.frozen(kw_only=True)
class _Build:
    """Objects that a worker is creating."""

    session: Destination[DestinationConfig]
    table: str | None
    objects: tuple[str, ...]
    worker: int
    began: float = attrs.field(factory=time.monotonic)


class Builds:
    """The objects that workers are creating.

    Args:
        destination: that of the run, whose session is idle meanwhile.
        context: with the observers.
    """

    def __init__(self, destination: Destination[DestinationConfig], context: Context) -> None:
        self._destination = destination
        self._context = context
        self._lock = threading.Lock()
        self._builds: dict[int, _Build] = {}
        self._asks = True

    @contextmanager
    def during(
        self, session: Destination[DestinationConfig], table: str | None, objects: Sequence[str], worker: int
    ) -> Iterator[None]:
        """Note what a worker creates inside this context, over ``session``."""
        with self._lock:
            self._builds[worker] = _Build(session=session, table=table, objects=tuple(objects), worker=worker)
        try:
            yield
        finally:
            with self._lock:
                del self._builds[worker]

    def look(self) -> None:
        """Ask the server about their progress, and report it. Called in the thread of the run."""
        with self._lock:
            since = time.monotonic() - AFTER_SECONDS
            builds = [b for b in self._builds.values() if b.began <= since and b.session is not self._destination]
        if not builds or not self._asks:
            return
        try:
            found = self._destination.building([build.session for build in builds])
        except Error as error:
            # The run continues without: if the session is broken, its next use will show it.
            logger.info("how far objects are is not asked any more: %s", error.message)
            self._asks = False
            return
        for build, building in zip(builds, found, strict=True):
            if building is not None:
                self._context.emit(
                    ObjectProgress(
                        table=build.table,
                        objects=build.objects,
                        worker=build.worker,
                        phase=building.phase,
                        share=building.share,
                    )
                )

"""Retry transient failures: growing pauses with jitter, a limit, an event and a log line for each attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from portl.connectors.context import Context
from portl.values import events
from portl.values.errors import Cancelled, Error

if TYPE_CHECKING:
    import tenacity  # see ``retrying``

T = TypeVar("T")
logger = logging.getLogger("portl.execution")

#: Seconds of the first pause; each later one is twice as long, up to the job's ``retry.max_delay``.
FIRST_PAUSE = 0.5
#: Jitter, so that processes that failed together do not retry together: up to this many seconds are added, and at
#: most the pause itself.
JITTER = 0.5


def passes(error: BaseException) -> bool:
    """Return whether a failure is transient and has not used up its retries elsewhere."""
    return isinstance(error, Error) and error.transient and not error.exhausted and not isinstance(error, Cancelled)


def retrying(
    call: Callable[[], T],
    context: Context,
    what: str,
    *,
    again: Callable[[BaseException], bool] = passes,
    progress: Callable[[], object] | None = None,
) -> T:
    """Call a function until it succeeds, fails permanently, or the job's attempts are used up.

    Args:
        call: the function.
        context: has the limits, the token and the observers.
        what: what is attempted, for display.
        again: returns whether to retry after a failure; by default, if it is transient.
        progress: returns a value that changes with progress; an attempt that made progress resets the count.

    Raises:
        Error: raised by the last call; ``exhausted`` if the attempts are used up.
    """
    attempts = _Attempts(context, what, again, progress or (lambda: None))
    try:
        return call()
    except Error as error:
        first = [error]
    import tenacity  # most jobs never need it; importing it takes 10 ms

    def attempt() -> T:
        if first:
            raise first.pop()
        return call()

    return tenacity.Retrying(
        stop=attempts.enough,
        wait=attempts.pause,
        retry=tenacity.retry_if_exception(attempts.worth_another),
        sleep=context.token.wait,
        before_sleep=attempts.report,
        reraise=True,
    )(attempt)


class _Attempts:
    """Counts failures since the last progress."""

    def __init__(
        self, context: Context, what: str, again: Callable[[BaseException], bool], progress: Callable[[], object]
    ) -> None:
        self._context = context
        self._what = what
        self._again = again
        self._progress = progress
        self._reached = progress()
        self._failures = 0

    def worth_another(self, error: BaseException) -> bool:
        """Count a failure, and return whether to retry."""
        now = self._progress()
        if now != self._reached:
            self._reached, self._failures = now, 0
        self._failures += 1
        return self._again(error)

    def enough(self, state: tenacity.RetryCallState) -> bool:
        """Return whether the attempts are used up."""
        if self._failures < self._context.retry.attempts:
            return False
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Error):
            error.exhausted = True
        return True

    def pause(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next attempt."""
        import tenacity  # imported already

        state.attempt_number = self._failures
        grown = tenacity.wait_exponential(multiplier=FIRST_PAUSE, max=self._context.retry.max_delay)(state)
        return float(grown + tenacity.wait_random(0, min(JITTER, grown))(state))

    def report(self, state: tenacity.RetryCallState) -> None:
        """Report the failed attempt and the pause to the observers."""
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0.0
        text = error.message if isinstance(error, Error) else str(error)
        of = self._context.retry.attempts
        message = "%s: attempt %d of %d failed, retrying in %.1f s: %s"
        logger.warning(message, self._what, self._failures, of, seconds, text)
        self._context.emit(
            events.Retrying(what=self._what, attempt=self._failures, attempts=of, pause=seconds, error=text)
        )

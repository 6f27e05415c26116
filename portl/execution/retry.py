"""Try again what may go better in a moment: growing, jittered pauses, a limit, an event and a log line for each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from portl.values import events
from portl.values.errors import Cancelled, Error

if TYPE_CHECKING:
    from portl.connectors.context import Context

T = TypeVar("T")
logger = logging.getLogger("portl.execution")

#: The first pause is half a second, each further one twice as long, up to the job's ``retry.max_delay``.
FIRST_PAUSE = 0.5
#: … and up to so many seconds more, so that those who failed together do not come back together.
JITTER = 0.5


def passes(error: BaseException) -> bool:
    """Tell whether a failure may pass by itself."""
    return isinstance(error, Error) and error.transient and not isinstance(error, Cancelled)


def retrying(
    call: Callable[[], T],
    context: Context,
    what: str,
    *,
    again: Callable[[BaseException], bool] = passes,
    progress: Callable[[], object] | None = None,
) -> T:
    """Call until it succeeds, the failure is one that does not pass, or the job's attempts are used up.

    Args:
        call: what is tried.
        context: has the limits, the token and the observers.
        what: for people: what is tried.
        again: tells which failures may pass.
        progress: returns something that changes when a failed attempt has got further: then the counting begins anew.
    """
    limits = context.retry
    reached: list[object] = [progress() if progress else None]
    failures = [0]
    try:
        return call()
    except Error as error:
        first = [error]
    import tenacity  # most jobs never need it

    def attempt() -> T:
        if first:
            raise first.pop()
        return call()

    def worth_it(error: BaseException) -> bool:
        now = progress() if progress else None
        if now != reached[0]:
            reached[0] = now
            failures[0] = 0
        failures[0] += 1
        return again(error)

    def pause(state: tenacity.RetryCallState) -> float:
        grown = tenacity.wait_exponential(multiplier=FIRST_PAUSE, max=limits.max_delay)
        state.attempt_number = failures[0]
        return float(grown(state) + tenacity.wait_random(0, JITTER)(state))

    def report(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0.0
        text = error.message if isinstance(error, Error) else str(error)
        logger.warning(
            "%s: attempt %d of %d failed, again in %.1f s: %s", what, failures[0], limits.attempts, seconds, text
        )
        context.emit(
            events.Retrying(what=what, attempt=failures[0], attempts=limits.attempts, pause=seconds, error=text)
        )

    def enough(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if failures[0] < limits.attempts:
            return False
        if isinstance(error, Error):
            error.exhausted = True
        return True

    return tenacity.Retrying(
        stop=enough,
        wait=pause,
        retry=tenacity.retry_if_exception(worth_it),
        sleep=context.token.wait,
        before_sleep=report,
        reraise=True,
    )(attempt)

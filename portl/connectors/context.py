"""What a run passes to both sides: cancel token, observers, retry settings."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from portl.config.models import Retry
from portl.values.cancel import CancelToken
from portl.values.events import Event


def _ignore(event: Event) -> None:
    """Ignore an event."""


@attrs.frozen(kw_only=True)
class Context:
    """What a run passes to both sides."""

    #: Check it in every long-running loop.
    token: CancelToken = attrs.field(factory=CancelToken)
    #: Passes an event to the observers.
    emit: Callable[[Event], None] = _ignore
    retry: Retry = attrs.field(factory=Retry)

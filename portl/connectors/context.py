"""What a run lends to both sides: the token that ends it, and the way to its observers."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from portl.config.models import Retry
from portl.values.cancel import CancelToken
from portl.values.events import Event


def _ignore(event: Event) -> None:
    """Observe nothing."""


@attrs.frozen(kw_only=True)
class Context:
    """What a run lends to both sides."""

    #: Look at it in every loop that may take long.
    token: CancelToken = attrs.field(factory=CancelToken)
    #: Hands an event to the observers.
    emit: Callable[[Event], None] = _ignore
    retry: Retry = attrs.field(factory=Retry)

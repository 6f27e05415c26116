"""Choose the format that rows travel in: the source's first that the destination accepts and that suits the job.

The route is how a format travels: ``server``, ``relay`` or ``rows``.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from portl.config.models import DestinationConfig, MigrationConfig, Route, SourceConfig, Verify
from portl.connectors.destination import Destination
from portl.connectors.exchange import Format, Intent
from portl.connectors.source import Source
from portl.values.findings import Finding, problem


def snapshot_need(config: MigrationConfig) -> str | None:
    """Return what in the job needs the source's snapshot, which rules out formats that read their own."""
    if config.chunk_rows is not None:
        return "`chunk_rows` asks for chunks, which have to read one state"
    if config.verify is not Verify.NONE:
        return "`verify` compares with the state that the source had at the beginning"
    return None


def choose_format(
    wanted: Route,
    source: Source[SourceConfig],
    destination: Destination[DestinationConfig],
    intent: Intent,
    own_state: str | None,
) -> Format | Finding:
    """Return the format, or the problem that there is none.

    Args:
        wanted: the route that the job asks for.
        source: an open source.
        destination: an open destination.
        intent: the job; its format is ignored.
        own_state: why a format that reads its own snapshot is ruled out; None if it is not.
    """
    taken = set(destination.formats(intent.fields))
    passed: list[str] = []
    for format in source.formats(intent.fields):
        if format.name not in taken or wanted.value not in (Route.AUTO.value, format.route):
            continue
        why = format.obstacle or (own_state if format.own_state else None)
        why = why or destination.obstacle(attrs.evolve(intent, format=format))
        if why is None:
            reason = format.reason if wanted is Route.AUTO else f"the job asks for it: {wanted}"
            return attrs.evolve(format, reason="; ".join([reason, *passed]))
        passed.append(f"not {format.route}: {why}")
    return _no_route(wanted, passed)


def _no_route(wanted: Route, passed: Sequence[str]) -> Finding:
    remedy = None if wanted is Route.AUTO else "remove `route`"
    if passed:
        return problem("route", "; ".join(passed), remedy)
    if wanted is Route.SERVER:
        message = "not server: source and destination are not the same database of one running server"
        return problem("route", message, remedy)
    return problem("route", f"source and destination have no format in common ({wanted})", remedy)

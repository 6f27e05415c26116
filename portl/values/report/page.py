"""Fill the template of the page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from portl._version import __version__
from portl.values.history import History
from portl.values.report.timeline import drawing, spoken
from portl.values.text import human_bytes

#: How many tables are shown at first, the largest; the others unfold.
LARGEST = 25

#: The headings of a table's row counts; a column of zeros is left out.
_COUNTS = (
    ("read", "rows_read"),
    ("new", "rows_inserted"),
    ("changed", "rows_updated"),
    ("deleted", "rows_deleted"),
    ("same", "rows_unchanged"),
    ("skipped", "rows_skipped"),
    ("own value", "rows_kept"),
    ("rejected", "rows_rejected"),
)
_KINDS = {
    "plan": "planning",
    "compare": "comparing",
    "rows": "rows",
    "objects": "tables, keys, indexes and other objects",
    "verify": "verification",
}


def insist() -> None:
    """Raise ``ImportError`` if the template engine is not installed."""
    try:
        import_module("jinja2")
    except ImportError as error:
        said = 'a report needs jinja2, which comes with the extra `report`: pip install "portl[report]"'
        raise ImportError(said, name="jinja2") from error


def write(path: str | os.PathLike[str], result: Mapping[str, Any], history: History | None) -> None:
    """Write the page.

    Args:
        path: the file, which is replaced.
        result: the data of ``Result.to_dict``, with the labels of both sides.
        history: what happened; None if it was not recorded.

    Raises:
        ImportError: the template engine is not installed.
        OSError: the file cannot be written.
    """
    text = render(result, history)
    target = Path(path)
    # Replaced atomically: a reader sees either the earlier report or this one.
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def render(result: Mapping[str, Any], history: History | None) -> str:
    """Return the page. Takes the arguments of ``write``, without the path."""
    insist()
    import jinja2  # an extra

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(size=human_bytes, spoken=spoken, number=lambda value: f"{value:,}")
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text("utf-8"))
    tables = sorted(result["tables"], key=lambda table: (table["error"] is None, -table["rows_read"]))
    seconds = result["seconds"]
    moved = result["rows_read"] - sum(table["rows_before"] for table in tables)
    return template.render(
        result=result,
        history=history,
        version=__version__,
        tables=tables,
        largest=LARGEST,
        counts=[(head, name) for head, name in _COUNTS if name == "rows_read" or any(t[name] for t in tables)],
        rate=moved / seconds if seconds else 0.0,
        size_rate=result["bytes"] / seconds if seconds else 0.0,
        new=sum(table["destination_kind"] == "new" for table in tables),
        failed=[table for table in tables if table["error"] is not None],
        retries=sum(table["retries"] for table in tables),
        attempt=max((table["attempt"] for table in tables), default=1),
        before=sum(table["rows_before"] for table in tables),
        verified=_verified(result, tables),
        places=sorted({t["rejected_to"] for t in tables if t["rejected_to"] and t["rows_rejected"]}),
        drawing=drawing(history.spans, history.incidents, history.seconds) if history and history.spans else None,
        kinds=_KINDS,
    )


def _verified(result: Mapping[str, Any], tables: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the outcome of verification, differing tables first, without the rows, which would show values."""
    found = [result["verification"], *(table["verification"] for table in tables)]
    kept = [{**checked, "rows": ()} for checked in found if checked is not None]
    return sorted(kept, key=lambda checked: (checked["equal"], -checked["rows_source"]))

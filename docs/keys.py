"""Write the tables of keys into the pages that have them, from the models: ``python docs/keys.py``. A test compares."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

import portl
from portl.config.documentation import field_docs
from portl.config.models import Quarantine
from portl.config.validators import key_of
from portl_postgres.config import Pool, PostgresDestinationConfig, PostgresSourceConfig
from portl_sqlite.config import SqliteDestinationConfig, SqliteSourceConfig

PAGES = [Path(__file__).with_name(name) for name in ("job-file.md", "sqlite.md")]
MODELS: dict[str, type[attrs.AttrsInstance]] = {
    "job": portl.MigrationConfig,
    "source": PostgresSourceConfig,
    "destination": PostgresDestinationConfig,
    "incremental": portl.IncrementalConfig,
    "mirror": portl.MirrorConfig,
    "conflict": portl.Conflict,
    "types": portl.TypeRule,
    "ledger": portl.LedgerConfig,
    "quarantine": Quarantine,
    "retry": portl.Retry,
    "pool": Pool,
    "sqlite_source": SqliteSourceConfig,
    "sqlite_destination": SqliteDestinationConfig,
}
_REGION = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(model: type[attrs.AttrsInstance]) -> str:
    """Return a model's keys as a Markdown table."""
    docs = field_docs(model)
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for field in attrs.fields(model):
        lines.append(f"| `{key_of(field)}` | {_default(field.default)} | {docs[field.name]} |")
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    if value is attrs.NOTHING:
        return "required"
    if value in (None, (), "") or not isinstance(value, (str, int, float)):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def filled(text: str) -> str:
    """Return a page with its tables as they should be."""
    return _REGION.sub(lambda match: f"{match[1]}{table(MODELS[match[2]])}{match[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")

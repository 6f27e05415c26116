"""What portl found when it examined both sides: problems, warnings, notes."""

from __future__ import annotations

import enum

import attrs


class Severity(enum.StrEnum):
    """How much a finding matters."""

    PROBLEM = "problem"
    WARNING = "warning"
    NOTE = "note"


@attrs.frozen(kw_only=True)
class Finding:
    """Something that portl found when it examined both sides. A problem keeps the plan from running."""

    severity: Severity
    #: ``source``, ``destination``, or the column in question.
    where: str
    message: str
    #: What to do about it.
    remedy: str | None = None

    @property
    def rank(self) -> int:
        """Its place in the order of findings: problems come first."""
        return list(Severity).index(self.severity)

    def to_dict(self) -> dict[str, str | None]:
        """Return plain data, ready for JSON."""
        return {
            "severity": self.severity.value,
            "where": self.where,
            "message": self.message,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}"
        return f"{text} -> {self.remedy}" if self.remedy else text


def problem(where: str, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that keeps the plan from running."""
    return Finding(severity=Severity.PROBLEM, where=where, message=message, remedy=remedy)


def warning(where: str, message: str, remedy: str | None = None) -> Finding:
    """Return a finding that the user should know of before running the plan."""
    return Finding(severity=Severity.WARNING, where=where, message=message, remedy=remedy)


def note(where: str, message: str) -> Finding:
    """Return a finding that explains."""
    return Finding(severity=Severity.NOTE, where=where, message=message)

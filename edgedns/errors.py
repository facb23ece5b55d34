"""What can go wrong, in words an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a rules file: where it is, what it is, and (often) what to do."""

    file: str
    line: int
    column: int
    code: str
    message: str
    severity: Severity = "error"
    source: str = ""

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    def __str__(self) -> str:
        head = f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.message} [{self.code}]"
        if not self.source:
            return head
        return f"{head}\n    {self.source}\n    {' ' * (self.column - 1)}^"


def problem(where: tuple[str, int, int], code: str, message: str) -> Problem:
    """A Problem at `where` (file, line, column); codes that begin with W are warnings."""
    severity: Severity = "warning" if code.startswith("W") else "error"
    return Problem(*where, code, message, severity)


class EdgednsError(Exception):
    """Base of every error this package raises on purpose; its text is one clear sentence."""


class RuleErrors(EdgednsError):
    """The rules hold mistakes; all of them are in `problems`, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SourceError(EdgednsError):
    """An input file (ASN table, WAN table, targets, published file) can't be used, and why."""


class PublishRefused(EdgednsError):
    """A snapshot was implausible and was not published; the last good one stands (law 8)."""

"""Why a document of a rule file is not in force."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a document is no rule: one sentence that says what is accepted, where there is such a thing."""

    path: str
    line: int
    title: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.title}: {self.reason}"


class Unsupported(Exception):
    """A construct that no evaluator knows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document stands, and its text."""

    path: str
    line: int
    title: str
    text: str

    def refuse(self, error: Exception) -> Refusal:
        """The refusal for an error in it, with the line of the first word that the error quotes."""
        return Refusal(self.path, self.line + _line_of(self.text, str(error)), self.title, _sentence(error))


def _line_of(part: str, reason: str) -> int:
    """Lines from the start of the document to the first word that the reason quotes; 0 when it quotes none."""
    for quoted in re.findall(r"'([^']+)'", reason):
        found = re.search(rf"(?<!\w){re.escape(quoted)}(?!\w)", part)
        if found:
            return part.count("\n", 0, found.start())
    return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the condition is nested too deeply"
    return re.sub(r"(?<=: )b'([^']*)'", r"\1", " ".join(str(error).split())) or type(error).__name__

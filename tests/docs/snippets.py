"""Code blocks of Markdown pages, and what their markers say about running them.

A block of Python or shell is preceded by one of

    <!-- snippet: run -->              runs in the test, in order, in one folder per page
    <!-- snippet: skip (REASON) -->    does not run, for the reason given
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("python", "sh")

_BLOCK = re.compile(
    r"(?:^<!-- snippet: (?P<action>run|skip)(?: \((?P<reason>[^\n]+)\))? -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """A code block.

    Args:
        page: the file.
        line: number of its first line.
        language: one of `LANGUAGES`.
        code: its text.
        action: `run`, `skip`, or empty where the block has no marker.
        reason: why it does not run.
    """

    page: Path
    line: int
    language: str
    code: str
    action: str
    reason: str


def snippets_of(page: Path) -> list[Snippet]:
    """The page's blocks of `LANGUAGES`, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(
            page=page,
            line=text.count("\n", 0, match.start("code")) + 1,
            language=match["language"],
            code=match["code"],
            action=match["action"] or "",
            reason=match["reason"] or "",
        )
        for match in _BLOCK.finditer(text)
        if match["language"] in LANGUAGES
    ]

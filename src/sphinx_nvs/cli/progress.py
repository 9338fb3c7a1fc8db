"""Progress bars on standard error, one per stage, if it is a terminal; silent in a pipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from sphinx_nvs.pipeline.request import Progress as Report


@contextmanager
def stage_progress() -> Iterator[Report | None]:
    """A callback for the pipeline's `progress`: None if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


@contextmanager
def share_progress(file: TextIO | None = None) -> Iterator[Callable[[str, float, str], None] | None]:
    """A callback for one long task: its current activity, completed share and time left.

    None if standard error is not a terminal.

    Args:
        file: where the bar is drawn; None for standard error.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[eta]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=file, stderr=file is None), transient=True) as bars:
        task = bars.add_task("", total=1.0, eta="")
        yield lambda what, share, eta: bars.update(task, completed=share, description=what, eta=eta)


def eta_text(seconds: float) -> str:
    """Time left, as text; empty if unknown (NaN)."""
    if math.isnan(seconds):
        return ""
    minutes = seconds / 60
    return f"{minutes / 60:.1f} h to go" if minutes > 90 else f"{max(1, math.ceil(minutes))} min to go"


def say(sentence: str) -> None:
    """Prints a note for the user to standard error."""
    sys.stderr.write(f"{sentence}\n")

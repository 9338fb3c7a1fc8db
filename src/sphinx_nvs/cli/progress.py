"""Progress bars on standard error, one per stage, where a person is watching; silence in a pipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sphinx_nvs.pipeline.request import Progress as Report


@contextmanager
def stage_progress() -> Iterator[Report | None]:
    """What to hand to the pipeline as `progress`: None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


@contextmanager
def share_progress() -> Iterator[Callable[[str, float, str], None] | None]:
    """What to tell of one long work: what is being done, the share that is done, and how long it will take.

    None where standard error is no terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[eta]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0, eta="")
        yield lambda what, share, eta: bars.update(task, completed=share, description=what, eta=eta)


def eta_text(seconds: float) -> str:
    """How long work will go on, for people; nothing where nobody knows (NaN)."""
    if math.isnan(seconds):
        return ""
    minutes = seconds / 60
    return f"{minutes / 60:.1f} h to go" if minutes > 90 else f"{max(1, math.ceil(minutes))} min to go"


def say(sentence: str) -> None:
    """A note to the user, beside the output proper."""
    sys.stderr.write(f"{sentence}\n")

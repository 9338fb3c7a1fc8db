"""Every error a user can see.

A user's mistake becomes one sentence that says where it is, what was found there and how to fix it; the
command line prints that sentence and leaves with `exit_code`, a server answers with `http_status`.
"""

from collections.abc import Iterable
from itertools import groupby

_MOST_RUNS = 5
_MOST_LISTED = 9


class SphinxError(Exception):
    """Base of all errors that carry a sentence meant for the user."""

    exit_code = 1
    http_status = 500


class InputError(SphinxError):
    """Something the user gave cannot be used.

    Args:
        where: the file, field or flag at fault, e.g. `"frame 3 of scene/transforms.json"`.
        found: what stands there, with its value, e.g. `"fl_x is -12.0"`.
        hint: what to do about it, e.g. `"give a focal length above 0 pixels"`.
    """

    exit_code = 2
    http_status = 422

    def __init__(self, where: str, found: str, hint: str) -> None:
        self.where, self.found, self.hint = where, found, hint
        super().__init__(f"{where}: {found}; {hint}")


class OutputError(InputError):
    """The result cannot be written to the requested place (it exists, no space, no permission)."""

    http_status = 507


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers for a sentence, in their order; many are given as runs, `0 to 45`, at most `_MOST_RUNS` of them.

    Args:
        numbers: any number of them.
    """
    numbers = list(numbers)
    if len(numbers) <= _MOST_LISTED:
        return ", ".join(map(str, numbers))
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda item: item[1] - item[0])]
    said = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    some = ", ".join(said[:_MOST_RUNS])
    return some if len(said) <= _MOST_RUNS else f"{some}, ... ({len(numbers)} in all)"

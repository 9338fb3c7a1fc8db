"""Chunks: the views that a denoiser sees together when a path is longer than its window.

Known views are photos (`given`) and finished frames; a chunk holds known views that condition it and targets to make,
at most T of them, in the order in which they enter the network. Every target is in exactly one chunk.

    gt            all known views, and the next targets
    gt-ltr        from the second chunk on also the last finished frames: ceil(0.33 (T - M)) as long as at least
                  floor(0.33 (T - M)) targets are left, then as many as fit beside what is left
    gt-nearest    from the second chunk on also the finished frames nearest to the next targets, always the last one
    nearest       targets behind the known view that each is nearest to, groups packed until a chunk is full
    nearest-gt    the same with all photos in front
    nearest-K     windows of T - K targets, with the K views that most of them have among their K nearest
    interp        consecutive known views with the targets between them, as many gaps as fit; neighbours share a view
    interp-gt     the same with all photos in front

`gt-ltr` and `gt-nearest` number a finished frame as a known view: target j is view M + j from the next chunk on.
Reference: Stable Virtual Camera (SEVA; Zhou et al., 2025), section on two-pass procedural sampling.

Shapes: M known views, N targets, T views in a window.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError

STRATEGIES = ("gt", "gt-ltr", "gt-nearest", "nearest", "nearest-gt", "nearest-K", "interp", "interp-gt")
"""Names of the strategies, with any number from 1 for K."""

MEMORY_SHARE = 0.33
"""Share of a chunk's places beside the known views that `gt-ltr` and `gt-nearest` give to finished frames."""


class Slot(NamedTuple):
    """A view's place in a chunk: a known view or a target, by its number among these."""

    known: bool
    number: int


@dataclass(frozen=True)
class Chunk:
    """The views of one window, in the order in which they enter the network; a view may stand there twice."""

    slots: tuple[Slot, ...]

    @property
    def known(self) -> tuple[int, ...]:
        """Numbers of the known views."""
        return tuple(slot.number for slot in self.slots if slot.known)

    @property
    def targets(self) -> tuple[int, ...]:
        """Numbers of the targets."""
        return tuple(slot.number for slot in self.slots if not slot.known)


@dataclass(frozen=True, kw_only=True)
class ChunkViews:
    """The views that chunks are planned for.

    Args:
        known_order: places of the known views along the path.
        target_order: places of the targets along the path, ascending.
        given: known views that are photos.
        to_known: distance of every target to every known view, for `nearest` strategies.
        to_targets: distance of every target to every other, for `gt-nearest`.
        chain: known views that `interp` strategies go along; None for all.
    """

    known_order: Sequence[float | int]
    target_order: Sequence[float | int]
    given: Sequence[int] = ()
    to_known: Float[Tensor, "N M"] | None = None
    to_targets: Float[Tensor, "N N"] | None = None
    chain: Sequence[int] | None = None


def check_strategy(strategy: str) -> None:
    """Raises InputError unless `strategy` is one of `STRATEGIES`."""
    if strategy not in STRATEGIES[:5] + STRATEGIES[6:] and not _nearest_count(strategy):
        raise InputError("chunks", f"there is no strategy {strategy!r}", f"choose one of {', '.join(STRATEGIES)}")


def plan_chunks(strategy: str, views: ChunkViews, window: int) -> list[Chunk]:
    """The chunks of a path, in the order in which they can be made.

    Args:
        strategy: one of `STRATEGIES`.
        views: the views, and where they are.
        window: T, the most views of a chunk.

    Raises:
        InputError: an unknown strategy, or a window that is too small for it; the error names one that suffices.
    """
    check_strategy(strategy)
    head = [Slot(True, k) for k in views.given] if strategy.endswith("-gt") else []
    if strategy.startswith("gt"):
        return _one_after_another(strategy, views, window)
    if strategy.startswith("interp"):
        return _between(views, head, window)
    count = _nearest_count(strategy)
    return _windows(views, count, window) if count else _groups(views, head, window)


def _nearest_count(strategy: str) -> int:
    """K of `nearest-K`; 0 for other strategies."""
    match = re.fullmatch(r"nearest-([1-9]\d*)", strategy)
    return int(match[1]) if match else 0


def _one_after_another(strategy: str, views: ChunkViews, window: int) -> list[Chunk]:
    """`gt`, `gt-ltr` and `gt-nearest`."""
    num_known, num_targets = len(views.known_order), len(views.target_order)
    room = _room(window, num_known, "known views")
    everything = [Slot(True, k) for k in range(num_known)]
    chunks: list[Chunk] = []
    done = 0
    while done < num_targets:
        memory = _memory(strategy, views, room, done) if done else []
        if len(memory) >= room:
            raise InputError(
                "window", f"{window} views have no room beside {num_known} known ones", f"give at least {window + 1}"
            )
        end = min(done + room - len(memory), num_targets)
        remembered = [Slot(True, num_known + j) for j in memory]
        chunks.append(_chunk(everything, remembered, _targets(range(done, end))))
        done = end
    return chunks


def _memory(strategy: str, views: ChunkViews, room: int, done: int) -> list[int]:
    """The finished targets that condition a later chunk; the first `done` are finished."""
    count = math.ceil(MEMORY_SHARE * room)
    left = len(views.target_order) - done
    if strategy == "gt-ltr":
        kept = count if left >= math.floor(MEMORY_SHARE * room) else room - left
        return list(range(max(0, done - kept), done))
    if strategy == "gt-nearest":
        distances = _needed(views.to_targets)[done : done + max(1, room - count), :done]
        # Each coming target votes for the finished frame nearest to it; ties go to the earlier frame.
        votes = Counter(distances.argmin(1).tolist())
        # The last finished frame is kept in any case: the path goes on from there, and a jump would be seen.
        others = sorted((j for j in votes if j != done - 1), key=lambda j: (-votes[j], j))
        return sorted([*others[: count - 1], done - 1])
    return []


def _between(views: ChunkViews, head: list[Slot], window: int) -> list[Chunk]:
    """`interp` and `interp-gt`; a target at an anchor's place comes behind it, at the last one's in front of it."""
    chain = sorted(range(len(views.known_order)) if views.chain is None else views.chain, key=_by(views.known_order))
    if not chain:
        raise InputError("chunks", "there is no view to interpolate between", "choose gt, or give anchors")
    gaps = _gaps([float(views.known_order[k]) for k in chain], views.target_order)
    _check_gaps(gaps, len(head), window)
    runs: list[list[int]] = [[0]]
    places = len(head) + 1
    for number, gap in enumerate(gaps):
        # A new chunk begins with the view that ends the last one: both see it, so that they agree there.
        if places + len(gap) + 1 > window and runs[-1] != [number]:
            runs.append([number])
            places = len(head) + 1
        runs[-1].append(number + 1)
        places += len(gap) + 1
    chunks = []
    for run in runs:
        body = [Slot(True, chain[run[0]])]
        for number in run[1:]:
            body += [*_targets(gaps[number - 1]), *(Slot(True, k) for k in chain[number : number + 1])]
        chunks.append(_chunk(head, body))
    return [chunk for chunk in chunks if chunk.targets]


def _gaps(edges: list[float], target_order: Sequence[float | int]) -> list[list[int]]:
    """The targets between consecutive places; those outside all of them belong to the first or last gap."""
    gaps: list[list[int]] = [[] for _ in range(max(1, len(edges) - 1))]
    for target in sorted(range(len(target_order)), key=_by(target_order)):
        number = bisect_right(edges, float(target_order[target])) - 1
        gaps[min(max(number, 0), len(gaps) - 1)].append(target)
    return gaps


def _check_gaps(gaps: list[list[int]], num_head: int, window: int) -> None:
    """Raises InputError if more targets lie between two anchors than a window has room for."""
    longest = max(len(gap) for gap in gaps)
    room = window - num_head - 2
    if longest > room:
        photos = f" and {num_head} photos" if num_head else ""
        raise InputError(
            "anchors",
            f"two of them have {longest} targets between, and a window of {window} views has room for {max(room, 0)} "
            f"beside two anchors{photos}",
            f"give more anchors, or a window of at least {longest + num_head + 2}",
        )


def _groups(views: ChunkViews, head: list[Slot], window: int) -> list[Chunk]:
    """`nearest` and `nearest-gt`; a group that does not fit goes on in the next chunk."""
    _room(window, len(head) + 1, "known views")
    nearest = _needed(views.to_known).argmin(1).tolist()
    chunks, slots = [], list(head)
    for k in range(len(views.known_order)):
        group = [j for j, view in enumerate(nearest) if view == k]
        while group:
            name = [] if Slot(True, k) in head else [Slot(True, k)]
            if len(slots) + len(name) >= window:
                chunks.append(_chunk(slots))
                slots = list(head)
            fits = window - len(slots) - len(name)
            slots += [*name, *_targets(group[:fits])]
            group = group[fits:]
    return [*chunks, _chunk(slots)]


def _windows(views: ChunkViews, count: int, window: int) -> list[Chunk]:
    """`nearest-K`; of views with as many votes the one that was voted for first: targets in order, nearest first."""
    count = min(count, len(views.known_order))
    room = _room(window, count, "known views")
    # Stable: equal distances keep the order of numbers, so the same path is cut the same way everywhere.
    favourites = _needed(views.to_known).argsort(dim=1, stable=True)[:, :count].tolist()
    chunks = []
    for begin in range(0, len(views.target_order), room):
        targets = range(begin, min(begin + room, len(views.target_order)))
        votes = Counter(k for j in targets for k in favourites[j])
        chosen = sorted(k for k, _ in votes.most_common(count))
        chunks.append(_chunk([Slot(True, k) for k in chosen], _targets(targets)))
    return chunks


def _room(window: int, taken: int, by: str) -> int:
    """Places that are left for targets; raises InputError if there is none."""
    if window <= taken:
        raise InputError(
            "window",
            f"{window} views have no room for a target beside {taken} {by}",
            f"give at least {taken + 1}, or choose another strategy",
        )
    return window - taken


def _needed(distances: Tensor | None) -> Tensor:
    """The distances; raises ValueError where the caller gave none."""
    if distances is None:
        raise ValueError("this strategy needs distances between the views")
    return distances


def _by(order: Sequence[float | int]) -> Callable[[int], tuple[float | int, int]]:
    """Sorts by place, then number."""
    return lambda index: (order[index], index)


def _targets(indices: Iterable[int]) -> list[Slot]:
    return [Slot(False, j) for j in indices]


def _chunk(*parts: list[Slot]) -> Chunk:
    return Chunk(tuple(slot for part in parts for slot in part))


@dataclass(frozen=True, kw_only=True)
class Padded:
    """A chunk spread over a whole window, for a network that takes no other length.

    Args:
        known_slots: places that hold known views, padding included.
        target_slots: places that hold targets, padding included.
        known_map: per place, which of the chunk's known views it shows, by its position among them; -1 for none.
        target_map: per place, which of the chunk's targets it shows, by its position among them; -1 for none.
    """

    known_slots: tuple[int, ...]
    target_slots: tuple[int, ...]
    known_map: tuple[int, ...]
    target_map: tuple[int, ...]


def padded(chunk: Chunk, window: int) -> Padded:
    """Repeats the chunk's last view until the window is full.

    A view that stands twice in the chunk is shown at its first place; the second one counts as free, as in SEVA.

    Raises:
        InputError: the chunk is longer than the window.
    """
    if len(chunk.slots) > window:
        raise InputError("window", f"it is {window} for a chunk of {len(chunk.slots)} views", "give a larger one")
    # `index` finds the first place of a view that stands twice.
    places = {kind: [chunk.slots.index(s) for s in chunk.slots if s.known is kind] for kind in (True, False)}
    maps = {kind: [-1] * window for kind in places}
    for kind, slots in places.items():
        for position, place in enumerate(slots):
            maps[kind][place] = position
    taken = {*places[True], *places[False]}
    last = max(taken)
    kind = last in places[True]
    free = [place for place in range(window) if place not in taken]
    for place in free:
        maps[kind][place] = maps[kind][last]
    if free:
        places[kind] = sorted([*places[kind], *free])
    return Padded(
        known_slots=tuple(places[True]),
        target_slots=tuple(places[False]),
        known_map=tuple(maps[True]),
        target_map=tuple(maps[False]),
    )

"""A long path as units of work: independent values that a server can run in parallel, store, and go on from.

A unit says which target frames are made together, and which photos and finished frames condition the denoiser.
The units of pass 1 make anchors spread over the path, those of pass 2 the rest; a path that fits one window is one
unit, and `gt` strategies make one pass from beginning to end. Units depend on those that make their context frames:
after the anchors, the chunks of `interp` and `nearest` strategies do not wait for each other.

Shapes: M photos, N targets, T views in a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.views import largest_baseline, pose_distances
from sphinx_nvs.long_paths.anchors import anchor_order, first_pass
from sphinx_nvs.long_paths.chunks import ChunkViews, check_strategy, plan_chunks

DEFAULT_WINDOW = 21
"""Views; SEVA was trained with this many."""

ANCHOR_STRATEGY = "gt-nearest"
"""The strategy of pass 1 where its anchors do not fit one window."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Frames that are made together.

    Args:
        index: place in the list of units, which names it.
        kind: `anchors` of pass 1, or a `chunk`.
        photos: photos that condition the denoiser, by number.
        frames: finished frames that condition it, by target number.
        targets: frames to make, by target number, ascending.
        depends_on: indices of the units that make `frames`, ascending.
    """

    index: int
    kind: Literal["anchors", "chunk"]
    photos: tuple[int, ...]
    frames: tuple[int, ...]
    targets: tuple[int, ...]
    depends_on: tuple[int, ...]

    @property
    def num_views(self) -> int:
        """Views that the denoiser sees together."""
        return len(self.photos) + len(self.frames) + len(self.targets)


def plan_units(
    contexts: Cameras,
    targets: Cameras,
    *,
    window: int = DEFAULT_WINDOW,
    strategy: str = "interp",
    num_anchors: int | None = None,
) -> list[Unit]:
    """Cuts a path into units.

    Every target is made by exactly one unit; no unit has more than T views, where T is `window`, or with nine photos
    and more T beside the photos (see `anchors`). A path that fits the window is one unit with all photos, whatever the
    strategy.

    Args:
        contexts: cameras of the photos.
        targets: the path, in order.
        window: T, at least 2.
        strategy: see `chunks.STRATEGIES`.
        num_anchors: frames of pass 1; None for as many as pass 2 needs. At least 2 for `interp` strategies.

    Raises:
        InputError: an unknown strategy, or a window or a number of anchors too small for it.
    """
    check_strategy(strategy)
    if window < 2:
        raise InputError("window", f"it is {window}", "give at least 2 views")
    num_photos, num_targets = len(contexts), len(targets)
    if num_photos + num_targets <= window:
        return _numbered([_Draft("chunk", tuple(range(num_photos)), (), tuple(range(num_targets)))])
    path = _Path(contexts, targets)
    if strategy.startswith("gt"):
        return _numbered(path.drafts("chunk", strategy, range(num_targets), (), window))
    wanted = first_pass(strategy, num_photos, num_targets, (window, window))
    anchors = _anchors(num_targets, _checked(num_anchors, strategy, wanted.num_anchors, num_targets))
    # SEVA lets the first window grow with the path; here more than T anchors are made in several units.
    first = path.drafts("anchors", ANCHOR_STRATEGY, anchors, (), min(wanted.window, window + num_photos))
    rest = [j for j in range(num_targets) if j not in set(anchors)]
    return _numbered(first + path.drafts("chunk", strategy, rest, anchors, wanted.chunk_window))


@dataclass(frozen=True)
class _Draft:
    """A unit before it has a number."""

    kind: Literal["anchors", "chunk"]
    photos: tuple[int, ...]
    frames: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Path:
    """The cameras that units are planned for."""

    contexts: Cameras
    path: Cameras

    def drafts(
        self,
        kind: Literal["anchors", "chunk"],
        strategy: str,
        targets: Sequence[int],
        anchors: Sequence[int],
        window: int,
    ) -> list[_Draft]:
        """Chunks that make `targets` from the photos and `anchors`, both numbers of path frames."""
        if not targets:
            return []
        num_photos = len(self.contexts)
        views = self._views(targets, anchors)
        drafts = []
        for chunk in plan_chunks(strategy, views, window):
            known = sorted(set(chunk.known))
            finished = [*anchors, *targets]
            drafts.append(
                _Draft(
                    kind,
                    photos=tuple(k for k in known if k < num_photos),
                    frames=tuple(sorted(finished[k - num_photos] for k in known if k >= num_photos)),
                    targets=tuple(sorted(targets[j] for j in chunk.targets)),
                )
            )
        return drafts

    def _views(self, targets: Sequence[int], anchors: Sequence[int]) -> ChunkViews:
        """Photos first, then anchors, as the known views."""
        num_photos = len(self.contexts)
        wanted = self.path[list(targets)]
        known = Cameras.cat([self.contexts, self.path[list(anchors)]]) if anchors else self.contexts
        scale = largest_baseline(Cameras.cat([self.contexts, self.path]))
        chain = range(num_photos, num_photos + len(anchors))
        return ChunkViews(
            known_order=[-1] * num_photos + list(anchors),
            target_order=list(targets),
            given=range(num_photos),
            to_known=pose_distances(wanted, known, scale),
            to_targets=pose_distances(wanted, wanted, scale),
            chain=chain,
        )


def _checked(num_anchors: int | None, strategy: str, default: int, num_targets: int) -> int:
    """The user's number of anchors if there is one, else the default; never more than there are targets."""
    if num_anchors is None:
        return min(default, num_targets)
    least = 2 if strategy.startswith("interp") else 1
    if not least <= num_anchors <= num_targets:
        raise InputError("anchors", f"{num_anchors} of {num_targets} frames", f"give {least} to {num_targets}")
    return num_anchors


def _anchors(num_targets: int, count: int) -> list[int]:
    """The frames of pass 1: evenly spread, first and last included."""
    if count == 1:
        return [num_targets // 2]
    return [int(np.rint(place)) for place in anchor_order(range(num_targets), count)] if count else []


def _numbered(drafts: Sequence[_Draft]) -> list[Unit]:
    """The drafts in order, with what each one waits for."""
    maker = {target: index for index, draft in enumerate(drafts) for target in draft.targets}
    return [
        Unit(
            index=index,
            kind=draft.kind,
            photos=draft.photos,
            frames=draft.frames,
            targets=draft.targets,
            depends_on=tuple(sorted({maker[frame] for frame in draft.frames})),
        )
        for index, draft in enumerate(drafts)
    ]

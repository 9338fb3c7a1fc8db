"""Procedural scenes by name, as captures: `procedural:SEED` and `procedural:KIND:SEED`."""

from __future__ import annotations

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture, PosedView, Split

PREFIX = "procedural:"
_NUM_VIEWS = 12
_HEIGHT, _WIDTH = 256, 384


def read_generated(name: str, *, num_views: int = _NUM_VIEWS, height: int = _HEIGHT, width: int = _WIDTH) -> Capture:
    """Makes the world that `name` stands for and photographs it along a path.

    Worlds come from the test split: no shipped network was trained on them. Split 2 gives the first and last
    view and asks for those between.

    Args:
        name: `procedural:SEED` or `procedural:KIND:SEED`, SEED a whole number from 0.
        num_views: photos along the path, at least 3.
        height: height of the photos, pixels.
        width: width of the photos, pixels.

    Raises:
        InputError: the name has another form, or an unknown kind.
    """
    # The renderer behind this is only needed here, and is large.
    from sphinx_nvs.procedural import procedural_views

    kind, seed = _kind_and_seed(name)
    rgb, _, cameras, world = procedural_views(seed, num_views, height, width, kind, split="test")
    views = tuple(
        PosedView(name=f"{i:04d}", c2w=cameras.c2w[i], K=cameras.K[i], height=height, width=width, image=rgb[i])
        for i in range(num_views)
    )
    split = Split(train_ids=(0, num_views - 1), test_ids=tuple(range(1, num_views - 1)))
    return Capture(name=f"{world.kind}-{seed}", views=views, splits={2: split}, layout="procedural scene")


def _kind_and_seed(name: str) -> tuple[str, int]:
    """The parts of a name; the kind is `mixed` if it is not said."""
    kind, _, seed = name.removeprefix(PREFIX).rpartition(":")
    if not seed.isdecimal():
        raise InputError(
            f"scene {name}", f"{seed!r} is no seed", "say procedural:SEED or procedural:KIND:SEED, e.g. procedural:7"
        )
    return kind or "mixed", int(seed)

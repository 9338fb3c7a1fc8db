"""Camera paths through procedural worlds: hand-held, walking, flying, circling.

A path is a smooth curve of positions and look-at points. Candidates are sampled at random and rejected unless every
camera is in free space and the views show several surfaces. The best candidate is taken; if there is none, the cameras
pan from the position with the largest clearance.

Shapes: V views.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.procedural.ray_casting import cast
from sphinx_nvs.procedural.seeds import check_choice, choose, generator, uniform
from sphinx_nvs.procedural.world import World

MIN_CLEARANCE = 0.3
_TRIES, _TRIES_PER_MOTION = 64, 16


def look_at(position: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """Camera-to-world pose (4, 4), OpenCV axes, at `position` and directed at `target`; roll in radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, np.array([0.0, 1.0, 0.0]))
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = (
        c * right + s * down,
        c * down - s * right,
        forward,
        position,
    )
    return pose


# Positions (n, 3), look-at points (n, 3) and rolls (n,) along a path.
_Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_path(
    world: World, num_views: int, motion: str = "mixed", *, height: int = 128, width: int = 128, seed: int = 0
) -> Cameras:
    """Cameras along a smooth random path in free space, directed at the scene's content.

    Args:
        world: the world to move in.
        num_views: number of cameras, evenly spaced in time.
        motion: `arc` (around a subject), `walk` (forward, head bobbing), `drone` (rising and descending flight),
            `handheld` (small sway), or `mixed` (one of them at random).
        height: image height, pixels.
        width: image width, pixels.
        seed: seed of the path, independent of the world's.

    Returns:
        Cameras with a field of view of 45..80 degrees along the longer side, each at least `MIN_CLEARANCE`
        world units from every surface.

    Raises:
        InputError: the motion is unknown, `num_views` is below 1, or the seed is negative.
    """
    check_choice("motion", motion, (*MOTIONS, "mixed"))
    if num_views < 1:
        raise InputError("num_views", f"it is {num_views}", "give 1 or more views")
    rng = generator(world.split, f"path {world.kind}", world.seed, seed)
    focal = max(height, width) / 2 / np.tan(np.radians(uniform(rng, 45, 80)) / 2)
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    options = tuple(MOTIONS) if motion == "mixed" else (motion,)
    best, best_score = None, -1.0
    for attempt in range(_TRIES):
        if attempt % _TRIES_PER_MOTION == 0:
            motion = choose(rng, *options)
        curve = MOTIONS[motion](rng, world, num_views)
        if curve is None or not _is_free(world, curve[0]):
            continue
        cameras = Cameras(_poses(curve), K.expand(num_views, 3, 3), height, width)
        score = _interest(world, cameras)
        if score > best_score:
            best, best_score = cameras, score
        if score > _GOOD:
            break
    return best if best is not None else _still(world, rng, num_views, K, height, width)


def _arc(rng: np.random.Generator, world: World, num_views: int) -> _Curve | None:
    """Around a subject, at constant distance."""
    target, radius = _subject(rng, world), uniform(rng, 1.2, 4.0)
    span = np.radians(uniform(rng, 8, 110)) * rng.choice([-1, 1])
    angles = uniform(rng, 0, 2 * np.pi) + span * _time(num_views)
    height = uniform(rng, 0.7, 1.9) + uniform(rng, -0.3, 0.3) * _time(num_views)
    position = np.stack([target[0] + radius * np.sin(angles), height, target[2] + radius * np.cos(angles)], 1)
    return position, np.broadcast_to(target, position.shape), np.zeros(num_views)


def _walk(rng: np.random.Generator, world: World, num_views: int) -> _Curve | None:
    """Forward at eye height, the head bobbing, looking ahead at a subject."""
    start = _free_point(rng, world, 1.2, 1.8)
    if start is None:
        return None
    target, aside = _subject(rng, world), rng.normal(0, 0.4, 3)
    heading = (target - start) * [1, 0, 1] + aside * [1, 0, 1]
    heading = heading / max(float(np.linalg.norm(heading)), 1e-6)
    time = _time(num_views)[:, None] + 0.5
    bob = 0.03 * np.sin(2 * np.pi * uniform(rng, 1.0, 3.0) * time) * [0, 1, 0]
    position = start + heading * uniform(rng, 0.4, 3.0) * time + bob
    look = target + (position - start) * uniform(rng, 0.0, 0.6) + _sway(rng, num_views, 0.15)
    return position, look, _sway(rng, num_views, 0.02)[:, 0]


def _drone(rng: np.random.Generator, world: World, num_views: int) -> _Curve | None:
    """A flight between two free points, banking, looking down on a subject."""
    top = float(world.walkable[1, 1])
    start, end = (_free_point(rng, world, 0.55 * top, top) for _ in range(2))
    if start is None or end is None:
        return None
    time = _time(num_views)[:, None] + 0.5
    share = uniform(rng, 0.3, 1.0)
    bend = np.sin(np.pi * time) * rng.normal(0, 0.3, 3)
    look = _subject(rng, world) * [1, 0.6, 1] + _sway(rng, num_views, 0.1)
    return (
        start + (end - start) * share * time + bend,
        look,
        uniform(rng, -0.1, 0.1) * np.sin(np.pi * time[:, 0]),
    )


def _handheld(rng: np.random.Generator, world: World, num_views: int) -> _Curve | None:
    """A standing person: small smooth sway of position and direction."""
    start = _free_point(rng, world, 0.9, 1.8)
    if start is None:
        return None
    position = start + _sway(rng, num_views, uniform(rng, 0.08, 0.45))
    look = _subject(rng, world) + _sway(rng, num_views, uniform(rng, 0.05, 0.5))
    return position, look, _sway(rng, num_views, 0.05)[:, 0]


MOTIONS: dict[str, Callable[[np.random.Generator, World, int], _Curve | None]] = {
    "arc": _arc,
    "walk": _walk,
    "drone": _drone,
    "handheld": _handheld,
}
_GOOD = 0.6


def _time(num_views: int) -> np.ndarray:
    """View times from -0.5 to 0.5."""
    return np.linspace(-0.5, 0.5, num_views) if num_views > 1 else np.zeros(1)


def _sway(rng: np.random.Generator, num_views: int, size: float) -> np.ndarray:
    """Smooth random motion (n, 3): three slow sines per axis."""
    time = _time(num_views)[:, None, None]
    rates, phases = rng.uniform(0.3, 1.5, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
    return size * np.sin(2 * np.pi * rates * time + phases).mean(1)


def _subject(rng: np.random.Generator, world: World) -> np.ndarray:
    """A jittered subject of the world."""
    return world.subjects[int(rng.integers(len(world.subjects)))].cpu().double().numpy() + rng.normal(0, 0.15, 3)


def _free_point(rng: np.random.Generator, world: World, low: float, high: float) -> np.ndarray | None:
    """A random walkable point at a height in [low, high] with clearance around it; None if none is found."""
    box = world.walkable.cpu().double().numpy()
    bounds = box.copy()
    bounds[:, 1] = np.clip([low, high], box[0, 1], box[1, 1])
    points = rng.uniform(bounds[0], bounds[1], (16, 3))
    clearance = world.clearance(torch.from_numpy(points).float())
    free = (clearance > MIN_CLEARANCE + 0.1).nonzero()[:, 0]
    return points[int(free[0])] if len(free) else None


def _is_free(world: World, positions: np.ndarray) -> bool:
    """Whether every camera is in the walkable box and has clearance."""
    points = torch.from_numpy(positions).float()
    inside = ((points >= world.walkable[0].cpu()) & (points <= world.walkable[1].cpu())).all()
    return bool(inside) and bool((world.clearance(points) > MIN_CLEARANCE + 0.01).all())


def _poses(curve: _Curve) -> torch.Tensor:
    """Camera-to-world poses of a curve."""
    return torch.from_numpy(np.stack([look_at(*view) for view in zip(*curve, strict=True)]))


def _interest(world: World, cameras: Cameras) -> float:
    """Score in [0, 1] of the least interesting of three views: several surfaces, none too large or too near."""
    # Twelve by twelve rays tell a blank wall from a room, and cost nothing beside a render.
    probe = cameras[sorted({0, len(cameras) // 2, len(cameras) - 1})].resized(12, 12)
    ticks = torch.arange(12, dtype=torch.float32) + 0.5
    primitives = world.stage.primitives
    ticks = ticks.to(primitives.centre)
    pose, K = probe.c2w.to(primitives.centre), probe.K.to(primitives.centre)
    hits = cast(primitives, pose, torch.linalg.inv(K), ticks, ticks)
    scores = []
    for depth, surface in zip(hits.depth.flatten(1), hits.surface.flatten(1), strict=True):
        shares = torch.unique(surface, return_counts=True)[1] / surface.numel()
        variety, dominance = min(len(shares) / 16, 1.0), float(shares.max())
        roomy = float((depth > 0.8).float().mean()) * min(float(depth.median()) / 1.6, 1.0)
        scores.append(variety * roomy * min(2 * (1 - dominance), 1.0))
    return min(scores)


def _still(world: World, rng: np.random.Generator, num_views: int, K: torch.Tensor, height: int, width: int) -> Cameras:
    """Fallback if no curve is free: all views from the clearest of many points, panning slightly."""
    box = world.walkable.cpu().double().numpy()
    points = rng.uniform(box[0], box[1], (512, 3))
    place = points[int(world.clearance(torch.from_numpy(points).float()).argmax())]
    look = _subject(rng, world) + _sway(rng, num_views, 0.3)
    curve = np.broadcast_to(place, look.shape), look, np.zeros(num_views)
    return Cameras(_poses(curve), K.expand(num_views, 3, 3), height, width)

"""Camera paths by name: the presets of SEVA, in units that fit any scene.

SEVA's presets are made for a target p = (0, 0, 10) seen from the origin: a move is 0.99 long, the spiral's
radii are 0.5. Here one such unit is `scale` world units: with a tenth of `focus.focus_distance` a move is
always a tenth of the distance to the target. With frame i of N, theta_i = 2 pi i / N, up = -y of the start
camera and a = |o - p| tan 30 deg:

    orbit        o turned about the axis (p, up) by theta, looking at p
    lemniscate   o + R a (cos t, cos t sin t, 0) / (1 + sin^2 t), t = theta + pi/2, looking at p
    roll         o fixed, up turned about the view axis by theta
    spiral       two turns of (r_x cos t, r_y sin t, r_z sin(t/2)), t = 2 theta, looking at a fixed focus
    move-*       o + s 0.99 v, s = 0..1, v towards p, up or across, looking at p
    zoom-in/out  pose fixed, angle of view linear to 0.28 / 1.5 times the start's
    dolly zoom-* moves backward while zooming in, forward while zooming out

(Zhou et al., "Stable Virtual Camera", 2025, appendix on camera trajectories.)

Shapes: V frames of the path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import FOCUS_UNITS
from sphinx_nvs.geometry.fov import fov_long_side, zoomed

_MOVE_UNITS = 0.99
_ZOOM = {"zoom-in": 0.28, "dolly zoom-in": 0.28, "zoom-out": 1.5, "dolly zoom-out": 1.5}
_SPIRAL_TURNS = 2
# LLFF's rule for the focus, a harmonic mean of 0.9 times the near and 5 times the far bound, weighted 1 to 3, for
# bounds of 1 and 5 units.
_SPIRAL_FOCUS_UNITS = 1 / (0.25 / 0.9 + 0.75 / 25)
_LEMNISCATE_RAD = math.radians(30)


@dataclass(frozen=True, kw_only=True)
class _Path:
    """What every preset is made from; lengths in world units."""

    start: Float[Tensor, "4 4"]
    look_at: Float[Tensor, "3"]
    up: Float[Tensor, "3"]
    num_frames: int
    scale: float
    radii: tuple[float, float, float]
    roll_axis: Float[Tensor, "3"]

    @property
    def position(self) -> Float[Tensor, "3"]:
        """The start camera's centre."""
        return self.start[:3, 3]

    @property
    def theta(self) -> Float[Tensor, "V"]:
        """One full turn, end excluded."""
        return torch.arange(self.num_frames, dtype=torch.float64) * (2 * math.pi / self.num_frames)

    def looking(self, positions: Float[Tensor, "V 3"]) -> Float[Tensor, "V 4 4"]:
        """Poses at `positions` that look at the target."""
        return se3.look_at(positions, self.look_at, self.up)


def _orbit(path: _Path) -> Float[Tensor, "V 4 4"]:
    turns = se3.rotation_about(path.up.expand(path.num_frames, 3), path.theta)
    return path.looking(path.look_at + turns @ (path.position - path.look_at))


def _lemniscate(path: _Path) -> Float[Tensor, "V 4 4"]:
    t = path.theta + math.pi / 2
    a = (path.position - path.look_at).norm() * math.tan(_LEMNISCATE_RAD)
    curve = torch.stack([t.cos(), t.cos() * t.sin(), torch.zeros_like(t)], dim=-1)
    return path.looking(path.position + (a * curve / (1 + t.sin() ** 2)[:, None]) @ path.start[:3, :3].T)


def _roll(path: _Path) -> Float[Tensor, "V 4 4"]:
    turns = se3.rotation_about(path.roll_axis.expand(path.num_frames, 3), path.theta)
    return se3.look_at(path.position.expand(path.num_frames, 3), path.look_at, turns @ path.up)


def _spiral(path: _Path) -> Float[Tensor, "V 4 4"]:
    t = _SPIRAL_TURNS * path.theta
    curve = torch.stack([t.cos(), t.sin(), (t / 2).sin()], dim=-1)
    offsets = curve * (path.scale * torch.tensor(path.radii, dtype=torch.float64))
    focus = torch.tensor([0.0, 0.0, _SPIRAL_FOCUS_UNITS * path.scale], dtype=torch.float64)
    local = se3.look_at(offsets, focus, torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))
    # The spiral does not begin at its centre; moved so that the first frame is the start camera.
    return path.start @ se3.inverse(local[0]) @ local


def _move(right: int, up: int, forward: int) -> Callable[[_Path], Float[Tensor, "V 4 4"]]:
    """A straight line along one of three directions: towards the target, up, right of both."""

    def poses(path: _Path) -> Float[Tensor, "V 4 4"]:
        ahead = F.normalize(path.look_at - path.position, dim=0)
        above = F.normalize(path.up, dim=0)
        aside = F.normalize(torch.linalg.cross(ahead, above), dim=0)
        steps = torch.linspace(0, _MOVE_UNITS * path.scale, path.num_frames, dtype=torch.float64)
        return path.looking(path.position + steps[:, None] * (right * aside + up * above + forward * ahead))

    return poses


def _stay(path: _Path) -> Float[Tensor, "V 4 4"]:
    return path.start.expand(path.num_frames, 4, 4)


_POSES: dict[str, Callable[[_Path], Float[Tensor, "V 4 4"]]] = {
    "orbit": _orbit,
    "spiral": _spiral,
    "lemniscate": _lemniscate,
    "zoom-in": _stay,
    "zoom-out": _stay,
    "dolly zoom-in": _move(0, 0, -1),
    "dolly zoom-out": _move(0, 0, 1),
    "move-forward": _move(0, 0, 1),
    "move-backward": _move(0, 0, -1),
    "move-up": _move(0, 1, 0),
    "move-down": _move(0, -1, 0),
    "move-left": _move(-1, 0, 0),
    "move-right": _move(1, 0, 0),
    "roll": _roll,
}

PRESETS: tuple[str, ...] = tuple(_POSES)
"""The names that `preset_path` knows: SEVA's. `interpolate` (see interpolation.py) goes between cameras."""


def preset_path(
    name: str,
    start: Cameras,
    num_frames: int,
    *,
    look_at: Float[Tensor, "3"] | None = None,
    up: Float[Tensor, "3"] | None = None,
    scale: float | int = 1.0,
    zoom_factor: float | int | None = None,
    spiral_radii: tuple[float, float, float] = (0.5, 0.5, 0.2),
    roll_axis: Float[Tensor, "3"] | None = None,
) -> Cameras:
    """A named camera path that starts at the first camera of `start`.

    Args:
        name: one of `PRESETS`.
        start: its first camera gives pose, intrinsics and image size.
        num_frames: length of the path, at least 1.
        look_at: target point in world units; None for ten `scale` units straight ahead.
        up: direction of the image's top in the world; None for the start camera's own.
        scale: world units in one unit of SEVA's presets, a tenth of the distance to the target.
        zoom_factor: last angle of view divided by the first one in the zooms; None for 0.28 and 1.5.
        spiral_radii: right, down, forward, in units of `scale`; SEVA's demo takes (1, 1, 0.5).
        roll_axis: what `roll` turns about; None for the view axis. (SEVA takes the position vector of the
            target, which is the view axis only for a camera at the origin.)

    Raises:
        InputError: an unknown name, no frames, or a target that the start camera sits on.
    """
    check_path(name, num_frames)
    pose = start.c2w[0]
    target = pose[:3, 3] + FOCUS_UNITS * scale * pose[:3, 2] if look_at is None else look_at.double()
    if float((target - pose[:3, 3]).norm()) < 1e-9:
        raise InputError("look-at point", "it is the start camera's own centre", "give a point in front of it")
    path = _Path(
        start=pose,
        look_at=target,
        up=-pose[:3, 1] if up is None else up.double(),
        num_frames=num_frames,
        scale=float(scale),
        radii=spiral_radii,
        roll_axis=target - pose[:3, 3] if roll_axis is None else roll_axis.double(),
    )
    K = start.K[:1].expand(num_frames, 3, 3)
    cameras = Cameras(_POSES[name](path), K, start.height, start.width)
    return zoomed(cameras, _zoom_fovs(name, cameras, zoom_factor)) if name in _ZOOM else cameras


def check_path(name: str, num_frames: int) -> None:
    """Raises InputError unless `name` is a preset and `num_frames` at least 1."""
    if name not in PRESETS:
        raise InputError(
            "camera path", f"there is no preset {name!r}", f"choose one of {', '.join(PRESETS)}, interpolate"
        )
    if num_frames < 1:
        raise InputError("frames", f"{num_frames} are requested", "request at least 1")


def _zoom_fovs(name: str, cameras: Cameras, zoom_factor: float | int | None) -> Float[Tensor, "V"]:
    """Angle of view of every frame, linear from the start's to its multiple."""
    first = float(fov_long_side(cameras)[0])
    factor = _ZOOM[name] if zoom_factor is None else zoom_factor
    if not 0 < first * factor < math.pi:
        degrees = math.degrees(first * factor)
        raise InputError(
            name,
            f"the angle of view would end at {degrees:.0f} degrees",
            "give a zoom factor that keeps it in 0..180",
        )
    return torch.linspace(first, first * factor, len(cameras), dtype=torch.float64)

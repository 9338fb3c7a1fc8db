"""A plot of a capture's cameras: one frustum per view, in perspective and from above.

World axes of a capture are arbitrary, so the plot is drawn with the cameras' mean up direction upwards.

Shapes: V views.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D

from sphinx_nvs import media
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import focus_distance, is_converging, look_at_point
from sphinx_nvs.scene.capture import Capture, Split

_COLOURS = {"context": "#1f6fb4", "target": "#e07b1a", "other": "#9aa3ab"}
_ORDER = ("other", "target", "context")
# Length of a frustum relative to the plot's extent; shorter if there are many.
_DEPTH = 0.12

_MANY = 16


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """The content of both panels, in drawing axes; the first `num_views` frusta are the capture's."""

    frusta: Float[np.ndarray, "V 5 3"]
    roles: list[str]
    look_at: Float[np.ndarray, "3"] | None
    num_views: int

    def in_order(self) -> list[tuple[np.ndarray, str]]:
        """Frusta with their roles, context views last, so that they are drawn on top."""
        return sorted(zip(self.frusta, self.roles, strict=True), key=lambda pair: _ORDER.index(pair[1]))


def write_frusta(path: Path, capture: Capture, split: int | None = None, targets: Cameras | None = None) -> None:
    """Writes the plot as a PNG file, atomically.

    Args:
        path: the PNG file to write.
        capture: the cameras to draw.
        split: colours context and target views; None colours all views as context.
        targets: further cameras, e.g. a preset path, drawn as targets.

    Raises:
        OutputError: see `media.written_beside`.
    """
    canvas = FigureCanvasAgg(_figure(capture, split, targets))
    with media.written_beside(path) as part:
        canvas.figure.savefig(part, format="png", dpi=110, facecolor="white")


def _figure(capture: Capture, split: int | None, targets: Cameras | None) -> Figure:
    """Both panels and their legend."""
    drawing = _drawing(capture, split, targets)
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    _draw_space(figure.add_subplot(1, 2, 1, projection="3d"), drawing)
    _draw_above(figure.add_subplot(1, 2, 2), drawing)
    figure.suptitle(f"{capture.name}: {len(capture)} views, {capture.layout}", fontsize=12)
    figure.legend(handles=_handles(drawing), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _drawing(capture: Capture, split: int | None, targets: Cameras | None) -> _Drawing:
    """Frusta of all cameras, upright, with a length that suits the plot."""
    views = [view.camera(view.height, view.width) for view in capture.views]
    contexts = Cameras.cat([camera.resized(1, 1) for camera in views])
    roles = _roles(len(capture), capture.splits.get(split) if split is not None else None)
    if targets is not None:
        views += [targets[i] for i in range(len(targets))]
        roles += ["target"] * len(targets)
    up = _upright(contexts)
    frusta = np.stack([_frustum(camera, up) for camera in views])
    look_at = up @ look_at_point(contexts).numpy() if is_converging(contexts) else None
    length = _DEPTH * min(1.0, (_MANY / len(views)) ** 0.5) * _extent(frusta[:, 0], look_at, focus_distance(contexts))
    frusta = frusta[:, :1] + (frusta - frusta[:, :1]) * length
    return _Drawing(frusta=frusta, roles=roles, look_at=look_at, num_views=len(capture))


def _roles(num_views: int, split: Split | None) -> list[str]:
    """The role of each view in a split."""
    if split is None:
        return ["context"] * num_views
    is_context, is_target = set(split.train_ids), set(split.test_ids)
    return ["context" if i in is_context else "target" if i in is_target else "other" for i in range(num_views)]


def _upright(cameras: Cameras) -> Float[np.ndarray, "3 3"]:
    """Rotation from world to drawing axes: z is the mean up direction, y the horizontal mean viewing direction."""
    # The camera's y axis points down in OpenCV convention.
    z = -cameras.c2w[:, :3, 1].mean(dim=0)
    z = z / z.norm() if float(z.norm()) > 1e-6 else torch.tensor([0.0, 0, 1], dtype=torch.float64)
    forward = cameras.c2w[:, :3, 2].mean(dim=0)
    level = forward - (forward @ z) * z
    # Views straight up or down have no horizontal direction: any one serves.
    if float(level.norm()) < 1e-3:
        level = torch.linalg.cross(z, torch.eye(3, dtype=torch.float64)[int(z.abs().argmin())])
    y = level / level.norm()
    return torch.stack([torch.linalg.cross(y, z), y, z]).numpy()


def _frustum(camera: Cameras, up: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "5 3"]:
    """Centre and the four image corners at unit depth, in drawing axes."""
    w, h = float(camera.width), float(camera.height)
    corners = torch.tensor([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]], dtype=torch.float64)
    ahead = corners @ torch.linalg.inv(camera.K[0]).T @ camera.c2w[0, :3, :3].T
    return torch.cat([camera.centres, camera.centres + ahead]).numpy() @ up.T


def _extent(centres: Float[np.ndarray, "V 3"], look_at: Float[np.ndarray, "3"] | None, focus: float) -> float:
    """Size of the drawn scene, world units."""
    points = centres if look_at is None else np.concatenate([centres, look_at[None]])
    return float(np.ptp(points, axis=0).max()) or focus


def _edges(frustum: Float[np.ndarray, "5 3"]) -> list[np.ndarray]:
    """The frustum's lines: four rays and the image border."""
    centre, corners = frustum[0], frustum[1:]
    return [np.stack([centre, corner]) for corner in corners] + [np.concatenate([corners, corners[:1]])]


def _label(axes: Axes, text: str, frustum: Float[np.ndarray, "5 3"]) -> None:
    """A view's number, behind its camera."""
    back = 2 * frustum[0, :2] - frustum[1:, :2].mean(axis=0)
    place = frustum[0, :2] + 0.35 * (back - frustum[0, :2])
    axes.annotate(text, place, fontsize=7, color=_COLOURS["context"], ha="center", va="center")


def _draw_space(axes: Axes3D, drawing: _Drawing) -> None:
    """Perspective view from behind, above and aside."""
    frusta, look_at = drawing.frusta, drawing.look_at
    axes.plot(*frusta[: drawing.num_views, 0].T, color="#c9ced3", linewidth=0.8, zorder=0)
    for frustum, role in drawing.in_order():
        colour = _COLOURS[role]
        axes.add_collection3d(Line3DCollection(_edges(frustum), colors=colour, linewidths=0.9))
        axes.add_collection3d(Poly3DCollection([frustum[1:]], facecolors=colour, alpha=0.18))
    if look_at is not None:
        axes.scatter(*look_at, marker="*", s=90, color="#c0392b", depthshade=False)
    points = frusta.reshape(-1, 3) if look_at is None else np.concatenate([frusta.reshape(-1, 3), look_at[None]])
    middle, half = (points.max(0) + points.min(0)) / 2, max(float(np.ptp(points, axis=0).max()) / 2, 1e-6)
    for limits, centre in zip((axes.set_xlim, axes.set_ylim, axes.set_zlim), middle, strict=True):
        limits(centre - half, centre + half)
    axes.set_box_aspect((1, 1, 1), zoom=1.25)
    axes.view_init(elev=28, azim=-70)
    axes.tick_params(labelsize=7, pad=-2)
    axes.set_title("in space", fontsize=10)


def _draw_above(axes: Axes, drawing: _Drawing) -> None:
    """Plan view from above, mean viewing direction upwards."""
    frusta, look_at = drawing.frusta, drawing.look_at
    axes.plot(*frusta[: drawing.num_views, 0, :2].T, color="#c9ced3", linewidth=0.8, zorder=0)
    for frustum, role in drawing.in_order():
        for edge in _edges(frustum):
            axes.plot(edge[:, 0], edge[:, 1], color=_COLOURS[role], linewidth=0.8)
    for index, role in enumerate(drawing.roles):
        if role == "context":
            _label(axes, str(index), frusta[index])
    if look_at is not None:
        axes.scatter(look_at[0], look_at[1], marker="*", s=90, color="#c0392b", zorder=3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    axes.grid(color="#eceff1")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("from above", fontsize=10)


def _handles(drawing: _Drawing) -> list[Line2D]:
    """Legend entries for the roles that occur."""
    handles = [Line2D([], [], color=_COLOURS[role], label=role) for role in _COLOURS if role in drawing.roles]
    if drawing.look_at is not None:
        handles.append(Line2D([], [], color="#c0392b", marker="*", linestyle="", markersize=9, label="look-at point"))
    return handles

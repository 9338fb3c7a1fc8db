"""A capture: a posed photo sequence on disk or in memory, read lazily, and its splits.

Whatever a reader found, a `Capture` speaks the package's one convention: camera-to-world poses with OpenCV
axes, intrinsics in pixels of the stored photo, the centre of the first pixel at (0.5, 0.5).

Shapes: V views, H W pixels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras, check_intrinsics, check_pose
from sphinx_nvs.scene.distortion import Bend, Lens, undistort, undistorted_intrinsics
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.scene.world_frame import World

_SHORTEST_FOCAL = 0.1
"""Of the longer side: pinhole cameras with shorter focal lengths would see 157 degrees and more."""


@dataclass(frozen=True, kw_only=True)
class PosedView:
    """One photo of a capture, or only its camera.

    Args:
        name: unique in the capture, e.g. `"images/0001.jpg"`.
        c2w: camera-to-world, OpenCV axes, float64.
        K: intrinsics in pixels of the photo as it is stored, before undistortion, float64.
        height: height of the photo, pixels.
        width: width of the photo, pixels.
        image: the photo's file, the photo itself (sRGB in [0, 1]), or None for a camera without a photo.
        distortion: the lens's, None for a pinhole.
        oriented: whether the EXIF orientation is applied when `image` is a file; see docs/reference/conventions.md.

    Raises:
        InputError: a pose or focal length that cannot be.
    """

    name: str
    c2w: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    height: int
    width: int
    image: Path | Tensor | None = None
    distortion: Bend | None = None
    oriented: bool = True

    def __post_init__(self) -> None:
        check_pose(self.c2w, self.name)
        check_intrinsics(self.K, self.name)
        self._check_focal_length()

    def _check_focal_length(self) -> None:
        """Refuses a focal length in other units than pixels; fisheye lenses have short ones."""
        focal, side = float(self.K[0, 0]), max(self.height, self.width)
        if focal < _SHORTEST_FOCAL * side and not isinstance(self.distortion, Lens):
            raise InputError(
                f"K of {self.name}",
                f"fx is {focal:.4g} pixels for an image of {self.width}x{self.height}",
                "give it in pixels: a normalised one times the width, millimetres times width / sensor width",
            )

    @property
    def pinhole_intrinsics(self) -> Float[Tensor, "3 3"]:
        """Intrinsics in pixels after undistortion; `K` itself for a pinhole."""
        if not self.distortion:
            return self.K
        return undistorted_intrinsics(self.K, self.distortion, self.height, self.width, self.name)

    def read(self, at_least: tuple[int, int] | None = None) -> Float[Tensor, "3 H W"]:
        """The photo, undistorted.

        Args:
            at_least: height and width in pixels that are enough: a larger JPEG is scaled while it is decoded, see
                `media.read_image`. None is the stored size.

        Raises:
            InputError: there is no photo, or it cannot be read.
        """
        if self.image is None:
            raise InputError(
                f"view {self.name}", "it has a camera but no image", "choose another view or add its image"
            )
        if isinstance(self.image, Tensor):
            image = self.image
        else:
            image = media.read_image(self.image, oriented=self.oriented, at_least=at_least)
        if not self.distortion:
            return image
        # Lens coefficients are of normalised coordinates: only intrinsics depend on the size that was decoded.
        scale = self.K.new_tensor([image.shape[-1] / self.width, image.shape[-2] / self.height, 1.0]).view(3, 1)
        return undistort(image, self.K * scale, self.distortion, self.pinhole_intrinsics * scale)

    def fitted(
        self, height: int, width: int, fit: str = "crop", *, oversampling: float | int = 2.0
    ) -> Float[Tensor, "3 H W"]:
        """The undistorted photo brought to `height` x `width` pixels by one of `media.FITS`, as `camera` sees it.

        Args:
            height: of the result, pixels.
            width: of the result, pixels.
            fit: one of `media.FITS`.
            oversampling: size at which a larger photo is decoded and undistorted, over the result's; twice the size
                leaves the antialiased resize something to average.

        Raises:
            InputError: see `read`.
        """
        size = self.height, self.width
        how = media.fit_of(size, (height, width), fit)
        enough = math.ceil(oversampling * how.height), math.ceil(oversampling * how.width)
        image = self.read(at_least=enough)
        return media.resize_fit(image[None], height, width, fit, size)[0]

    def camera(self, height: int, width: int, fit: str = "crop") -> Cameras:
        """The undistorted camera of the photo brought to `height` x `width` pixels by one of `media.FITS`."""
        camera = Cameras(self.c2w[None], self.pinhole_intrinsics[None], self.height, self.width)
        return fitted(camera, height, width, fit)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which views are given and which are to be predicted; indices into a capture's views."""

    train_ids: tuple[int, ...]
    test_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A posed photo sequence, read lazily.

    Args:
        name: for reports and file names.
        views: in the order of the source; splits index them.
        splits: by their number N in `train_test_split_N.json`, the number of context views.
        held_out: views that the source itself keeps for tests, whatever the split; none in most layouts.
        path: where it was read from, None for one made in memory.
        layout: the source's layout, e.g. `"nerfstudio transforms.json"`.
        world: how the source writes the coordinates that views have here.
        notes: what was decided on reading, one sentence each.

    Raises:
        InputError: there are no views.
    """

    name: str
    views: tuple[PosedView, ...]
    splits: Mapping[int, Split] = field(default_factory=dict)
    held_out: tuple[int, ...] = ()
    path: Path | None = None
    layout: str = "in memory"
    world: World = field(default_factory=World)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.views:
            raise InputError(f"capture {self.name}", "it has 0 views", "give at least one posed view")

    def __len__(self) -> int:
        return len(self.views)

    @property
    def folder(self) -> Path | None:
        """Where the scene's files lie, None for one made in memory."""
        return self.path if self.path is None or self.path.is_dir() else self.path.parent

    def default_size(self, short_side: int = 256, multiple: int = 32) -> tuple[int, int]:
        """Height and width that keep the photos' (median) aspect, both multiples of `multiple` pixels.

        Args:
            short_side: wanted length of the shorter side in pixels, rounded to a multiple.
            multiple: what both sides are multiples of.
        """
        aspect = statistics.median(view.width / view.height for view in self.views)
        height, width = (short_side, short_side * aspect) if aspect >= 1 else (short_side / aspect, short_side)
        return _rounded(height, multiple), _rounded(width, multiple)

    def cameras(self, indices: Sequence[int], height: int, width: int, fit: str = "crop") -> Cameras:
        """The undistorted cameras of some views, as `load` would give them; no image is read.

        Args:
            indices: into `views`.
            height: height of the images, pixels.
            width: width of the images, pixels.
            fit: how photos are brought to that size, one of `media.FITS`.

        Raises:
            InputError: an index is out of range, or there is none; or an unknown fit.
        """
        return Cameras.cat([self._view(i).camera(height, width, fit) for i in self._checked(indices)])

    def load(self, indices: Sequence[int], height: int, width: int, fit: str = "crop") -> Scene:
        """Reads some views: undistorted, and brought to `height` x `width` pixels.

        Args:
            indices: into `views`.
            height: height of the images, pixels.
            width: width of the images, pixels.
            fit: `crop` scales photos until they cover the size and cuts the centre out; `pad` shows them whole with
                black borders, which regressors take for part of the scene; `stretch` changes their aspect.

        Raises:
            InputError: an index is out of range, there is none, a view has no image, or one cannot be read.
        """
        cameras = self.cameras(indices, height, width, fit)
        images = torch.cat([self._view(i).fitted(height, width, fit)[None] for i in indices])
        return Scene(name=self.name, images=images, cameras=cameras)

    def centred(self) -> Capture:
        """The same capture with its origin amid its cameras, if they lie far from it (see `World.centred`)."""
        world = self.world.centred(torch.stack([view.c2w for view in self.views]))
        if world == self.world:
            return self
        views = tuple(replace(view, c2w=world.inside(self.world.outside(view.c2w))) for view in self.views)
        note = "the cameras lie far from the origin: coordinates inside are counted from a point amid them"
        return replace(self, views=views, world=world, notes=(*self.notes, note))

    def _view(self, index: int) -> PosedView:
        return self.views[index]

    def _checked(self, indices: Sequence[int]) -> Sequence[int]:
        """The same indices, all of them valid and at least one."""
        if len(indices) == 0:
            raise InputError(f"views of {self.name}", "none is named", f"name some of 0 to {len(self) - 1}")
        for index in indices:
            if not 0 <= index < len(self):
                raise InputError(
                    f"view {index} of {self.name}", f"it has views 0 to {len(self) - 1}", "name one of these"
                )
        return indices


def covering(cameras: Cameras, height: int, width: int) -> Cameras:
    """The cameras once their images are scaled until they cover a size and cut at the centre."""
    return fitted(cameras, height, width, "crop")


def fitted(cameras: Cameras, height: int, width: int, fit: str) -> Cameras:
    """The cameras once their images are brought to a size.

    The same geometry as `media.resize_fit`.

    Args:
        cameras: cameras of one image size.
        height: height of the result, pixels.
        width: width of the result, pixels.
        fit: one of `media.FITS`.
    """
    how = media.fit_of((cameras.height, cameras.width), (height, width), fit)
    return cameras.resized(how.height, how.width).cropped(how.top, how.left, height, width)


def _rounded(length: float | int, multiple: int) -> int:
    """The nearest multiple, at least one of it."""
    return max(1, round(length / multiple)) * multiple

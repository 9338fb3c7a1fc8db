"""Other meanings that a scene's cameras may have, with what each is called and the hint.

    conventions   matrices inverted, rotations transposed, translations turned; camera axes permuted or mirrored
    pairings      poses of other photos: reversed, moved by one, sorted otherwise
    intrinsics    of another image size, or another focal length

Poses that are mirrored in the world and in the camera keep rotations proper: only photos tell.

Shapes: V photos.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.sightings import Sighting
from sphinx_nvs.scene.transforms import flip_yz

_SIZES = (2.0, 0.5, 4.0, 0.25, 8.0, 0.125)
_FOCALS = (0.8, 1.25, 0.7, 1.4, 0.6, 1.6, 0.5, 2.0)
_NEAR_FOCALS = (0.9, 1.1, *_FOCALS)
_UPRIGHT_ONLY = (0.8, 0.9, 1.1, 1.25)
_SHIFTS = (-0.1, -0.06, -0.03, 0.03, 0.06, 0.1)
"""Of a side of the photo."""

_ROLLS_DEG = (-4, -2, 2, 4)
_AXIS_SCALES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.25, 1.4, 1.6, 2.0, 2.5, 3.3)
_FEW = 5
"""So few photos are tried in every order."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Another meaning of a scene's cameras.

    Args:
        found: how the poses are read, behind "fit only".
        hint: what to do about it.
        c2w: camera-to-world, OpenCV axes; its rotations may mirror.
        K: intrinsics, None for those that are given.
        is_straight: whether lenses bend nothing.
    """

    found: str
    hint: str
    c2w: Float[Tensor, "V 4 4"]
    K: tuple[Float[Tensor, "3 3"], ...] | None = None
    is_straight: bool = False


_TRANSPOSED = ("with their rotations transposed", "transpose the 3x3 rotations")
_TURNED = (
    "with their translations turned (camera centres and translations of world-to-camera are mixed up)",
    "the last column of a camera-to-world matrix is the camera's centre",
)


def _posed(R: Float[Tensor, "V 3 3"], c2w: Float[Tensor, "V 4 4"]) -> Float[Tensor, "V 4 4"]:
    return se3.pose_from(R, c2w[:, :3, 3])


def _transposed(c2w: Float[Tensor, "V 4 4"]) -> Float[Tensor, "V 4 4"]:
    return se3.pose_from(c2w[:, :3, :3].mT, c2w[:, :3, 3])


def _turned(c2w: Float[Tensor, "V 4 4"]) -> Float[Tensor, "V 4 4"]:
    R = c2w[:, :3, :3]
    return se3.pose_from(R, -(R @ c2w[:, :3, 3:])[..., 0])


def _turned_back(c2w: Float[Tensor, "V 4 4"]) -> Float[Tensor, "V 4 4"]:
    R = c2w[:, :3, :3]
    return se3.pose_from(R, -(R.mT @ c2w[:, :3, 3:])[..., 0])


def _with_quaternions(order: Sequence[int], *, is_inverse: bool) -> Callable[[Tensor], Tensor]:
    """The poses once the numbers of their quaternions, of world-to-camera or of c2w, are taken in another order."""

    def meant(c2w: Float[Tensor, "V 4 4"]) -> Float[Tensor, "V 4 4"]:
        given = se3.inverse(c2w) if is_inverse else c2w
        numbers = se3.quaternion_from_rotation(given[:, :3, :3])[:, list(order)]
        read = se3.pose_from(se3.rotation_from_quaternion(numbers), given[:, :3, 3])
        return se3.inverse(read) if is_inverse else read

    return meant


def _in_opengl(meant: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What a change of the matrices means if the file has OpenGL axes."""
    return lambda c2w: flip_yz(meant(flip_yz(c2w)))


_QUATERNIONS = (
    "with the numbers of quaternions in another order",
    "give quaternions as the layout does: w x y z, or x y z w",
)
_SCALAR_LAST, _SCALAR_FIRST = (3, 0, 1, 2), (1, 2, 3, 0)

_MEANT: Mapping[Callable[[Tensor], Tensor], tuple[str, str]] = {
    _in_opengl(_transposed): _TRANSPOSED,
    _transposed: _TRANSPOSED,
    _in_opengl(_turned): _TURNED,
    _turned: _TURNED,
    _in_opengl(_turned_back): _TURNED,
    _turned_back: _TURNED,
    _with_quaternions(_SCALAR_LAST, is_inverse=True): _QUATERNIONS,
    _with_quaternions(_SCALAR_FIRST, is_inverse=True): _QUATERNIONS,
    _in_opengl(_with_quaternions(_SCALAR_FIRST, is_inverse=False)): _QUATERNIONS,
    _in_opengl(_with_quaternions(_SCALAR_LAST, is_inverse=False)): _QUATERNIONS,
}


def other_conventions(c2w: Float[Tensor, "V 4 4"]) -> Iterator[Reading]:
    """Readings of the matrices themselves, the simpler ones first.

    Args:
        c2w: camera-to-world as the layout's convention reads them, OpenCV axes.
    """
    as_given, opengl, *others = _axes()
    inverted = "inverted: world-to-camera and camera-to-world are mixed up"
    bases = [(meant(c2w), said) for meant, said in _MEANT.items()]
    yield _with_axes(c2w, opengl)
    for axes, name in ((as_given, "OpenCV"), (opengl, "OpenGL")):
        yield Reading(
            found=f"{inverted}, {name} axes", hint="invert the matrices", c2w=se3.inverse(flip_yz(c2w)) @ axes
        )
    for poses, (found, hint) in bases:
        yield Reading(found=found, hint=hint, c2w=poses)
    for axes in others:
        yield _with_axes(c2w, axes)
    for axes in others:
        found = f"{inverted}, and with other camera axes"
        yield Reading(found=found, hint=f"invert the matrices; {_COLUMNS}", c2w=se3.inverse(c2w) @ axes)
    for poses, (found, hint) in bases:
        for axes in (opengl, *others):
            yield Reading(found=f"{found}, and with other camera axes", hint=f"{hint}; {_COLUMNS}", c2w=poses @ axes)


_COLUMNS = "columns of a rotation are the camera's right, up and backward axes (in transforms.json)"


def _axes() -> list[Float[Tensor, "4 4"]]:
    """All 48 ways to name and direct three axes; as they are, then OpenGL's for OpenCV's, then the others."""
    first = [(1.0, 1.0, 1.0), (1.0, -1.0, -1.0)]
    signs = [*first, *(each for each in itertools.product((1.0, -1.0), repeat=3) if each not in first)]
    order = [*itertools.permutations(range(3))]
    return [_signed(place, sign) for place in order[:1] for sign in signs] + [
        _signed(place, sign) for place in order[1:] for sign in signs
    ]


def _signed(place: Sequence[int], sign: Sequence[float]) -> Float[Tensor, "4 4"]:
    axes = torch.zeros(4, 4, dtype=torch.float64)
    axes[3, 3] = 1.0
    for row, (column, value) in enumerate(zip(place, sign, strict=True)):
        axes[row, column] = value
    return axes


def _with_axes(c2w: Float[Tensor, "V 4 4"], axes: Float[Tensor, "4 4"]) -> Reading:
    """The poses with other camera axes."""
    if bool((axes.diagonal() == axes.new_tensor([1.0, -1.0, -1.0, 1.0])).all()):
        found = "with y and z axes of the cameras reversed (OpenCV and OpenGL axes are mixed up)"
        hint = "change the signs of the second and third column of the rotations"
    elif float(torch.linalg.det(axes)) < 0:
        found = "mirrored (left-handed coordinates, or photos that are mirrored)"
        hint = "convert the poses to a right-handed world, or mirror the photos back"
    elif float(axes[2, 2]) > 0:
        found = "with the photos turned by 90 or 180 degrees"
        hint = "give the photos as the cameras saw them, or turn the poses"
    else:
        found, hint = "with other camera axes", _COLUMNS
    return Reading(found=found, hint=hint, c2w=c2w @ axes)


def other_pairings(c2w: Float[Tensor, "V 4 4"], names: Sequence[str], order: Sequence[int]) -> Iterator[Reading]:
    """Readings of which pose belongs to which photo.

    Args:
        c2w: of the photos by name, numbers as numbers.
        names: of the photos.
        order: places of these in the file.
    """
    count = len(c2w)
    as_text = sorted(range(count), key=lambda place: names[place])
    sorting = "with photos and poses sorted differently"
    orders = (
        ("in reverse order", range(count - 1, -1, -1)),
        ("with each pose moved to the next photo", [(place - 1) % count for place in range(count)]),
        ("with each pose moved to the photo before", [(place + 1) % count for place in range(count)]),
        (f"{sorting}, once by numbers and once as text (10 before 2)", as_text),
        (f"{sorting}, once by numbers and once as text (10 before 2)", _inverse(as_text)),
        (f"{sorting}, once by name", order),
        (f"{sorting}, once by name", _inverse(order)),
    )
    # In any order, where these are few.
    more = itertools.permutations(range(count)) if count <= _FEW else ()
    for found, places in (*orders, *(("in another order", list(places)) for places in more)):
        if list(places) != list(range(count)):
            hint = "photos and poses are paired in the wrong order: give every photo its own pose"
            yield Reading(found=found, hint=hint, c2w=c2w[list(places)])


def _inverse(order: Sequence[int]) -> list[int]:
    """The permutation that undoes another one."""
    return sorted(range(len(order)), key=lambda place: order[place])


def other_intrinsics(c2w: Float[Tensor, "V 4 4"], seen: Sequence[Sighting]) -> Iterator[Reading]:
    """Readings of the intrinsics.

    Args:
        c2w: of the photos.
        seen: the photos' cameras.
    """
    for size in _SIZES:
        found = f"with intrinsics for photos {1 / size:g} times as large"
        hint = "give focal lengths and principal points in pixels of the photos, or the size that they are for (w, h)"
        yield Reading(found=found, hint=hint, c2w=c2w, K=tuple(_scaled(each.K, size, size) for each in seen))
    found = "with principal points in the middle of the photos"
    hint = "give cx and cy in pixels from the corner of the photos"
    yield Reading(found=found, hint=hint, c2w=c2w, K=tuple(_centred(each) for each in seen))
    yield from other_lenses(c2w, seen)


def other_lenses(
    c2w: Float[Tensor, "V 4 4"], seen: Sequence[Sighting], focals: Sequence[float] = _FOCALS
) -> Iterator[Reading]:
    """Readings of the focal length and the lens.

    Args:
        c2w: of the photos.
        seen: the photos' cameras.
        focals: times the focal length that is given.
    """
    if any(each.distortion for each in seen):
        found, hint = "without lens distortion", "photos may be undistorted already: take k1 .. p2 out, or correct them"
        yield Reading(found=found, hint=hint, c2w=c2w, K=tuple(each.K for each in seen), is_straight=True)
    for focal in focals:
        found = f"with a focal length about {focal:g} times as long"
        hint = "correct it, or the angle of view; photos must not be cropped after their cameras were made"
        yield Reading(found=found, hint=hint, c2w=c2w, K=tuple(_scaled(each.K, focal, 1.0) for each in seen))


def slightly_other(c2w: Float[Tensor, "V 4 4"], seen: Sequence[Sighting]) -> Iterator[Reading]:
    """Readings that most matches may bear although they are wrong; see `precision`.

    Args:
        c2w: of the photos, in the file's own axes.
        seen: the photos' cameras.
    """
    for axis, scale in itertools.product(range(3), _AXIS_SCALES):
        scaled = c2w.clone()
        scaled[:, axis, 3] *= scale
        found = f"with camera positions about {scale:g} times as far apart along {'xyz'[axis]}"
        yield Reading(found=found, hint="give all three coordinates in one unit", c2w=scaled)
    for degrees in _ROLLS_DEG:
        turn = torch.eye(4, dtype=torch.float64)
        turn[:3, :3] = se3.rotation_about(c2w.new_tensor([0.0, 0.0, 1.0]), c2w.new_tensor(math.radians(degrees)))
        found = f"with the photos turned by about {abs(degrees)} degrees"
        yield Reading(found=found, hint="photos must not be straightened after their cameras were made", c2w=c2w @ turn)
    yield from other_lenses(c2w, seen, _NEAR_FOCALS)
    for scale in _UPRIGHT_ONLY:
        found = f"with fy about {scale:g} times as long and fx as it is"
        K = tuple(each.K * each.K.new_tensor([[1, 1, 1], [1, scale, 1], [1, 1, 1]]) for each in seen)
        yield Reading(found=found, hint="correct it; photos must not be stretched", c2w=c2w, K=K)
    for name, shift in itertools.product(("cx", "cy"), _SHIFTS):
        side = seen[0].width if name == "cx" else seen[0].height
        found = f"with {name} about {abs(shift) * side:.0f} pixels {'larger' if shift > 0 else 'smaller'}"
        hint = "correct it; photos must not be cropped after their cameras were made"
        yield Reading(found=found, hint=hint, c2w=c2w, K=tuple(_shifted(each, name, shift) for each in seen))


def _shifted(seen: Sighting, name: str, shift: float) -> Float[Tensor, "3 3"]:
    """Intrinsics with another principal point, by a share of the photo's side."""
    K = seen.K.clone()
    K[("cx", "cy").index(name), 2] += shift * (seen.width if name == "cx" else seen.height)
    return K


def _scaled(K: Float[Tensor, "3 3"], focal: float, centre: float) -> Float[Tensor, "3 3"]:
    return K * K.new_tensor([[focal, 1, centre], [1, focal, centre], [1, 1, 1]])


def _centred(seen: Sighting) -> Float[Tensor, "3 3"]:
    K = seen.K.clone()
    K[:2, 2] = K.new_tensor([seen.width / 2, seen.height / 2])
    return K

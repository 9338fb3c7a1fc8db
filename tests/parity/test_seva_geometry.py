"""Geometry against SEVA's golden values, to 2e-5 absolute."""

import json
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import look_at_point
from sphinx_nvs.geometry.fov import fov_long_side, intrinsics_from_fov
from sphinx_nvs.geometry.normalise import normalise_cameras
from sphinx_nvs.geometry.rays import plucker
from sphinx_nvs.geometry.spiral import spiral_through
from sphinx_nvs.geometry.trajectories import PRESETS, preset_path
from sphinx_nvs.media import FITS, fit_of, resize_fit
from sphinx_nvs.scene.capture import Capture, PosedView, fitted

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def golden(parity_dir):
    tensors = load_file(parity_dir / "seva_geometry.safetensors")
    settings = json.loads((parity_dir / "seva_geometry.json").read_text())
    return {name: tensor.double() for name, tensor in tensors.items()}, settings


def assert_close(actual, expected):
    torch.testing.assert_close(actual.double(), expected, atol=TOLERANCE, rtol=0)


def poses(tensor):
    """Poses of 3 or 4 rows as 4x4."""
    bottom = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64).expand(len(tensor), 1, 4)
    return tensor if tensor.shape[-2] == 4 else torch.cat([tensor, bottom], dim=1)


def unit_cameras(c2w, K=None):
    """Cameras of a 1x1 image, so that K is normalised."""
    K = torch.eye(3, dtype=torch.float64).expand(len(c2w), 3, 3) if K is None else K
    return Cameras(poses(c2w), K, 1, 1)


def norm_cases(tensors):
    return sorted({name.split(".")[1] for name in tensors if name.startswith("norm.")})


def test_normalisation_and_plucker(golden):
    tensors, settings = golden
    assert norm_cases(tensors)
    for case in norm_cases(tensors):
        cameras = unit_cameras(tensors[f"norm.{case}.c2w_in"], tensors[f"norm.{case}.K"])
        everyone = tensors.get(f"norm.{case}.all_c2ws")
        reference = None if everyone is None else unit_cameras(everyone)
        scale = settings.get(f"norm.{case}", {}).get("camera_scale", 2.0)
        normalised = normalise_cameras(cameras, reference=reference, camera_scale=scale)
        assert_close(normalised.c2w, poses(tensors[f"norm.{case}.c2w_out"]))
        expected = tensors[f"norm.{case}.plucker"]
        assert_close(plucker(normalised, *expected.shape[-2:]), expected)


def test_plucker_with_default_intrinsics(golden):
    tensors, settings = golden
    c2w = torch.linalg.inv(poses(tensors["plucker.default_K.w2c"]))
    height, width = settings["plucker.default_K.target_size"]
    K = intrinsics_from_fov(height, width, settings["default_fov_rad"]).expand(len(c2w), 3, 3)
    assert_close(plucker(Cameras(c2w, K, height, width)), tensors["plucker.default_K.out"])


def start_of(tensors, settings, tag):
    spec = settings["presets"][tag]
    w2c = torch.eye(4, dtype=torch.float64)[None]
    if spec["start_w2c"] != "identity":
        w2c = poses(tensors[spec["start_w2c"]][None])
    fov = settings["default_fov_rad"] if spec["fov"] == "default" else spec["fov"]
    return Cameras(torch.linalg.inv(w2c), intrinsics_from_fov(64, 64, fov)[None], 64, 64)


@pytest.mark.parametrize("tag", ["preset", "preset2"])
@pytest.mark.parametrize("name", PRESETS)
def test_presets(golden, tag, name):
    tensors, settings = golden
    spec = settings["presets"][tag]
    up = spec.get("up_for_roll") if name == "roll" else spec["up"]
    look_at = torch.tensor(spec["look_at"], dtype=torch.float64)
    path = preset_path(
        name,
        start_of(tensors, settings, tag),
        settings["presets"]["num_frames"],
        look_at=look_at,
        up=None if up is None else torch.tensor(up, dtype=torch.float64),
        zoom_factor=spec["zoom_factor"],
        spiral_radii=tuple(float(radius) for radius in spec["spiral_radii"]),
        roll_axis=look_at,
    )
    key = f"{tag}.{name.replace(' ', '_')}"
    assert_close(path.c2w, poses(tensors[f"{key}.c2w"]))
    assert_close(fov_long_side(path), tensors[f"{key}.fov"])


def test_preset_names_are_sevas(golden):
    _, settings = golden
    assert sorted(PRESETS) == sorted(settings["presets"]["options"])


def test_intrinsics_from_fov(golden):
    tensors, settings = golden
    for case, aspect in enumerate(settings["intrinsics"]["aspect_ratios"]):
        ratio = Fraction(aspect).limit_denominator(1000)
        height, width = ratio.denominator, ratio.numerator
        for row, fov in enumerate(settings["intrinsics"]["fov_rad"]):
            K = intrinsics_from_fov(height, width, fov)[None]
            cameras = Cameras(torch.eye(4, dtype=torch.float64)[None], K, height, width)
            assert_close(cameras.K_norm[0], tensors[f"intrinsics.{case}"][row])


def transform_cases(settings):
    return list(enumerate(next(value for key, value in settings.items() if key.startswith("transform_cases"))))


def test_bringing_images_to_a_size(golden):
    """SEVA averages areas where this package resamples bicubically, so only the window is compared."""
    tensors, settings = golden
    image = tensors["transform.image"]
    source = Cameras(torch.eye(4)[None], tensors["transform.K_px"], *image.shape[-2:])
    assert {case["mode"] for _, case in transform_cases(settings)} <= set(FITS)
    for index, case in transform_cases(settings):
        expected = tensors[f"transform.{index}.image"]
        height, width = expected.shape[-2:]
        assert_close(fitted(source, height, width, case["mode"]).K, tensors[f"transform.{index}.K"])
        fit = fit_of(image.shape[-2:], (height, width), case["mode"])
        scaled = F.interpolate(image, size=(fit.height, fit.width), mode="area")
        below, right = height - fit.height + fit.top, width - fit.width + fit.left
        assert_close(F.pad(scaled, (-fit.left, right, -fit.top, below)), expected)
        assert resize_fit(image, height, width, case["mode"]).shape == expected.shape
        black = (expected == 0).all(1)
        assert torch.equal((resize_fit(image + 1, height, width, case["mode"]) == 0).all(1), black)


def test_size_by_its_short_side(golden):
    """SEVA's `L_short`: the aspect is kept, both sides are multiples of a stride."""
    tensors, settings = golden
    image = tensors["transform.image"][0].float()
    view = PosedView(
        name="a",
        c2w=torch.eye(4, dtype=torch.float64),
        K=tensors["transform.K_px"][0],
        height=image.shape[1],
        width=image.shape[2],
        image=image,
    )
    for index, case in transform_cases(settings):
        if isinstance(case["size"], int):
            size = Capture(name="a", views=(view,)).default_size(case["size"], case["size_stride"])
            assert size == tuple(tensors[f"transform.{index}.image"].shape[-2:])


def test_spiral_through_poses(golden):
    """Recorded for NeRF's axes (y up, z backwards) and a centred world, whose coordinates give the radii."""
    tensors, settings = golden
    said = settings["interp_path"].split("spiral_path:")[1]
    near, far = (float(bound) for bound in said.split("[")[1].split("]")[0].split(","))
    turns = float(said.split("n_rots ")[1].split(",")[0])
    rate = float(said.split("zrate ")[1].split(",")[0])
    nerf = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    cameras = unit_cameras(poses(tensors["norm.a.c2w_in"]) @ nerf)
    expected = poses(tensors["spiral_path.out"])
    path = spiral_through(
        cameras,
        len(expected),
        # SEVA's distance to look at, from the nearest and the farthest depth of the scene.
        focus=1 / (0.25 / (0.9 * near) + 0.75 / (5 * far)),
        radii=cameras.centres.abs().quantile(0.9, dim=0),
        turns=turns,
        forward_rate=rate,
    )
    assert_close(path.c2w @ nerf, expected)


def test_every_recorded_value_is_read(golden):
    """Of a set with more in it than this file knows, this test says so; two of its functions are not ours."""
    tensors, _ = golden
    unused = ("interp_path.", "normalize_scene.")
    known = (*unused, "intrinsics.", "lookat.", "norm.", "plucker.default_K.", "preset", "spiral_path.", "transform.")
    assert [name for name in tensors if not name.startswith(known)] == []


def test_look_at_point(golden):
    tensors, _ = golden
    assert_close(look_at_point(unit_cameras(tensors["norm.a.c2w_in"])), tensors["lookat.point"])

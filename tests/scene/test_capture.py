"""Captures: lazy loading, sizes that follow, lenses that are undone."""

import pytest
import torch
from PIL import Image
from scene_helpers import close, save_photo, sentence, some_cameras

from sphinx_nvs import media
from sphinx_nvs.geometry.projection import project, unproject
from sphinx_nvs.scene.capture import Capture, PosedView
from sphinx_nvs.scene.distortion import Distortion, undistorted_intrinsics
from sphinx_nvs.scene.intrinsics import fit_to_image, intrinsics_matrix

K = intrinsics_matrix(40.0, 42.0, 31.0, 25.0)


def view(image=None, height=48, width=64, intrinsics=K, **options):
    c2w = torch.eye(4, dtype=torch.float64)
    return PosedView(name="a", c2w=c2w, K=intrinsics, height=height, width=width, image=image, **options)


def capture(*views):
    return Capture(name="scene", views=views)


def smooth_image(height, width):
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, x * y])


@pytest.mark.parametrize("size", [(24, 32), (32, 32), (20, 40), (96, 100)])
def test_loaded_pixels_and_cameras_agree(size):
    """A point's colour is the same wherever the image was scaled and cut."""
    height, width = 48, 64
    image = smooth_image(height, width)
    scene = capture(view(image)).load([0], *size)
    points = unproject(scene.cameras, torch.ones(1, *size)).flatten(1, 2)
    original = view(image).camera(height, width)
    pixels = project(original, points)[0][0]
    expected = (pixels - 0.5) / torch.tensor([width - 1, height - 1])
    inner = torch.zeros(size, dtype=torch.bool)
    inner[3:-3, 3:-3] = True
    close(scene.images[0, :2].flatten(1).T[inner.flatten()].double(), expected[inner.flatten()], atol=4e-3)


def test_photos_are_read_only_when_loaded(tmp_path):
    save_photo(tmp_path / "a.png")
    lazy = capture(view(tmp_path / "a.png", height=12, width=16))
    (tmp_path / "a.png").unlink()
    assert lazy.cameras([0], 12, 16).height == 12
    assert sentence(lazy.load, [0], 12, 16).startswith(f"image {tmp_path}/a.png: there is no such file")


def test_default_size_keeps_the_aspect_in_multiples():
    large = {"intrinsics": intrinsics_matrix(400.0, 420.0, 256.0, 144.0)}
    assert capture(view(height=288, width=512, **large)).default_size() == (256, 448)
    assert capture(view(height=512, width=288, **large)).default_size(short_side=256, multiple=64) == (
        448,
        256,
    )
    assert capture(view(height=10, width=10)).default_size(short_side=5, multiple=32) == (32, 32)


@pytest.mark.parametrize(
    ("indices", "found"),
    [
        ([0, 1], "view 1 of scene: it has views 0 to 0; name one of these"),
        ([-1], "view -1 of scene: it has views 0 to 0; name one of these"),
        ([], "views of scene: none is named; name some of 0 to 0"),
    ],
)
def test_views_that_do_not_exist(indices, found):
    assert sentence(capture(view()).cameras, indices, 8, 8) == found


def test_no_views():
    assert sentence(capture) == "capture scene: it has 0 views; give at least one posed view"


def test_impossible_pose_and_focal_length():
    with_nan = torch.full((4, 4), torch.nan, dtype=torch.float64)
    make = {"name": "a", "height": 4, "width": 4}
    assert sentence(lambda: PosedView(c2w=with_nan, K=K, **make)) == (
        "pose of a: a value is NaN or infinite; give a finite 4x4 camera-to-world matrix"
    )
    negative = intrinsics_matrix(-3.0, 3.0, 2.0, 2.0)
    assert sentence(lambda: PosedView(c2w=torch.eye(4, dtype=torch.float64), K=negative, **make)) == (
        "K of a: fx is -3; give a focal length above 0 pixels"
    )


@pytest.mark.parametrize("k1", [-0.2, 0.15])
def test_undistortion_makes_a_pinhole_photo(k1):
    """A photo whose colours encode the viewing direction is right again after undistortion."""
    height, width = 48, 64
    lens = Distortion(k1=k1, k2=0.02, p1=0.003, p2=-0.002)
    truth = view().camera(height, width)
    # Where the lens shows each pinhole ray, found by inverting the polynomial by fixed-point iteration.
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    bent = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]], dim=-1)
    straight = bent.clone()
    for _ in range(100):
        straight = straight + 0.5 * (bent - lens.apply(straight))
    photo = torch.cat([straight, torch.zeros_like(straight[..., :1])], dim=-1).permute(2, 0, 1).float()
    lensed = view(photo, distortion=lens)
    undone, camera = lensed.read(), lensed.camera(height, width)
    expected = unproject(camera, torch.ones(1, height, width))[0, ..., :2].permute(2, 0, 1).float()
    close(undone[:2, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=4e-3)
    assert float(camera.K[0, 0, 0]) >= float(truth.K[0, 0, 0])


def test_barrel_photos_keep_their_intrinsics_and_pincushion_ones_zoom_in():
    assert torch.equal(undistorted_intrinsics(K, Distortion(k1=-0.05), 48, 64, "a"), K)
    assert float(undistorted_intrinsics(K, Distortion(k1=0.05), 48, 64, "a")[0, 0]) > float(K[0, 0])


def test_a_polynomial_that_folds_is_refused():
    lens = Distortion(k1=-30.0)
    assert sentence(undistorted_intrinsics, K, lens, 48, 64, "view a") == (
        f"distortion of view a: {lens} bends the image border over itself; check the coefficients, or undistort the "
        "photos with the tool that calibrated them"
    )


def test_a_photo_turned_by_exif_is_read_as_its_cameras_were_made(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_photo(tmp_path / "a.jpg", 12, 16, exif=exif)
    (as_shown,) = fit_to_image(K, (16, 12), tmp_path / "a.jpg", "cameras")
    (as_stored,) = fit_to_image(K, (12, 16), tmp_path / "a.jpg", "cameras")
    assert (as_shown.height, as_shown.width, as_shown.oriented) == (16, 12, True)
    assert (as_stored.height, as_stored.width, as_stored.oriented) == (12, 16, False)


def test_a_scene_is_one_size():
    cameras = some_cameras(2)
    views = [
        PosedView(name=str(i), c2w=cameras.c2w[i], K=K, height=40 + i, width=60, image=smooth_image(40 + i, 60))
        for i in range(2)
    ]
    assert capture(*views).load([1, 0], 32, 32).images.shape == (2, 3, 32, 32)


def gradient(height: int, width: int) -> torch.Tensor:
    """A picture that scaling hardly changes."""
    v, u = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([u, v, (u + v) / 2])


@pytest.mark.parametrize("lens", [None, Distortion(k1=0.05, p1=0.002)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_scaled_while_they_are_decoded(tmp_path, monkeypatch, lens, orientation):
    picture = gradient(1202, 1606)
    Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(tmp_path / "a.png").save(tmp_path / "a.jpg", quality=98, exif=exif)
    turned = orientation == 6
    height, width = (1606, 1202) if turned else (1202, 1606)
    big = torch.tensor([[1500.0, 0, width / 2 + 9], [0, 1500, height / 2], [0, 0, 1]], dtype=torch.float64)
    photo = PosedView(
        name="a",
        c2w=torch.eye(4).double(),
        K=big,
        height=height,
        width=width,
        image=tmp_path / "a.jpg",
        distortion=lens,
    )
    decoded = []
    read = media.read_image
    monkeypatch.setattr(media, "read_image", lambda *a, **k: decoded.append(read(*a, **k)) or decoded[-1])
    small = photo.fitted(90, 120)
    whole = media.resize_fit(photo.read()[None], 90, 120, "crop")[0]
    first, second = (tuple(image.shape[1:]) for image in decoded)
    assert second == (height, width)
    assert max(first) <= (1606 + 3) // 4
    close(small, whole, atol=0.01)


def test_nothing_is_scaled_that_is_not_twice_too_large(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.jpg")
    assert media.read_image(tmp_path / "a.jpg", at_least=(60, 120)).shape == (3, 100, 200)
    assert media.read_image(tmp_path / "a.jpg", at_least=(50, 100)).shape == (3, 50, 100)

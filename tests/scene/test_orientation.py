"""EXIF orientations: by sizes, by matches, by habit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.transforms import write_transforms

STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What stores a photo so that a viewer turns it back."""


@pytest.fixture(scope="module")
def room():
    rgb, _, cameras, _ = procedural_views(3, 4, 192, 256, "room", split="test")
    return (rgb * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(), cameras


def tagged(folder, room, orientation, *, is_turned, has_size=True):
    """The room's photos with an orientation: its cameras are of photos as viewers show them, or as they are stored."""
    pixels, cameras = room
    (folder / "images").mkdir()
    names = [f"images/{i}.png" for i in range(len(pixels))]
    for name, image in zip(names, pixels, strict=True):
        photo = Image.fromarray(image)
        exif = Image.Exif()
        exif[0x0112] = orientation
        (photo.transpose(STORED[orientation]) if is_turned else photo).save(folder / name, exif=exif)
    write_transforms(folder / "transforms.json", cameras, names)
    if not has_size:
        data = json.loads((folder / "transforms.json").read_text())
        angle = 2 * np.arctan(cameras.width / 2 / float(cameras.K[0, 0, 0]))
        frames = [{key: frame[key] for key in ("file_path", "transform_matrix")} for frame in data["frames"]]
        (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return read_capture(folder)


@pytest.mark.parametrize("is_turned", [True, False])
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_where_sizes_cannot_tell_matches_do(tmp_path, room, orientation, is_turned):
    capture = tagged(tmp_path, room, orientation, is_turned=is_turned)
    assert "only so do matches between them fit the poses" in capture.notes[0]
    shown = (capture.views[0].read() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(shown, room[0][0])


@pytest.mark.parametrize("is_turned", [True, False])
def test_where_only_an_angle_is_given_matches_tell_the_size_too(tmp_path, room, is_turned):
    capture = tagged(tmp_path, room, 6, is_turned=is_turned, has_size=False)
    assert (capture.views[0].height, capture.views[0].width) == (192, 256)


@pytest.mark.parametrize("is_turned", [True, False])
def test_sizes_decide_where_they_can(tmp_path, room, is_turned):
    capture = tagged(tmp_path, room, 6, is_turned=is_turned)
    assert "their sizes fit the cameras only so" in capture.notes[0]
    assert capture.views[0].oriented is is_turned


def test_a_guess_is_called_one(tmp_path, room):
    grey = np.full_like(room[0], 128)
    capture = tagged(tmp_path, (grey, room[1]), 3, is_turned=True)
    assert "this is a guess" in capture.notes[0]
    assert capture.views[0].oriented, "as viewers do"


def test_stale_tags_beside_true_ones(tmp_path, room):
    """The first photo is turned by its tag, the second one's was left behind by an editor, the others have none."""
    pixels, cameras = room
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    for index, image in enumerate(map(Image.fromarray, pixels)):
        stored = image.transpose(STORED[3]) if index == 0 else image
        stored.save(tmp_path / "images" / f"{index}.png", **({"exif": exif} if index < 2 else {}))
    write_transforms(tmp_path / "transforms.json", cameras, [f"images/{i}.png" for i in range(len(pixels))])
    capture = read_capture(tmp_path)
    [note] = capture.notes
    assert "images/0.png turned upright, images/1.png as stored" in note
    for index, view in enumerate(capture.views):
        shown = (view.read() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert np.array_equal(shown, pixels[index])

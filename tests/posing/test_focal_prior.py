"""Focal lengths by EXIF."""

import pytest
from PIL import Image

from sphinx_nvs.posing.focal_prior import CameraPrior, camera_prior


def _photo(path, millimetres, model="Phone 5"):
    exif = Image.Exif()
    exif[0x0110] = model
    exif.get_ifd(0x8769)[0xA405] = millimetres
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    return path


def test_35_mm_equivalent_is_across_the_diagonal(tmp_path):
    prior = camera_prior(_photo(tmp_path / "a.jpg", 26))
    assert prior.model == "Phone 5"
    assert prior.pixels(4000, 3000) == pytest.approx(26 / 43.27 * 5000)


@pytest.mark.parametrize("millimetres", [0, 60000])
def test_what_no_lens_has_is_unknown(tmp_path, millimetres):
    assert camera_prior(_photo(tmp_path / "a.jpg", millimetres)).focal is None


def test_without_exif_a_phone_is_assumed(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    assert camera_prior(tmp_path / "a.jpg") == CameraPrior()
    assert CameraPrior().pixels(300, 400) == pytest.approx(280)


def test_a_file_that_is_no_photo_says_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"none")
    assert camera_prior(tmp_path / "a.jpg") == CameraPrior()

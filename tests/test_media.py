"""Images and video: every kind that users have, written whole or not at all."""

import errno
import io
import math
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sphinx_nvs import media
from sphinx_nvs.errors import InputError, OutputError


def close(a, b, atol=1e-6):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def colour(path):
    """The one colour of a uniform image file."""
    image = media.read_image(path)
    assert image.dtype == torch.float32
    close(image, image[:, :1, :1].expand_as(image))
    return image[:, 0, 0].tolist()


def test_uint8_round_trip_and_clamping():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(media.uint8_from_float(media.float_from_uint8(levels)), levels)
    assert media.uint8_from_float(torch.tensor([-0.5, 1.5, 0.5])).tolist() == [0, 255, 128]


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", (255, 0, 51), (1, 0, 0.2)),
        ("L", 51, (0.2, 0.2, 0.2)),
        ("1", 1, (1, 1, 1)),
        ("RGBA", (255, 0, 0, 51), (1, 0.8, 0.8)),
        ("LA", (0, 51), (0.8, 0.8, 0.8)),
    ],
)
def test_pixel_types(tmp_path, mode, value, expected):
    Image.new(mode, (4, 3), value).save(tmp_path / "a.png")
    assert colour(tmp_path / "a.png") == pytest.approx(expected, abs=1e-6)


def test_sixteen_bits_keep_their_precision(tmp_path):
    Image.fromarray(np.full((3, 4), 12345, dtype=np.uint16)).save(tmp_path / "a.png")
    assert colour(tmp_path / "a.png") == pytest.approx([12345 / 65535] * 3, abs=1e-6)


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert colour(tmp_path / "opaque.png") == [1, 0, 0]
    assert colour(tmp_path / "clear.png") == [1, 1, 1]


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "a.jpg")
    assert colour(tmp_path / "a.jpg") == pytest.approx([0, 0, 0], abs=0.02)


def rotated(path):
    """A 2x3 photo that a viewer shows turned by 90 degrees (EXIF orientation 6)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path, exif=exif)


def test_exif_orientation_is_honoured_unless_told_otherwise(tmp_path):
    rotated(tmp_path / "a.png")
    assert media.image_size(tmp_path / "a.png") == (3, 2)
    assert media.image_size(tmp_path / "a.png", oriented=False) == (2, 3)
    upright = media.read_image(tmp_path / "a.png")
    assert upright.shape == (3, 3, 2)
    assert upright[0].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert media.read_image(tmp_path / "a.png", oriented=False)[0, 0].tolist() == [1, 0, 0]


def chunks(data):
    """A PNG's chunks behind its signature, each whole."""
    place, found = 8, []
    while place < len(data):
        size = 12 + int.from_bytes(data[place : place + 4], "big")
        found.append(data[place : place + size])
        place += size
    return found


def test_exif_behind_the_pixels_is_honoured_too(tmp_path):
    path = tmp_path / "a.png"
    rotated(path)
    data = path.read_bytes()
    (exif,) = (chunk for chunk in chunks(data) if chunk[4:8] == b"eXIf")
    end = chunks(data)[-1]
    path.write_bytes(data.replace(exif, b"").replace(end, exif + end))
    assert media.image_size(path) == (3, 2)
    assert media.read_image(path).shape == (3, 3, 2)


def test_the_size_of_a_png_is_known_without_its_pixels(tmp_path):
    path = tmp_path / "a.png"
    rotated(path)
    broken = path.read_bytes().split(b"IDAT")[0] + b"IDAT"
    path.write_bytes(broken)
    assert media.image_size(path) == (3, 2)


def sentence(call, *args, **kwargs):
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    return str(error.value)


def test_missing_image(tmp_path):
    path = tmp_path / "a.png"
    expected = f"image {path}: there is no such file; correct the path or restore the file"
    assert sentence(media.read_image, path) == expected
    assert sentence(media.image_size, path) == expected


def test_not_an_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("hello")
    assert sentence(media.read_image, path) == (
        f"image {path}: it is not an image; give a PNG, JPEG, WebP, TIFF or BMP file"
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_image(tmp_path, kind):
    path = tmp_path / "a"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format=kind)
    path.write_bytes(path.read_bytes()[:2000])
    text = sentence(media.read_image, path)
    assert text.startswith(f"image {path}: it is truncated or damaged (")
    assert text.endswith("); replace it by an intact copy")


def test_decompression_bomb(tmp_path):
    path = tmp_path / "a.png"
    for side in (13_000, 60_000):
        buffer = io.BytesIO()
        Image.new("1", (8, 8)).save(buffer, format="PNG")
        data = bytearray(buffer.getvalue())
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = _crc(bytes(data[12:29]))
        path.write_bytes(bytes(data))
        text = sentence(media.image_size, path)
        assert text.startswith(f"image {path}: it has ")
        assert text.endswith("more than 150 million pixels; scale it down first")


def _crc(data):
    return zlib.crc32(data).to_bytes(4, "big")


def test_float_pixels_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((3, 4), dtype=np.float32)).save(path)
    assert sentence(media.read_image, path) == (
        f"image {path}: its pixel type is 32-bit (F); save it with 8 or 16 bits a channel"
    )


@settings(deadline=None, max_examples=50)
@given(*[st.integers(1, 200)] * 4)
def test_cover_covers_at_the_centre_and_touches_one_side(height, width, target_height, target_width):
    fit = media.cover((height, width), (target_height, target_width))
    assert fit.height >= target_height
    assert fit.width >= target_width
    assert fit.height == target_height or fit.width == target_width
    assert 0 <= fit.height - target_height - 2 * fit.top <= 1
    assert 0 <= fit.width - target_width - 2 * fit.left <= 1


def test_resize_keeps_range_and_mean_and_the_grid_of_pixels():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    small = media.resize(ramp, 16, 16)
    assert 0 <= float(small.min()) <= float(small.max()) <= 1
    close(small.mean(), ramp.mean(), atol=1e-3)
    close(small[0, 0, 0, 4:12], ramp[0, 0, 0].view(16, 4).mean(1)[4:12], atol=1e-3)
    assert media.resize(ramp, 64, 64) is ramp


def test_resize_cover_cuts_the_centre():
    image = torch.zeros(1, 1, 4, 8)
    image[..., 2:6] = 1
    assert torch.equal(media.resize_cover(image, 4, 4), torch.ones(1, 1, 4, 4))


@settings(deadline=None, max_examples=50)
@given(*[st.integers(1, 200)] * 4)
def test_pad_shows_the_whole_image_in_the_middle(height, width, target_height, target_width):
    fit = media.fit_of((height, width), (target_height, target_width), "pad")
    assert fit.height == target_height or fit.width == target_width
    assert 0 <= -2 * fit.top - (target_height - fit.height) <= 1
    assert 0 <= -2 * fit.left - (target_width - fit.width) <= 1


def test_ways_to_fit_an_image():
    image = torch.ones(1, 1, 4, 8)
    padded = media.resize_fit(image, 8, 8, "pad")
    assert torch.equal(padded[0, 0, :, 0], torch.tensor([0.0, 0, 1, 1, 1, 1, 0, 0]))
    assert torch.equal(media.resize_fit(image, 8, 8, "stretch"), torch.ones(1, 1, 8, 8))
    with pytest.raises(InputError) as caught:
        media.resize_fit(image, 8, 8, "squeeze")
    assert str(caught.value) == "fit: there is no 'squeeze'; choose one of: crop, pad, stretch"


def test_png_round_trip(tmp_path):
    image = media.float_from_uint8(torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8))
    media.write_png(tmp_path / "new" / "a.png", image)
    assert torch.equal(media.read_image(tmp_path / "new" / "a.png"), image)
    assert os.listdir(tmp_path / "new") == ["a.png"]


@pytest.mark.parametrize("encoder", ["best", "mpeg4"])
def test_videos_keep_odd_sizes_where_the_encoder_can(tmp_path, monkeypatch, encoder):
    if encoder == "mpeg4":
        monkeypatch.setattr(media.av, "codecs_available", {"mpeg4"})
    y, x = torch.meshgrid(torch.linspace(0, 1, 35), torch.linspace(0, 1, 51), indexing="ij")
    frames = torch.stack([torch.stack([x, y, (x + shift) / 2]) for shift in (0, 0.5, 1)])
    media.write_video(tmp_path / "a.mp4", frames, fps=12.5)
    read = media.read_video(tmp_path / "a.mp4")
    assert read.shape == ((3, 3, 35, 51) if encoder == "best" else (3, 3, 36, 52))
    assert float((read[..., :35, :51] - frames).abs().mean()) < 0.02
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_video_mistakes(tmp_path):
    path = tmp_path / "a.mp4"
    frame = torch.zeros(1, 3, 4, 4)
    assert (
        sentence(media.write_video, path, frame[:0]) == f"video {path}: it would have 0 frames; give at least one frame"
    )
    assert sentence(media.write_video, path, frame, fps=0) == "fps: it is 0; give a rate above 0 frames a second"
    assert (
        sentence(media.write_video, path, frame, fps=math.nan) == "fps: it is nan; give a rate above 0 frames a second"
    )
    assert (
        sentence(media.read_video, path) == f"video {path}: there is no such file; correct the path or restore the file"
    )
    path.write_text("hello")
    assert sentence(media.read_video, path).endswith("; give an intact video file")


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (errno.ENOSPC, "the disk is full; free some space or write elsewhere"),
        (errno.EACCES, "writing there is not permitted; choose a folder that you may write to"),
        (errno.EROFS, "writing there is not permitted; choose a folder that you may write to"),
        (errno.EIO, "it cannot be written (Input/output error); choose another place"),
    ],
)
def test_a_refusal_leaves_nothing_behind(tmp_path, number, found):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail():
        with media.written_beside(path) as part:
            part.write_bytes(b"half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError) as error:
        fail()
    assert str(error.value) == f"output {path}: {found}"
    assert os.listdir(tmp_path) == ["a.bin"]
    assert path.read_bytes() == b"old"


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(OutputError) as error:
        media.write_bytes(tmp_path / "a.bin", b"new")
    assert str(error.value) == (
        f"output {tmp_path}/a.bin: a file or folder of that name is in the way; remove it or choose another name"
    )
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="in the way"):
        media.write_bytes(tmp_path / "file" / "b.bin", b"new")


def test_folders_too_are_written_beside_and_an_error_of_another_kind_passes(tmp_path):
    with media.written_beside(tmp_path / "out") as part:
        part.mkdir()
        (part / "a").write_bytes(b"1")
    assert (tmp_path / "out" / "a").read_bytes() == b"1"

    def fail():
        with media.written_beside(tmp_path / "other") as part:
            part.mkdir()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert os.listdir(tmp_path) == ["out"]


def icc_profile(primaries):
    """A profile of three primaries (D50, by columns) with a linear curve."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def tag(kind, content):
        return kind + b"\0\0\0\0" + content

    text = b"Linear\0"
    tags = {
        b"desc": tag(b"desc", struct.pack(">I", len(text)) + text + b"\0" * 78),
        b"wtpt": tag(b"XYZ ", b"".join(map(fixed, (0.9642, 1.0, 0.8249)))),
        **{
            name: tag(b"XYZ ", b"".join(map(fixed, column)))
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), zip(*primaries, strict=True), strict=True)
        },
        **{name: tag(b"curv", struct.pack(">I", 0)) for name in (b"rTRC", b"gTRC", b"bTRC")},
    }
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += padded
    head = struct.pack(">I4sI4s4s4s", 0, b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ") + b"\0" * 12 + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    profile = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


P3 = ((0.51512, 0.29198, 0.1571), (0.2412, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407))
SRGB = ((0.43607, 0.38515, 0.14307), (0.22249, 0.71687, 0.06061), (0.01392, 0.09708, 0.7141))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_wide_gamut_profile_becomes_srgb(tmp_path, mode):
    given = np.array([0.6, 0.4, 0.3])
    levels = np.broadcast_to((given * 255).round().astype(np.uint8), (4, 4, 3)).copy()
    image = Image.fromarray(levels).convert(mode)
    image.save(tmp_path / "p3.png", icc_profile=icc_profile(P3))
    linear = np.linalg.inv(np.array(SRGB)) @ np.array(P3) @ given
    wanted = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    read = media.read_image(tmp_path / "p3.png")[:, 0, 0].numpy()
    np.testing.assert_allclose(read, wanted, atol=0.012)


def test_a_profile_of_srgb_and_a_damaged_one_change_nothing(tmp_path):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("plain", None), ("srgb", srgb), ("damaged", b"no profile")):
        image.save(tmp_path / f"{name}.png", icc_profile=profile)
    plain = media.read_image(tmp_path / "plain.png")
    for name in ("srgb", "damaged"):
        assert torch.equal(media.read_image(tmp_path / f"{name}.png"), plain)


def with_chunk(path, kind, content):
    """A PNG with one more chunk behind its header."""
    data = path.read_bytes()
    head = len(b"\x89PNG\r\n\x1a\n") + 25
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data[:head] + chunk + data[head:])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_levels_of_another_gamma_become_srgb(tmp_path, mode):
    scale = 257 if mode == "I;16" else 1
    image = Image.fromarray(np.full((4, 4), 128 * scale, dtype=np.uint16 if mode == "I;16" else np.uint8))
    path = tmp_path / "a.png"

    def read(**chunks):
        (image if mode == "I;16" else image.convert(mode)).save(path)
        for kind, content in chunks.items():
            with_chunk(path, kind.encode(), content)
        return media.read_image(path)

    linear, usual = (struct.pack(">I", round(gamma * 100_000)) for gamma in (1.0, 0.45455))
    wanted = 1.055 * (128 / 255) ** (1 / 2.4) - 0.055
    torch.testing.assert_close(read(gAMA=linear), torch.full((3, 4, 4), wanted), atol=1e-5, rtol=0)
    plain = torch.full((3, 4, 4), 128 / 255)
    torch.testing.assert_close(read(gAMA=usual), plain)
    torch.testing.assert_close(read(gAMA=linear, sRGB=b"\0"), plain)
    torch.testing.assert_close(read(gAMA=struct.pack(">I", 0)), plain)


def test_hdr_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    with_chunk(path, b"cICP", bytes([1, 13, 0, 1]))
    assert media.read_image(path).shape == (3, 8, 8)
    Image.new("RGB", (8, 8), "red").save(path)
    with_chunk(path, b"cICP", bytes([9, 16, 0, 1]))
    with pytest.raises(InputError, match=r"its colours are those of HDR \(PQ\); export it in sRGB"):
        media.read_image(path)


@pytest.mark.parametrize("ending", ["png", "gif", "webp"])
def test_an_animation_is_refused(tmp_path, ending):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = tmp_path / f"a.{ending}"
    first.save(path, save_all=True, append_images=[second])
    with pytest.raises(InputError, match="an animation of 2 frames"):
        media.read_image(path)
    first.save(path)
    assert media.read_image(path).shape == (3, 8, 8)


@pytest.mark.parametrize("bits", [8, 10])
def test_a_heic_photo_is_decoded(tmp_path, bits):
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif (the extra heic)")
    ramp = np.linspace(0, 1, 64)
    wanted = np.stack([np.broadcast_to(ramp, (48, 64)), np.full((48, 64), 0.4), np.full((48, 64), 0.7)], axis=-1)
    path = tmp_path / "photo.heic"
    if bits == 8:
        heif.from_pillow(Image.fromarray((wanted * 255).round().astype(np.uint8))).save(path, quality=95)
    else:
        data = (wanted * 65535).round().astype("<u2").tobytes()
        heif.from_bytes(mode="RGB;16", size=(64, 48), data=data).save(path, quality=95)
    assert media.is_heic(path)
    assert media.image_size(path) == (48, 64)
    np.testing.assert_allclose(media.read_image(path).permute(1, 2, 0).numpy(), wanted, atol=0.03)


def test_a_heic_photo_that_a_phone_held_upright_is_shown_upright(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif (the extra heic)")
    stored = Image.new("RGB", (64, 32), "black")
    stored.paste("white", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(stored).save(tmp_path / "photo.heic", quality=95, exif=exif.tobytes())
    read = media.read_image(tmp_path / "photo.heic")
    assert read.shape == (3, 64, 32) == (3, *media.image_size(tmp_path / "photo.heic"))
    assert float(read[:, :28].min()) > 0.9
    assert float(read[:, 36:].max()) < 0.1

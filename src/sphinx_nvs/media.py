"""Images and video in and out: files on one side, sRGB float tensors in [0, 1] on the other.

Whatever a file holds (8 or 16 bits, grey, palette, alpha, CMYK, another ICC profile or PNG gamma, rotated by EXIF)
becomes float32 sRGB; alpha is composited on white. Everything is written beside its destination and renamed into place,
so that a full disk or a kill leaves nothing half-written.

Shapes: V views or frames, H W pixels.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from sphinx_nvs.errors import InputError, OutputError

MAX_PIXELS = 150_000_000
"""Images with more pixels than this are refused before they are decoded (decompression bombs)."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""Formats that are decoded, whatever a file is called. Pillow has fifty more, of which one starts a program
(EPS: Ghostscript) and most are used only in attacks. JPEG includes MPO; HEIF is added by pillow-heif."""

_most_pixels: ContextVar[int] = ContextVar("most pixels", default=MAX_PIXELS)

HEIC_SUFFIXES = (".heic", ".heif")
"""Endings of iPhone photos, which pillow-heif reads where it is installed."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", *HEIC_SUFFIXES)
"""Suffixes that are tried when a file name comes without one; upper case is tried too."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
"""Endings of videos."""

UPRIGHT = 1
"""EXIF's number for a photo that is stored as it is shown."""

_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose further images are frames; those of TIFF, MPO and HEIC are thumbnails and second views."""

_HEIC_KINDS = (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")
_EXIF_ORIENTATION = 0x0112
_TRANSPOSING = (5, 6, 7, 8)
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What shows a photo upright, by EXIF's orientation."""
_SRGB_GAMMA, _SAME_GAMMA = 1 / 2.2, 0.05
"""What a PNG's gAMA chunk holds for sRGB, and the relative difference up to which viewers take it for that."""

_PNG_TEXTS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_HDR_CURVES = {b"\x10": "PQ", b"\x12": "HLG"}
"""Transfer characteristics of ITU-T H.273."""

_PNG_SIGNATURE, _PNG_CHECKSUM = 8, 4


def uint8_from_float(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Converts sRGB in [0, 1] to 0..255, rounded to the nearest level; values outside are clamped."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def float_from_uint8(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Converts sRGB 0..255 to float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def image_size(path: Path, *, oriented: bool = True) -> tuple[int, int]:
    """Height and width in pixels, from the file's header alone.

    Args:
        path: an image file.
        oriented: as a viewer shows it (EXIF orientation applied), or as stored.

    Raises:
        InputError: the file is missing, is not an image, or has more than `MAX_PIXELS` pixels.
    """
    with _opened(path) as image:
        width, height = image.size
        with _intact(path):
            turned = oriented and _orientation_of(image, path) in _TRANSPOSING
    return (width, height) if turned else (height, width)


def orientation(path: Path) -> int:
    """EXIF's orientation of an image, 1 to 8; `UPRIGHT` where it has none.

    Raises:
        InputError: see `image_size`.
    """
    with _opened(path) as image, _intact(path):
        return _orientation_of(image, path)


def _orientation_of(image: Image.Image, path: Path) -> int:
    """EXIF's orientation, `UPRIGHT` where it is no number from 1 to 8."""
    found = _exif(image, path).get(_EXIF_ORIENTATION)
    return int(found) if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def is_grey_of_16_bits(path: Path) -> bool:
    """Whether an image has one channel of 16 bits, as depth maps have.

    Raises:
        InputError: see `image_size`.
    """
    with _opened(path) as image:
        return image.mode.startswith("I;16")


def _exif(image: Image.Image, path: Path) -> Image.Exif:
    """What Pillow would find; it decodes a PNG's pixels to see what stands behind them, which is seen without, too."""
    if image.format != "PNG" or _has_text_behind_pixels(path):
        return image.getexif()
    return Image.Image.getexif(image)


def _has_text_behind_pixels(path: Path) -> bool:
    """Whether a PNG has chunks behind its pixels that can hold EXIF; ISO/IEC 15948, section 5.3 "Chunk layout"."""
    is_behind = False
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE)
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if is_behind and kind in _PNG_TEXTS:
                return True
            is_behind = is_behind or kind == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + _PNG_CHECKSUM, os.SEEK_CUR)
    return False


def read_image(path: Path, *, oriented: bool = True, at_least: tuple[int, int] | None = None) -> Float[Tensor, "3 H W"]:
    """Reads an image of any common kind as sRGB float32 in [0, 1]; alpha is composited on white.

    Args:
        path: an image file: 8 or 16 bits, grey, colour, palette, CMYK, with or without alpha.
        oriented: apply the EXIF orientation, as viewers do; False gives the pixels as stored.
        at_least: height and width that are enough: a larger JPEG is scaled by 1/2, 1/4 or 1/8 when it is decoded, which
            takes a fraction of the time and the memory. None decodes every pixel.

    Raises:
        InputError: the file is missing, is not an image, is truncated, has a pixel type that has no defined
            white (32-bit), or has more than `MAX_PIXELS` pixels.
    """
    with _opened(path) as image:
        _check_not_hdr(image, path)
        with _intact(path):
            if at_least is not None:
                height, width = at_least
                turned = oriented and _orientation_of(image, path) in _TRANSPOSING
                image.draft(None, (height, width) if turned else (width, height))
            image.load()
        # Not `ImageOps.exif_transpose`: it writes EXIF anew, which fails where a camera wrote nonsense.
        with _intact(path):
            turn = _TRANSPOSES.get(_orientation_of(image, path)) if oriented else None
        image = image if turn is None else image.transpose(turn)
        return torch.from_numpy(_rgb_from_pil(_in_srgb(image), path)).permute(2, 0, 1).contiguous()


def _check_not_hdr(image: Image.Image, path: Path) -> None:
    """Raises InputError for a PNG whose cICP chunk names the curves of HDR, which eight-bit numbers as sRGB are not."""
    if image.format == "PNG" and (coded := _png_chunk(path, b"cICP")) and coded[1:2] in _HDR_CURVES:
        found = f"its colours are those of HDR ({_HDR_CURVES[coded[1:2]]})"
        raise InputError(f"image {path}", found, "export it in sRGB")


def _png_chunk(path: Path, kind: bytes) -> bytes | None:
    """The content of a chunk in front of a PNG's pixels, None if it has none."""
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE)
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4], "big")
            if head[4:] == kind:
                return file.read(length)
            file.seek(length + _PNG_CHECKSUM, os.SEEK_CUR)
    return None


@contextlib.contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Turns what Pillow raises on damaged files into a sentence."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(
            f"image {path}", f"it is truncated or damaged ({error})", "replace it by an intact copy"
        ) from error


def _in_srgb(image: Image.Image) -> Image.Image:
    """The image with the colours that its ICC profile means (phones: Display P3), if that is another than sRGB."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(given):
            return image
        colours = image.convert("RGB") if image.mode == "RGBA" else image
        converted = ImageCms.profileToProfile(colours, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A damaged profile, or one of another kind of image: viewers show the numbers as they are, too.
        return image
    if converted is None:
        return image
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _rgb_from_pil(image: Image.Image, path: Path) -> Float[np.ndarray, "H W 3"]:
    """Any Pillow mode to float32 RGB in [0, 1]."""
    if image.mode.startswith("I;16"):
        grey = _without_gamma(np.asarray(image).astype(np.float32) / 65535, image)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise InputError(
            f"image {path}", f"its pixel type is 32-bit ({image.mode})", "save it with 8 or 16 bits a channel"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA")).astype(np.float32) / 255
        return _without_gamma(rgba[..., :3], image) * rgba[..., 3:] + (1 - rgba[..., 3:])
    return _without_gamma(np.asarray(image.convert("RGB")).astype(np.float32) / 255, image)


def _without_gamma(levels: Float[np.ndarray, "*shape"], image: Image.Image) -> Float[np.ndarray, "*shape"]:
    """Levels in sRGB where a PNG's gAMA chunk says that they are not, as of linear ones; ISO/IEC 15948, 11.3.3.2.

    An ICC profile or an sRGB chunk overrides it.
    """
    gamma = image.info.get("gamma", _SRGB_GAMMA)
    is_overridden = "srgb" in image.info or "icc_profile" in image.info
    if is_overridden or gamma <= 0 or abs(gamma / _SRGB_GAMMA - 1) <= _SAME_GAMMA:
        return levels
    light = levels ** np.float32(1 / gamma)
    return np.where(light > 0.0031308, 1.055 * light ** np.float32(1 / 2.4) - 0.055, 12.92 * light)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose header has been read and whose size is acceptable."""
    if not path.is_file():
        raise InputError(f"image {path}", "there is no such file", "correct the path or restore the file")
    try:
        if is_heic(path):
            _need_heic(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = open_picture(path)
    except UnidentifiedImageError as error:
        if is_heic(path):
            found = "it is a HEIC photo that pillow-heif cannot read"
            raise InputError(f"image {path}", found, "copy it again, or convert it to JPEG") from error
        raise InputError(f"image {path}", "it is not an image", "give a PNG, JPEG, WebP, TIFF or BMP file") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far more") from error
    except OSError as error:
        raise InputError(
            f"image {path}", f"it cannot be read ({error.strerror or error})", "check it and its permissions"
        ) from error
    with image:
        frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
        if frames > 1:
            raise InputError(f"image {path}", f"it is an animation of {frames} frames", "give the frame as an image")
        if image.width * image.height > _most_pixels.get():
            raise _too_large(path, f"{image.width}x{image.height}, more")
        yield image


def open_picture(file: Path | io.BytesIO) -> Image.Image:
    """Opens a picture of one of `FORMATS`, or HEIF where pillow-heif is in use; raises what `Image.open` does."""
    return Image.open(file, formats=[*FORMATS, *(["HEIF"] if "HEIF" in Image.OPEN else [])])


@contextlib.contextmanager
def pixels_at_most(count: int) -> Iterator[None]:
    """Refuses images with more pixels inside the block, before any of these is decoded: for files of strangers."""
    token = _most_pixels.set(min(count, MAX_PIXELS))
    try:
        yield
    finally:
        _most_pixels.reset(token)


def is_heic(path: Path) -> bool:
    """Whether a file is a HEIC photo, by its first bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(12)[4:].startswith(_HEIC_KINDS)


def _need_heic(path: Path) -> None:
    """Raises InputError unless pillow-heif is there; it then reads what Pillow opens."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        found = "it is a HEIC photo, and pillow-heif, which reads these, is not installed"
        raise InputError(f"image {path}", found, "pip install pillow-heif, or convert it to JPEG") from error
    register_heif_opener()


def _too_large(path: Path, found: str) -> InputError:
    return InputError(
        f"image {path}",
        f"it has {found} than {_most_pixels.get() / 1e6:g} million pixels",
        "scale it down first",
    )


@dataclass(frozen=True, kw_only=True)
class Cover:
    """How an image is brought to a size: scaled, then seen through a window.

    `height` x `width` is the size after scaling; `top`, `left` is where the window begins, below 0 where it reaches
    beyond the image; all in pixels.
    """

    height: int
    width: int
    top: int
    left: int


FITS = ("crop", "pad", "stretch")
"""Ways to bring an image to a size: cut the centre out, add black borders, change the aspect."""


def cover(size: tuple[int, int], target: tuple[int, int]) -> Cover:
    """The smallest scaling of `size` that covers `target` (both height, width), and the centre window."""
    return fit_of(size, target, "crop")


def fit_of(size: tuple[int, int], target: tuple[int, int], fit: str) -> Cover:
    """How an image of `size` is brought to `target`, both height and width in pixels.

    Args:
        size: size of the image.
        target: size of the result.
        fit: one of `FITS`: the smallest scaling that covers the target, the largest that stays within it, or neither.

    Raises:
        InputError: an unknown fit.
    """
    if fit not in FITS:
        raise InputError("fit", f"there is no {fit!r}", f"choose one of: {', '.join(FITS)}")
    if fit == "stretch":
        return Cover(height=target[0], width=target[1], top=0, left=0)
    bound = max if fit == "crop" else min
    scale = bound(target[0] / size[0], target[1] / size[1])
    height, width = (bound(t, math.ceil(s * scale - 1e-6)) for s, t in zip(size, target, strict=True))
    return Cover(height=height, width=width, top=(height - target[0]) // 2, left=(width - target[1]) // 2)


def resize(images: Float[Tensor, "V C H W"], height: int, width: int) -> Float[Tensor, "V C h w"]:
    """Antialiased bicubic resize to `height` x `width` pixels; values stay in the range they came in."""
    if images.shape[-2:] == (height, width):
        return images
    low, high = images.amin(), images.amax()
    resized = F.interpolate(images, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(low, high)


def resize_cover(images: Float[Tensor, "V C H W"], height: int, width: int) -> Float[Tensor, "V C h w"]:
    """Resizes so that the image covers `height` x `width`, then cuts out the centre (see `cover`)."""
    return resize_fit(images, height, width, "crop")


def resize_fit(
    images: Float[Tensor, "V C H W"], height: int, width: int, fit: str, size: tuple[int, int] | None = None
) -> Float[Tensor, "V C h w"]:
    """Brings images to `height` x `width` pixels by one of `FITS` (see `fit_of`); borders are black.

    Args:
        images: the images.
        height: height of the result in pixels.
        width: width of the result in pixels.
        fit: one of `FITS`.
        size: height and width of the photos where the images are scaled versions of them; None for the images' own.
    """
    how = fit_of(size or (images.shape[-2], images.shape[-1]), (height, width), fit)
    resized = resize(images, how.height, how.width)
    below, right = height - how.height + how.top, width - how.width + how.left
    # Negative borders cut.
    return F.pad(resized, (-how.left, right, -how.top, below)).contiguous()


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Yields a name beside `path` for a file or folder that is renamed to `path` once the block succeeds.

    If the block fails, whatever it wrote is removed. The parent folder is made when it is missing.

    Raises:
        OutputError: the operating system refuses (no space, no permission, a folder in the way).
    """
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        _remove(part)


def _remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> OutputError:
    """The sentence for a file system's refusal."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"output {path}", "the disk is full", "free some space or write elsewhere")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"output {path}", "writing there is not permitted", "choose a folder that you may write to")
    if error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        return OutputError(
            f"output {path}",
            "a file or folder of that name is in the way",
            "remove it or choose another name",
        )
    return OutputError(f"output {path}", f"it cannot be written ({error.strerror or error})", "choose another place")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file, or nothing.

    Raises:
        OutputError: see `written_beside`.
    """
    with written_beside(path) as part:
        part.write_bytes(data)


def png_bytes(image: Float[Tensor, "3 H W"] | UInt8[Tensor, "3 H W"]) -> bytes:
    """An image in [0, 1], or of 8 bits, as an 8-bit PNG file in memory."""
    levels = image if image.dtype == torch.uint8 else uint8_from_float(image)
    array = levels.permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    # Level 1 takes half the time of 4, and photos grow by a tenth.
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def write_png(path: Path, image: Float[Tensor, "3 H W"]) -> None:
    """Writes an image in [0, 1] as an 8-bit sRGB PNG, or nothing.

    Raises:
        OutputError: see `written_beside`.
    """
    write_bytes(path, png_bytes(image))


def write_video(
    path: Path,
    frames: Float[Tensor, "V 3 H W"] | UInt8[Tensor, "V 3 H W"],
    *,
    fps: float | int = 10,
    effort: str = "medium",
) -> None:
    """Writes frames in [0, 1], or of 8 bits, as an mp4, or nothing.

    H.264 where the encoder is there, else MPEG-4 part 2; yuv420p, BT.709. yuv420p has even sides only: H.264 of odd
    sizes is yuv444p, which not every browser plays; without H.264 the last row or column is repeated.

    Args:
        path: usually ends in .mp4.
        frames: at least one.
        fps: frames a second, above 0.
        effort: x264's preset; `veryfast` takes half the time of `medium` for about the same size.

    Raises:
        InputError: no frames, or `fps` is not above 0.
        OutputError: see `written_beside`.
    """
    if len(frames) == 0:
        raise InputError(f"video {path}", "it would have 0 frames", "give at least one frame")
    if not fps > 0:
        raise InputError("fps", f"it is {fps}", "give a rate above 0 frames a second")
    write_bytes(path, _mp4_bytes(frames, Fraction(fps).limit_denominator(1000), effort))


def _mp4_bytes(frames: Float[Tensor, "V 3 H W"] | UInt8[Tensor, "V 3 H W"], fps: Fraction, effort: str) -> bytes:
    """Encodes in memory, so that only one place deals with the file system."""
    height, width = frames.shape[-2:]
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = _video_stream(container, fps, effort, is_even=width % 2 == height % 2 == 0)
        more = (0, 0) if stream.pix_fmt == "yuv444p" else (width % 2, height % 2)
        stream.width, stream.height = width + more[0], height + more[1]
        for image in frames:
            floats = float_from_uint8(image) if image.dtype == torch.uint8 else image
            padded = F.pad(floats[None], (0, more[0], 0, more[1]), mode="replicate")[0]
            array = uint8_from_float(padded).permute(1, 2, 0).contiguous().cpu().numpy()
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt, dst_colorspace="ITU709")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _video_stream(container: av.container.OutputContainer, fps: Fraction, effort: str, is_even: bool) -> av.VideoStream:
    """A stream of the best encoder that this build of FFmpeg has, tagged as BT.709."""
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16", "preset": effort})
        stream.pix_fmt = "yuv420p" if is_even else "yuv444p"
    else:
        stream = container.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
        stream.pix_fmt = "yuv420p"
    for tag in ("color_primaries", "color_trc", "colorspace"):
        setattr(stream.codec_context, tag, 1)
    return stream


def read_video(path: Path) -> Float[Tensor, "V 3 H W"]:
    """All frames of a video as sRGB in [0, 1].

    Raises:
        InputError: the file is missing or FFmpeg cannot decode it.
    """
    if not path.is_file():
        raise InputError(f"video {path}", "there is no such file", "correct the path or restore the file")
    try:
        with av.open(str(path)) as container:
            arrays = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"video {path}", f"it cannot be decoded ({error})", "give an intact video file") from error
    if not arrays:
        raise InputError(f"video {path}", "it has 0 frames", "give an intact video file")
    return float_from_uint8(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous())

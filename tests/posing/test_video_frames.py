"""Frames that are taken from a video."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.posing.video_frames import Sample, choose_frames, chosen_indices, sharpness, upright


def _samples(motion, sharp=None):
    sharp = sharp or [1.0] * len(motion)
    return [Sample(index=10 * i, sharpness=s, motion=m) for i, (m, s) in enumerate(zip(motion, sharp, strict=True))]


def test_a_resting_camera_adds_no_frames():
    chosen = chosen_indices(_samples([0.0] * 20 + [0.025] * 4))
    assert chosen[0] == 0
    assert all(index >= 200 for index in chosen[1:])
    assert len(chosen) == 3


def test_the_sharpest_of_a_window_is_taken():
    assert chosen_indices(_samples([0.0, 0.025, 0.025, 0.025, 0.025], [1.0, 9.0, 1.0, 1.0, 7.0])) == [0, 10, 40]


def test_long_videos_are_thinned():
    chosen = chosen_indices(_samples([0.0] + [0.06] * 500), most=60)
    assert 30 <= len(chosen) <= 60
    steps = np.diff(chosen)
    assert steps.max() <= 2 * steps.min() + 10


def test_blur_is_less_sharp():
    noise = np.random.default_rng(0).random((40, 40), dtype=np.float32)
    blurred = sum(np.roll(noise, (i, j), (0, 1)) for i in range(3) for j in range(3)) / 9
    assert sharpness(noise) > 4 * sharpness(blurred)


def _video(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10), options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_still_camera_is_refused(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    video = _video(tmp_path / "still.mp4", [picture] * 20)
    (tmp_path / "frames").mkdir()
    with pytest.raises(InputError, match="does not move"):
        choose_frames(video, tmp_path / "frames")


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"none")
    with pytest.raises(InputError, match="cannot be decoded"):
        choose_frames(tmp_path / "a.mp4", tmp_path)


@pytest.mark.parametrize(("rotation", "top"), [(0, 10), (90, 30), (-90, 20), (180, 40)])
def test_frames_are_turned_as_players_show_them(rotation, top):
    corners = np.array([[[10], [30]], [[20], [40]]], dtype=np.uint8).repeat(3, 2)
    assert upright(corners, rotation)[0, 0, 0] == top


# Of a track's header: players turn a frame clockwise by this many quarters, and not by a damaged
# matrix (the last).
MATRICES = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0), 4: (0, 0, 0, 0)}


def _turn(video, quarters):
    """Writes a display matrix into an MP4 file."""
    data = bytearray(video.read_bytes())
    a, b, c, d = (value << 16 for value in MATRICES[quarters])
    at = data.index(b"tkhd") + 44  # the matrix of version 0
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video.write_bytes(data)


@pytest.mark.parametrize("quarters", MATRICES)
def test_a_rotated_file_is_turned_upright(tmp_path, quarters):
    picture = np.random.default_rng(0).integers(0, 255, (16, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.ascontiguousarray(picture[:, 4 * step : 4 * step + 192]) for step in range(20)]
    video = _video(tmp_path / "phone.mp4", frames)
    _turn(video, quarters)
    (tmp_path / "frames").mkdir()
    file = choose_frames(video, tmp_path / "frames").files[0]
    first = media.read_image(file).numpy().transpose(1, 2, 0)
    shown = np.rot90(frames[int(file.stem.removeprefix("frame_"))], -quarters) / 255
    assert first.shape == shown.shape
    assert np.abs(first - shown).mean() < 0.1


@pytest.mark.parametrize("black", [(0, 1, 2, 3), (18, 19), (8, 9), (0, 1, 19)])
def test_black_frames_are_passed_over(tmp_path, black):
    picture = np.random.default_rng(0).integers(0, 255, (16, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.ascontiguousarray(picture[:, 4 * step : 4 * step + 192]) for step in range(20)]
    for index in black:
        frames[index] = np.zeros_like(frames[0])
    (tmp_path / "frames").mkdir()
    chosen = choose_frames(_video(tmp_path / "fades.mp4", frames), tmp_path / "frames").files
    assert len(chosen) > 2
    assert all(media.read_image(file).mean() > 0.3 for file in chosen)


def test_a_video_that_is_all_black_is_refused(tmp_path):
    (tmp_path / "frames").mkdir()
    video = _video(tmp_path / "black.mp4", [np.zeros((128, 192, 3), dtype=np.uint8)] * 5)
    with pytest.raises(InputError, match="its frames show nothing that could be found again"):
        choose_frames(video, tmp_path / "frames")

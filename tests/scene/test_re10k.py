"""RealEstate10K camera files: round trip and mistakes."""

import torch
from scene_helpers import close, save_photo, sentence, some_cameras

from sphinx_nvs.scene.readers import read_capture

URL = "https://www.youtube.com/watch?v=abc\n"


def line(cameras, index):
    K, w2c = cameras.K_norm[index], torch.linalg.inv(cameras.c2w[index])
    numbers = [K[0, 0], K[1, 1], K[0, 2], K[1, 2], 0, 0, *w2c[:3].flatten()]
    return " ".join([str(1000 * (index + 1)), *(repr(float(number)) for number in numbers)])


def make(tmp_path, frames="clip", first=URL):
    cameras = some_cameras()
    path = tmp_path / "clip.txt"
    path.write_text(first + "\n".join(line(cameras, i) for i in range(3)) + "\n")
    for i in range(3):
        save_photo(tmp_path / frames / f"{1000 * (i + 1)}.png", 24, 32)
    return path, cameras


def test_what_is_written_is_read_at_the_size_of_the_frames(tmp_path):
    path, cameras = make(tmp_path)
    capture = read_capture(path)
    assert capture.name == "clip"
    assert [view.name for view in capture.views] == ["1000", "2000", "3000"]
    read = capture.cameras(range(3), 24, 32)
    close(read.c2w, cameras.c2w)
    close(read.K, cameras.resized(24, 32).K)


def test_frames_may_lie_beside_the_file_and_the_folder_is_enough(tmp_path):
    for place in (".", "images", "frames"):
        folder = tmp_path / place.strip(".") / "scene"
        folder.mkdir(parents=True)
        make(folder, frames=place)
        assert len(read_capture(folder)) == 3


def test_the_url_may_be_missing(tmp_path):
    path, _ = make(tmp_path, first="\n")
    assert len(read_capture(path)) == 3


def test_frames_that_were_not_downloaded_are_cameras_only(tmp_path):
    path, _ = make(tmp_path)
    (tmp_path / "clip/2000.png").unlink()
    images = [view.image for view in read_capture(path).views]
    assert images == [tmp_path / "clip/1000.png", None, tmp_path / "clip/3000.png"]


def test_mistakes(tmp_path):
    path, cameras = make(tmp_path)
    path.write_text(URL + "1000 0.5 0.5\n")
    assert sentence(read_capture, path) == (
        f"{path}, line 2: it has 3 columns; it must have 19: timestamp and 18 numbers"
    )
    path.write_text(URL + line(cameras, 0).replace("0.0", "zero"))
    assert sentence(read_capture, path).startswith(f"{path}, line 2: cannot be understood ('1000 1.25")
    path.write_text(URL)
    assert sentence(read_capture, path) == f"file {path}: it has 0 frames; give at least one line of cameras"
    path.write_text(URL + "1000 -0.5 0.5 " + line(cameras, 0).split(maxsplit=3)[3])
    assert sentence(read_capture, path) == (
        f"{path}, line 2: focal lengths are -0.5 and 0.5; give them above 0, divided by width and height"
    )
    path.write_text(URL + "1000 0.5 0.5 0.5 0.5 0 0 " + "0 " * 12)
    assert sentence(read_capture, path) == (
        f"pose of frame 1000 of {path}: its rotation is singular (determinant 0); give a rotation"
    )


def test_no_frames_on_disk(tmp_path):
    path, _ = make(tmp_path)
    for image in (tmp_path / "clip").iterdir():
        image.unlink()
    assert sentence(read_capture, path) == (
        f"file {path}: no frame such as 1000.jpg is found; put them in {tmp_path}/clip"
    )


def test_several_camera_files_in_a_folder(tmp_path):
    path, _ = make(tmp_path)
    (tmp_path / "other.txt").write_text(path.read_text())
    assert sentence(read_capture, tmp_path) == (
        f"folder {tmp_path}: it holds 2 camera files (clip.txt, ...); name one of the files"
    )

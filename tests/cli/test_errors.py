"""Every mistake is one sentence that names the place, the value and the hint; exit 2, and nothing half-written."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sphinx_nvs.pipeline.pipeline import Pipeline

QUICK = ("--size", "64x64", "--steps", "2", "--method", "regression")


@pytest.fixture
def sentence(run, tmp_path):
    """Renders, expects exit 2 and nothing written, and returns the one sentence on standard error."""

    def sentence(scene: object, *words: object) -> str:
        out = tmp_path / "out"
        outcome = run("render", scene, *QUICK, "--out", out, *words)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert not out.exists()
        assert not list(tmp_path.glob(".*"))
        assert outcome.err.startswith("sphinx-nvs: ")
        assert outcome.err.count("\n") == 1
        return outcome.err.removeprefix("sphinx-nvs: ").rstrip("\n").replace(str(tmp_path), "TMP")

    return sentence


def test_no_such_scene(sentence, tmp_path):
    assert sentence(tmp_path / "nowhere") == (
        "scene TMP/nowhere: there is no such file or folder; correct the path, or say demo or procedural:SEED"
    )


def test_folder_without_a_scene(sentence, tmp_path):
    (tmp_path / "empty").mkdir()
    assert sentence(tmp_path / "empty").startswith("scene TMP/empty: no known layout is found")


def test_size_that_no_memory_holds(sentence, scene):
    assert sentence(scene, "--size", "99999x99999") == ("--size: 99999x99999 is 1e+10 pixels; give at most 7680x4320")


@pytest.mark.parametrize("size", ["2000x2", "2x2000", "31x64", "20000x64"])
def test_sizes_that_frames_cannot_have_are_refused_at_once(run, tmp_path, size):
    for command in (("render", "--out", tmp_path / "out"), ("plan",)):
        outcome = run(*command, tmp_path / "no scene", "--size", size)
        assert (outcome.code, outcome.err) == (2, f"sphinx-nvs: --size: it is {size}; give 32 to 16384 pixels a side\n")


def test_missing_image(sentence, scene):
    (scene / "images" / "002.png").unlink()
    assert sentence(scene) == (
        "frame 2 of TMP/scene/transforms.json: its image TMP/scene/images/002.png does not exist; "
        "restore the image or set file_path to null"
    )


def test_unreadable_image(sentence, scene):
    (scene / "images" / "000.png").write_text("not a picture")
    assert sentence(scene) == (
        "image TMP/scene/images/000.png: it is not an image; give a PNG, JPEG, WebP, TIFF or BMP file"
    )


def test_truncated_image(sentence, scene):
    file = scene / "images" / "000.png"
    file.write_bytes(file.read_bytes()[:500])
    message = sentence(scene)
    assert message.startswith("image TMP/scene/images/000.png: it is truncated or damaged (")
    assert message.endswith("); replace it by an intact copy")


def test_size_that_contradicts_the_cameras(sentence, scene):
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(scene / "images" / "001.png")
    assert sentence(scene) == (
        "image TMP/scene/images/001.png: it is 96x64 pixels but its camera in frame 1 of TMP/scene/transforms.json is "
        "for 64x64; give the photos that the cameras were made from, or correct w, h and the intrinsics"
    )


def test_transforms_that_is_no_json(sentence, scene):
    (scene / "transforms.json").write_text('{"frames": [')
    assert sentence(scene) == (
        "TMP/scene/transforms.json, line 1, column 13: malformed JSON (Expecting value); fix it there"
    )


def test_singular_pose(sentence, spoil):
    def flatten(data: dict) -> None:
        data["frames"][1]["transform_matrix"][0][:3] = [0, 0, 0]

    assert sentence(spoil(flatten)) == (
        "pose of frame 1 of TMP/scene/transforms.json: its rotation is singular (determinant 0); give a rotation"
    )


def test_pose_that_is_not_a_number(sentence, spoil):
    def poison(data: dict) -> None:
        data["frames"][3]["transform_matrix"][0][3] = float("nan")

    message = sentence(spoil(poison))
    assert "frame 3 of TMP/scene/transforms.json" in message
    assert "NaN" in message


def test_negative_focal_length(sentence, spoil):
    def turn(data: dict) -> None:
        data["frames"][2]["fl_x"] = -12.0

    assert sentence(spoil(turn)) == (
        "frame 2 of TMP/scene/transforms.json: fl_x is -12; give a focal length above 0 pixels"
    )


def test_single_context_view(sentence, made):
    assert sentence(made, "--contexts", "2,", "--targets", "orbit") == (
        "scene room: 1 context view where planesweep needs 2; choose more context views with --contexts"
    )


def test_targets_that_look_away(sentence, made, tmp_path):
    data = json.loads((made / "transforms.json").read_text())
    for frame in data["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[0], row[2] = -row[0], -row[2]
        frame["file_path"] = None
    file = tmp_path / "away.json"
    file.write_text(json.dumps(data))
    assert sentence(made, "--targets", file, "--frames", "2") == (
        "target views 0, 1: they see nothing of what the context views show; "
        "point the cameras at the scene; poses are camera-to-world with +z forward"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--frames", "0"), "--frames: it is 0; give at least 1"),
        (("--frames", "-3"), "--frames: it is -3; give at least 1"),
        (("--split", "9"), "split 9 of room: it has 2; choose one of these or give --contexts"),
        (("--contexts", "0,99"), "view 99 of room: it has views 0 to 4; name one of these"),
        (("--contexts", "9"), "--contexts: it is 9 views; give 1 to 5, or name views as 0,4,7"),
        (("--contexts", "0"), "--contexts: it is 0 views; give 1 to 5, or name views as 0,4,7"),
        (("--contexts", "a,b"), "--contexts: 'a,b'; give view numbers as 0,4,7 or a count as 3"),
        (("--contexts", ""), "--contexts: ''; give view numbers as 0,4,7 or a count as 3"),
        (("--contexts", ","), "--contexts: ','; give view numbers as 0,4,7 or a count as 3"),
        (("--contexts", "1,1"), "--contexts: view 1 is named twice; name every view once"),
        (
            ("--contexts", "5", "--targets", "test"),
            "--targets test: room has no view beside the context; name a path, e.g. interpolate",
        ),
        (("--quality", "1.5"), "--quality: it is 1.5; give a number in 0..1, e.g. 0.95"),
        (("--cache-gb", "-1"), "--cache-gb: it is -1; give a number of gigabytes from 0"),
        (("--cache-gb", "nan"), "--cache-gb: it is nan; give a number of gigabytes from 0"),
        (("--quality", "nan"), "--quality: it is nan; give a number in 0..1, e.g. 0.95"),
        (("--preset", "huge"), "preset: there is no 'huge'; choose one of: embedded, seva-mvsplat, seva-planesweep"),
        (("--steps", "0"), "steps: it is 0; give at least 1"),
        (("--size", "64"), "--size: '64'; give width x height in pixels, e.g. 384x256"),
        (("--size", "0x64"), "--size: '0x64'; give width x height in pixels, e.g. 384x256"),
        (("--seed", "-1"), "--seed: it is -1; give a whole number from 0 to 2^63 - 1"),
        (
            ("--targets", "orbitt"),
            "--targets: 'orbitt' is neither a camera file nor a camera path; give a camera file or one of: test, "
            "interpolate, spiral-through, orbit, spiral, lemniscate, zoom-in, zoom-out, dolly zoom-in, dolly zoom-out, "
            "move-forward, move-backward, move-up, move-down, move-left, move-right, roll",
        ),
    ],
)
def test_flags(sentence, made, words, expected):
    assert sentence(made, *words) == expected


def test_camera_file_that_is_none(sentence, made, tmp_path):
    (tmp_path / "cameras.json").write_text('{"hello": 1}')
    assert sentence(made, "--targets", tmp_path / "cameras.json").startswith("camera file TMP/cameras.json: ")


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (("render", "demo"), "--out"),
        (("render", "demo", "--out", "x", "--frames", "many"), "--frames"),
        (("render", "demo", "--out", "x", "--method", "magic"), "regression"),
        (("render", "demo", "--out", "x", "--qality", "1"), "--quality"),
        (("rendr",), "render"),
        ((), "render"),
    ],
)
def test_wrong_flags_leave_with_2_and_a_hint(run, argv, hint):
    outcome = run(*argv)
    assert outcome.code == 2
    assert hint in outcome.err


def test_existing_output(run, made, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    outcome = run("render", made, *QUICK, "--out", out)
    assert outcome.code == 2
    assert outcome.err == f"sphinx-nvs: output {out}: it exists; choose another name or add --overwrite\n"


def test_output_below_a_file(sentence, made, tmp_path):
    (tmp_path / "file").write_text("")
    assert sentence(made, "--out", tmp_path / "file" / "out") == (
        "output TMP/file/out: TMP/file is not a folder; choose another place"
    )


@pytest.fixture
def full_disk_after(monkeypatch):
    """Makes the disk full after so many files."""

    def fill(writes: int) -> None:
        real, count = Path.write_bytes, iter(range(10_000))

        def write_bytes(path: Path, data: bytes) -> int:
            if next(count) < writes:
                return real(path, data)
            path.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_bytes", write_bytes)

    return fill


@pytest.mark.parametrize("writes", [0, 5])
def test_full_disk(sentence, full_disk_after, made, writes):
    full_disk_after(writes)
    message = sentence(made)
    assert message.startswith("output TMP/")
    assert message.endswith(": the disk is full; free some space or write elsewhere")


def test_full_disk_under_an_mp4(sentence, full_disk_after, made, tmp_path):
    full_disk_after(0)
    assert sentence(made, "--out", tmp_path / "v.mp4") == (
        "output TMP/v.mp4: the disk is full; free some space or write elsewhere"
    )


def test_full_disk_keeps_the_earlier_result(run, full_disk_after, made, tmp_path):
    out = tmp_path / "out"
    assert run("render", made, *QUICK, "--out", out).code == 0
    before = (out / "report.json").read_text()
    full_disk_after(3)
    assert run("render", made, *QUICK, "--out", out, "--overwrite").code == 2
    assert (out / "report.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def _ends(monkeypatch, end) -> None:
    """Every pipeline call ends like this."""

    def call(*args: object, **kwargs: object) -> None:
        end()

    monkeypatch.setattr(Pipeline, "prepare", call)


def test_interrupt(run, monkeypatch, made, tmp_path):
    _ends(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
    # A test run in the background of a shell starts with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        outcome = run("render", made, *QUICK, "--out", tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (outcome.code, outcome.err) == (130, "sphinx-nvs: interrupted; nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_interrupt_while_writing(run, monkeypatch, made, tmp_path):
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sphinx_nvs.cli.render.write_transforms", interrupted)
    outcome = run("render", made, *QUICK, "--out", tmp_path / "out")
    assert outcome.code == 130
    assert not list(tmp_path.iterdir())


def test_termination(run, monkeypatch, made, tmp_path):
    _ends(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    outcome = run("render", made, *QUICK, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (143, "sphinx-nvs: terminated; nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_our_own_mistake_is_one_line_without_traceback(run, monkeypatch, made, tmp_path):
    _ends(monkeypatch, lambda: {}["missing"])
    outcome = run("render", made, *QUICK, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert outcome.err == (
        "sphinx-nvs: internal error, KeyError: 'missing'; please report it with what SPHINX_DEBUG=1 prints\n"
    )


def test_debug_shows_the_traceback(run, monkeypatch, made, tmp_path):
    monkeypatch.setenv("SPHINX_DEBUG", "1")
    _ends(monkeypatch, lambda: {}["missing"])
    outcome = run("render", made, *QUICK, "--out", tmp_path / "out")
    assert "Traceback (most recent call last)" in outcome.err


def test_scenes_may_be_read_only(run, made, tmp_path):
    copy = Path(shutil.copytree(made, tmp_path / "scene"))
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    assert run("render", copy, *QUICK, "--out", tmp_path / "out").code == 0
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before

"""More oddities of files and places: what was lost, refused for no reason, or not told."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sphinx_nvs.cli.output import check_output
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.transforms import flip_yz

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        \xff\xfe"


@pytest.fixture
def base(field_dir):
    return read_capture(field_dir / "a_base")


def same(base, folder):
    read = read_capture(folder)
    found, true = (capture.cameras(range(5), 96, 128).c2w for capture in (read, base))
    torch.testing.assert_close(found, true, atol=1e-6, rtol=0)
    return read


@pytest.mark.parametrize("inner", ["", "scene"])
def test_no_result_replaces_the_scene_that_it_is_made_of(tmp_path, inner):
    scene = tmp_path / inner
    scene.mkdir(exist_ok=True)
    (scene / "transforms.json").write_text("{}")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(OutputError, match="is in it and would be lost"):
        check_output(tmp_path, True, scene)


def test_no_result_replaces_another_scene(tmp_path):
    (tmp_path / "transforms.json").write_text("{}")
    with pytest.raises(OutputError, match="holds no earlier result"):
        check_output(tmp_path, True)


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for out in (Path("~/out"), tmp_path / "a", tmp_path / "a" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError):
            check_output(out, True)


@pytest.mark.parametrize(("mark", "end"), [(b"\xef\xbb\xbf", b""), (b"", b"https://caf\xe9\n")])
def test_realestate10k_text_of_other_editors(base, tmp_path, mark, end):
    lines = ["https://example.com"]
    for index, view in enumerate(base.views):
        size = torch.tensor([view.width, view.height, view.width, view.height])
        K = (torch.stack([view.K[0, 0], view.K[1, 1], view.K[0, 2], view.K[1, 2]]) / size).tolist()
        lines.append(" ".join(map(str, [index, *K, 0, 0, *se3.inverse(view.c2w)[:3].flatten().tolist()])))
        shutil.copyfile(view.image, tmp_path / f"{index}.jpg")
    (tmp_path / "clip.txt").write_bytes(mark + "\r\n".join(lines).encode() + b"\r\n" + end)
    same(base, tmp_path)


def test_files_that_macos_adds_are_no_cameras(base, tmp_path):
    for part in ("polycam/keyframes/cameras", "polycam/keyframes/images", "mvsnet/cams", "mvsnet/images"):
        (tmp_path / part).mkdir(parents=True)
    polycam, mvsnet = tmp_path / "polycam" / "keyframes", tmp_path / "mvsnet"
    for index, view in enumerate(base.views):
        pose, K = flip_yz(view.c2w), view.K
        camera = {f"t_{row}{column}": float(pose[row, column]) for row in range(3) for column in range(4)}
        camera |= {"fx": float(K[0, 0]), "fy": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
        camera |= {"width": view.width, "height": view.height}
        (polycam / "cameras" / f"{index}.json").write_text(json.dumps(camera))
        (polycam / "cameras" / f"._{index}.json").write_bytes(APPLE_DOUBLE)
        shutil.copyfile(view.image, polycam / "images" / f"{index}.jpg")
        numbers = " ".join(map(str, se3.inverse(view.c2w).flatten().tolist()))
        text = f"extrinsic\n{numbers}\nintrinsic\n{' '.join(map(str, K.flatten().tolist()))}\n"
        (mvsnet / "cams" / f"{index:08d}_cam.txt").write_text(text)
        (mvsnet / "cams" / f"._{index:08d}_cam.txt").write_bytes(APPLE_DOUBLE)
        shutil.copyfile(view.image, mvsnet / "images" / f"{index:08d}.jpg")
    same(base, tmp_path / "polycam")
    same(base, mvsnet)


def test_the_largest_chunk_of_metashape_is_read(base, tmp_path):
    shutil.copytree(Path(base.views[0].image).parent, tmp_path / "images", copy_function=shutil.copyfile)
    text = "<document>"
    for label, views in (("first", base.views[:2]), ("second", base.views)):
        K, width, height = views[0].K, views[0].width, views[0].height
        text += f'<chunk label="{label}"><sensors><sensor id="0"><resolution width="{width}" height="{height}"/>'
        text += f"<calibration><f>{float(K[0, 0])}</f></calibration></sensor></sensors><cameras>"
        for view in views:
            numbers = " ".join(map(str, view.c2w.flatten().tolist()))
            text += f'<camera sensor_id="0" label="{view.image.name}"><transform>{numbers}</transform></camera>'
        text += "</cameras></chunk>"
    (tmp_path / "cameras.xml").write_text(text + "</document>")
    assert "2 chunks: second" in same(base, tmp_path).notes[0]


def test_fields_that_are_null_are_those_that_are_missing(base, field_dir, tmp_path):
    shutil.copytree(field_dir / "a_base", tmp_path / "scene", copy_function=shutil.copyfile)
    data = json.loads((field_dir / "a_base" / "transforms.json").read_text())
    for frame in data["frames"]:
        frame |= {"k1": None, "p1": None}
    (tmp_path / "scene").chmod(0o755)
    (tmp_path / "scene" / "transforms.json").write_text(json.dumps(data))
    same(base, tmp_path / "scene")


def test_a_name_too_long_for_a_file():
    with pytest.raises(InputError, match="no such file or folder"):
        read_capture("x" * 300)

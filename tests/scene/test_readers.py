"""The one door: names, folders, files, and nothing."""

import pytest
from scene_helpers import sentence

from sphinx_nvs.scene.readers import read_capture


def test_nothing_there(tmp_path):
    assert sentence(read_capture, tmp_path / "scene") == (
        f"scene {tmp_path}/scene: there is no such file or folder; correct the path, or say demo or procedural:SEED"
    )


def test_no_known_layout(tmp_path):
    assert sentence(read_capture, tmp_path) == (
        f"scene {tmp_path}: no known layout is found (looked for transforms.json (nerfstudio), sparse/0/images.bin "
        "or images.txt (COLMAP), a camera .txt with its frames (RealEstate10K, ACID); "
        "docs/reference/inputs.md lists all); "
        "give a folder with one of these"
    )


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("shopping\n")
    assert sentence(read_capture, tmp_path / "notes.txt") == (
        f"scene {tmp_path}/notes.txt: it is no known kind of camera file; "
        "give a transforms.json, a RealEstate10K .txt or a folder"
    )


@pytest.mark.parametrize("name", ["procedural:", "procedural:x", "procedural:room:", "procedural:-1"])
def test_procedural_without_seed(name):
    seed = name.rpartition(":")[2]
    assert sentence(read_capture, name) == (
        f"scene {name}: {seed!r} is no seed; say procedural:SEED or procedural:KIND:SEED, e.g. procedural:7"
    )

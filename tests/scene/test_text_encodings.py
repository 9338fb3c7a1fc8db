"""Text layouts in the encodings that editors and exports write."""

import codecs
import json

import pytest
import test_colmap
import test_layouts
import test_re10k
from scene_helpers import close, save_photo, sentence

from sphinx_nvs.errors import InputError
from sphinx_nvs.posing import is_plain
from sphinx_nvs.scene.camera_files import read_targets
from sphinx_nvs.scene.readers import holds_scene, read_capture
from sphinx_nvs.scene.textfile import head_of, read_text, text_in

ENCODINGS = {
    "UTF-8 with mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 without mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
}
TEXTS = (".txt", ".csv", ".xml", ".json", ".out")


def write_colmap(root, cameras):
    lenses = [("PINHOLE", test_colmap.pinhole(cameras, index)) for index in range(3)]
    test_colmap.write_text(root / "sparse" / "0", cameras, lenses, test_layouts.NAMES)
    test_layouts.photos(root / "images")


def write_re10k(root, cameras):
    lines = [test_re10k.line(cameras, index) for index in range(3)]
    (root / "clip.txt").write_text(test_re10k.URL + "\n".join(lines) + "\n")
    for index in range(3):
        save_photo(root / "clip" / f"{1000 * (index + 1)}.png")


WRITERS = {**test_layouts.WRITERS, "COLMAP sparse model": write_colmap, "RealEstate10K camera file": write_re10k}
del WRITERS["LLFF poses_bounds.npy"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", WRITERS)
def test_every_text_layout_in_every_encoding(tmp_path, layout, encoding):
    cameras = test_layouts.central()
    WRITERS[layout](tmp_path, cameras)
    texts = [path for path in tmp_path.rglob("*") if path.suffix in TEXTS]
    assert texts
    for path in texts:
        path.write_bytes(ENCODINGS[encoding](path.read_text()))
    assert holds_scene(tmp_path)
    assert not is_plain(tmp_path)
    capture = read_capture(tmp_path)
    assert capture.layout == layout
    close(capture.cameras(range(3), 12, 16).c2w, cameras.c2w, atol=1e-7)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_transforms_and_target_cameras_in_every_encoding(tmp_path, encoding):
    save_photo(tmp_path / "café.png")
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    data = {"w": 16, "h": 12, "fl_x": 20, "frames": [{"file_path": "café.png", "transform_matrix": pose}]}
    path = tmp_path / "transforms.json"
    path.write_bytes(ENCODINGS[encoding](json.dumps(data, ensure_ascii=False)))
    assert read_capture(tmp_path).views[0].image.name == "café.png"
    assert read_targets(path).names == ("café",)


def test_names_in_the_code_page_of_windows(tmp_path):
    cameras = test_layouts.central()
    write_colmap(tmp_path, cameras)
    name = test_layouts.NAMES[0]
    (tmp_path / "images" / name).rename(tmp_path / "images" / f"é{name}")
    images = tmp_path / "sparse" / "0" / "images.txt"
    images.write_bytes(images.read_text().replace(f" {name}", f" é{name}").encode("cp1252"))
    assert f"é{name}" in [view.image.name for view in read_capture(tmp_path).views]


def test_entities_are_found_in_every_encoding(tmp_path):
    xml = '<!DOCTYPE x [<!ENTITY a "b">]>' + test_layouts.metashape_xml(test_layouts.central())
    for index, encoded in enumerate([encode(xml) for encode in ENCODINGS.values()]):
        path = tmp_path / f"{index}.xml"
        path.write_bytes(encoded)
        assert "it declares XML entities" in sentence(read_capture, path)


def test_an_xml_with_a_declared_encoding(tmp_path):
    test_layouts.write_metashape(tmp_path, test_layouts.central())
    path = next(tmp_path.glob("*.xml"))
    text = path.read_text().replace("<document", "<!-- дом --><document", 1)
    path.write_bytes(b'<?xml version="1.0" encoding="windows-1251"?>' + text.encode("cp1251"))
    assert len(read_capture(tmp_path)) == 3
    path.write_bytes(b'<?xml version="1.0" encoding="rot13"?>' + text.encode("cp1251"))
    assert "it is no XML" in sentence(read_capture, tmp_path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"{\0\1\2\3\4\5\xff\xfe\xfd}")
    assert sentence(read_capture, path) == (f"file {path}: it is neither UTF-8 nor UTF-16 text; save it as UTF-8")
    assert head_of(tmp_path / "missing.txt") == ""
    with pytest.raises(InputError, match="it cannot be read"):
        read_text(tmp_path / "missing.txt")
    assert text_in(b"") == ""
    assert text_in(b"plain") == "plain"


@pytest.mark.parametrize(("layout", "name"), [("RealityCapture CSV", "CSV"), ("Metashape cameras", "XML")])
def test_endings_in_capitals(tmp_path, layout, name):
    WRITERS[layout](tmp_path, test_layouts.central())
    path = next(path for path in tmp_path.iterdir() if path.suffix == f".{name.lower()}")
    path.rename(path.with_suffix(f".{name}"))
    assert read_capture(tmp_path).layout == layout


def test_realestate10k_in_capitals(tmp_path):
    write_re10k(tmp_path, test_layouts.central())
    (tmp_path / "clip.txt").rename(tmp_path / "clip.TXT")
    assert len(read_capture(tmp_path)) == 3


def test_unicode_text_of_a_spreadsheet_has_tabs(tmp_path):
    cameras = test_layouts.central()
    test_layouts.write_realitycapture(tmp_path, cameras)
    csv = tmp_path / "registration.csv"
    csv.write_text(csv.read_text().replace(",", "\t").replace(".", ",").replace(",png", ".png"), encoding="utf-16")
    close(read_capture(tmp_path).cameras(range(3), 12, 16).c2w, cameras.c2w, atol=1e-7)

"""Every layout written out for known cameras, and read back as these: Blender to MVSNet."""

import json
import math

import numpy as np
import pytest
import torch
from scene_helpers import close, save_photo, sentence, some_cameras, write_json

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.readers import holds_scene, read_capture
from sphinx_nvs.scene.transforms import flip_yz

NAMES = ["2.png", "10.png", "11.png"]
"""In natural order."""


def central():
    """Cameras with square pixels and the principal point in the middle: all that some layouts can say."""
    cameras = some_cameras()
    K = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]], dtype=torch.float64).repeat(3, 1, 1)
    return Cameras(cameras.c2w, K, 12, 16)


def photos(folder):
    for name in NAMES:
        save_photo(folder / name)


def write_llff(root, cameras):
    photos(root / "images")
    down, right, back = cameras.c2w[:, :3, 1], cameras.c2w[:, :3, 0], -cameras.c2w[:, :3, 2]
    hwf = torch.tensor([12.0, 16, 20], dtype=torch.float64).expand(3, 3)
    pose = torch.stack([down, right, back, cameras.centres, hwf], dim=2)
    # LLFF's tools write rows in the order of `sorted(os.listdir())`: 10, 11, 2.
    pose = pose[[NAMES.index(name) for name in sorted(NAMES)]]
    np.save(root / "poses_bounds.npy", np.hstack([pose.reshape(3, 15).numpy(), np.ones((3, 2))]))


def write_polycam(root, cameras):
    photos(root / "keyframes" / "corrected_images")
    (root / "keyframes" / "corrected_cameras").mkdir()
    for name, c2w in zip(NAMES, flip_yz(cameras.c2w), strict=True):
        data = {f"t_{i}{j}": float(c2w[i, j]) for i in range(3) for j in range(4)}
        data |= {"fx": 20, "fy": 20, "cx": 8, "cy": 6, "width": 16, "height": 12}
        write_json(root / "keyframes" / "corrected_cameras" / name.replace(".png", ".json"), data)


def write_record3d(root, cameras):
    photos(root / "rgb")
    poses = []
    for c2w in flip_yz(cameras.c2w):
        w, x, y, z = se3.quaternion_from_rotation(c2w[None, :3, :3])[0].tolist()
        poses.append([x, y, z, w, *c2w[:3, 3].tolist()])
    write_json(root / "metadata.json", {"w": 16, "h": 12, "K": [20, 0, 0, 0, 20, 0, 8, 6, 1], "poses": poses})


def metashape_xml(cameras, calibration="<f>20</f>", kind="frame"):
    numbers = [" ".join(map(repr, c2w.flatten().tolist())) for c2w in cameras.c2w]
    entries = "".join(
        f'<camera id="{i}" sensor_id="0" component_id="0" label="{name}"><transform>{text}</transform></camera>'
        for i, (name, text) in enumerate(zip(NAMES, numbers, strict=True))
    )
    return (
        f'<document version="2.0.0"><chunk><sensors><sensor id="0" type="{kind}">'
        f'<resolution width="16" height="12"/><calibration class="adjusted">{calibration}</calibration></sensor>'
        f'</sensors><cameras>{entries}<camera id="9" sensor_id="0" label="lost"/></cameras></chunk></document>'
    )


def write_metashape(root, cameras):
    photos(root / "images")
    (root / "cameras.xml").write_text(metashape_xml(cameras))


def write_realitycapture(root, cameras):
    photos(root)
    lines = ["#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2"]
    for name, c2w in zip(NAMES, flip_yz(cameras.c2w), strict=True):
        R = c2w[:3, :3]
        pitch = math.asin(float(R[2, 1]))
        heading = -math.atan2(-float(R[0, 1]), float(R[1, 1]))
        roll = math.atan2(-float(R[2, 0]), float(R[2, 2]))
        angles = [math.degrees(angle) for angle in (heading, pitch, roll)]
        lines.append(",".join([name, *map(repr, [*c2w[:3, 3].tolist(), *angles, 20 * 36 / 16]), *["0"] * 8]))
    (root / "registration.csv").write_text("\n".join(lines))


def write_bundler(root, cameras):
    photos(root)
    lines = ["# Bundle file v0.3", "3 0"]
    for w2c in torch.linalg.inv(flip_yz(cameras.c2w)):
        rows = [" ".join(map(repr, row)) for row in w2c[:3, :3].tolist()]
        lines += ["20 0 0", *rows, " ".join(map(repr, w2c[:3, 3].tolist()))]
    (root / "bundle.out").write_text("\n".join(lines))
    (root / "list.txt").write_text("".join(f"./{name} 0 20.5\n" for name in NAMES))


def write_sdfstudio(root, cameras):
    photos(root)
    K = torch.eye(4, dtype=torch.float64)
    K[:3, :3] = cameras.K[0]
    frames = [
        {"rgb_path": name, "camtoworld": c2w.tolist(), "intrinsics": K.tolist()}
        for name, c2w in zip(NAMES, cameras.c2w, strict=True)
    ]
    write_json(root / "meta_data.json", {"camera_model": "OPENCV", "height": 12, "width": 16, "frames": frames})


def write_mvsnet(root, cameras, scale=1.0):
    photos(root / "images")
    (root / "cams").mkdir()
    for name, w2c in zip(NAMES, torch.linalg.inv(cameras.c2w), strict=True):
        extrinsic = "\n".join(" ".join(map(repr, row)) for row in w2c.tolist())
        K = cameras.K[0] * torch.tensor([[scale], [scale], [1.0]], dtype=torch.float64)
        intrinsic = "\n".join(" ".join(map(repr, row)) for row in K.tolist())
        text = f"extrinsic\n{extrinsic}\n\nintrinsic\n{intrinsic}\n\n0.5 0.01\n"
        (root / "cams" / f"{name.removesuffix('.png')}_cam.txt").write_text(text)


WRITERS = {
    "LLFF poses_bounds.npy": write_llff,
    "Polycam keyframes": write_polycam,
    "Record3D export": write_record3d,
    "Metashape cameras": write_metashape,
    "RealityCapture CSV": write_realitycapture,
    "Bundler bundle.out": write_bundler,
    "SDFStudio meta_data.json": write_sdfstudio,
    "MVSNet cameras": write_mvsnet,
}


@pytest.mark.parametrize("layout", WRITERS)
def test_cameras_written_in_a_layout_are_read_back(tmp_path, layout):
    cameras = central()
    WRITERS[layout](tmp_path, cameras)
    assert holds_scene(tmp_path)
    capture = read_capture(tmp_path)
    assert capture.layout == layout
    read = capture.cameras(range(3), 12, 16)
    close(read.c2w, cameras.c2w, atol=1e-7)
    close(read.K, cameras.K, atol=1e-7)
    assert [view.image.name for view in capture.views] == NAMES
    assert capture.load(range(3), 12, 16).images.shape == (3, 3, 12, 16)


def test_keyframes_without_a_camera_are_counted(tmp_path):
    write_polycam(tmp_path, central())
    lost = tmp_path / "keyframes" / "corrected_cameras" / NAMES[1].replace(".png", ".json")
    lost.unlink()
    [note] = read_capture(tmp_path).notes
    assert note == f"1 keyframes have no camera beside those that are read and are left out ({lost.stem}, ...)"


def test_mvsnet_intrinsics_for_a_quarter_of_the_photo_are_scaled(tmp_path):
    write_mvsnet(tmp_path, central(), scale=0.25)
    close(read_capture(tmp_path).views[0].K, central().K[0])


def test_metashape_terms_become_opencvs(tmp_path):
    write_metashape(tmp_path, central())
    terms = "<f>20</f><cx>0.5</cx><cy>-0.25</cy><b1>1</b1><k1>0.01</k1><p1>0.002</p1><p2>0.003</p2>"
    (tmp_path / "cameras.xml").write_text(metashape_xml(central(), terms))
    view = read_capture(tmp_path).views[0]
    assert view.distortion == Distortion(k1=0.01, p1=0.003, p2=0.002)
    assert view.K.tolist() == [[21, 0, 8.5], [0, 20, 5.75], [0, 0, 1]]
    (tmp_path / "cameras.xml").write_text(metashape_xml(central(), kind="spherical"))
    assert "its type is spherical; undistort the photos" in sentence(read_capture, tmp_path)


def test_two_cameras_of_one_name_in_different_places_are_refused(tmp_path):
    write_metashape(tmp_path, central())
    xml = next(tmp_path.glob("*.xml"))
    xml.write_text(xml.read_text().replace('label="11.png"', 'label="10.png"'))
    assert "10.png and 10.png are one photo, " in sentence(read_capture, tmp_path)


def test_realitycapture_with_semicolons_and_decimal_commas_is_read(tmp_path):
    cameras = central()
    write_realitycapture(tmp_path, cameras)
    path = next(tmp_path.glob("*.csv"))
    lines = [line.replace(",", ";") for line in path.read_text().splitlines()]
    rows = [";".join([name, *(n.replace(".", ",") for n in rest)]) for name, *rest in (ln.split(";") for ln in lines)]
    path.write_text("\r\n".join(rows))
    close(read_capture(tmp_path).cameras(range(3), 12, 16).c2w, cameras.c2w, atol=1e-7)


def test_bundler_with_a_byte_order_mark_is_read(tmp_path):
    cameras = central()
    write_bundler(tmp_path, cameras)
    for name in ("bundle.out", "list.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    close(read_capture(tmp_path).cameras(range(3), 12, 16).c2w, cameras.c2w, atol=1e-7)


def test_xml_entities_are_refused(tmp_path):
    photos(tmp_path)
    (tmp_path / "cameras.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]>' + metashape_xml(central()))
    assert "it declares XML entities" in sentence(read_capture, tmp_path)


def test_photos_that_do_not_match_the_rows_are_refused(tmp_path):
    write_llff(tmp_path, central())
    (tmp_path / "images" / "2.png").unlink()
    assert "it has 3 cameras for 2 in images" in sentence(read_capture, tmp_path)


def test_pickles_are_not_opened(tmp_path):
    photos(tmp_path / "images")
    np.save(tmp_path / "poses_bounds.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "it is no numpy array of numbers" in sentence(read_capture, tmp_path)


def blender(root, part, cameras, ids):
    frames = []
    for place, index in enumerate(ids):
        save_photo(root / part / f"r_{place}.png")
        frames.append({"file_path": f"./{part}/r_{place}", "transform_matrix": flip_yz(cameras.c2w[index]).tolist()})
    angle = 2 * math.atan(8 / 20)
    write_json(root / f"transforms_{part}.json", {"camera_angle_x": angle, "frames": frames})


def test_blender_far_from_the_origin_has_one_world(tmp_path):
    cameras = some_cameras()
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] += torch.tensor([4e5, 5e6, 2e3], dtype=torch.float64)
    far = Cameras(c2w, cameras.K, 12, 16)
    blender(tmp_path, "train", far, [0, 1])
    blender(tmp_path, "test", far, [2])
    capture = read_capture(tmp_path)
    read = capture.cameras(range(3), 12, 16).c2w
    close(torch.linalg.inv(read[0]) @ read, torch.linalg.inv(c2w[0]) @ c2w, atol=1e-6)
    assert (capture.splits[2].train_ids, capture.splits[2].test_ids) == ((0, 1), (2,))
    close(capture.world.outside(read), c2w, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "name", "command"),
    [
        ("camera/0.json", "Nerfies", "transforms.json"),
        ("cameras_sphere.npz", "NeuS", "SDFStudio"),
        ("reconstruction.json", "OpenSfM", "opensfm export_colmap"),
        ("scan.psx", "a Metashape project", "Export Cameras"),
        ("database.db", "a COLMAP database", "colmap mapper"),
    ],
)
def test_a_layout_that_is_not_read_is_named_with_what_converts_it(tmp_path, file, name, command):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("x")
    message = sentence(read_capture, tmp_path)
    assert name in message
    assert command in message


def test_photos_in_folders_within_are_named_with_their_folders(tmp_path):
    for name in ("left", "right"):
        photos(tmp_path / "shoot" / name)
    message = sentence(read_capture, tmp_path / "shoot")
    assert f"its photos lie in folders within it: left, right; give {tmp_path / 'shoot' / 'left'}" in message


def test_photos_alone_and_videos_have_no_cameras(tmp_path):
    photos(tmp_path / "a")
    assert "there are 3 photos but no cameras; find them: sphinx-nvs poses" in sentence(read_capture, tmp_path / "a")
    (tmp_path / "clip.MOV").write_bytes(b"x")
    assert "it is a video, which has no cameras" in sentence(read_capture, tmp_path / "clip.MOV")


@pytest.mark.parametrize(
    "written",
    ["images\\0.png", "IMAGES/0.PNG", "images/0", "/home/someone/data/images/0.png", "C:\\data\\images\\0.png"],
)
def test_a_photos_name_is_understood_as_other_systems_write_it(tmp_path, written):
    save_photo(tmp_path / "images" / "0.png")
    frame = {"file_path": written, "transform_matrix": torch.eye(4).tolist(), "fl_x": 20}
    write_json(tmp_path / "transforms.json", {"frames": [frame]})
    assert read_capture(tmp_path).views[0].image == tmp_path / "images" / "0.png"


def test_accents_that_macos_writes_apart_are_found(tmp_path):
    save_photo(tmp_path / "cafe\u0301.png")
    frame = {"file_path": "caf\u00e9.png", "transform_matrix": torch.eye(4).tolist(), "fl_x": 20}
    write_json(tmp_path / "transforms.json", {"frames": [frame]})
    assert read_capture(tmp_path).views[0].image is not None


def test_fields_that_are_not_used_are_told(tmp_path):
    save_photo(tmp_path / "0.png")
    frame = {"file_path": "0.png", "transform_matrix": torch.eye(4).tolist(), "fl_x": 20, "mask_path": "m.png"}
    write_json(tmp_path / "transforms.json", {"frames": [frame], "aabb_scale": 4})
    assert read_capture(tmp_path).notes == ("fields that are not used: mask_path",)


@pytest.mark.parametrize("text", ['{"frames": ' + "[" * 100_000, '{"w": ' + "9" * 5000 + "}"])
def test_deep_and_endless_json_is_refused(tmp_path, text):
    (tmp_path / "transforms.json").write_text(text)
    message = sentence(read_capture, tmp_path)
    assert "nested too deeply" in message or "far too long" in message or "malformed" in message


def test_huge_numbers_in_a_matrix_are_refused(tmp_path):
    save_photo(tmp_path / "0.png")
    frame = {"file_path": "0.png", "transform_matrix": torch.eye(4).tolist(), "fl_x": 20}
    frame["transform_matrix"][0][3] = 10**400
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": [frame]}))
    assert "transform_matrix is not a matrix of numbers" in sentence(read_capture, tmp_path)
    frame["transform_matrix"][0][3] = 1e200
    write_json(tmp_path / "transforms.json", {"frames": [frame]})
    assert "transform_matrix holds 1e+200" in sentence(read_capture, tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_realitycapture_in_other_encodings(tmp_path, encoding):
    write_realitycapture(tmp_path, central())
    csv = tmp_path / "registration.csv"
    csv.write_text(csv.read_text(), encoding=encoding)
    close(read_capture(tmp_path).cameras(range(3), 12, 16).c2w, central().c2w, atol=1e-7)


def test_realitycapture_that_is_cut_amid_a_letter(tmp_path):
    write_realitycapture(tmp_path, central())
    csv = tmp_path / "registration.csv"
    csv.write_bytes(csv.read_text().encode("utf-16") + b"\x00\xd8\x41")
    with pytest.raises(InputError, match="neither UTF-8 nor UTF-16"):
        read_capture(csv)


@pytest.mark.parametrize("write", [write_metashape, write_realitycapture])
def test_photos_in_subfolders_are_named(tmp_path, write):
    write(tmp_path, central())
    folder = tmp_path / "images" if (tmp_path / "images").is_dir() else tmp_path
    deeper = folder / "flight 1"
    deeper.mkdir()
    first, *others = (folder / name for name in NAMES)
    for photo in others:
        photo.rename(deeper / photo.name)
    capture = read_capture(tmp_path)
    assert "2 cameras have no photo here" in capture.notes[0]
    assert "flight 1, which is not looked in" in capture.notes[0]
    first.rename(deeper / first.name)
    with pytest.raises(InputError, match=r"its photos are in .*flight 1, which is not looked in; move them to"):
        read_capture(tmp_path)


def test_photoscan_of_before_1_2_is_named(tmp_path):
    write_metashape(tmp_path, central())
    xml = tmp_path / "cameras.xml"
    xml.write_text(metashape_xml(central(), "<fx>20</fx><fy>20</fy><cx>8</cx><cy>6</cy>"))
    with pytest.raises(InputError, match="as PhotoScan before"):
        read_capture(tmp_path)


@pytest.mark.parametrize("word", ["false", "0"])
def test_cameras_that_are_disabled_in_metashape_are_left_out(tmp_path, word):
    write_metashape(tmp_path, central())
    xml = metashape_xml(central()).replace('<camera id="1" ', f'<camera id="1" enabled="{word}" ')
    (tmp_path / "cameras.xml").write_text(xml.replace('<camera id="0" ', '<camera id="0" enabled="true" '))
    capture = read_capture(tmp_path)
    assert [view.name for view in capture.views] == [NAMES[0], NAMES[2]]
    assert "1 cameras are disabled in Metashape and are left out" in capture.notes

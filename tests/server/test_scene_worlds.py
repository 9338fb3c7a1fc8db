"""Scenes and cameras on a server in the coordinates of their files; uploads as browsers and other systems send them."""

import io
import json
import struct
import tempfile
import zipfile

import pytest
from server_fakes import png, transforms, zipped

from sphinx_nvs.scene import read_capture
from sphinx_nvs.server.scenes.archives import unpack
from sphinx_nvs.server.server_config import UploadLimits

APPLIED = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]]


def pose(x):
    """A camera of the file's coordinates, OpenGL axes: the third one beside the scene's two."""
    return [[1, 0, 0, x], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def flat(matrix):
    return [value for row in matrix for value in row]


@pytest.fixture
def scene(client):
    frames = [{"file_path": f"{i}.png", "transform_matrix": pose(0.1 * i), "fl_x": 80} for i in range(2)]
    cameras = {"applied_transform": APPLIED, "applied_scale": 2.0, "w": 96, "h": 64, "frames": frames}
    files = {"0.png": png(), "1.png": png(shade=200), "transforms.json": json.dumps(cameras)}
    answer = client.post("/v1/scenes", content=zipped(files), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def asked(client, scene, cameras):
    return client.post("/v1/jobs", json={"scene": scene, "size": "96x64", "cameras": cameras})


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"applied_transform": APPLIED, "applied_scale": 2.0},
        {"camera_model": "OPENCV", "k1": 0.0, "ply_file_path": "sparse_pc.ply", "w": 96, "h": 64, "fl_x": 80},
    ],
)
def test_cameras_come_in_and_go_out_in_the_files_coordinates(client, engine, scene, more):
    answer = asked(client, scene, {**more, "frames": [{"transform_matrix": pose(0.05), "colmap_im_id": 3}]})
    assert answer.status_code == 202, answer.text
    assert answer.json()["warnings"] == []
    spec = engine.store.job(answer.json()["id"]).spec
    inside = read_capture(engine.store.scene(scene).path)
    middle = (inside.views[0].c2w + inside.views[1].c2w) / 2
    assert [x for row in spec.c2w[0] for x in row] == pytest.approx(middle.flatten().tolist(), abs=1e-9)
    returned = client.get(answer.json()["links"]["cameras"]).json()
    assert (returned["applied_transform"], returned["applied_scale"]) == (APPLIED, 2.0)
    assert flat(returned["frames"][0]["transform_matrix"]) == pytest.approx(flat(pose(0.05)), abs=1e-9)


def test_a_camera_path_and_our_own_format_are_read(client, engine, scene):
    path = {"render_height": 64, "render_width": 96, "camera_path": [{"camera_to_world": flat(pose(0)), "fov": 50}]}
    c2w = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]]
    ours = {"format": "sphinx-nvs cameras", "version": 1, "height": 64, "width": 96}
    ours["cameras"] = [{"c2w": c2w, "K": [[80, 0, 48], [0, 80, 32], [0, 0, 1]]}]
    specs = []
    for cameras in (path, ours):
        answer = asked(client, scene, cameras)
        assert answer.status_code == 202, answer.text
        specs.append(engine.store.job(answer.json()["id"]).spec)
    assert [x for row in specs[0].c2w[0] for x in row] == pytest.approx([x for row in specs[1].c2w[0] for x in row])


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        ({"frames": [{"transform_matrix": [list(row) for row in zip(*pose(0.05), strict=True)]}]}, "is transposed"),
        ({"frames": [{"transform_matrix": [*pose(0.05)[:3], [0, 0, 0, 0]]}]}, "the last row of transform_matrix"),
        ({"frames": [{"transform_matrix": [[-1, 0, 0, 0], *pose(0)[1:]]}]}, "its rotation mirrors"),
        ({"frames": [{"transform_matrix": pose(1e6)}]}, "far from it"),
        (
            {"camera_type": "fisheye", "camera_path": [{"camera_to_world": [0] * 16, "fov": 50}]},
            'camera_type is "fisheye"',
        ),
        ({"camera_model": "ORTHOPHOTO", "frames": [{"transform_matrix": pose(0)}]}, "ORTHOPHOTO"),
    ],
)
def test_cameras_that_cannot_be_are_refused_before_there_is_a_job(client, engine, scene, cameras, said):
    answer = asked(client, scene, cameras)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert engine.store.list_jobs() == []


def test_fields_that_are_not_used_are_told(client, scene):
    answer = asked(client, scene, {"frames": [{"transform_matrix": pose(0.05), "focal": 12}]})
    assert answer.json()["warnings"] == ["fields that are not used: focal"]


def posted(client, files):
    return client.post("/v1/scenes", content=zipped(files), headers={"Content-Type": "application/zip"})


PHOTOS = {"0.png": png(), "1.png": png(shade=200)}


def test_a_readme_beside_the_top_folder(client):
    files = {f"room/{name}": data for name, data in PHOTOS.items()} | {"room/transforms.json": transforms()}
    answer = posted(client, {**files, "README.txt": b"hello", "README.md": b"hello"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["num_views"] == 2


def test_two_scenes_in_one_archive_are_refused(client):
    files = {f"{top}/{name}": data for top in "ab" for name, data in PHOTOS.items()}
    answer = posted(client, {**files, "a/transforms.json": transforms(), "b/transforms.json": transforms()})
    assert answer.status_code == 422
    assert "there are 2 scenes in it (a, b)" in answer.json()["detail"]


def test_names_that_windows_wrote(client):
    files = {f"images\\{name}": data for name, data in PHOTOS.items()}
    cameras = transforms().replace('"0.png"', '"images\\\\0.png"').replace('"1.png"', '"C:\\\\me\\\\images\\\\1.png"')
    answer = posted(client, {**files, "transforms.json": cameras})
    assert answer.status_code == 201, answer.text
    assert answer.json()["num_views"] == 2


def test_a_folder_as_browsers_send_it(client):
    parts = [("images", (f"room/{name}", data)) for name, data in PHOTOS.items()]
    parts += [("images", ("room/transforms.json", transforms())), ("images", ("room/.DS_Store", b"x"))]
    answer = client.post("/v1/scenes", files=parts)
    assert answer.status_code == 201, answer.text
    assert answer.json()["num_views"] == 2


def large_archive(lie=None):
    """A small archive of the zip64 kind, as programs write for archives whose size they do not know."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        with archive.open("transforms.json", "w", force_zip64=True) as file:
            file.write(transforms().encode())
        for name, data in PHOTOS.items():
            archive.writestr(name, data)
    data = buffer.getvalue()
    end = data.rfind(b"PK\x05\x06")
    count, size, offset = struct.unpack_from("<HxxII", data, end + 8)[0], *struct.unpack_from("<II", data, end + 12)
    size = size if lie is None else lie
    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    last = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + last


def test_archives_of_the_zip64_kind_are_read(client, tmp_path):
    with tempfile.TemporaryFile() as file:
        file.write(large_archive())
        assert unpack(file, tmp_path, UploadLimits()) == []
    answer = client.post("/v1/scenes", content=large_archive(), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 201, answer.text


def test_a_list_of_files_that_is_too_long_is_refused_in_zip64_too(client):
    answer = client.post("/v1/scenes", content=large_archive(lie=1 << 40), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 422
    assert "it lists more than" in answer.json()["detail"]

"""Uploading, reading and deleting scenes."""

import errno
import io
import json
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from server_fakes import add_scene, camera, parts, png, transforms, zipped

from sphinx_nvs.scene import read_capture
from sphinx_nvs.server.scenes import archives, uploads
from sphinx_nvs.server.scenes.archives import check_bytes
from sphinx_nvs.server.scenes.ingest_pool import IngestPool
from sphinx_nvs.server.server_config import KeyLimits, UploadLimits

CAMERAS_TXT = "1 PINHOLE 96 64 80 80 48 32\n"
IMAGES_TXT = "1 1 0 0 0 0 0 0 1 0.png\n\n2 1 0 0 0 -0.1 0 0 1 1.png\n\n"


def sent(client, files, **options):
    """Uploads a form; returns the response."""
    return client.post("/v1/scenes", files=files, **options)


def detail(answer, status=422):
    """Returns the detail of a problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["detail"]


def archive(client, files):
    """Uploads an archive as the body; returns the response."""
    return client.post("/v1/scenes", content=zipped(files), headers={"Content-Type": "application/zip"})


def is_clean(engine):
    """Returns whether every scene's folder belongs to a stored scene."""
    return len(list(engine.library.scenes_folder.iterdir())) == len(engine.store.list_scenes())


def test_photos_and_cameras_become_a_scene(client, engine):
    answer = sent(client, parts(3))
    assert answer.status_code == 201, answer.text
    scene = answer.json()
    assert answer.headers["location"] == scene["links"]["self"]
    assert (scene["num_views"], scene["width"], scene["height"]) == (3, 96, 64)
    assert isinstance(scene["warnings"], list)
    capture = read_capture(engine.store.scene(scene["id"]).path)
    assert len(capture.load(range(3), 64, 96).images) == 3
    assert capture.views[2].c2w[0, 3] == pytest.approx(0.2)
    assert is_clean(engine)


@pytest.mark.parametrize(
    "send", [lambda client: sent(client, parts()), lambda client: archive(client, {"a.png": png()})]
)
def test_a_full_disk_is_reported(client, engine, monkeypatch, send):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads.shutil, "copyfileobj", no_space)
    monkeypatch.setattr(archives, "_extract", no_space)
    assert detail(send(client), 507) == "scene: the server's disk is full; retry later"
    assert is_clean(engine)


def test_a_job_with_an_uploaded_scene(client):
    scene = sent(client, parts()).json()
    assert client.post("/v1/jobs", json={"scene": scene["id"], "num_frames": 3}).status_code == 202


def test_cameras_without_names_belong_to_the_photos_in_order(client, engine):
    frames = [camera(1), camera(0)]
    files = [*parts()[:2], ("cameras", (None, json.dumps({"w": 96, "h": 64, "frames": frames})))]
    scene = sent(client, files).json()
    views = read_capture(engine.store.scene(scene["id"]).path).views
    assert [float(view.c2w[0, 3]) for view in views] == pytest.approx([0.1, 0.0])


def test_opencv_poses_and_intrinsics_matrices(client, engine):
    c2w = [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    K = [[80, 0, 48], [0, 80, 32], [0, 0, 1]]
    frames = [{"c2w": c2w, "K": K, "w": 96, "h": 64}] * 2
    scene = sent(client, [*parts()[:2], ("cameras", (None, json.dumps(frames)))]).json()
    view = read_capture(engine.store.scene(scene["id"]).path).views[0]
    assert view.c2w.tolist() == c2w
    assert view.K.tolist() == K


@pytest.mark.parametrize("folder", ["", "room/"])
def test_an_archive_with_transforms(client, engine, folder):
    files = {f"{folder}{name}": data for name, data in (("0.png", png()), ("1.png", png(shade=200)))}
    answer = archive(client, {**files, f"{folder}transforms.json": transforms(), f"{folder}notes.doc": b"x"})
    assert answer.status_code == 201, answer.text
    assert "notes.doc" in answer.json()["warnings"][0]
    assert is_clean(engine)


def test_an_archive_with_a_colmap_model(client):
    files = {"images/0.png": png(), "images/1.png": png(shade=200)}
    files |= {"sparse/0/cameras.txt": CAMERAS_TXT, "sparse/0/images.txt": IMAGES_TXT}
    assert archive(client, files).json()["num_views"] == 2
    form = sent(client, [("archive", ("scene.zip", zipped(files), "application/zip"))])
    assert form.json()["num_views"] == 2


def test_a_colmap_model_beside_photos(client):
    model = [("cameras", ("cameras.txt", CAMERAS_TXT)), ("cameras", ("images.txt", IMAGES_TXT))]
    assert sent(client, [*parts()[:2], *model]).json()["num_views"] == 2


def test_photos_above_the_default_number_are_selected_evenly(client, engine):
    scene = sent(client, parts(12)).json()
    assert scene["num_views"] == 9
    assert "9 of 12 photos are kept" in scene["warnings"][0]
    scene = sent(client, parts(12), data={"contexts": "11,0"}).json()
    views = read_capture(engine.store.scene(scene["id"]).path).views
    assert [float(view.c2w[0, 3]) for view in views] == pytest.approx([1.1, 0.0])
    assert sent(client, parts(12), data={"contexts": "4"}).json()["num_views"] == 4


def test_a_split_of_an_archive(client):
    files = {f"{i}.png": png(shade=20 * i + 40) for i in range(4)} | {"transforms.json": transforms(4)}
    files["train_test_split_2.json"] = json.dumps({"train_ids": [0, 3], "test_ids": [1, 2]})
    form = [("archive", ("s.zip", zipped(files)))]
    assert sent(client, form, data={"split": "2"}).json()["num_views"] == 2
    assert "split: there is no 3" in detail(sent(client, form, data={"split": "3"}))


def test_large_photos_are_scaled_and_lose_their_metadata(make_client, engine):
    client = make_client(upload=UploadLimits(kept_side=48))
    image = Image.open(io.BytesIO(png()))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "SecretCameraMaker"
    image.save(buffer, format="JPEG", exif=exif)
    photos = [("images", (f"{i}.jpg", buffer.getvalue())) for i in range(2)]
    scene = sent(client, [*photos, ("cameras", ("c.json", transforms().replace(".png", ".jpg")))]).json()
    assert (scene["width"], scene["height"]) == (48, 32)
    folder = engine.store.scene(scene["id"]).path
    assert read_capture(folder).views[0].K[0, 0] == pytest.approx(40.0)
    photo = client.get(f"/v1/scenes/{scene['id']}/photos/0")
    assert photo.headers["content-type"] == "image/png"
    assert b"SecretCameraMaker" not in photo.content


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("images", ("0.png", b"not a picture")), *parts(1)[1:]], "photo 0.png: it is not an image"),
        ([("images", ("0.png", png()[:200])), *parts(1)[1:]], "0.png"),
        ([("images", ("0.exe", png())), *parts(1)[1:]], "'0.exe'"),
        ([("images", ("../0.png", png())), *parts(1)[1:]], "leads out of the scene"),
        ([("images", ("a:b.png", png())), *parts(1)[1:]], "plain relative name"),
        ([("images", ("0.png", png()))] * 2 + parts(1)[1:], "two files are called"),
        ([parts()[0], parts()[2]], "which was not sent"),
        ([*parts()[:2], ("cameras", (None, json.dumps({"frames": [camera(0)]})))], "there are 1 for 2 photos"),
        ([*parts(), ("cameras", (None, "{}"))], "there are several"),
        (
            [*parts(), ("contexts", (None, "0")), ("contexts", (None, "1"))],
            "contexts: it is sent 2 times; send it once",
        ),
        ([*parts()[:2], ("cameras", (None, "{"))], "not valid JSON (line 1"),
        ([*parts()[:2], ("cameras", (None, "[" * 100_000))], "not valid JSON"),
        ([*parts()[:2], ("cameras", (None, "9" * 5000))], "not valid JSON"),
        ([*parts()[:2], ("cameras", (None, "{}"))], "no list `frames`"),
        ([*parts(2, w=-5)], "w and h are"),
        ([*parts(2, fl_x=0)], ""),
        ([*parts(), ("pose", (None, "{}"))], "no field 'pose'"),
        ([*parts(), ("archive", ("a.zip", b"PK"))], "other files are sent with it"),
        ([("archive", ("a.zip", b"PK" * 100))], "not a zip archive"),
        ([("cameras", (None, transforms()))], "not sent"),
        ([*parts(), ("contexts", (None, "7"))], "contexts: it is 7"),
        ([*parts(), ("contexts", (None, "0,0"))], "listed twice"),
        ([*parts(), ("contexts", (None, "all"))], "give photos as"),
        ([*parts(), ("split", (None, "x"))], "give an integer"),
        (
            [("images", ("a.png", png())), ("images", ("a.png/b.png", png()))],
            "lies in a folder with the name of another",
        ),
    ],
)
def test_invalid_uploads_are_described_and_leave_no_files(client, engine, files, said):
    answer = sent(client, files)
    if said:
        assert said in detail(answer)
        assert str(engine.config.folder) not in answer.text
    assert is_clean(engine)


@pytest.mark.parametrize("name", ["%2Fetc%2Fhostname.png", "images%2F..%2F..%2F..%2Fx.png"])
def test_names_as_in_urls_cannot_lead_outside_either(client, name):
    cameras = transforms(1).replace("0.png", name)
    assert "leads out" in detail(archive(client, {"0.png": png(), "transforms.json": cameras}))


@pytest.mark.parametrize("name", ["/etc/hostname.png", "../../secret.png", "images/../../../x.png"])
def test_cameras_cannot_name_files_outside_the_upload(client, engine, name):
    cameras = transforms(1).replace("0.png", name)
    assert "leads out" in detail(sent(client, [parts()[0], ("cameras", (None, cameras))]))
    assert "leads out" in detail(archive(client, {"0.png": png(), "transforms.json": cameras}))
    model = {"images/0.png": png(), "sparse/0/cameras.txt": CAMERAS_TXT}
    model["sparse/0/images.txt"] = f"1 1 0 0 0 0 0 0 1 {name}\n\n"
    assert "leads out" in detail(archive(client, model))
    row = f"{name.removesuffix('.png')} " + " ".join("1" for _ in range(18))
    assert "leads out" in detail(archive(client, {"0.png": png(), "video.txt": f"https://x.org\n{row}\n"}))


def test_another_type_of_body_is_refused(client):
    assert client.post("/v1/scenes", json={"photos": 2}).status_code == 415
    assert client.post("/v1/scenes").status_code == 415
    headers = {"Content-Type": "multipart/form-data"}
    assert client.post("/v1/scenes", content=b"x", headers=headers).status_code == 400
    headers = {"Content-Type": 'multipart/form-data; boundary="b"; charset=idna'}
    body = b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\nx\r\n--b--\r\n'
    assert client.post("/v1/scenes", content=body, headers=headers).status_code in (400, 422)


def test_a_body_above_the_limit_is_cut_off(make_client, engine):
    client = make_client(upload=UploadLimits(body_bytes=20_000))

    def endless():
        for _ in range(1000):
            yield b"x" * 1000

    answer = client.post("/v1/scenes", content=endless(), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:sphinx-nvs:problem:too-large"
    assert is_clean(engine)


def test_photos_of_too_many_pixels_are_refused_before_they_are_decoded(make_client):
    client = make_client(upload=UploadLimits(photo_pixels=1000))
    assert "6144 pixels" in detail(sent(client, parts()))


def test_an_image_bomb_is_refused(client):
    buffer = io.BytesIO()
    Image.new("1", (10_001, 10_000)).save(buffer, format="PNG")
    assert len(buffer.getvalue()) < 1_000_000
    files = [("images", ("0.png", buffer.getvalue())), *parts(1)[1:]]
    assert "photo 0.png" in detail(sent(client, files))


BOMB = b'{"frames": [' + b"[]," * 6_000_000 + b"[]]}"
"""Packs to a thousandth, and takes a gigabyte as objects."""


@pytest.fixture
def no_reading(monkeypatch):
    """Fails a test that reads cameras."""

    def read(path):
        raise AssertionError("it was read")

    monkeypatch.setattr("sphinx_nvs.server.scenes.ingest.normalised", read)
    monkeypatch.setattr("sphinx_nvs.server.scenes.ingest.photo_names", read)


def test_a_camera_file_bomb_is_refused_before_it_is_read(client, engine, no_reading):
    noise = random.Random(0).randbytes(200_000)
    said = f"'transforms.json' has {len(BOMB)} bytes; send cameras of at most {UploadLimits().text_bytes} bytes"
    packed = {"0.png": noise, "transforms.json": BOMB}
    assert len(zipped(packed)) < 300_000
    assert detail(archive(client, packed)) == f"archive: {said}"
    assert detail(sent(client, [*parts()[:2], ("cameras", ("c.json", BOMB))])) == f"cameras: {said}"
    assert is_clean(engine)


def test_a_too_long_field_is_refused(client, engine):
    assert "Part exceeded maximum size" in detail(sent(client, [*parts()[:2], ("cameras", (None, BOMB))]), 400)
    assert is_clean(engine)


@pytest.mark.parametrize("name", ["cameras.txt", "cameras.bin", "images.txt", "images.bin", "points3D.txt"])
def test_a_too_large_colmap_model_is_refused_before_it_is_read(make_client, engine, no_reading, name):
    client = make_client(upload=UploadLimits(text_bytes=1000, model_bytes=2000))
    has_points = not name.startswith("cameras")
    most = 2000 if has_points else 1000
    files = {"images/0.png": png(), f"sparse/0/{name}": b"1" * (most + 1)}
    said = f"'{name}' has {most + 1} bytes; send cameras of at most {most} bytes"
    assert detail(archive(client, files)) == f"archive: 'sparse/0/{said[1:]}"
    assert detail(sent(client, [*parts()[:2], ("cameras", (name, b"1" * (most + 1)))])) == f"cameras: {said}"
    assert is_clean(engine)


def test_files_that_are_not_read_may_be_large(make_client):
    client = make_client(upload=UploadLimits(text_bytes=1000, model_bytes=1000))
    files = {"images/0.png": png(), "images/1.png": png(shade=200), "sparse/0/points3D.bin": b"1" * 5000}
    files |= {"sparse/0/cameras.txt": CAMERAS_TXT, "sparse/0/images.txt": IMAGES_TXT}
    assert archive(client, files).json()["num_views"] == 2


def test_ten_thousand_frames_fit():
    frame = {**camera(1 / 3), "file_path": "images/frame_00001.png", "w": 1920, "h": 1080}
    frame["transform_matrix"] = [[-0.12345678901234567] * 4] * 4
    check_bytes("transforms.json", len(json.dumps({"frames": [frame] * 10_000}, indent=4)), "x", UploadLimits())


def test_scenes_are_listed_read_and_deleted(client, engine):
    first, second = (sent(client, parts()).json()["id"] for _ in range(2))
    page = client.get("/v1/scenes?limit=1").json()
    assert [scene["id"] for scene in page["data"]] == [second]
    assert [scene["id"] for scene in client.get(page["next"]).json()["data"]] == [first]
    path = engine.store.scene(first).path
    assert client.delete(f"/v1/scenes/{first}").status_code == 204
    assert client.get(f"/v1/scenes/{first}").status_code == 404
    assert client.delete(f"/v1/scenes/{first}").status_code == 404
    assert not Path(path).exists()


def test_a_scene_in_use_is_not_deleted(client, engine):
    add_scene(engine, "mine")
    client.post("/v1/jobs", json={"scene": "mine", "num_frames": 2})
    assert "unfinished" in detail(client.delete("/v1/scenes/mine"), 409)


def test_the_shared_scene_cannot_be_deleted(client):
    assert client.get("/v1/scenes/demo").status_code == 200
    assert detail(client.delete("/v1/scenes/demo"), 403)


def test_a_scenes_cameras_and_photos(client):
    cameras = client.get("/v1/scenes/demo/cameras").json()
    assert [frame["file_path"] for frame in cameras["frames"]] == ["000.png", "001.png"]
    photo = client.get("/v1/scenes/demo/photos/1")
    assert Image.open(io.BytesIO(photo.content)).size == (96, 64)
    again = client.get("/v1/scenes/demo/photos/1", headers={"If-None-Match": photo.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/v1/scenes/demo/photos/2").status_code == 404


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"{"), lambda file: file.unlink()])
def test_stored_cameras_that_are_missing_or_damaged(client, engine, damage):
    damage(Path(engine.store.scene("demo").path) / "transforms.json")
    found = detail(client.get("/v1/scenes/demo/cameras"), 404)
    assert found == "The scene's cameras are missing or damaged; upload the scene again."


def test_the_number_of_scenes_is_limited(make_client):
    client = make_client(key=KeyLimits(stored_scenes=1))
    assert sent(client, parts()).status_code == 201
    assert "1 of at most 1 scenes" in detail(sent(client, parts()), 429)


def test_concurrent_uploads_stay_within_the_quota(make_client, engine):
    client = make_client(key=KeyLimits(rate_per_s=1e6, burst=10**6, stored_scenes=2))
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: sent(client, parts()), range(6)))
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(refused) == 4
    assert all(
        "of at most 2 scenes" in detail(one, 429) or "uploads in progress" in detail(one, 429) for one in refused
    )
    assert is_clean(engine)


def test_a_scene_larger_than_the_remaining_quota_is_refused(make_client, engine):
    scene = sent(make_client(), parts()).json()
    client = make_client(key=KeyLimits(stored_bytes=scene["bytes"] + 500))
    said = f"You store {scene['bytes']} of at most {scene['bytes'] + 500} bytes, and this needs {scene['bytes']} more"
    assert detail(sent(client, parts()), 429) == f"{said}; delete scenes, or wait until jobs expire."
    assert is_clean(engine)


def test_unpacked_bytes_count_before_they_are_written(make_client, engine, monkeypatch):
    """6 MiB that unpack to 1 GiB hold 1 GiB, and nothing of it is on the disk before there is room."""
    client = make_client(upload=UploadLimits(held_bytes=1_000_000))
    archive = zipped({"0.png": png(), "transforms.json": transforms(1) + 600_000 * " "})
    monkeypatch.setattr("sphinx_nvs.server.scenes.archives._extract", lambda *_: pytest.fail("it was unpacked"))
    answer = client.post("/v1/scenes", content=archive, headers={"Content-Type": "application/zip"})
    assert len(archive) < 10_000
    assert re.fullmatch(
        r"Your uploads in progress hold \d+ bytes and need 60\d+ more; wait for one\.", detail(answer, 429)
    )
    assert is_clean(engine)


def test_the_quota_is_checked_again_before_a_scene_is_stored(make_client, engine, monkeypatch):
    client = make_client(key=KeyLimits(stored_scenes=1))

    make = IngestPool.make

    async def made(*given):
        add_scene(engine, "meanwhile")
        return await make(*given)

    monkeypatch.setattr(IngestPool, "make", made)
    assert "1 of at most 1 scenes" in detail(sent(client, parts()), 429)
    assert is_clean(engine)

"""Both clients against a real server: every call, and how its response is read."""

import inspect
import json
import subprocess
import sys

import pytest
from client_fakes import QUICK
from posing_helpers import save, walked
from server_fakes import camera, png, transforms, zipped

import sphinx_nvs.client.calls
from sphinx_nvs.client import ApiError, AsyncClient, Client, JobEndedError, Plan, SceneFailedError, UnreachableError
from sphinx_nvs.errors import InputError

OPTIONS = {"path": "move-forward", "num_frames": 2, "size": (64, 64)}


@pytest.fixture
def capture(tmp_path):
    """A scene's folder with additional files."""
    folder = tmp_path / "capture"
    (folder / "images").mkdir(parents=True)
    frames = [{**camera(index), "file_path": f"images/{index}"} for index in range(3)]
    (folder / "transforms.json").write_text(json.dumps({"w": 96, "h": 64, "frames": frames}))
    (folder / "train_test_split_2.json").write_text(json.dumps({"train_ids": [0, 2], "test_ids": [1]}))
    for index in range(3):
        (folder / "images" / f"{index}.png").write_bytes(png(shade=60 * (index + 1)))
    (folder / "notes.md").write_text("not of the scene")
    (folder / "other.png").write_bytes(png())
    return folder


def test_a_folder_becomes_a_scene(client, capture):
    scene = client.upload_scene(capture)
    assert (scene.num_views, scene.width, scene.height) == (3, 96, 64)
    assert "no common point" in scene.warnings[0]
    assert client.scene(scene) == scene == client.scene(scene.id)
    assert client.upload_scene(capture, split=2).num_views == 2
    assert client.upload_scene(capture, contexts=2).num_views == 2
    assert client.upload_scene(capture, contexts=[1]).num_views == 1
    assert client.upload_scene(capture / "transforms.json").num_views == 3


def test_an_archive_becomes_a_scene(client, tmp_path):
    archive = tmp_path / "scene.zip"
    archive.write_bytes(zipped({"transforms.json": transforms(2), "0.png": png(), "1.png": png(shade=20)}))
    assert client.upload_scene(archive).num_views == 2
    assert client.upload_scene(str(archive), contexts=1).num_views == 1


def test_photos_with_cameras_become_a_scene(client, tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    frames = [camera(0), camera(1)]
    for cameras in (json.loads(transforms(2)), {"w": 96, "h": 64, "frames": frames}):
        assert client.upload_scene(images=[tmp_path / "0.png", png(shade=20)], cameras=cameras).num_views == 2
    (tmp_path / "cameras.json").write_text(transforms(1))
    assert client.upload_scene(images=[png()], cameras=tmp_path / "cameras.json").num_views == 1


def test_a_stored_scenes_cameras_and_photos(client, capture):
    scene = client.upload_scene(capture)
    frames = client.scene_cameras(scene)["frames"]
    assert [(frame["file_path"], frame["w"], frame["h"]) for frame in frames][2] == ("002.png", 96, 64)
    assert client.scene_photo(scene.id, 2).startswith(b"\x89PNG")
    assert client.scene_photo(scene, 2) != client.scene_photo(scene, 0)
    with pytest.raises(ApiError, match="no points"):
        client.scene_points(scene)
    with pytest.raises(ApiError) as refused:
        client.scene_photo(scene, 3)
    assert refused.value.status == 404


def test_invalid_uploads_fail_before_they_are_sent(client, capture, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        client.upload_scene(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no photos"):
        client.upload_scene(tmp_path / "empty")
    with pytest.raises(InputError, match="give one of both"):
        client.upload_scene()
    with pytest.raises(InputError, match=r"not a folder, transforms\.json, zip or video"):
        client.upload_scene(capture / "other.png")
    (capture / "transforms.json").write_text("[1")
    with pytest.raises(InputError, match=r"not a transforms\.json"):
        client.upload_scene(capture)
    assert list(client.scenes()) == []


def test_scenes_are_listed_page_by_page_and_deleted(client, monkeypatch):
    monkeypatch.setattr(sphinx_nvs.client.calls, "PAGE", 2)
    made = [client.upload_scene(images=[png()], cameras=json.loads(transforms(1))).id for _ in range(5)]
    assert sorted(scene.id for scene in client.scenes()) == sorted(made)
    client.delete_scene(made[0])
    assert made[0] not in [scene.id for scene in client.scenes()]
    with pytest.raises(ApiError) as caught:
        client.delete_scene("demo")
    assert caught.value.status == 403


def test_a_quote(client):
    quote = client.quote("demo", **OPTIONS, quality=0.9)
    assert (quote.latency_p50_s, quote.latency_p95_s, quote.wait_s, quote.quality) == (2.0, 3.0, 0.5, 0.9)


def test_a_job_from_its_quote_to_its_files(served, client, engine, tmp_path):
    job = client.create_job("demo", **OPTIONS, fps=12, seed=3, priority=2, deadline_s=20, min_quality=0.5)
    assert (job.status, job.level, job.progress, job.num_frames) == ("queued", "none", 0.0, 2)
    assert (job.fps, job.seed, job.priority, job.quote.quality) == (12.0, 3, 2, 0.9)
    with pytest.raises(ApiError, match="not ready yet") as caught:
        client.frame(job, 0)
    assert (caught.value.status, caught.value.retry_after_s) == (409, 1.0)
    served.do(engine.preview, job.id)
    assert client.frame(job, 1, level="preview").startswith(b"\x89PNG")
    served.do(engine.finish, job.id)
    done = client.job(job.id)
    assert (done.status, done.is_final, done.progress, done.quality) == ("completed", True, 1.0, 0.9)
    assert client.video(done)[4:8] == b"ftyp"
    assert client.plan_image(done, 1).startswith(b"\x89PNG")
    plan = client.plan(done)
    assert isinstance(plan, Plan)
    assert plan.units[0]["targets"] == [0, 1]
    assert len(client.cameras(done)["frames"]) == 2
    files = client.download(done, tmp_path / "result")
    assert [path.name for path in files] == ["000.png", "001.png", "video.mp4", "transforms.json"]
    assert files[0].read_bytes() == client.frame(done, 0) != client.frame(done, 0, level="preview")
    cameras = json.loads(files[-1].read_text())
    assert [frame["file_path"] for frame in cameras["frames"]] == ["frames/000.png", "frames/001.png"]


def test_target_cameras_as_lists_and_files(served, client, engine, tmp_path):
    pose = [[1.0, 0, 0, 0.1], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
    assert client.create_job("demo", cameras=[pose, pose], size="64x64").num_frames == 2
    assert client.create_job("demo", cameras=[{"c2w": pose}], size="64x64").num_frames == 1
    (tmp_path / "path.json").write_text(json.dumps({"frames": [{"c2w": pose}] * 3}))
    job = client.create_job("demo", cameras=tmp_path / "path.json", size="64x64")
    assert job.num_frames == 3
    assert client.create_job("demo", cameras=client.cameras(job), size="64x64").num_frames == 3


def test_jobs_are_listed_and_cancelled(client, monkeypatch):
    monkeypatch.setattr(sphinx_nvs.client.calls, "PAGE", 2)
    made = [client.create_job("demo", **OPTIONS).id for _ in range(3)]
    assert len(set(made)) == 3
    assert sorted(job.id for job in client.jobs()) == sorted(made)
    assert client.cancel(made[0]).status == "cancelled"
    with pytest.raises(JobEndedError, match="it is cancelled") as caught:
        client.wait(made[0])
    assert caught.value.job.id == made[0]


def test_jobs_are_deleted(served, client, engine):
    waiting, done = (client.create_job("demo", **OPTIONS) for _ in range(2))
    served.do(engine.preview, done.id)
    served.do(engine.finish, done.id)
    assert client.cancel(done).status == "completed", "a finished job is not changed"
    for job in (waiting, done):
        client.delete_job(job)
        client.delete_job(job)
    assert list(client.jobs()) == []


def test_the_same_idempotency_key_returns_the_same_job(client):
    jobs = [client.create_job("demo", idempotency_key="mine", **OPTIONS) for _ in range(2)]
    assert jobs[0].id == jobs[1].id
    with pytest.raises(ApiError):
        client.create_job("demo", idempotency_key="mine", **{**OPTIONS, "num_frames": 3})


def test_errors_name_the_field(client):
    with pytest.raises(ApiError, match="width: it is 20 pixels") as caught:
        client.create_job("demo", **{**OPTIONS, "size": (20, 64)})
    error = caught.value
    assert (error.status, error.field, error.type) == (422, "width", "urn:sphinx-nvs:problem:input")
    assert error.errors[0].hint.startswith("give at least 32")
    assert error.title
    assert error.instance.startswith("urn:sphinx-nvs:request:")
    with pytest.raises(ApiError) as caught:
        client.job("job_nowhere")
    assert (caught.value.status, caught.value.field) == (404, None)
    with pytest.raises(InputError, match="colour: there is no such option of a job"):
        client.quote("demo", colour="red")


def test_keys(served, kind, engine):
    _, secret = served.do(lambda: engine.store.add_key("alice", now=1.0))
    with kind(served.url) as anonymous, pytest.raises(ApiError) as caught:
        anonymous.models()
    assert caught.value.status == 401
    with kind(f"{served.url}/v1/", secret) as alice:
        assert alice.models()[0].networks[0].licence == "Apache-2.0"


def test_the_server_itself(client, engine):
    assert client.models()[0].size_multiple == 32
    capacity = client.capacity()
    assert (capacity.devices[0].name, capacity.queued, capacity.slo_attainment) == ("fake", 0, 1.0)
    assert client.health().is_ready
    engine.ready, engine.health = False, "the disk is full"
    health = client.health()
    assert (health.status, health.is_ready, health.detail) == ("degraded", False, "the disk is full")


def test_an_unreachable_server(kind):
    sentence = r"server http://127\.0\.0\.1:9: it cannot be reached"
    with kind("http://127.0.0.1:9", retrying=QUICK) as client, pytest.raises(UnreachableError, match=sentence):
        client.models()
    for address in ("127.0.0.1:8000", "ftp://x", "http://"):
        with pytest.raises(InputError, match="base_url"):
            Client(address)


def test_both_clients_have_the_same_methods():
    """Methods and arguments are the same; only those of the async client are awaited."""

    def shape(kind):
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: list(inspect.signature(method).parameters.values())
            for name, method in methods
            if not name.startswith("_")
        }

    assert shape(Client) == shape(AsyncClient)


def test_the_client_does_not_import_torch():
    program = (
        "import sys, sphinx_nvs.client; sys.exit(bool({'torch', 'numpy', 'pydantic', 'fastapi'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_photos_without_cameras_are_waited_for(client, tmp_path):
    photos = save(tmp_path / "walk", walked(6))
    states = []
    scene = client.upload_scene(photos[0].parent)
    assert (scene.status, scene.num_views) == ("posing", 0)
    ready = client.wait_for_scene(scene, progress=states.append)
    assert (ready.status, ready.num_views, ready.posing) == ("ready", 6, None)
    assert states[0].posing.progress <= states[-2].posing.progress
    assert client.create_job(ready, num_frames=2, size="64x64").scene == scene.id


def test_photos_that_determine_no_cameras_raise(client, tmp_path):
    twins = [path.read_bytes() for path in save(tmp_path, walked(1) * 2)]
    scene = client.upload_scene(images=twins, focal_mm=28.0)
    with pytest.raises(TimeoutError, match="wait longer"):
        client.wait_for_scene(scene, timeout_s=0)
    with pytest.raises(SceneFailedError, match="one place") as failed:
        client.wait_for_scene(scene)
    assert failed.value.scene.status == "failed"

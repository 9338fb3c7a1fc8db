"""Plain photos and videos sent to a server: posed as durable jobs, in processes of their own."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from posing_helpers import SIZE, walked
from server_fakes import zipped

from sphinx_nvs import media
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.scene import read_capture
from sphinx_nvs.server.scenes.posing_jobs import PosingJobs
from sphinx_nvs.server.server_config import UploadLimits

CAPTURES = Path(os.environ.get("SPHINX_CAPTURES_DIR", Path(__file__).parents[2].parent / "shared" / "captures"))
WAIT_S = 120.0

SCRIPT = """
import os, sys
from pathlib import Path
from server_fakes import FakeEngine
from sphinx_nvs.server.server_config import ServerConfig
from sphinx_nvs.server.uvicorn_runner import serve

async def opened():
    return FakeEngine(Path(sys.argv[1]))

config = ServerConfig(port=0, drain_s=0.1, has_demo=False)

def announce(url):
    print(url, flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # The log is not read: a full pipe would stop the server.

serve(opened, config, announce)
"""


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).round().astype(np.uint8)).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def walk():
    return [("images", (f"IMG_{index}.jpg", jpeg(image))) for index, image in enumerate(walked(6))]


def is_clean(engine):
    """Whether there is nothing but the scene that the engine comes with."""
    rows = engine.store.list_scenes()
    return [row.id for row in rows] == ["demo"] and len(list(engine.library.scenes_folder.iterdir())) == 1


def settled(client, scene):
    """The scene once it is no longer posed, and the stages that were seen."""
    stages, end = [], time.monotonic() + WAIT_S
    while scene["status"] == "posing" and time.monotonic() < end:
        stages.append(scene["posing"]["stage"])
        time.sleep(0.2)
        scene = client.get(scene["links"]["self"]).json()
    return scene, stages


def test_photos_without_cameras_become_a_scene(client, engine, walk):
    answer = client.post("/v1/scenes", files=walk)
    assert answer.status_code == 202, answer.text
    scene = answer.json()
    assert (scene["status"], scene["num_views"], scene["reason"]) == ("posing", 0, "")
    early = client.post("/v1/jobs", json={"scene": scene["id"]})
    assert (early.status_code, early.headers["retry-after"]) == (409, "5")
    assert client.get(scene["links"]["cameras"]).status_code == 409
    assert engine.store.usage("anonymous").running_jobs == 1
    scene, stages = settled(client, scene)
    assert scene["status"] == "ready", scene
    assert stages[0] == "waiting"
    assert len(set(stages)) > 2
    assert (scene["num_views"], scene["posing"]) == (6, None)
    assert scene["warnings"][0] == "6 of 6 photos have a camera"
    folder = Path(engine.store.scene(scene["id"]).path)
    kept = {*(f"{i:03d}.png" for i in range(6)), "transforms.json", "points.ply"}
    # What was sent goes right after the scene is ready.
    until = time.monotonic() + WAIT_S
    while (found := {path.name for path in folder.iterdir()}) != kept and time.monotonic() < until:
        time.sleep(0.02)
    assert found == kept
    capture = read_capture(folder)
    assert len(capture) == 6
    assert client.get("/v1/scenes/demo/points.ply").status_code == 404
    points = points_of(client.get(scene["links"]["points"]).content)
    assert len(points) > 50
    seen = capture.cameras(range(6), 1, 1)
    depth = torch.einsum("vij,nj->vni", torch.linalg.inv(seen.c2w.double()), points)[..., 2]
    assert float((depth > 0).double().mean()) > 0.9, "the cameras look at the points"
    assert engine.store.usage("anonymous").running_jobs == 0
    assert client.post("/v1/jobs", json={"scene": scene["id"], "num_frames": 3}).status_code == 202


def points_of(data):
    """Homogeneous points (n 4) of a binary PLY with x, y, z and colours."""
    head, body = data.split(b"end_header\n")
    assert [
        line.split()[-1] for line in head.splitlines() if line.startswith(b"property")
    ] == b"x y z red green blue".split()
    row = np.dtype([("place", "<f4", 3), ("colour", "u1", 3)])
    places = torch.from_numpy(np.frombuffer(body, row)["place"].astype(np.float64))
    return torch.nn.functional.pad(places, (0, 1), value=1.0)


def test_events_are_the_scene_whenever_it_changes(client, walk):
    scene = client.post("/v1/scenes", files=walk[:2]).json()
    with client.stream("GET", scene["links"]["events"]) as stream:
        lines = list(stream.iter_lines())
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    states = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert kinds[-1] == "ready"
    assert set(kinds[:-1]) == {"posing"}
    shares = [state["posing"]["progress"] for state in states[:-1]]
    assert shares == sorted(shares)
    assert states[-1]["num_views"] == 2


def test_photos_are_chosen_by_their_numbers(client, engine, walk):
    scene, _ = settled(client, client.post("/v1/scenes", files=walk, data={"contexts": "0,2,4"}).json())
    assert scene["num_views"] == 3, scene


def test_an_archive_with_a_folder_of_photos(client, walk):
    files = {f"trip/{name}": data for _, (name, data) in walk}
    answer = client.post("/v1/scenes", content=zipped(files), headers={"Content-Type": "application/zip"})
    scene, _ = settled(client, answer.json())
    assert (scene["status"], scene["num_views"]) == ("ready", 6), scene


def test_a_video_is_posed(client, tmp_path):
    frames = np.stack([image.clip(0, 255) for image in walked(24, 0.09)]).astype(np.float32) / 255
    media.write_video(tmp_path / "walk.mp4", torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), fps=8)
    data = (tmp_path / "walk.mp4").read_bytes()
    scene, _ = settled(client, client.post("/v1/scenes", files=[("video", ("walk.mp4", data))]).json())
    assert scene["status"] == "ready", scene
    assert any("frames of the video" in sentence for sentence in scene["warnings"])


def _noise(level, seed):
    return level + np.random.default_rng(seed).normal(0, 3, (*SIZE, 3))


def test_two_twins_and_a_blank_wall_are_refused(client, engine):
    twins = [jpeg(walked(1)[0] + _noise(0, seed)) for seed in (0, 1)]
    wall = [jpeg(_noise(200, seed)) for seed in range(3)]
    for photos, sentence in ((twins, "one place"), (wall, "too little texture")):
        files = [("images", (f"{index}.jpg", photo)) for index, photo in enumerate(photos)]
        scene, _ = settled(client, client.post("/v1/scenes", files=files).json())
        assert scene["status"] == "failed"
        assert sentence in scene["reason"]
        assert "\n" not in scene["reason"]
        refused = client.post("/v1/jobs", json={"scene": scene["id"]})
        assert refused.status_code == 409
        assert sentence in refused.json()["detail"]
        assert list(Path(engine.store.scene(scene["id"]).path).iterdir()) == []
    assert {each["photo"] for each in scene["advice"]} == {"0.jpg", "1.jpg", "2.jpg"}
    assert "give light" in scene["advice"][0]["hint"]


def test_what_cannot_be_posed_is_refused_at_once(client, engine, walk):
    for files, data, sentence in (
        (walk[:1], {}, "there is 1 photo"),
        (walk[:2], {"split": "2"}, "photos without cameras have none"),
        ([("video", ("a.gif", b"x"))], {}, "use one of the suffixes"),
        ([("video", ("a.mp4", b"x")), walk[0]], {}, "send one video, or photos"),
        (walk[:2], {"focal_mm": "26mm"}, "give a number, such as 26"),
        (walk[:2], {"focal_mm": "0.5"}, "phones have about 26"),
    ):
        answer = client.post("/v1/scenes", files=files, data=data)
        assert answer.status_code == 422, answer.text
        assert sentence in answer.json()["detail"]
    assert is_clean(engine)


def test_a_damaged_photo_is_named(client, walk):
    files = [walk[0], ("images", ("torn.jpg", b"\xff\xd8 no photo"))]
    scene, _ = settled(client, client.post("/v1/scenes", files=files).json())
    assert scene["status"] == "failed"
    assert "torn.jpg" in scene["reason"]


def test_a_deleted_scene_is_no_longer_posed(client, engine, walk):
    scene = client.post("/v1/scenes", files=walk).json()
    while client.get(scene["links"]["self"]).json()["posing"]["stage"] == "waiting":
        time.sleep(0.02)
    assert client.delete(scene["links"]["self"]).status_code == 204
    assert client.get(scene["links"]["self"]).status_code == 404
    assert is_clean(engine)
    assert client.app.state.context.posing.progress(scene["id"]) is None
    again, _ = settled(client, client.post("/v1/scenes", files=walk[:2]).json())
    assert again["status"] == "ready", "the place is free"


def test_photos_that_take_an_hour_keep_those_of_no_other_key_waiting(monkeypatch, engine, tmp_path):
    ready = []

    async def finish_posing(row):
        ready.append(row.key_id)
        return row

    async def answer_of(target, work, **limits):
        await asyncio.sleep(3600 if work.folder.name == "dear" else 0)
        made = {"num_views": 2, "width": 64, "height": 64, "bytes": 1, "warnings": []}
        return {"kind": "made", "scene": made}

    async def scene():
        posing = PosingJobs(UploadLimits())
        for key, name in (("a", "dear"), ("a", "next"), ("b", "cheap")):
            row = SceneRow(id=f"{key}-{name}", key_id=key, path=str(tmp_path / name), num_views=0, width=0, height=0)
            posing.start(engine.library, row)
        while not ready:
            await asyncio.sleep(0.01)
        assert ready == ["b"]
        assert posing.progress("a-next") is not None, "a key's scenes wait for each other"
        await posing.close()

    monkeypatch.setattr(engine.library, "finish_posing", finish_posing)
    monkeypatch.setattr("sphinx_nvs.server.scenes.limited_process.answer_of", answer_of)
    asyncio.run(asyncio.wait_for(scene(), 20))


def test_limits_end_a_process(make_client, walk):
    client = make_client(upload=UploadLimits(posing_seconds=0.2))
    scene, _ = settled(client, client.post("/v1/scenes", files=walk).json())
    assert scene["status"] == "failed"
    assert "time than an upload may" in scene["reason"]


@pytest.fixture
def start(tmp_path):
    """Starts servers on one folder; returns the process and a client."""
    started = []

    def begin():
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        here = str(Path(__file__).parent)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=here)
        client = httpx.Client(base_url=process.stdout.readline().strip(), timeout=60)
        started.append((process, client))
        return process, client

    yield begin
    for process, client in started:
        client.close()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_restarted_server_goes_on(start, tmp_path, walk, how, make_client):
    process, client = start()
    scene = client.post("/v1/scenes", files=walk).json()
    stages = tmp_path / "scenes" / scene["id"] / "stages"
    while not list(stages.rglob("features-plain.db")):
        assert client.get(scene["links"]["self"]).json()["status"] == "posing"
        time.sleep(0.02)
    process.send_signal(how)
    process.wait(20)
    assert list(stages.rglob("features-plain.db"))
    client = make_client()
    scene = client.get(scene["links"]["self"]).json()
    assert scene["status"] == "posing"
    scene, _ = settled(client, scene)
    assert (scene["status"], scene["num_views"]) == ("ready", 6), scene


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="captures are not here")
def test_six_photos_of_a_capture(client):
    capture = read_capture(CAPTURES / "llff_fern")
    photos = [capture.views[index].image for index in (0, 4, 8, 11, 15, 19)]
    files = [("images", (photo.name, photo.read_bytes())) for photo in photos]
    scene, _ = settled(client, client.post("/v1/scenes", files=files, data={"focal_mm": "28.8"}).json())
    assert (scene["status"], scene["num_views"]) == ("ready", 6), scene
    assert client.post("/v1/jobs", json={"scene": scene["id"], "num_frames": 3}).status_code == 202

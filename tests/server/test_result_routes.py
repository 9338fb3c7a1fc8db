"""Results of a job: frames, video, plan, cameras."""

import io

import numpy as np
import pytest
from PIL import Image

from sphinx_nvs.geometry.cameras import Cameras

BODY = {"scene": "demo", "path": "move-forward", "num_frames": 3, "size": "64x96"}


@pytest.fixture
def done(client, engine):
    """A job with all its frames."""
    job = client.post("/v1/jobs", json=BODY).json()
    engine.preview(job["id"])
    engine.finish(job["id"])
    return job


def mean(png):
    """Returns the mean of an image's first channel, 0..255."""
    return np.asarray(Image.open(io.BytesIO(png)))[..., 0].mean()


def test_frames_of_both_levels(client, done):
    address = f"/v1/jobs/{done['id']}/frames/2"
    preview, final = client.get(f"{address}?level=preview"), client.get(address)
    assert (mean(preview.content), mean(final.content)) == (51, 204)
    assert Image.open(io.BytesIO(final.content)).size == (64, 96)
    assert final.headers["content-type"] == "image/png"
    assert "immutable" in final.headers["cache-control"]
    again = client.get(address, headers={"If-None-Match": f'W/"x", {final.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == final.headers["etag"]
    assert client.get(address, headers={"If-None-Match": '"x"'}).status_code == 200


def test_missing_frames(client, engine):
    job = client.post("/v1/jobs", json=BODY).json()
    address = f"/v1/jobs/{job['id']}/frames"
    early = client.get(f"{address}/0?level=preview")
    assert (early.status_code, early.headers["retry-after"]) == (409, "1")
    assert early.json()["detail"] == "Frame 0 at level preview is not ready yet."
    assert client.get(f"{address}/3").status_code == 404
    assert client.get(f"{address}/-1").status_code == 422
    assert client.get(f"{address}/0?level=best").status_code == 422
    engine.preview(job["id"])
    assert client.get(f"{address}/0?level=preview").status_code == 200
    client.delete(f"/v1/jobs/{job['id']}")
    late = client.get(f"{address}/0")
    assert late.status_code == 404
    assert late.json()["detail"] == "There is no frame 0 at level final: the job ended as cancelled."


def test_head_returns_the_headers_of_get(client, engine, done):
    root = f"/v1/jobs/{done['id']}"
    files = ("frames/1", "frames/1?level=preview", "content", "plan.png")
    addresses = [f"{root}/{end}" for end in files]
    for address in (*addresses, "/v1/scenes/demo/photos/0", f"/v1/videos/{done['id']}/content"):
        whole, head = client.get(address), client.head(address)
        assert (head.status_code, head.content) == (200, b""), address
        same = ("content-length", "content-type", "cache-control", "etag", "accept-ranges", "x-level")
        assert [head.headers.get(name) for name in same] == [whole.headers.get(name) for name in same]
    assert client.head(f"{root}/frames/1", headers={"If-None-Match": "*"}).status_code == 304
    assert client.head(f"{root}/frames/9").status_code == 404
    assert client.head(f"{root}/events").status_code == 405, "a stream has no HEAD"


def test_a_frame_with_a_missing_file(client, engine, done):
    job = engine.store.units(done["id"])
    engine.artifacts.delete(job[1].result["frames"]["0"])
    answer = client.get(f"/v1/jobs/{done['id']}/frames/0")
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("cannot be made again; create the job again.")


@pytest.mark.parametrize("what", ["frames/0", "frames/0?level=preview", "plan.png", "content"])
def test_a_damaged_file_is_made_again_and_never_sent(client, engine, done, what):
    """Its response says when to retry."""
    first, second = engine.store.units(done["id"])
    named = {"frames/0": second.result["frames"]["0"], "plan.png": second.result["plan"]["file"]}
    digest = {"content": engine.store.job(done["id"]).video, **named}.get(what, first.result["frames"]["0"])
    path = engine.artifacts.path(digest)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    engine.can_repair = True
    answer = client.get(f"/v1/jobs/{done['id']}/{what}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["detail"] == "The file was damaged and is being made again; retry in a moment."
    assert engine.repairs == [done["id"]]
    assert "etag" not in answer.headers


def test_the_video_and_ranges_of_it(client, engine, done):
    address = f"/v1/jobs/{done['id']}/content"
    whole = client.get(address)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["x-level"] == "final"
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(address, headers={"Range": "bytes=4-9"})
    assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert part.headers["content-range"] == f"bytes 4-9/{len(whole.content)}"
    ranges = client.get(address, headers={"Range": "bytes=0-1,5-6"})
    assert ranges.headers["content-type"].startswith("multipart/byteranges")
    stale = client.get(address, headers={"Range": "bytes=4-9", "If-Range": '"other"'})
    assert stale.status_code == 200
    beyond = client.get(address, headers={"Range": "bytes=999999-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-type"] == "application/problem+json"
    assert beyond.headers["content-range"] == f"bytes */{len(whole.content)}"
    assert beyond.json()["status"] == 416
    assert client.get(address, headers={"Range": "lines=1-2"}).status_code == 400
    assert client.get(address, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_a_video_that_is_not_ready(client):
    job = client.post("/v1/jobs", json=BODY).json()
    assert client.get(job["links"]["content"]).status_code == 409


def test_the_plan_as_json_and_as_an_image(client, done):
    plan = client.get(done["links"]["plan"]).json()
    (unit,) = plan["units"]
    assert unit["targets"] == [0, 1, 2]
    assert unit["active_share"] == 0.3
    assert unit["reason"] == "planned from profile.json"
    assert "file" not in unit
    picture = client.get(plan["image"] + "?frame=1")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).height >= 512
    same = client.get(done["links"]["plan"], params={"frame": 1}, headers={"Accept": "image/png"})
    assert same.content == picture.content
    assert client.get(plan["image"] + "?frame=3").status_code == 404


def test_a_plan_that_is_not_ready(client):
    job = client.post("/v1/jobs", json=BODY).json()
    assert client.get(job["links"]["plan"]).json()["units"] == []
    assert client.get(f"{job['links']['plan']}.png").status_code == 409


def test_cameras_are_a_transforms_json(client, engine, done, tmp_path):
    from sphinx_nvs.scene.camera_files import read_targets

    (tmp_path / "transforms.json").write_text(client.get(done["links"]["cameras"]).text)
    read = read_targets(tmp_path / "transforms.json").cameras
    spec = engine.store.job(done["id"]).spec
    requested = Cameras(read.c2w.new_tensor(spec.c2w), read.K.new_tensor(spec.K), spec.height, spec.width)
    assert (read.height, read.width) == (96, 64)
    assert (read.c2w - requested.c2w).abs().max() < 1e-12
    assert (read.K - requested.K).abs().max() < 1e-12

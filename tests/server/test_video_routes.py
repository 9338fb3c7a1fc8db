"""`/v1/videos`: jobs in the terms of OpenAI's video API."""

import json

import pytest

EXTRA = {"scene": "demo", "path": "orbit", "quality": 0.8, "deadline_s": 60}


def created(client, **options):
    answer = client.post("/v1/videos", **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_request_of_the_sdk(client, engine):
    body = {"model": "sora-2", "prompt": "", "size": "64x96", "seconds": "2", **EXTRA}
    video = created(client, json=body)
    assert (video["object"], video["status"], video["progress"]) == ("video", "queued", 0)
    assert (video["model"], video["size"], video["seconds"]) == ("embedded", "64x96", "2")
    assert isinstance(video["created_at"], int)
    assert video["error"] is None
    spec = engine.store.job(video["id"]).spec
    assert (spec.num_views, spec.quality, spec.deadline_s) == (48, 0.8, 60.0)


@pytest.mark.parametrize("field", ["extra_body", "extra_params", "metadata"])
@pytest.mark.parametrize("encode", [json.dumps, dict])
def test_fields_of_jobs_in_nested_objects(client, engine, field, encode):
    video = created(client, json={"prompt": "x", field: encode(EXTRA)})
    assert engine.store.job(video["id"]).spec.quality == 0.8


def test_a_request_of_a_load_generator(client, engine):
    form = {"prompt": "a room", "width": "64", "height": "96", "num_frames": "5", "fps": "10", "seed": "3"}
    form |= {"num_inference_steps": "20", "guidance_scale": "1.0", "negative_prompt": "", "quality": "standard"}
    video = created(client, data=form, files={"path": (None, '{"name": "roll"}')})
    spec = engine.store.job(video["id"]).spec
    assert (spec.width, spec.height, spec.num_views, spec.fps, spec.seed) == (64, 96, 5, 10.0, 3)
    assert video["seconds"] == "0.5"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"size": "big"}, "size"),
        ({"seconds": "long"}, "seconds"),
        ({"seconds": "1e999"}, "seconds"),
        ({"metadata": "{"}, "metadata"),
        ({"extra_body": 3}, "extra_body"),
        ({"cameras": "[]"}, "cameras"),
        ({"size": "20x64"}, "width"),
        ({"extra_body": {"path": {"name": "orbit", "zoom_factor": 0}}}, "path.zoom_factor"),
        ({"extra_body": {"path": "orbit", "quality": 0.1, "min_quality": 0.2}}, "body"),
    ],
)
def test_errors_have_both_formats(client, body, where):
    answer = client.post("/v1/videos", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["errors"][0]["where"].startswith(where)
    assert problem["error"]["type"] == "invalid_request_error"
    assert problem["error"]["message"] == problem["detail"]


@pytest.mark.parametrize("nested", [None, "extra_body", "extra_params"])
def test_unknown_fields_are_refused_by_name(client, engine, nested):
    body = {"qualty": 0.9} if nested is None else {nested: {"qualty": 0.9}}
    answer = client.post("/v1/videos", json={"size": "64x64", **body})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"where": "qualty", "found": "there is no such field", "hint": "remove it or correct its name"}
    ]
    assert engine.store.list_jobs() == []


def test_fields_without_a_meaning_are_ignored_and_reported(client, engine):
    body = {"size": "64x64", "prompt": "a room", "model": "sora-2", "quality": "hd", "guidance_scale": 3, "user": "me"}
    video = created(client, json={**body, "metadata": {"order": "7", "seed": 5}})
    assert [warning.partition(":")[0] for warning in video["warnings"]] == [
        "guidance_scale",
        "user",
        "metadata.order",
        "prompt",
        "model",
        "quality",
    ]
    assert engine.store.job(video["id"]).spec.seed == 5
    plain = created(client, json={"size": "64x64", "model": "embedded", "quality": "0.8"})
    assert (plain["warnings"], engine.store.job(plain["id"]).spec.quality) == ([], 0.8)


@pytest.mark.parametrize("quality", ["good", "1.5", [1]])
def test_invalid_qualities_are_refused(client, quality):
    answer = client.post("/v1/videos", json={"size": "64x64", "quality": quality})
    assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, "quality")


def test_width_needs_height(client):
    answer = client.post("/v1/videos", json={"width": 64})
    assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, "width")


def test_other_bodies(client):
    assert client.post("/v1/videos", content="x").status_code == 415
    assert client.post("/v1/videos", json=[]).status_code == 422
    assert client.post("/v1/videos", content="{", headers={"Content-Type": "application/json"}).status_code == 400
    photo = client.post("/v1/videos", files={"input_reference": ("a.png", b"x")}, data={"prompt": "x"})
    assert "a file without a camera" in photo.json()["error"]["message"]


def test_states_are_translated(client, engine):
    video = created(client, json={"size": "64x64", "num_frames": 2})
    address = f"/v1/videos/{video['id']}"
    assert client.get(f"{address}/content").status_code == 409
    assert client.get(f"{address}/content?variant=thumbnail").status_code == 409
    engine.preview(video["id"])
    seen = client.get(address).json()
    assert (seen["status"], seen["progress"]) == ("in_progress", 10)
    assert client.get(f"{address}/content?variant=thumbnail").headers["content-type"] == "image/png"
    assert client.get(f"{address}/content").status_code == 409
    engine.finish(video["id"])
    seen = client.get(address).json()
    assert (seen["status"], seen["progress"]) == ("completed", 100)
    assert client.get(f"{address}/content").headers["content-type"] == "video/mp4"
    deleted = client.delete(address).json()
    assert deleted == {"id": video["id"], "object": "video.deleted", "deleted": True}
    assert client.get(address).status_code == client.delete(address).status_code == 404


def test_other_final_states_are_failures(client, engine):
    video = created(client, json={"size": "64x64", "num_frames": 2})
    assert client.delete(f"/v1/videos/{video['id']}").json()["deleted"] is True
    seen = client.get(f"/v1/videos/{video['id']}").json()
    assert (seen["status"], seen["error"]["code"]) == ("failed", "cancelled")
    assert client.get(f"/v1/videos/{video['id']}/content").status_code == 404
    assert client.get("/v1/videos/video_none").json()["error"]["type"] == "not_found_error"


def test_lists(client):
    ids = [created(client, json={"size": "64x64", "num_frames": 2, "seed": seed})["id"] for seed in range(3)][::-1]
    page = client.get("/v1/videos?limit=2").json()
    assert [video["id"] for video in page["data"]] == ids[:2]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[1], True)
    page = client.get(f"/v1/videos?after={page['last_id']}").json()
    assert ([video["id"] for video in page["data"]], page["has_more"]) == (ids[2:], False)

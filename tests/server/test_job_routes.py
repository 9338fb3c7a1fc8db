"""`/v1/jobs`: quotes, creation, lists, cancellation."""

import json
import os

import pytest
from server_fakes import add_scene

BODY = {"scene": "demo", "path": "move-forward", "num_frames": 3, "size": "64x64"}
POSE = [[1, 0, 0, 0.05], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def created(client, *, key=None, **fields):
    """Creates a job."""
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = client.post("/v1/jobs", json={**BODY, **fields}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def places(answer):
    """Returns the invalid fields that a problem names."""
    return [error["where"] for error in answer.json()["errors"]]


def test_a_job_is_accepted_with_a_quote_and_links(client):
    answer = client.post("/v1/jobs", json={**BODY, "quality": 0.9, "min_quality": 0.5, "seed": 7, "priority": 2})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert job["status"] == "queued"
    assert job["level"] == "none"
    assert job["progress"] == 0
    assert (job["num_frames"], job["width"], job["height"]) == (3, 64, 64)
    assert job["requested"] == {"quality": 0.9, "deadline_s": None, "min_quality": 0.5}
    assert job["quote"]["latency_s"] == {"p50": 2.0, "p95": 3.0}
    assert (job["seed"], job["priority"]) == (7, 2)


def test_a_quote_creates_no_job(client, engine):
    answer = client.post("/v1/jobs:quote", json=BODY)
    assert answer.status_code == 200
    assert answer.json()["wait_s"] == 0.5
    assert engine.store.list_jobs() == []


def test_omitted_fields_have_defaults(client, engine):
    job = created(client, size=None, path=None, num_frames=None)
    assert job["num_frames"] == 24
    assert (job["width"], job["height"]) == (384, 256), "the photos' shape, short side 256"


def test_poses_of_both_conventions_give_the_same_cameras(client, engine):
    opengl = [[1, 0, 0, 0.05], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]
    specs = []
    for frame in ({"c2w": POSE}, {"transform_matrix": opengl}):
        job = created(client, path=None, num_frames=None, cameras={"frames": [frame]})
        specs.append(engine.store.job(job["id"]).spec)
    assert specs[0].c2w == specs[1].c2w == (tuple(map(tuple, POSE)),)


def test_intrinsics_are_scaled_to_the_frames(client, engine):
    cameras = {"w": 128, "h": 128, "fl_x": 100, "frames": [{"c2w": POSE}, {"c2w": POSE, "fl_x": 200, "cx": 32}]}
    job = created(client, path=None, num_frames=None, cameras=cameras)
    first, second = engine.store.job(job["id"]).spec.K
    assert first == ((50.0, 0.0, 32.0), (0.0, 50.0, 32.0), (0.0, 0.0, 1.0))
    assert second == ((100.0, 0.0, 16.0), (0.0, 100.0, 32.0), (0.0, 0.0, 1.0))


def test_a_jobs_cameras_can_be_sent_as_a_new_request(client, engine):
    first = created(client)
    cameras = client.get(first["links"]["cameras"]).json()
    again = created(client, path=None, num_frames=None, cameras=cameras)
    old, new = (engine.store.job(job["id"]).spec for job in (first, again))
    assert json.dumps(new.c2w) == json.dumps(old.c2w)
    assert new.K == old.K


def test_num_frames_selects_cameras_evenly(client, engine):
    frames = [{"c2w": [[1, 0, 0, x], *POSE[1:]]} for x in range(5)]
    job = created(client, path=None, num_frames=3, cameras={"frames": frames})
    assert [pose[0][3] for pose in engine.store.job(job["id"]).spec.c2w] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("name", ["interpolate", "orbit", "spiral", "dolly-zoom-in", "roll", "spiral-through"])
def test_named_paths(client, name):
    assert created(client, path=name, num_frames=4)["num_frames"] == 4


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("path", "nonsense", ["path"]),
        ("path", {"name": "orbit", "median_depth": -1}, ["path.median_depth"]),
        ("size", "a lot", ["size"]),
        ("size", {"width": 0, "height": 64}, ["size.width"]),
        ("path", 7, ["path"]),
    ],
)
def test_a_field_of_two_types_is_reported_once(client, field, value, where):
    problem = client.post("/v1/jobs", json={**BODY, field: value}).json()
    assert [error["where"] for error in problem["errors"]][:1] == where
    assert len(problem["errors"]) == (2 if value == 7 else 1)


def test_parameters_of_paths(client, engine):
    near, far = (
        engine.store.job(created(client, path={"name": "move-left", "median_depth": depth})["id"]).spec
        for depth in (1.0, 10.0)
    )
    assert far.c2w[-1][0][3] == pytest.approx(10 * near.c2w[-1][0][3])
    assert created(client, path={"name": "zoom-in", "zoom_factor": 0.5})
    assert created(client, path={"name": "orbit", "look_at": [0, 0, 2]})


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"quality": 1.5}, "quality"),
        ({"quality": "high"}, "quality"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"fps": 0}, "fps"),
        ({"seed": -1}, "seed"),
        ({"priority": 11}, "priority"),
        ({"size": "big"}, "size"),
        ({"num_frames": 0}, "num_frames"),
        ({"colour": "red"}, "colour"),
        ({"path": {"name": "zigzag"}}, "path.name"),
        ({"scene": "../demo"}, "scene"),
        ({"cameras": {"frames": []}, "path": None}, "cameras.frames"),
        ({"size": "20x64"}, "width"),
        ({"num_frames": 5000}, "num_frames"),
        ({"path": "interpolate", "num_frames": 1}, "path interpolate"),
        ({"path": None, "cameras": {"frames": [{"c2w": [[0, 0, 0, 0]] * 4}]}, "num_frames": None}, "cameras.frames.0"),
    ],
)
def test_invalid_fields_are_named(client, engine, fields, where):
    answer = client.post("/v1/jobs", json={**BODY, **fields})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert any(place.startswith(where) for place in places(answer)), places(answer)
    assert engine.store.list_jobs() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"cameras": {"frames": [{"c2w": POSE}]}},
        {"quality": 0.5, "min_quality": 0.6},
        {"path": {"name": "orbit", "zoom_factor": 2}},
        {"path": {"name": "interpolate", "look_at": [0, 0, 1]}},
        {"path": {"name": "orbit", "spiral_radii": [1, 1, 1]}},
        {"path": None, "cameras": {"frames": [{}]}},
        {"path": None, "cameras": {"frames": [{"c2w": POSE}], "w": 64}},
        {"path": None, "cameras": {"frames": [{"c2w": POSE}], "fl_x": 64}},
    ],
)
def test_contradictory_fields_are_refused(client, fields):
    answer = client.post("/v1/jobs", json={**BODY, **fields})
    assert answer.status_code == 422
    assert "its fields contradict each other; " in answer.json()["detail"]


def test_intrinsics_need_their_image_size(client):
    cameras = {"frames": [{"c2w": POSE, "fl_x": 64}]}
    answer = client.post("/v1/jobs", json={**BODY, "path": None, "cameras": cameras})
    assert answer.status_code == 422
    assert "w and h are missing" in answer.json()["detail"]


def test_an_unknown_scene_is_not_found(client):
    answer = client.post("/v1/jobs", json={**BODY, "scene": "scene_of_nobody"})
    assert answer.status_code == 404
    assert "POST /v1/scenes" in answer.json()["detail"]


def test_the_body_must_be_json(client):
    assert client.post("/v1/jobs", content="scene=demo").status_code == 415
    broken = client.post("/v1/jobs", content='{"scene": ', headers={"Content-Type": "application/json"})
    assert broken.status_code == 400
    assert "JSON" in broken.json()["detail"]
    deep = client.post("/v1/jobs", content="[" * 100_000, headers={"Content-Type": "application/json"})
    assert deep.status_code == 400


def test_one_idempotency_key_is_one_job(client):
    headers = {"Idempotency-Key": "again"}
    first, second = (client.post("/v1/jobs", json=BODY, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    other = client.post("/v1/jobs", json={**BODY, "seed": 9}, headers=headers)
    assert other.status_code == 422
    assert places(other) == ["idempotency_key"]
    assert client.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "no spaces"}).status_code == 422


def test_a_full_queue_sends_retry_after(client, engine):
    engine.refuse(429, 2.5)
    answer = client.post("/v1/jobs", json=BODY)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    engine.refuse(503, 0.1)
    answer = client.post("/v1/jobs", json=BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_jobs_are_listed_newest_first_in_pages(client):
    ids = [created(client, seed=seed)["id"] for seed in range(5)][::-1]
    page = client.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in page["data"]] == ids[:2]
    assert page["has_more"]
    page = client.get(page["next"]).json()
    assert [job["id"] for job in page["data"]] == ids[2:4]
    page = client.get(page["next"]).json()
    assert [job["id"] for job in page["data"]] == ids[4:]
    assert page["next"] is None
    assert client.get("/v1/jobs?after=job_none").status_code == 404
    assert client.get("/v1/jobs?limit=0").status_code == 422


def test_a_job_reports_its_progress(client, engine):
    job = created(client)
    engine.preview(job["id"])
    seen = client.get(job["links"]["self"]).json()
    assert (seen["status"], seen["level"], seen["progress"]) == ("previewed", "preview", 0.1)
    engine.finish(job["id"])
    seen = client.get(job["links"]["self"]).json()
    assert (seen["status"], seen["level"], seen["progress"]) == ("completed", "final", 1.0)
    assert seen["finished_at"].endswith("Z")


def test_delete_cancels_an_unfinished_job_and_deletes_a_finished_one(client, engine):
    address = created(client)["links"]["self"]
    for _ in range(2):
        answer = client.delete(address)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert client.get(address).status_code == client.delete(address).status_code == 404


def test_a_completed_job_is_deleted_with_its_files(client, engine):
    job = created(client, key="r1")
    engine.preview(job["id"])
    engine.finish(job["id"])
    files = [path for path in (engine.config.folder / "artifacts").rglob("*") if path.is_file()]
    assert len(files) == 4, "a preview, a frame, a plan and a video"
    for path in files:
        os.utime(path, (engine.now - 100, engine.now - 100))
    gone = client.delete(job["links"]["self"]).json()
    assert (gone["status"], gone["level"], gone["progress"]) == ("completed", "final", 1.0)
    assert [path for path in files if path.exists()] == []
    for address in ("", "/events", "/plan", "/frames/0", "/content", "/cameras"):
        assert client.get(f"{job['links']['self']}{address}").status_code == 404
    assert client.get("/v1/jobs").json()["data"] == []
    assert created(client, key="r1")["id"] != job["id"]


def test_a_job_that_completes_while_it_is_cancelled_is_kept(client, engine, monkeypatch):
    job = created(client)
    engine.preview(job["id"])

    async def too_late(job_id):
        engine.finish(job_id)
        return engine.store.job(job_id)

    monkeypatch.setattr(engine, "cancel", too_late)
    assert client.delete(job["links"]["self"]).json()["status"] == "completed"
    assert client.get(job["links"]["self"]).json()["status"] == "completed"


def test_unknown_jobs_are_not_found(client):
    for address in ("", "/events", "/plan", "/plan.png", "/frames/0", "/content", "/cameras"):
        assert client.get(f"/v1/jobs/job_none{address}").status_code == 404
    assert client.delete("/v1/jobs/job_none").status_code == 404
    assert client.get("/v1/jobs/no%20id").status_code == 422


def test_reasons_contain_no_paths_of_the_server(client, engine):
    job = created(client)
    engine.fail(job["id"], "photo /var/lib/sphinx/scenes/scene_1/000.png: it is damaged; send it again")
    assert client.get(job["links"]["self"]).json()["reason"] == "photo 000.png: it is damaged; send it again"


def test_a_new_job_postpones_its_scenes_expiry(client, engine):
    add_scene(engine, "mine")
    engine.store.touch_scene("mine", None)
    created(client, scene="mine")
    assert engine.store.scene("mine") is not None

"""Asking for views: quotes, jobs, lists, cancelling."""

import json
import os

import pytest
from server_fakes import add_scene

WISH = {"scene": "demo", "path": "move-forward", "num_frames": 3, "size": "64x64"}
POSE = [[1, 0, 0, 0.05], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def asked(client, *, key=None, **fields):
    """A view that was accepted."""
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = client.post("/v1/views", json={**WISH, **fields}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def places(answer):
    """Where a problem says that something is wrong."""
    return [error["where"] for error in answer.json()["errors"]]


def test_a_view_is_accepted_with_a_quote_and_links(client):
    answer = client.post("/v1/views", json={**WISH, "quality": 0.9, "min_quality": 0.5, "seed": 7, "priority": 2})
    assert answer.status_code == 202
    view = answer.json()
    assert answer.headers["location"] == f"/v1/views/{view['id']}" == view["links"]["self"]
    assert view["status"] == "queued"
    assert view["level"] == "none"
    assert view["progress"] == 0
    assert (view["num_frames"], view["width"], view["height"]) == (3, 64, 64)
    assert view["asked"] == {"quality": 0.9, "deadline_s": None, "min_quality": 0.5}
    assert view["quote"]["latency_s"] == {"p50": 2.0, "p95": 3.0}
    assert (view["seed"], view["priority"]) == (7, 2)


def test_a_quote_takes_nothing_on(client, engine):
    answer = client.post("/v1/views:quote", json=WISH)
    assert answer.status_code == 200
    assert answer.json()["wait_s"] == 0.5
    assert engine.store.list_jobs() == []


def test_left_out_fields_have_sensible_values(client, engine):
    view = asked(client, size=None, path=None, num_frames=None)
    assert view["num_frames"] == 24
    assert (view["width"], view["height"]) == (384, 256), "the photos' shape, short side 256"


def test_cameras_one_by_one_in_both_conventions_are_the_same(client, engine):
    opengl = [[1, 0, 0, 0.05], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]
    specs = []
    for frame in ({"c2w": POSE}, {"transform_matrix": opengl}):
        view = asked(client, path=None, num_frames=None, cameras={"frames": [frame]})
        specs.append(engine.store.job(view["id"]).spec)
    assert specs[0].c2w == specs[1].c2w == (tuple(map(tuple, POSE)),)


def test_intrinsics_are_scaled_to_the_frames(client, engine):
    cameras = {"w": 128, "h": 128, "fl_x": 100, "frames": [{"c2w": POSE}, {"c2w": POSE, "fl_x": 200, "cx": 32}]}
    view = asked(client, path=None, num_frames=None, cameras=cameras)
    first, second = engine.store.job(view["id"]).spec.K
    assert first == ((50.0, 0.0, 32.0), (0.0, 50.0, 32.0), (0.0, 0.0, 1.0))
    assert second == ((100.0, 0.0, 16.0), (0.0, 100.0, 32.0), (0.0, 0.0, 1.0))


def test_cameras_of_a_view_can_be_asked_for_again(client, engine):
    first = asked(client)
    cameras = client.get(first["links"]["cameras"]).json()
    again = asked(client, path=None, num_frames=None, cameras=cameras)
    old, new = (engine.store.job(view["id"]).spec for view in (first, again))
    assert json.dumps(new.c2w) == json.dumps(old.c2w)
    assert new.K == old.K


def test_so_many_of_the_cameras_are_taken(client, engine):
    frames = [{"c2w": [[1, 0, 0, x], *POSE[1:]]} for x in range(5)]
    view = asked(client, path=None, num_frames=3, cameras={"frames": frames})
    assert [pose[0][3] for pose in engine.store.job(view["id"]).spec.c2w] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("name", ["interpolate", "orbit", "spiral", "dolly-zoom-in", "roll", "spiral-through"])
def test_paths_by_name(client, name):
    assert asked(client, path=name, num_frames=4)["num_frames"] == 4


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
def test_what_may_be_of_two_kinds_is_told_of_once(client, field, value, where):
    problem = client.post("/v1/views", json={**WISH, field: value}).json()
    assert [error["where"] for error in problem["errors"]][:1] == where
    assert len(problem["errors"]) == (2 if value == 7 else 1)


def test_a_path_takes_its_parameters(client, engine):
    near, far = (
        engine.store.job(asked(client, path={"name": "move-left", "median_depth": depth})["id"]).spec
        for depth in (1.0, 10.0)
    )
    assert far.c2w[-1][0][3] == pytest.approx(10 * near.c2w[-1][0][3])
    assert asked(client, path={"name": "zoom-in", "zoom_factor": 0.5})
    assert asked(client, path={"name": "orbit", "look_at": [0, 0, 2]})


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
        ({"size": "100x64"}, "width"),
        ({"num_frames": 5000}, "num_frames"),
        ({"path": "interpolate", "num_frames": 1}, "path interpolate"),
        (
            {"path": None, "cameras": {"frames": [{"c2w": [[0, 0, 0, 0]] * 4}]}, "num_frames": None},
            "frame 0 of cameras",
        ),
    ],
)
def test_mistakes_are_named(client, engine, fields, where):
    answer = client.post("/v1/views", json={**WISH, **fields})
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
def test_what_does_not_go_together_is_refused(client, fields):
    answer = client.post("/v1/views", json={**WISH, **fields})
    assert answer.status_code == 422
    assert "its fields contradict each other; " in answer.json()["detail"]


def test_intrinsics_need_the_size_that_they_are_for(client):
    cameras = {"frames": [{"c2w": POSE, "fl_x": 64}]}
    answer = client.post("/v1/views", json={**WISH, "path": None, "cameras": cameras})
    assert answer.status_code == 422
    assert "w and h are missing" in answer.json()["detail"]


def test_an_unknown_scene_is_not_found(client):
    answer = client.post("/v1/views", json={**WISH, "scene": "scene_of_nobody"})
    assert answer.status_code == 404
    assert "POST /v1/scenes" in answer.json()["detail"]


def test_the_body_has_to_be_json(client):
    assert client.post("/v1/views", content="scene=demo").status_code == 415
    broken = client.post("/v1/views", content='{"scene": ', headers={"Content-Type": "application/json"})
    assert broken.status_code == 400
    assert "JSON" in broken.json()["detail"]
    deep = client.post("/v1/views", content="[" * 100_000, headers={"Content-Type": "application/json"})
    assert deep.status_code == 400


def test_one_idempotency_key_is_one_view(client):
    headers = {"Idempotency-Key": "again"}
    first, second = (client.post("/v1/views", json=WISH, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    other = client.post("/v1/views", json={**WISH, "seed": 9}, headers=headers)
    assert other.status_code == 422
    assert places(other) == ["idempotency_key"]
    assert client.post("/v1/views", json=WISH, headers={"Idempotency-Key": "no spaces"}).status_code == 422


def test_a_full_queue_says_when_to_come_again(client, engine):
    engine.refuse(429, 2.5)
    answer = client.post("/v1/views", json=WISH)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    engine.refuse(503, 0.1)
    answer = client.post("/v1/views", json=WISH)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_views_are_listed_newest_first_in_pages(client):
    ids = [asked(client, seed=seed)["id"] for seed in range(5)][::-1]
    page = client.get("/v1/views?limit=2").json()
    assert [view["id"] for view in page["data"]] == ids[:2]
    assert page["has_more"]
    page = client.get(page["next"]).json()
    assert [view["id"] for view in page["data"]] == ids[2:4]
    page = client.get(page["next"]).json()
    assert [view["id"] for view in page["data"]] == ids[4:]
    assert page["next"] is None
    assert client.get("/v1/views?after=nobody").status_code == 404
    assert client.get("/v1/views?limit=0").status_code == 422


def test_a_view_tells_how_far_it_is(client, engine):
    view = asked(client)
    engine.preview(view["id"])
    seen = client.get(view["links"]["self"]).json()
    assert (seen["status"], seen["level"], seen["progress"]) == ("previewed", "preview", 0.1)
    engine.finish(view["id"])
    seen = client.get(view["links"]["self"]).json()
    assert (seen["status"], seen["level"], seen["progress"]) == ("completed", "final", 1.0)
    assert seen["finished_at"].endswith("Z")


def test_deleting_ends_a_view_and_removes_one_that_has_ended(client, engine):
    address = asked(client)["links"]["self"]
    for _ in range(2):
        answer = client.delete(address)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert client.get(address).status_code == client.delete(address).status_code == 404


def test_a_completed_view_is_removed_with_its_files(client, engine):
    view = asked(client, key="r1")
    engine.preview(view["id"])
    engine.finish(view["id"])
    files = [path for path in (engine.config.folder / "artifacts").rglob("*") if path.is_file()]
    assert len(files) == 4, "a preview, a frame, a plan and a video"
    for path in files:
        os.utime(path, (engine.now - 100, engine.now - 100))
    gone = client.delete(view["links"]["self"]).json()
    assert (gone["status"], gone["level"], gone["progress"]) == ("completed", "final", 1.0)
    assert [path for path in files if path.exists()] == []
    for address in ("", "/events", "/plan", "/frames/0", "/content", "/cameras"):
        assert client.get(f"{view['links']['self']}{address}").status_code == 404
    assert client.get("/v1/views").json()["data"] == []
    assert asked(client, key="r1")["id"] != view["id"]


def test_a_view_that_ends_while_it_is_cancelled_stays(client, engine, monkeypatch):
    view = asked(client)
    engine.preview(view["id"])

    async def too_late(job_id):
        engine.finish(job_id)
        return engine.store.job(job_id)

    monkeypatch.setattr(engine, "cancel", too_late)
    assert client.delete(view["links"]["self"]).json()["status"] == "completed"
    assert client.get(view["links"]["self"]).json()["status"] == "completed"


def test_unknown_views_are_not_found(client):
    for address in ("", "/events", "/plan", "/plan.png", "/frames/0", "/content", "/cameras"):
        assert client.get(f"/v1/views/job_none{address}").status_code == 404
    assert client.delete("/v1/views/job_none").status_code == 404
    assert client.get("/v1/views/no%20id").status_code == 422


def test_reasons_name_no_place_on_the_servers_disk(client, engine):
    view = asked(client)
    engine.fail(view["id"], "photo /var/lib/sphinx/scenes/scene_1/000.png: it is damaged; send it again")
    assert client.get(view["links"]["self"]).json()["reason"] == "photo 000.png: it is damaged; send it again"


def test_using_a_scene_keeps_it(client, engine):
    add_scene(engine, "mine")
    engine.store.touch_scene("mine", None)
    asked(client, scene="mine")
    assert engine.store.scene("mine") is not None

"""Keys: who may ask, and who sees what."""

import pytest
from server_fakes import parts

from sphinx_nvs.server.server_config import KeyLimits

WISH = {"scene": "demo", "num_frames": 2, "size": "64x64"}


@pytest.fixture
def keys(engine):
    """Two keys' headers."""
    secrets = [engine.store.add_key(name, now=engine.now)[1] for name in ("ada", "bob")]
    return [{"Authorization": f"Bearer {secret}"} for secret in secrets]


def test_on_loopback_nobody_needs_a_key_until_there_is_one(make_client, engine):
    assert make_client().get("/v1/jobs").status_code == 200
    engine.store.add_key("ada", now=engine.now)
    answer = make_client().get("/v1/jobs")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("placeholder", ["none", "EMPTY", "sk-1234"])
def test_a_placeholder_is_no_key_where_none_is_needed(make_client, engine, placeholder):
    headers = {"Authorization": f"Bearer {placeholder}"}
    job = make_client().post("/v1/jobs", json=WISH, headers=headers)
    assert (job.status_code, engine.store.job(job.json()["id"]).key_id) == (202, "anonymous")
    assert make_client(require_keys=True).get("/v1/jobs", headers=headers).status_code == 401
    engine.store.add_key("ada", now=engine.now)
    assert make_client().get("/v1/jobs", headers=headers).status_code == 401


def test_revoking_the_last_key_does_not_open_the_server(make_client, engine):
    row, _ = engine.store.add_key("ada", now=engine.now)
    engine.store.revoke_key(row.id, now=engine.now)
    assert make_client().get("/v1/jobs").status_code == 401
    assert make_client(require_keys=False).get("/v1/jobs").status_code == 200, "as --keys none says"


def test_from_outside_everybody_needs_one(make_client):
    assert make_client(host="0.0.0.0").get("/v1/jobs").status_code == 401
    assert make_client(host="0.0.0.0", require_keys=False).get("/v1/jobs").status_code == 200
    assert make_client(require_keys=True).get("/v1/jobs").status_code == 401


def test_probes_need_none(make_client):
    client = make_client(require_keys=True)
    for address in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert client.get(address).status_code == 200


@pytest.mark.parametrize("value", ["Bearer snvs_nonsense", "Bearer", "Basic YTpi", "Bearer snvs_\xe9", "snvs_x"])
def test_keys_that_do_not_hold(client, value):
    assert client.get("/v1/jobs", headers={"Authorization": value.encode("latin-1")}).status_code == 401


def test_a_revoked_key_does_not_hold(client, engine):
    row, secret = engine.store.add_key("ada", now=engine.now)
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    engine.store.revoke_key(row.id, now=engine.now)
    assert client.get("/v1/jobs", headers=headers).status_code == 401


def test_each_sees_only_what_is_its_own(client, engine, keys):
    ada, bob = keys
    scene = client.post("/v1/scenes", files=parts(), headers=ada).json()
    view = client.post("/v1/jobs", json={**WISH, "scene": scene["id"]}, headers=ada).json()
    engine.preview(view["id"])
    engine.finish(view["id"])
    root = view["links"]["self"]
    addresses = [root, *(f"{root}/{end}" for end in ("events", "plan", "plan.png", "frames/0", "content", "cameras"))]
    addresses += [scene["links"]["self"], scene["links"]["cameras"], f"/v1/scenes/{scene['id']}/photos/0"]
    addresses += [f"/v1/videos/{view['id']}", f"/v1/videos/{view['id']}/content"]
    for address in addresses:
        assert client.get(address, headers=ada).status_code == 200, address
        assert client.get(address, headers=bob).status_code == 404, address
    for address in (root, scene["links"]["self"], f"/v1/videos/{view['id']}"):
        assert client.delete(address, headers=bob).status_code == 404
    for address in ("/v1/jobs", "/v1/scenes", "/v1/videos"):
        assert len(client.get(address, headers=ada).json()["data"]) == 1
        assert client.get(address, headers=bob).json()["data"] == []
    assert client.get(f"/v1/jobs?after={view['id']}", headers=bob).status_code == 404
    assert client.get(f"/v1/scenes?after={scene['id']}", headers=bob).status_code == 404
    assert client.post("/v1/jobs", json={**WISH, "scene": scene["id"]}, headers=bob).status_code == 404


def test_one_idempotency_key_of_two_keys_is_two_views(client, keys):
    ids = {client.post("/v1/jobs", json=WISH, headers={**key, "Idempotency-Key": "one"}).json()["id"] for key in keys}
    assert len(ids) == 2


def test_a_keys_own_limits_go_first(make_client, engine):
    _, secret = engine.store.add_key("ada", now=engine.now, limits={"running_jobs": 1, "rate_per_s": "many"})
    client = make_client(key=KeyLimits(running_jobs=5))
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.post("/v1/jobs", json=WISH, headers=headers).status_code == 202
    answer = client.post("/v1/jobs", json=WISH, headers=headers)
    assert answer.status_code == 429
    assert "1 unfinished jobs of at most 1" in answer.json()["detail"]


def test_a_repeated_request_is_none_more(make_client, engine):
    client = make_client(key=KeyLimits(running_jobs=1, rate_per_s=1e6, burst=10))
    headers = {"Idempotency-Key": "once"}
    first, again = (client.post("/v1/jobs", json=WISH, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert client.post("/v1/jobs", json=WISH).status_code == 429


def test_guessing_is_slowed_down(make_client):
    client = make_client(key=KeyLimits(rate_per_s=0.001, burst=2))
    answers = [client.get("/v1/jobs", headers={"Authorization": f"Bearer snvs_{n}"}).status_code for n in range(4)]
    assert answers == [401, 401, 429, 429]

"""API keys: when one is needed, and which resources a caller sees."""

import pytest
from server_fakes import parts

from sphinx_nvs.server.server_config import KeyLimits

BODY = {"scene": "demo", "num_frames": 2, "size": "64x64"}


@pytest.fixture
def keys(engine):
    """Two keys' headers."""
    secrets = [engine.store.add_key(name, now=engine.now)[1] for name in ("ada", "bob")]
    return [{"Authorization": f"Bearer {secret}"} for secret in secrets]


def test_loopback_needs_no_key_until_one_is_created(make_client, engine):
    assert make_client().get("/v1/jobs").status_code == 200
    engine.store.add_key("ada", now=engine.now)
    answer = make_client().get("/v1/jobs")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("placeholder", ["none", "EMPTY", "sk-1234"])
def test_a_placeholder_is_no_key_where_none_is_needed(make_client, engine, placeholder):
    headers = {"Authorization": f"Bearer {placeholder}"}
    job = make_client().post("/v1/jobs", json=BODY, headers=headers)
    assert (job.status_code, engine.store.job(job.json()["id"]).key_id) == (202, "anonymous")
    assert make_client(require_keys=True).get("/v1/jobs", headers=headers).status_code == 401
    engine.store.add_key("ada", now=engine.now)
    assert make_client().get("/v1/jobs", headers=headers).status_code == 401


def test_revoking_the_last_key_does_not_open_the_server(make_client, engine):
    row, _ = engine.store.add_key("ada", now=engine.now)
    engine.store.revoke_key(row.id, now=engine.now)
    assert make_client().get("/v1/jobs").status_code == 401
    assert make_client(require_keys=False).get("/v1/jobs").status_code == 200, "as --keys none says"


def test_other_addresses_need_a_key(make_client):
    assert make_client(host="0.0.0.0").get("/v1/jobs").status_code == 401
    assert make_client(host="0.0.0.0", require_keys=False).get("/v1/jobs").status_code == 200
    assert make_client(require_keys=True).get("/v1/jobs").status_code == 401


def test_probes_need_no_key(make_client):
    client = make_client(require_keys=True)
    for address in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert client.get(address).status_code == 200


@pytest.mark.parametrize("value", ["Bearer snvs_nonsense", "Bearer", "Basic YTpi", "Bearer snvs_\xe9", "snvs_x"])
def test_invalid_keys_are_refused(client, value):
    assert client.get("/v1/jobs", headers={"Authorization": value.encode("latin-1")}).status_code == 401


def test_a_revoked_key_is_refused(client, engine):
    row, secret = engine.store.add_key("ada", now=engine.now)
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    engine.store.revoke_key(row.id, now=engine.now)
    assert client.get("/v1/jobs", headers=headers).status_code == 401


def test_callers_see_only_their_own_resources(client, engine, keys):
    ada, bob = keys
    scene = client.post("/v1/scenes", files=parts(), headers=ada).json()
    job = client.post("/v1/jobs", json={**BODY, "scene": scene["id"]}, headers=ada).json()
    engine.preview(job["id"])
    engine.finish(job["id"])
    root = job["links"]["self"]
    addresses = [root, *(f"{root}/{end}" for end in ("events", "plan", "plan.png", "frames/0", "content", "cameras"))]
    addresses += [scene["links"]["self"], scene["links"]["cameras"], f"/v1/scenes/{scene['id']}/photos/0"]
    addresses += [f"/v1/videos/{job['id']}", f"/v1/videos/{job['id']}/content"]
    for address in addresses:
        assert client.get(address, headers=ada).status_code == 200, address
        assert client.get(address, headers=bob).status_code == 404, address
    for address in (root, scene["links"]["self"], f"/v1/videos/{job['id']}"):
        assert client.delete(address, headers=bob).status_code == 404
    for address in ("/v1/jobs", "/v1/scenes", "/v1/videos"):
        assert len(client.get(address, headers=ada).json()["data"]) == 1
        assert client.get(address, headers=bob).json()["data"] == []
    assert client.get(f"/v1/jobs?after={job['id']}", headers=bob).status_code == 404
    assert client.get(f"/v1/scenes?after={scene['id']}", headers=bob).status_code == 404
    assert client.post("/v1/jobs", json={**BODY, "scene": scene["id"]}, headers=bob).status_code == 404


def test_idempotency_keys_of_two_api_keys_are_independent(client, keys):
    ids = {client.post("/v1/jobs", json=BODY, headers={**key, "Idempotency-Key": "one"}).json()["id"] for key in keys}
    assert len(ids) == 2


def test_a_keys_own_limits_take_precedence(make_client, engine):
    _, secret = engine.store.add_key("ada", now=engine.now, limits={"running_jobs": 1, "rate_per_s": "many"})
    client = make_client(key=KeyLimits(running_jobs=5))
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.post("/v1/jobs", json=BODY, headers=headers).status_code == 202
    answer = client.post("/v1/jobs", json=BODY, headers=headers)
    assert answer.status_code == 429
    assert "1 unfinished jobs of at most 1" in answer.json()["detail"]


def test_a_repeated_request_does_not_count_as_a_second_job(make_client, engine):
    client = make_client(key=KeyLimits(running_jobs=1, rate_per_s=1e6, burst=10))
    headers = {"Idempotency-Key": "once"}
    first, again = (client.post("/v1/jobs", json=BODY, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert client.post("/v1/jobs", json=BODY).status_code == 429


def test_guessing_keys_is_rate_limited(make_client):
    client = make_client(key=KeyLimits(rate_per_s=0.001, burst=2))
    answers = [client.get("/v1/jobs", headers={"Authorization": f"Bearer snvs_{n}"}).status_code for n in range(4)]
    assert answers == [401, 401, 429, 429]

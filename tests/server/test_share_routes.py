"""Links to finished videos: who makes them, who sees what, when they end."""

import pytest
from server_fakes import open_engine
from structlog.testing import capture_logs

BODY = {"scene": "demo", "num_frames": 2, "size": "64x64"}


@pytest.fixture
def engine(tmp_path):
    return open_engine(tmp_path, is_eager=True)


@pytest.fixture
def keys(engine):
    """Two keys' headers."""
    secrets = [engine.store.add_key(name, now=engine.now)[1] for name in ("ada", "bob")]
    return [{"Authorization": f"Bearer {secret}"} for secret in secrets]


@pytest.fixture
def job(client, keys):
    """Ada's finished job."""
    return client.post("/v1/jobs", json=BODY, headers=keys[0]).json()["id"]


@pytest.fixture
def link(client, keys, job):
    answer = client.post(f"/v1/jobs/{job}/share", headers=keys[0])
    assert answer.status_code == 201
    return answer.json()


def test_a_link_shows_the_video_to_anyone_who_has_it(client, keys, job, link):
    assert client.get(f"/v1/jobs/{job}/content").status_code == 401
    page = client.get(link["url"])
    assert page.status_code == 200
    assert link["video"] in page.text
    assert "script" not in page.text
    assert "script-src" not in page.headers["content-security-policy"]
    video = client.get(link["video"])
    own = client.get(f"/v1/jobs/{job}/content", headers=keys[0])
    assert video.content == own.content
    assert video.headers["content-type"] == "video/mp4"
    part = client.get(link["video"], headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, own.content[:10])
    assert client.head(link["video"]).status_code == 200


def test_a_link_opens_nothing_else(client, job, link):
    token = link["url"].rsplit("/", 1)[1]
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{token}", f"/shared/{token}/frames/0", f"/shared/{job}"):
        assert client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code in (401, 404)


def test_only_the_owner_makes_and_ends_links(client, keys, job, link):
    assert client.post(f"/v1/jobs/{job}/share", headers=keys[1]).status_code == 404
    assert client.delete(f"/v1/jobs/{job}/share", headers=keys[1]).status_code == 404
    assert client.post(f"/v1/jobs/{job}/share").status_code == 401
    assert client.get(link["url"]).status_code == 200


def test_a_link_ends_with_the_next_one_by_request_and_with_its_job(client, keys, job, link):
    second = client.post(f"/v1/jobs/{job}/share", headers=keys[0]).json()
    assert client.get(link["url"]).status_code == 404
    assert client.get(second["video"]).status_code == 200
    assert client.delete(f"/v1/jobs/{job}/share", headers=keys[0]).status_code == 204
    assert client.get(second["video"]).status_code == 404
    assert client.delete(f"/v1/jobs/{job}/share", headers=keys[0]).status_code == 204
    third = client.post(f"/v1/jobs/{job}/share", headers=keys[0]).json()
    client.delete(f"/v1/jobs/{job}", headers=keys[0])
    assert client.get(third["url"]).status_code == 404


def test_an_unfinished_job_has_no_link(client, keys, engine):
    engine.is_eager = False
    job = client.post("/v1/jobs", json=BODY, headers=keys[0]).json()["id"]
    answer = client.post(f"/v1/jobs/{job}/share", headers=keys[0])
    assert (answer.status_code, "not finished" in answer.json()["detail"]) == (409, True)
    client.delete(f"/v1/jobs/{job}", headers=keys[0])
    assert client.post(f"/v1/jobs/{job}/share", headers=keys[0]).status_code == 404


def test_neither_the_store_nor_the_log_holds_the_token(client, link, tmp_path):
    token = link["url"].rsplit("/", 1)[1]
    with capture_logs() as lines:
        client.get(link["video"])
    assert [line["path"] for line in lines if line["event"] == "request"] == ["/shared/..."]
    assert token not in str(lines)
    stored = [path.read_bytes() for path in tmp_path.glob("jobs.sqlite*")]
    assert stored
    assert all(token.encode() not in content for content in stored)

"""`/v1/views`, the deprecated URL of jobs: same routes, and headers that name the successor."""

import json

import pytest

BODY = {"scene": "demo", "path": "move-forward", "num_frames": 2, "size": "64x64"}


@pytest.fixture
def job(client, engine):
    """A finished job, created at the deprecated URL."""
    job = client.post("/v1/views", json=BODY).json()
    engine.preview(job["id"])
    engine.finish(job["id"])
    return job


def test_responses_are_those_of_jobs_and_marked_deprecated(client, job):
    ends = ("", "/events", "/plan", "/plan.png", "/frames/1", "/content", "/cameras")
    for old, new in [
        ("/v1/views", "/v1/jobs"),
        *((f"/v1/views/{job['id']}{e}", f"/v1/jobs/{job['id']}{e}") for e in ends),
    ]:
        deprecated, current = client.get(old), client.get(new)
        assert (deprecated.status_code, deprecated.content) == (200, current.content), old
        assert deprecated.headers["deprecation"] == "@1795996800"
        assert deprecated.headers["link"] == '</v1/jobs>; rel="successor-version"'
        assert "deprecation" not in current.headers
    assert client.post("/v1/views:quote", json=BODY).json() == client.post("/v1/jobs:quote", json=BODY).json()


def test_links_name_the_successor(client, job):
    answer = client.post("/v1/views", json=BODY)
    assert answer.headers["location"].startswith("/v1/jobs/")
    assert all(link.startswith("/v1/jobs/") for link in answer.json()["links"].values())
    assert client.get("/v1/views?limit=1").json()["next"].startswith("/v1/jobs?")


def test_events_name_the_job_for_old_and_new_clients(client, job):
    lines = client.get(f"/v1/views/{job['id']}/events").text.splitlines()
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert data
    assert {(event["job"], event["view"]) for event in data} == {(job["id"], job["id"])}


def test_errors_are_marked_too(client):
    answer = client.get("/v1/views/job_none")
    assert (answer.status_code, answer.headers["deprecation"]) == (404, "@1795996800")
    assert client.delete("/v1/views/job_none").status_code == 404


def test_the_openapi_document_has_only_the_successor(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v1/jobs/{job_id}/events" in paths
    assert not any("views" in path for path in paths)


@pytest.mark.parametrize("path", ["/v1/viewsx", "/v1/view", "/v2/views"])
def test_other_paths_are_not_rewritten(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.headers.get("deprecation")) == (404, None)

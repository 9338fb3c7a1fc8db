"""Asking for views: quotes, jobs, lists, cancelling."""

import pytest

WISH = {"scene": "demo", "path": "move-forward", "num_frames": 3, "size": "64x64"}


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

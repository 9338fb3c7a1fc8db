"""Models, capacity, probes, metrics."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from sphinx_nvs.engine.types.engine_errors import StoreUnavailableError
from sphinx_nvs.errors import OutputError
from sphinx_nvs.sampling_params import DEFAULT_QUALITY


def test_models(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["size_multiple"], model["window"]) == ("embedded", 32, 48)
    assert model["default_quality"] == DEFAULT_QUALITY
    assert model["networks"][0]["licence"] == "Apache-2.0"
    assert client.get("/v1/models/embedded").json() == model
    assert client.get("/v1/models/other").status_code == 404


def test_capacity(client):
    capacity = client.get("/v1/capacity").json()
    assert capacity["devices"][0]["name"] == "fake"
    assert (capacity["queued"], capacity["max_queue"], capacity["streams"]) == (0, 100, 0)


@pytest.mark.parametrize("root", ["", "/v1"])
def test_probes(client, engine, root):
    assert client.get(f"{root}/healthz").json() == {"status": "ok", "detail": ""}
    assert client.get(f"{root}/readyz").json()["status"] == "ready"
    engine.ready = False
    answer = client.get(f"{root}/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    engine.health = "sweep failed: /var/lib/sphinx/jobs.sqlite is full"
    health = client.get(f"{root}/healthz")
    assert health.json() == {"status": "degraded", "detail": "sweep failed: jobs.sqlite is full"}
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailableError("the store of jobs cannot be written (disk I/O error)"),
        OutputError("the server's folder", "12 MiB are free on its disk", "free some space"),
    ],
)
def test_a_server_that_can_store_nothing_is_not_ready_and_says_why(client, engine, monkeypatch, error):
    async def check():
        raise error

    monkeypatch.setattr(engine.library, "check", check)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, f"{error}")


def test_metrics_of_engine_and_requests(client, engine):
    engine.metrics.accepted.inc()
    engine.metrics.rejected.labels(why="queue").inc()
    engine.metrics.preview_s.observe(0.3)
    client.get("/v1/jobs/job_1")
    client.get("/nowhere")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(answer.text)
        for sample in family.samples
    }
    assert samples["sphinx_jobs_accepted_total", ()] == 1
    assert samples["sphinx_jobs_rejected_total", (("why", "queue"),)] == 1
    assert samples["sphinx_time_to_preview_seconds_bucket", (("le", "0.25"),)] == 0
    assert samples["sphinx_time_to_preview_seconds_bucket", (("le", "0.5"),)] == 1
    assert samples["sphinx_time_to_preview_seconds_count", ()] == 1
    route = (("method", "GET"), ("route", "/v1/jobs/{job_id}"), ("status", "404"))
    assert samples["sphinx_http_requests_total", route] == 1
    assert samples["sphinx_http_requests_total", (("method", "GET"), ("route", "none"), ("status", "404"))] == 1


def test_metrics_as_open_metrics(client, engine):
    engine.metrics.accepted.inc()
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert any(family.name == "sphinx_jobs_accepted" for family in open_families(answer.text))


def test_metrics_can_be_disabled(make_client):
    assert make_client(metrics=False).get("/metrics").status_code == 404

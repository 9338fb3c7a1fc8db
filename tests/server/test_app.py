"""The app around an engine: which of them closes it, and the shared scene."""

from fastapi.testclient import TestClient
from server_fakes import open_engine

from sphinx_nvs.scene import read_capture
from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.server_config import ServerConfig

HERE = "http://localhost"


def test_the_app_closes_an_engine_that_it_opened_and_adds_the_demo(tmp_path):
    engines = []

    async def opened():
        engines.append(open_engine(tmp_path, has_demo=False))
        return engines[0]

    app = create_app(opened)
    with TestClient(app, base_url=HERE) as client:
        scene = client.get("/v1/scenes/demo").json()
        assert (scene["num_views"], scene["width"], scene["expires_at"]) == (2, 741, None)
        assert client.get("/v1/scenes").json()["data"] == [], "it belongs to no caller"
        job = client.post("/v1/jobs", json={"scene": "demo", "num_frames": 2})
        assert job.status_code == 202
        path = engines[0].store.scene("demo").path
        assert len(read_capture(path)) == 2
        assert engines[0].closed_with is None
    assert engines[0].closed_with == 0
    with TestClient(create_app(opened)):
        assert engines[0].store.scene("demo").path == path, "it is created once"


def test_the_app_leaves_a_given_engine_open(engine):
    with TestClient(create_app(engine, ServerConfig(has_demo=False))):
        pass
    assert engine.closed_with is None


def test_the_server_is_not_ready_before_its_engine_is_open(engine):
    async def opened():
        return engine

    client = TestClient(create_app(opened, ServerConfig(has_demo=False)), base_url=HERE)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.get("/healthz").status_code == 200
    assert isinstance(client.app.state.context, Context)

"""`sphinx-nvs studio`: a running server is used, otherwise one is started; the page is opened with the scene."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sphinx_nvs.cli import serve, studio
from sphinx_nvs.cli.options.render_options import parse


class Answering(ThreadingHTTPServer):
    """A server that answers probes and takes a scene."""

    def __init__(self, health):
        outer, self.uploads, self.keys = self, [], []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, health)

            def do_POST(self):
                outer.uploads.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers.get("Authorization"))
                scene = {"id": "scene_7", "status": "ready", "posing": None, "reason": "", "advice": [], "num_views": 1}
                more = {"width": 8, "height": 8, "bytes": 1, "warnings": [], "created_at": "2026-01-01T00:00:00Z"}
                self.answer(201, json.dumps({**scene, **more, "expires_at": None, "links": {}}))

            def answer(self, status, text):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *words):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = str(self.server_address[1])
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def answering():
    servers = []

    def start(health='{"status": "ok", "detail": ""}'):
        servers.append(Answering(health))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pages(monkeypatch):
    """Pages that the browser opened."""
    pages = []
    monkeypatch.setattr(studio.webbrowser, "open", lambda page: pages.append(page) or True)
    return pages


def test_a_running_server_is_used(run, answering, pages):
    server = answering()
    outcome = run("studio", "--port", server.port)
    assert outcome.code == 0, outcome
    assert pages == [f"http://127.0.0.1:{server.port}/"]
    assert pages[0] in outcome.out


def test_a_scene_is_uploaded_and_shown(run, answering, pages, tmp_path):
    (tmp_path / "0.png").write_bytes(b"the photo")
    server = answering()
    outcome = run("studio", tmp_path, "--port", server.port, "--no-browser", "--api-key", "snvs_1")
    assert outcome.code == 0, outcome
    assert outcome.out.endswith(f"studio: http://127.0.0.1:{server.port}/#/scene/scene_7\n")
    assert pages == []
    assert server.uploads[0][0] == "/v1/scenes"
    assert b"the photo" in server.uploads[0][1]
    assert server.keys == ["Bearer snvs_1"]


def test_another_program_at_the_port_is_named(run, answering):
    server = answering(health="[]")
    outcome = run("studio", "--port", server.port)
    assert outcome.code == 2
    assert f"--port: another program answers at http://127.0.0.1:{server.port}; choose another port" in outcome.err


def test_a_scene_that_cannot_be_read_starts_nothing(run, monkeypatch, tmp_path):
    monkeypatch.setattr(serve, "serve", lambda *words, **more: pytest.fail("a server was started"))
    outcome = run("studio", tmp_path / "nothing", "--port", "0")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "there is no such file or folder" in outcome.err


def test_without_a_server_one_is_started_with_the_options(answering, pages, monkeypatch, tmp_path):
    server, started = answering(), []

    def fake(options, on_ready):
        started.append(options)
        on_ready(f"http://127.0.0.1:{server.port}")
        for thread in threading.enumerate():
            if thread.name == "studio":
                thread.join()

    monkeypatch.setattr(serve, "serve", fake)
    studio.studio(parse(["studio", "--port", "0", "--folder", str(tmp_path), "--preset", "embedded"]))
    assert (started[0].port, started[0].folder, started[0].preset) == (0, tmp_path, "embedded")
    assert pages == [f"http://127.0.0.1:{server.port}/"]


def test_a_refused_scene_leaves_the_started_server_running(answering, pages, monkeypatch, capsys, tmp_path):
    (tmp_path / "0.png").write_bytes(b"the photo")
    options = parse(["studio", str(tmp_path), "--no-browser"])
    # Nothing listens there: every request fails.
    monkeypatch.setattr(studio, "open_page", lambda *words: (_ for _ in ()).throw(studio.SphinxError("refused")))
    studio.beside(options, "http://127.0.0.1:1")
    for thread in threading.enumerate():
        if thread.name == "studio":
            thread.join()
    assert capsys.readouterr().err == "sphinx-nvs: refused\n"

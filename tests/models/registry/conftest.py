"""A small model, its files, and an in-memory hub."""

import hashlib
import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from sphinx_nvs.models.registry.cards import MIT, STABILITY, Card
from sphinx_nvs.models.registry.resolution import HOME

SHAPES = {"encoder.a": (2, 3), "encoder.b": (4,)}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home of all models; returns the folder they will be in."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture
def card() -> Card:
    return Card(
        name="toy-1.0",
        about="a toy",
        part="unet",
        page="https://example.com/toy",
        repo="maker/toy",
        file="weights/toy.safetensors",
        licence=MIT,
        num_bytes=100,
        prefix="encoder.",
        layouts=lambda: (SHAPES,),
    )


@pytest.fixture
def strict(card) -> Card:
    """The same with a licence to accept."""
    return Card(**{**card.__dict__, "licence": STABILITY})


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.rand(shape) for name, shape in SHAPES.items()}


@pytest.fixture
def file(tmp_path, tensors) -> Path:
    path = tmp_path / "toy.safetensors"
    path.write_bytes(save(tensors))
    return path


class Hub:
    """Responds like the hub to the requests of a download."""

    def __init__(self, http) -> None:
        self.http = http
        self.files: dict[str, bytes] = {}
        self.repo = "maker/toy"
        self.fail: dict[str, int] = {}
        self.error_code: str | None = None
        self.cut_after: int | None = None
        self.claimed_sha256: str | None = None
        self.requests: list[str] = []

    def answer(self, request):
        self.requests.append(f"{request.method} {request.url.path}")
        kind = "info" if request.url.path.startswith("/api/") else request.method.lower()
        if kind in self.fail:
            headers = {"X-Error-Code": self.error_code} if self.error_code else {}
            return self.http.Response(self.fail[kind], headers=headers, request=request)
        if kind == "info":
            return self._info(request)
        return self._file(request, self.files[request.url.path.partition("/resolve/")[2].partition("/")[2]])

    def _info(self, request):
        if request.url.path.removeprefix("/api/models/") != self.repo:
            return self.http.Response(404, headers={"X-Error-Code": "RepoNotFound"}, request=request)
        siblings = [{"rfilename": name, "size": len(data), "lfs": self._lfs(data)} for name, data in self.files.items()]
        return self.http.Response(200, json={"id": self.repo, "sha": "c0ffee", "siblings": siblings}, request=request)

    def _lfs(self, data: bytes) -> dict:
        sha256 = self.claimed_sha256 or hashlib.sha256(data).hexdigest()
        return {"sha256": sha256, "size": len(data), "pointerSize": 130}

    def _file(self, request, data: bytes):
        headers = {"X-Repo-Commit": "c0ffee", "ETag": '"abc"', "X-Linked-Size": str(len(data))}
        if request.method == "HEAD":
            return self.http.Response(200, headers={**headers, "Content-Length": str(len(data))}, request=request)
        headers["Content-Length"] = str(len(data))
        if self.cut_after is None:
            return self.http.Response(200, headers=headers, content=data, request=request)
        return self.http.Response(200, headers=headers, stream=self._cut(data, request), request=request)

    def _cut(self, body: bytes, request):
        http, cut_after = self.http, self.cut_after

        class Cut(http.SyncByteStream):
            def __iter__(self):
                yield body[:cut_after]
                raise http.ReadError("cable pulled", request=request)

        return Cut()


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Hub:
    """Replaces the network."""
    client = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra seva)")
    errors, constants = (importlib.import_module(f"huggingface_hub.{name}") for name in ("errors", "constants"))
    http = importlib.import_module(errors.HTTPError.__module__.partition(".")[0])
    fake = Hub(http)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    http_module = importlib.import_module("huggingface_hub.utils._http")
    before = http_module._GLOBAL_CLIENT_FACTORY
    client.set_client_factory(lambda: http.Client(transport=http.MockTransport(fake.answer)))
    yield fake
    client.set_client_factory(before)

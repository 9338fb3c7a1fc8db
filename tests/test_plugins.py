"""Plug-ins: the code of docs/how-to/add-a-model.md, and a small package with weights and an entry point."""

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save_file

from sphinx_nvs import Cameras, InputError, Pipeline, Scene, load_preset, plugins
from sphinx_nvs.cli.main import main
from sphinx_nvs.load_testing.server_process import ServerProcess
from sphinx_nvs.models.base import Reconstruction, Regressor
from sphinx_nvs.models.registry.cards import CARDS
from sphinx_nvs.models.registry.resolution import HOME
from sphinx_nvs.presets import preset_cards

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "add-a-model.md"

PACKAGE = '''
from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from sphinx_nvs import Render, register_preset, register_regressor
from sphinx_nvs.media import resize
from sphinx_nvs.models.registry import Card
from sphinx_nvs.models.registry.cards import MIT

CARD = Card(
    name="tint-1",
    about="three gains",
    part="tint",
    page="https://example.org/tint",
    repo=None,
    file="tint.safetensors",
    licence=MIT,
    num_bytes=100,
    layouts=lambda: ({"gain": (3,)},),
)


@dataclass(frozen=True)
class Tinted:
    """The first photo times the weights' gains."""

    scene: object
    gain: torch.Tensor

    def render(self, cameras):
        rgb = resize(self.scene.images[:1], cameras.height, cameras.width) * self.gain.view(3, 1, 1)
        rgb = rgb.repeat(len(cameras), 1, 1, 1)
        ones = torch.ones_like(rgb[:, 0])
        return Render(rgb=rgb, alpha=ones, depth=10 * ones, confidence=ones, disagreement=0 * ones)


@dataclass(frozen=True)
class Tint:
    gain: torch.Tensor
    name: str = "tint"
    min_context_views: int = 1

    def reconstruct(self, scene):
        return Tinted(scene, self.gain)


def register():
    register_regressor(
        "tint", lambda options: Tint(load_file(options.paths["tint"])["gain"]), parts={"tint": "tint-1"}, cards=[CARD]
    )
    register_preset("tinted", regressor="tint", denoiser="nano", short_side=64, window=48)
'''

GAIN = torch.tensor([0.5, 0.25, 1.0])


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def cameras(x):
    c2w = torch.eye(4).repeat(len(x), 1, 1)
    c2w[:, 0, 3] = torch.tensor(x)
    K = torch.tensor([[60.0, 0, 32], [0, 60.0, 32], [0, 0, 1]]).repeat(len(x), 1, 1)
    return Cameras(c2w, K, 64, 64)


@pytest.fixture
def scene():
    return Scene(name="noise", images=torch.rand(2, 3, 64, 64), cameras=cameras([0.0, 1.0]))


@pytest.fixture(autouse=True)
def _registries(monkeypatch):
    """Registrations end with the test."""
    for name in ("REGRESSORS", "DENOISERS", "PRESETS"):
        monkeypatch.setattr(plugins, name, dict(getattr(plugins, name)))
    known = set(CARDS)
    plugins._load_plugin.cache_clear()
    yield
    plugins._load_plugin.cache_clear()
    for name in set(CARDS) - known:
        del CARDS[name]


@pytest.fixture
def page():
    """What the page's code defines, once it has run."""
    names = {"__name__": "page"}
    for block in blocks():
        exec(block, names)
    return names


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder on the path with the package installed in it, and its weights taken in; returns the folder."""
    folder = tmp_path / "site"
    about = folder / "tint-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "tint_package.py").write_text(PACKAGE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tint\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[sphinx_nvs.presets]\ntint = tint_package:register\n")
    save_file({"gain": GAIN}, folder / "tint.safetensors")
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("tint_package", None)


def pull(folder):
    return main(["models", "pull", "tint-1", "--from", str(folder / "tint.safetensors")])


def test_the_least_regressor_meets_the_protocol(page, scene):
    regressor = page["NearestPhoto"]()
    assert isinstance(regressor, Regressor)
    reconstruction = regressor.reconstruct(scene)
    assert isinstance(reconstruction, Reconstruction)
    assert torch.equal(reconstruction.render(cameras([0.9])).rgb[0], scene.images[1])


def test_a_pipeline_and_a_preset_run_it(page, scene):
    pipeline = page["pipeline"]
    assert isinstance(pipeline, Pipeline)
    assert pipeline.regressor.name == "nearest-photo"
    result = pipeline(scene, cameras([0.9]), quality=1.0)
    assert result.frames.shape == (1, 3, 64, 64)
    assert len(result.steps) > 0


def test_every_file_the_page_names_is_there():
    root = PAGE.parents[2]
    for name in re.findall(r"`((?:models|tests|assess|scene)/[\w/.]+)`", PAGE.read_text()):
        assert (root / "src" / "sphinx_nvs" / name).exists() or (root / name).exists(), name


def test_an_entry_point_is_found_by_its_preset_and_its_missing_weights_are_one_sentence(package):
    assert "tinted" not in plugins.PRESETS
    assert "tinted" in plugins.preset_names()
    with pytest.raises(InputError) as caught:
        load_preset("tinted")
    assert str(caught.value) == (
        f"weights of tint-1: it is not in {package.parent / 'home' / 'models'}; get them: "
        "sphinx-nvs models pull tint-1 --from tint.safetensors (tint.safetensors is at https://example.org/tint)"
    )
    assert [card.name for card in preset_cards("tinted")] == ["tint-1"]


def test_a_file_of_the_users_own_stands_in_for_the_weights(package, scene):
    pipeline = load_preset("tinted", num_steps=2, weights={"tint": package / "tint.safetensors"})
    frames = pipeline(scene, cameras([0.4]), method="regression").frames
    assert torch.equal(frames[0], scene.images[0] * GAIN.view(3, 1, 1))


def test_the_command_line_pulls_lists_and_renders(package, tmp_path, capsys):
    assert pull(package) == 0
    out = tmp_path / "out"
    words = ("render", "procedural:room:3", "--preset", "tinted", "--contexts", "0,4", "--frames", "2", "--steps", "2")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx_nvs.cli", *words, "--method", "regression", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((out / "frames").iterdir())) == 2
    assert '"model": "tint-1"' in (out / "report.json").read_text()
    assert main(["models", "list"]) == 0
    assert "tint-1" in capsys.readouterr().out


def test_a_server_and_its_workers_know_it(package, tmp_path):
    assert pull(package) == 0
    server = ServerProcess(tmp_path / "server", ("--preset", "tinted", "--steps", "2"))
    server.start()

    try:
        asyncio.run(server.ready())
        with httpx.Client(base_url=server.url) as http:
            job = http.post("/v1/jobs", json={"scene": "demo", "num_frames": 2, "size": "64x64", "quality": 0}).json()
            while job["status"] not in ("completed", "failed"):
                time.sleep(0.1)
                job = http.get(f"/v1/jobs/{job['id']}").json()
        assert job["status"] == "completed"
    finally:
        server.stop()


def test_a_plug_in_that_fails_is_one_sentence_and_leaves_other_presets_alone(package):
    (package / "tint_package.py").write_text("raise RuntimeError('no luck')\n")
    assert load_preset("embedded").regressor.name == "planesweep"
    with pytest.raises(InputError) as caught:
        load_preset("tinted")
    assert str(caught.value) == (
        "plug-in tint: its entry point tint_package:register fails (RuntimeError: no luck); fix or uninstall tint"
    )


def test_names_are_taken_once_and_must_be_known():
    plugins.register_regressor("mine", lambda options: None)
    with pytest.raises(InputError, match=r"^regressor: 'mine' is registered already; choose another name$"):
        plugins.register_regressor("mine", lambda options: None)
    with pytest.raises(InputError, match=r"^denoiser: there is no 'nanoo'; choose one of: nano, seva$"):
        plugins.register_preset("pair", regressor="mine", denoiser="nanoo")
    with pytest.raises(InputError, match=r"^model: there is a card of 'sd21-vae' already; choose another name$"):
        plugins.register_regressor("other", lambda options: None, cards=[CARDS["sd21-vae"]])

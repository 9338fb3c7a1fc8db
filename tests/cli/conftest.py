"""A tiny scene, an untrained denoiser, and a way to run the command in this process."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sphinx_nvs.cli.main import main
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.models.registry.resolution import HOME
from sphinx_nvs.plan.cost_model import QUANTITIES, CostModel
from sphinx_nvs.profiling.calibration import network_of


@dataclass(frozen=True)
class Outcome:
    """Result of a command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def run(capsys, monkeypatch) -> Callable[..., Outcome]:
    """Runs `sphinx-nvs` with these arguments; the denoiser has random weights that are the same every time."""

    def load_nano() -> Nano:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return Nano().eval().requires_grad_(False)

    def run(*argv: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as leaving:
            code = leaving.code
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    monkeypatch.setattr("sphinx_nvs.presets.load_nano", load_nano)
    return run


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Callable[..., list[str]]:
    """Sets this machine's speed: seconds of a dense call, and of stages 1 to 3; returns the recorded calls."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))

    def machine(dense_s: float = 0.02, regression_s: float = 0.01) -> list[str]:
        uses: list[str] = []
        per_unit = dict.fromkeys(("reconstruct", "render", "assess"), regression_s) | {"dense": dense_s}

        def model(pipeline) -> CostModel:
            return CostModel(
                network=network_of(pipeline),
                coefficients={
                    kind: (per_unit.get(kind, dense_s / 2), *(0.0,) * (len(names) - 1))
                    for kind, names in QUANTITIES.items()
                },
                refining_p95=1.2,
                regressing_p95=1.1,
                machine="made up",
            )

        def calibrated(pipeline, *, clock, progress, on_first_use) -> CostModel:
            uses.append("known")
            on_first_use(speed.NOTE)
            return model(pipeline)

        def calibrate(pipeline, *, clock, progress) -> CostModel:
            uses.append("again")
            return model(pipeline)

        monkeypatch.setattr(speed, "calibrated", calibrated)
        monkeypatch.setattr(speed, "calibrate", calibrate)
        return uses

    return machine


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A procedural scene of five views of 64x64 pixels; not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "room"
    assert (
        main(
            ["scene", "make", "--seed", "3", "--kind", "room", "--views", "5", "--size", "64x64", "--out", str(folder)]
        )
        == 0
    )
    return folder


@pytest.fixture
def scene(made, tmp_path) -> Path:
    """A copy of that scene that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "scene"))


@pytest.fixture
def spoil(scene) -> Callable[[Callable[[dict], None]], Path]:
    """Changes the scene's transforms.json by a function, and returns the scene."""

    def spoil(change: Callable[[dict], None]) -> Path:
        file = scene / "transforms.json"
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))
        return scene

    return spoil

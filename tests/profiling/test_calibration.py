"""Calibration: measurement, caching, and accuracy of predictions."""

import json
import time
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F

import sphinx_nvs
from sphinx_nvs.assess import AssessConfig
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.timing import Stopwatch
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.models.registry.resolution import HOME
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.profiling import calibration
from sphinx_nvs.profiling.calibration import NOTE, cached_path, calibrate, calibrated, calibration_cases, speed_key
from sphinx_nvs.scene import Scene

SIZES = (16, 32)


@dataclass(frozen=True)
class Photo:
    scene: Scene

    def render(self, cameras):
        rgb = self.scene.images[:1].expand(len(cameras), -1, -1, -1)
        ones = torch.ones_like(rgb[:, 0])
        return Render(rgb=rgb, alpha=ones, depth=10 * ones, confidence=0.5 * ones, disagreement=0 * ones)


@dataclass(frozen=True)
class FirstPhoto:
    name: str = "first-photo"
    min_context_views: int = 2

    def reconstruct(self, scene):
        return Photo(scene)


@dataclass
class Sleeper:
    """A denoiser without a network, whose calls take a known time."""

    call_s: float = 0.0
    name: str = "sleeper"
    factor: int = 4
    size_multiple: int = 8
    latent_channels: int = 3

    def encode(self, images):
        return F.avg_pool2d(images, 4)

    def decode(self, latents):
        return F.interpolate(latents, scale_factor=4.0).clamp(0, 1)

    def sigmas(self, num_steps):
        return torch.cat([torch.linspace(10, 1, num_steps), torch.zeros(1)])

    def condition(self, scene, targets, render, z_render, *, reference=None):
        return z_render

    def denoise(self, latents, sigma, conditioning):
        time.sleep(self.call_s)
        return conditioning


def pipeline(**changes):
    return Pipeline(**{"regressor": FirstPhoto(), "denoiser": Sleeper(), **changes})


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(HOME, str(tmp_path))
    return tmp_path


def test_a_denoiser_without_a_network_is_measured_too():
    model = calibrate(pipeline(denoiser=Sleeper(call_s=0.02)), sizes=SIZES, repeats=1)
    assert not model.network.selective
    assert model.network.config is None
    assert model.coefficients["sparse"] == (0.0,) * 6
    full = model.full_seconds(num_context=2, views=4, height=32, width=32, num_steps=10)
    assert 0.2 <= full.median < 0.6
    assert model.clock == "wall"


def test_progress_counts_up_to_the_end():
    reports = []
    calibrate(pipeline(), sizes=SIZES, repeats=1, progress=lambda *each: reports.append(each))
    cases = calibration_cases(SIZES)
    assert reports[0] == ("warming up", 0, 1 + len(cases))
    assert [what for what, _, _ in reports[1:-1]] == [case.name for case in cases]
    assert [done for _, done, _ in reports[:-1]] == list(range(1 + len(cases)))
    assert reports[-1] == ("done", 1 + len(cases), 1 + len(cases))


def test_cases_differ_in_size_photos_and_frames():
    cases = calibration_cases((256, 64, 128))
    assert {case.size for case in cases} == {64, 128, 256}
    assert len({case.contexts for case in cases}) >= 3
    assert len({case.views for case in cases}) >= 5
    assert len({case.name for case in cases}) == len(cases)
    assert min(case.contexts for case in calibration_cases((64, 128), fewest_contexts=3)) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clock": "sun"}, "clock: there is no 'sun'; choose wall or cpu"),
        ({"repeats": 0}, "repeats: it is 0; give 1 or more"),
        ({"sizes": (16, 17)}, "sizes: they come to [16]; give two or more, 8 pixels apart or further"),
    ],
)
def test_invalid_arguments_are_errors(options, sentence):
    with pytest.raises(InputError) as error:
        calibrate(pipeline(), **{"sizes": SIZES, **options})
    assert str(error.value) == sentence


def test_the_machine_is_measured_once(home, monkeypatch):
    notes = []
    first = calibrated(pipeline(), sizes=SIZES, on_first_use=notes.append)
    monkeypatch.setattr(calibration, "calibrate", None)
    assert calibrated(pipeline(), sizes=SIZES, on_first_use=notes.append) == first
    assert notes == [NOTE]
    path = cached_path(pipeline(), sizes=SIZES)
    assert path.parent == home / "costs"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert CostModel.load(path) == first


def test_without_a_writable_cache_it_is_measured_each_time(home):
    (home / "costs").write_text("in the way")
    notes = []
    for _ in range(2):
        calibrated(pipeline(), sizes=SIZES, on_first_use=notes.append)
    assert len(notes) == 2


def test_a_damaged_cache_is_an_error(home):
    path = cached_path(pipeline(), sizes=SIZES)
    path.parent.mkdir()
    path.write_text('{"version": 1, "network"')
    with pytest.raises(InputError, match=r"it is no cost model, or a damaged one; delete it"):
        calibrated(pipeline(), sizes=SIZES)


def test_whatever_affects_speed_has_its_own_file(home, monkeypatch):
    nano = load_nano()
    base = pipeline(denoiser=nano)
    half = load_nano()
    half.unet.to(torch.bfloat16)
    fused = load_nano()
    fused.compiled = True
    others = [
        pipeline(),
        replace(base, denoiser=half),
        replace(base, denoiser=fused),
        replace(base, regressor=PlaneSweep()),
        replace(base, cache_bytes=1e6),
        replace(base, assess_config=AssessConfig(distrust_weight=0.1)),
    ]
    paths = [cached_path(each) for each in (base, *others)]
    paths += [cached_path(base, sizes=(64, 96)), cached_path(base, clock="cpu")]
    for target, name, value in (
        (torch, "get_num_threads", lambda: 77),
        (torch, "__version__", "99.0"),
        (sphinx_nvs, "__version__", "99.0"),
        (calibration, "VERSION", 99),
        (calibration, "_processor", lambda: "abacus"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            paths.append(cached_path(base))
    assert len(set(paths)) == len(paths)


def test_settings_without_effect_on_speed_share_the_file(home):
    base = pipeline(denoiser=load_nano())
    assert cached_path(base) == cached_path(replace(base, num_steps=7, denoiser=load_nano()))
    assert cached_path(base, sizes=(128, 64, 256)) == cached_path(base)


def test_the_key_is_plain_json():
    key = speed_key(pipeline(denoiser=load_nano()))
    assert json.loads(json.dumps(key))["dtype"] == "torch.float32"


@pytest.mark.slow  # Compares seconds: on a busy machine it may fail.
def test_the_embedded_pair_is_predicted_within_a_factor_of_two():
    pair = Pipeline(regressor=PlaneSweep(), denoiser=load_nano(), num_steps=6)
    model = calibrate(pair, sizes=(32, 64), repeats=1, clock="cpu")
    assert model.network.config == pair.denoiser.unet.config
    assert model.network.selective
    assert (model.network.branches, model.clock) == (1, "cpu")
    rgb, _, cameras, _ = procedural_views(3, 6, 64, 64, supersample=1)
    scene = Scene(name="unseen", images=rgb[:2], cameras=cameras[:2])
    prepared = pair.prepare(scene, cameras[2:])
    start = torch.full((4, 8, 8), 6)
    start[:, 2:6, 2:6] = 1
    plan = ComputePlan(start_step=start, sigmas=pair.denoiser.sigmas(6), dense_steps=(1, 4))
    seconds = []
    for _ in range(3):
        with Stopwatch.running() as watch:
            pair.run_plan(prepared, plan)
        seconds.append(watch.cpu_s)
    assert 0.5 < model.plan_seconds(plan, num_context=2).median / sorted(seconds)[1] < 2


def test_features_that_do_not_fit_make_every_call_dense():
    pair = Pipeline(regressor=FirstPhoto(), denoiser=load_nano(), cache_bytes=0.0)
    model = calibrate(pair, sizes=(32, 64), repeats=1, clock="cpu")
    assert not model.network.selective
    start = torch.full((4, 8, 8), 6)
    start[:, 2, 2] = 0
    plan = ComputePlan(start_step=start, sigmas=pair.denoiser.sigmas(6), dense_steps=(0,))
    full = model.full_seconds(num_context=2, views=4, height=64, width=64, num_steps=6)
    assert model.plan_seconds(plan, num_context=2).median == pytest.approx(full.median)

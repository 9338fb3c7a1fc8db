"""From records to a profile: fits to synthetic scenes, and one small real profile."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.evaluation.datasets import Size, cases_named
from sphinx_nvs.plan import PAPER_PROFILE, Levers
from sphinx_nvs.plan.cost_model import CostModel, Seconds
from sphinx_nvs.plan.profile import load_profile
from sphinx_nvs.plan.profile_plan import Options
from sphinx_nvs.plan.search import Costs
from sphinx_nvs.presets import load_preset
from sphinx_nvs.profiling.fitting import correction_from, fit_profile, folds_of, run_losses
from sphinx_nvs.profiling.measuring import ProfileConfig, Record, Run, read_record, record_path
from sphinx_nvs.profiling.profile_builder import PROFILE, make_profile, signals_of, typical_front, with_evidence
from sphinx_nvs.sampling_params import SamplingParams

LEVERS = (Levers(width_nats=0.5, refresh_nats=1.0), Levers(width_nats=3.0, refresh_nats=9.0))
CONFIG = ProfileConfig(preset="embedded", levers=LEVERS, num_steps=10)
COSTS = Costs(fixed=1.0, sparse_base=0.3, sparse_slope=0.9)
SIGMAS = torch.cat([torch.logspace(1, -2, 10), torch.zeros(1)])


def _scene(index: int, noise: float = 0.02) -> Record:
    """A scene whose kept cells lose their signal, and whose refined cells lose a tenth or three tenths of it."""
    rng = np.random.default_rng(index)
    signal = torch.from_numpy(rng.gamma(0.5, 0.04, (2, 8, 8))).float()
    truth = signal * torch.from_numpy(rng.uniform(1 - noise, 1 + noise, signal.shape)).float()
    contrast = torch.from_numpy(rng.uniform(0, 1, signal.shape)).float()
    zeros = torch.zeros(signal.shape, dtype=torch.long)
    masked = torch.where(signal > signal.median(), 0, 10)
    runs = []
    for lever, share in ((0, 0.1), (1, 0.3)):
        for start in (zeros, masked):
            lost = torch.where(start < 10, share * truth, truth)
            runs.append(Run(lever=lever, start_step=start, to_full=lost, to_truth=lost))
    return Record(
        name=f"made-{index}",
        descriptor=torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=4)).float(), dim=0),
        scores=torch.full((2,), 0.9),
        contrast=contrast,
        signals={"change": signal, "uncertainty": signal},
        kept=truth,
        kept_truth=truth,
        full_truth=0 * truth,
        runs=tuple(runs),
    )


@pytest.fixture(scope="module")
def records():
    return [_scene(index) for index in range(12)]


def test_the_fit_recovers_the_scenes_parameters(records):
    profile, choices = fit_profile(records, CONFIG, COSTS, "made")
    assert len(profile.clusters) == 1, "descriptors are noise: one kind of scene"
    assert min(choice.error for choice in choices) < 0.05
    unseen = _scene(99)
    predicted, delivered = run_losses(unseen, profile, CONFIG)
    np.testing.assert_allclose(predicted, delivered, rtol=0.15, atol=0.01)


def test_tables_are_monotone_in_the_signal(records):
    profile, _ = fit_profile(records, CONFIG, COSTS, "made")
    for table in (*profile.clusters[0].losses, *profile.clusters[0].whole):
        assert (np.diff(table, axis=1) >= -1e-12).all()


def test_the_profile_is_calibrated_on_unseen_scenes(records):
    profile, _ = fit_profile(records, CONFIG, COSTS, "made")
    profile = with_evidence(profile, records, CONFIG, ["made"])
    assert profile.evidence["scenes"] == 12
    assert abs(profile.evidence["held_out"]["mean"]) < 0.02
    shares = [row[1] for row in typical_front(profile, records, CONFIG, SIGMAS)]
    assert shares == sorted(shares)
    record = _scene(77)
    options = Options.of(profile, signals_of(record, profile), SIGMAS, solver="euler", temperature=1.0)
    plan = options.plan(options.choose(SamplingParams(quality=0.8))[0], SamplingParams(quality=0.8), "")
    assert 0.78 <= plan.predicted.quality < 1.0
    assert plan.predicted.compute < 1.0


def test_too_few_scenes():
    with pytest.raises(InputError, match=r"^--scenes: 3 scenes were measured; give at least 5"):
        fit_profile([_scene(i) for i in range(3)], CONFIG, COSTS, "made")


def test_every_scene_is_held_out_once(records):
    held_out = [record.name for _, fold in folds_of(records) for record in fold]
    assert sorted(held_out) == sorted(record.name for record in records)
    assert all(not {r.name for r in a} & {r.name for r in b} for a, b in folds_of(records))


def test_the_correction_is_an_ascending_line_through_the_means():
    predicted = np.linspace(0.01, 1, 80)
    knots = correction_from(predicted, 0.5 * predicted)
    assert knots[0] == (0.0, 0.0)
    for x, y in knots[1:]:
        assert y == pytest.approx(0.5 * x, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metric": "psnr"}, "--metric: it is 'psnr'; choose one of ssim, flip, lpips_alex, lpips_vgg, rmse"),
        ({"against": "me"}, "--against: it is 'me'; choose one of full, truth"),
        ({"signal": "hue"}, "--signal: it is 'hue'; choose one of redraw, change, uncertainty"),
    ],
)
def test_invalid_settings(changes, sentence):
    with pytest.raises(InputError) as caught:
        ProfileConfig(preset="embedded", **changes)
    assert str(caught.value) == sentence


class Machine(CostModel):
    """A call's time is proportional to its active cells."""

    def __init__(self) -> None:
        pass

    def plan_seconds(self, plan, *, num_context, opened=False, called=False):
        calls = [1 if s in plan.dense_steps else 0.2 + plan.active(s).float().mean() for s in range(plan.num_steps)]
        return Seconds(median=1.0 + float(sum(calls)), p95=2.0 + float(sum(calls)))


REAL = replace(CONFIG, num_steps=5, size=Size(short_side=32, most_views=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile") / "p"
    pipeline = replace(load_preset(num_steps=5), profile=PAPER_PROFILE)
    config, cases = REAL, cases_named("procedural:val:5")
    stages = []
    profile, _, _ = make_profile(pipeline, cases, config, folder, "small", Machine(), lambda *args: stages.append(args))
    return pipeline, cases, config, folder, profile, stages


@pytest.mark.slow
def test_a_small_profile_for_real(made):
    _, cases, _, folder, profile, stages = made
    assert json.dumps(load_profile(folder / PROFILE, "embedded").to_json()) == json.dumps(profile.to_json())
    assert {scene for scene, *_ in stages} == {case.name for case in cases}
    assert stages[-1][2] == stages[-1][3]
    assert profile.evidence["planned"] >= 2 * len(cases), "most qualities want a plan of their own"
    assert {path.stem for path in (folder / "planned").iterdir()} == {case.name for case in cases}
    record = read_record(record_path(folder, cases[0]))
    finest, coarsest = (next(r for r in record.runs if r.lever == i and (r.start_step == 0).all()) for i in (0, 1))
    assert 0 <= float(finest.to_full.mean()) < float(coarsest.to_full.mean()) < float(record.kept.mean())


@pytest.mark.slow
def test_an_interrupted_profile_continues_to_the_same_result(made):
    pipeline, cases, config, folder, profile, _ = made
    (folder / PROFILE).unlink()
    record_path(folder, cases[2]).unlink()
    stages = []
    again, _, _ = make_profile(pipeline, cases, config, folder, "small", Machine(), lambda *args: stages.append(args))
    assert {scene for scene, *_ in stages} == {cases[2].name}
    assert again.to_json() == profile.to_json()


def test_a_folder_with_other_settings_is_refused(tmp_path):
    """`sphinx-nvs profile` is tested with a real profile (tests/cli/test_profile_command.py)."""

    def stopped(*_):
        raise KeyboardInterrupt

    pipeline, cases = replace(load_preset(num_steps=5), profile=PAPER_PROFILE), cases_named("procedural:val:5")
    with pytest.raises(KeyboardInterrupt):
        make_profile(pipeline, cases, REAL, tmp_path / "p", "small", Machine(), stopped)
    with pytest.raises(OutputError, match=r"it was started with other metric; give the same settings"):
        make_profile(pipeline, cases, replace(REAL, metric="rmse"), tmp_path / "p", "small", Machine())


def test_a_damaged_record_is_named(tmp_path):
    path = tmp_path / "scene.safetensors"
    path.write_bytes(b"12345678" * 4)
    with pytest.raises(InputError, match="it is damaged; delete it, then its scene is measured again"):
        read_record(path)

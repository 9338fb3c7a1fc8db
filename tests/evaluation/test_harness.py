import json
import math

import pytest
import torch
from eval_helpers import SIZE, fast_pipeline, pipeline, seeded, tiny_case

from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.evaluation import harness
from sphinx_nvs.evaluation.harness import EvalConfig, case_path, measure_frames, open_folder, read_case, run_case
from sphinx_nvs.evaluation.registry import available
from sphinx_nvs.evaluation.run_evaluation import evaluate

METRICS = ("psnr", "rmse", "ssim")
TIMES = ("wall_s", "cpu_s", "stages_s", "energy_j")


def config(**changes):
    settings = {"methods": ("regression", "warm", "ours-0.95"), "size": SIZE, "seeds": 2, "warmups": 0}
    return EvalConfig(**{**settings, "metrics": METRICS, **changes})


def without_times(case):
    """A case's results without times, which must be reproducible."""
    said = json.loads(json.dumps(case))
    said.pop("prepare")
    for runs in said["methods"].values():
        for run in runs:
            for name in TIMES:
                run.pop(name)
    return said


@pytest.fixture(scope="module")
def measured():
    return harness.measure_case(fast_pipeline(), tiny_case(), config())


def test_methods_run_with_every_seed_and_regression_with_one(measured):
    assert list(measured["methods"]) == ["full-50", "regression", "warm", "ours-0.95"]
    counts = {name: [run["seed"] for run in runs] for name, runs in measured["methods"].items()}
    assert counts == {"full-50": [0, 1], "regression": [0], "warm": [0, 1], "ours-0.95": [0, 1]}


def test_a_runs_figures_are_complete_json(measured):
    json.dumps(measured, allow_nan=False)
    run = measured["methods"]["ours-0.95"][0]
    assert set(run["metrics"]["whole"]) == set(METRICS)
    assert set(run["views"]) == set(METRICS)
    assert len(run["views"]["psnr"]) == 3
    assert run["calls"] >= run["dense_calls"] >= 1
    assert run["flops"] is None
    assert {"encode", "refine", "decode", "plan"} <= set(run["stages_s"])
    assert {"reconstruct", "render", "assess"} <= set(measured["prepare"][0]["stages_s"])
    assert measured["methods"]["regression"][0]["calls"] == 0


def test_the_noise_is_shared_so_that_acceleration_alone_differs(measured):
    ours = [run["psnr_to_warm"] for run in measured["methods"]["ours-0.95"]]
    assert all(math.isfinite(value) for value in ours)
    assert measured["methods"]["warm"][0]["psnr_to_warm"] is None
    assert measured["methods"]["regression"][0]["psnr_to_warm"] is not None


def test_flops_are_counted_for_networks():
    found = harness.measure_case(pipeline(), tiny_case(), config(methods=("ours-0.95",), seeds=1))
    run, full = (found["methods"][name][0] for name in ("ours-0.95", "full-50"))
    assert 0 < run["ideal_flops"] <= run["flops"] < full["flops"]
    assert full["ideal_flops"] < full["flops"], "context views need computing but once"


def test_seeds_differ_and_measurements_are_reproducible(measured):
    first, second = (run["metrics"]["whole"]["rmse"] for run in measured["methods"]["full-50"])
    assert first != second
    again = harness.measure_case(fast_pipeline(), tiny_case(), config())
    assert without_times(again) == without_times(measured)


def test_pictures_are_jpegs_of_every_method_and_of_plans_with_a_mask(measured):
    import base64

    shown = measured["pictures"]
    assert set(shown["methods"]) == set(measured["methods"])
    assert "full-50" not in shown["plans"]
    assert "regression" not in shown["plans"]
    for data in (shown["truth"], *shown["methods"].values(), *shown["plans"].values()):
        assert base64.b64decode(data)[:3] == b"\xff\xd8\xff"


def test_frames_against_the_truth_by_region():
    truth = torch.rand(2, 3, 32, 32, generator=seeded())
    frames = truth.clone()
    frames[..., :16] = (frames[..., :16] + 0.25).clamp(0, 1)
    left = torch.zeros(2, 32, 32, dtype=torch.bool)
    left[..., :16] = True
    found = measure_frames(frames, truth, available(METRICS), {"masked": left, "rest": ~left})
    assert found["metrics"]["rest"]["rmse"] == 0
    expected = float((frames - truth)[..., :16].square().mean().sqrt())
    assert found["metrics"]["masked"]["rmse"] == pytest.approx(expected, abs=1e-6)
    assert found["metrics"]["masked"]["ssim"] < found["metrics"]["rest"]["ssim"]
    assert found["metrics"]["whole"]["rmse"] == pytest.approx(sum(found["views"]["rmse"]) / 2, abs=1e-6)


def test_an_existing_case_is_not_measured_again(tmp_path, monkeypatch):
    first = run_case(fast_pipeline(), tiny_case(), config(methods=("regression",), seeds=1), tmp_path)
    monkeypatch.setattr(harness, "measure_case", lambda *_: pytest.fail("it is there"))
    assert run_case(fast_pipeline(), tiny_case(), config(methods=("regression",), seeds=1), tmp_path) == first


class _KilledError(BaseException):
    pass


TWO_CASES = [tiny_case(0), tiny_case(1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an evaluation that was not interrupted."""
    folder = tmp_path_factory.mktemp("evaluation") / "whole"
    evaluate(fast_pipeline(), TWO_CASES, config(methods=("regression",), seeds=1), folder, clock="cpu")
    return folder


@pytest.mark.parametrize("at", [0, 3, 7])
def test_an_interrupted_evaluation_continues_to_the_same_result(tmp_path, whole, at):
    """Interrupted at the n-th update and continued: all files equal an uninterrupted run's, except for times."""
    cases, plain = TWO_CASES, config(methods=("regression",), seeds=1)
    reports = []

    def cut(status):
        reports.append(status)
        if len(reports) > at:
            raise _KilledError

    with pytest.raises(_KilledError):
        evaluate(fast_pipeline(), cases, plain, tmp_path / "cut", clock="cpu", on_status=cut)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cut" / "scenes").glob("*.json")}
    summary = evaluate(fast_pipeline(), cases, plain, tmp_path / "cut", clock="cpu")
    for name, data in kept.items():
        assert (tmp_path / "cut" / "scenes" / name).read_bytes() == data
    for case in cases:
        both = [read_case(case_path(folder, case)) for folder in (whole, tmp_path / "cut")]
        assert without_times(both[0]) == without_times(both[1])
    page = (tmp_path / "cut" / "report.html").read_bytes()
    assert evaluate(fast_pipeline(), cases, plain, tmp_path / "cut", clock="cpu") == summary
    assert (tmp_path / "cut" / "report.html").read_bytes() == page


def test_other_settings_are_refused(tmp_path):
    open_folder(tmp_path / "e", config().fingerprint())
    open_folder(tmp_path / "e", config().fingerprint())
    with pytest.raises(OutputError, match=r"it was started with other seeds; give the same settings to continue it"):
        open_folder(tmp_path / "e", config(seeds=3).fingerprint())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"it is not the folder of an evaluation; choose another name"):
        open_folder(tmp_path / "mine", config().fingerprint())


def test_a_damaged_case_is_an_error(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"it is damaged; delete it, then its scene is measured again"):
        read_case(path)
    assert read_case(tmp_path / "y.json") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, r"--seeds: it is 0; give 1 or more"),
        ({"repeats": 0}, r"--repeats: it is 0; give 1 or more"),
        ({"metrics": ("psnr",)}, r"--metrics: none of them counts in the loss; add one, e.g. rmse"),
        ({"metrics": ("beauty",)}, r"metric: there is no 'beauty'"),
        ({"methods": ("magic",)}, r"method: there is no 'magic'"),
    ],
)
def test_invalid_settings_are_errors(changes, message):
    with pytest.raises(InputError, match=message):
        config(**changes)


def test_a_case_that_fails_does_not_stop_the_others(tmp_path):
    from dataclasses import replace

    def broken(size):
        raise InputError("clip 3", "it is broken", "correct it")

    cases = [replace(tiny_case(0), name="broken", load=broken), tiny_case(0)]
    summary = evaluate(fast_pipeline(), cases, config(methods=("regression",), seeds=1), tmp_path / "e", clock="cpu")
    assert summary["scenes"] == 1
    assert summary["failed"] == {"broken": "clip 3: it is broken; correct it"}
    assert "clip 3: it is broken" in (tmp_path / "e" / "report.html").read_text()

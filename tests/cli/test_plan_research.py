"""`--plan research`: the released code's plan, by the exact engine or by its own arithmetic."""

import pytest
import torch

from sphinx_nvs.plan import ComputePlan

QUICK = ("--steps", "10", "--plan", "research", "--json")


def rendered(run, made, out, *flags):
    outcome = run("render", made, *QUICK, *flags, "--out", out)
    assert outcome.code == 0, outcome.err
    return outcome.json, ComputePlan.load(out / "plan.safetensors")


def test_the_embedded_pair_runs_it_with_the_exact_engine(run, made, tmp_path):
    report, plan = rendered(run, made, tmp_path / "out")
    assert report["settings"]["planner"] == "research"
    assert report["plan"]["arithmetic"] == plan.arithmetic == "exact"
    assert plan.solver == "euler"
    assert report["plan"]["reason"].startswith("research code's plan for quality 0.98 by paper-seva-mvsplat, cluster 0")
    assert "scored by our score in the place of MUSIQ" in report["plan"]["reason"]
    assert any("in the place of MUSIQ" in warning for warning in report["warnings"])
    starts = torch.stack([view.unique()[[0, -1]] for view in plan.start_step])
    assert (starts[:, 1] <= 8).all()
    assert report["calls"]["dense"] == len(plan.dense_steps)


def test_a_seva_runs_it_with_the_research_codes_arithmetic(run, made, tmp_path):
    flags = ("--preset", "seva-planesweep", "--random-weights", "tiny", "--frames", "2", "--size", "64x64")
    report, plan = rendered(run, made, tmp_path / "out", *flags, "--device", "cpu")
    assert plan.arithmetic.startswith("research")
    assert report["calls"]["dense"] + report["calls"]["sparse"] == plan.num_steps - plan.first_step
    assert (tmp_path / "out" / "frames" / "001.png").is_file()


def test_without_it_plans_are_ours_and_nothing_is_said_of_musiq(run, made, tmp_path):
    report = run("render", made, "--steps", "4", "--frames", "1", "--out", tmp_path / "out", "--json").json
    assert report["settings"]["planner"] == "ours"
    assert not any("MUSIQ" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--quality", "0.9"), "--plan research: --quality is 0.9; give 0.95 or 0.98: it has no other rules"),
        (("--method", "diffusion"), "--plan research: --method diffusion needs no planner; leave one of them out"),
        (("--exact",), "--plan research: --exact would be another plan; leave one of them out"),
    ],
)
def test_what_does_not_go_with_it(run, made, tmp_path, flags, words):
    outcome = run("render", made, *QUICK, *flags, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (2, f"sphinx-nvs: {words}\n")
    assert not (tmp_path / "out").exists()

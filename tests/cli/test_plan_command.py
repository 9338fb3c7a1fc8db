"""`sphinx-nvs plan`: the quote, the sheet and the plan, with nothing refined."""

import json

import pytest
import torch

from sphinx_nvs import media
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.profile_plan import ROUNDING
from sphinx_nvs.visualization.level import Level
from sphinx_nvs.visualization.plan_sheet import plan_sheet

QUICK = ("--size", "64x64", "--steps", "8")


@pytest.fixture
def quote(run, made, machine, monkeypatch):
    """Plans, and fails if anything is run."""
    machine()
    monkeypatch.setattr(Pipeline, "begin", None)

    def quote(*words: object) -> dict:
        outcome = run("plan", made, *QUICK, *words, "--json")
        assert outcome.code == 0, outcome.err
        return outcome.json

    return quote


def test_a_quote_says_what_a_render_would_be(quote):
    report = quote("--quality", "0.9")
    assert (report["frames"], report["size"], report["quality_requested"]) == (3, "64x64", 0.9)
    predicted = report["predicted"]
    assert 0.9 - 0.1 * ROUNDING <= predicted["quality"] <= 1
    assert 0.03 < predicted["seconds"] < predicted["seconds_p95"]
    assert 0 < predicted["active_share"] <= 1
    assert report["reason"] == report["plan"]["reason"]
    assert report["reason"].startswith("quality 0.9: ")
    assert report["machine"] == "made up"
    assert report["in_time"] is None


def test_levels_ascend_from_the_render_to_full_diffusion(quote):
    levels = quote()["levels"]
    assert (levels[0]["name"], levels[-1]["name"]) == ("render alone", "full diffusion")
    assert levels[0]["seconds"] == pytest.approx(0.03)
    # Stages 1 to 3, encoding, decoding of three views, and a call a step.
    assert levels[-1]["seconds"] == pytest.approx(0.03 + 0.01 + 3 * 0.01 + 8 * 0.02)
    for name in ("quality", "seconds", "seconds_p95"):
        values = [level[name] for level in levels[1:-1]]
        assert values == sorted(values)
    assert all(1 - level["quality"] <= (1 + ROUNDING) * (1 - level["asked"]) for level in levels[1:-1])


def test_a_later_deadline_is_never_worse_and_a_short_one_keeps_the_render(quote):
    reports = [quote("--deadline-s", str(seconds)) for seconds in (1e-6, 20, 1000)]
    assert reports[0]["render_only"]
    assert reports[0]["in_time"] is False
    assert reports[0]["plan"]["active_share"] == 0
    assert not reports[1]["render_only"]
    assert reports[2]["in_time"] is True
    assert reports[1]["predicted"]["quality"] <= reports[2]["predicted"]["quality"] == 1


def test_the_text_has_the_quote_the_reason_and_the_front(run, made, machine):
    machine()
    lines = run("plan", made, *QUICK, "--deadline-s", "0.000001").out.splitlines()
    assert lines[0].startswith("3 frames of 64x64: quality unknown, 0.03 s (95 %: 0.03 s), 0.0% of")
    assert lines[1].startswith("because of deadline: ")
    assert lines[2] == "LATE: the deadline of 1e-06 s would probably be missed"
    assert [line.split("  ")[0] for line in lines[5:7]] == ["render alone", "quality 0.8"]


def test_what_is_planned_is_what_a_render_runs(run, made, tmp_path, machine):
    machine()
    path = tmp_path / "plans" / "room.safetensors"
    words = (*QUICK, "--quality", "0.9", "--seed", "5")
    assert run("plan", made, *words, "--save-plan", path).code == 0
    assert run("render", made, *words, "--out", tmp_path / "o").code == 0
    planned, run_plan = ComputePlan.load(path), ComputePlan.load(tmp_path / "o" / "plan.safetensors")
    assert torch.equal(planned.start_step, run_plan.start_step)
    assert planned.dense_steps == run_plan.dense_steps
    assert run("render", made, *QUICK, "--seed", "5", "--replay", path, "--out", tmp_path / "r").code == 0
    frame = "frames/001.png"
    assert (tmp_path / "o" / frame).read_bytes() == (tmp_path / "r" / frame).read_bytes()


def test_the_sheet_is_drawn_and_not_drawn_over(run, made, tmp_path, machine):
    machine()
    path = tmp_path / "plan.png"
    assert run("plan", made, *QUICK, "--plot", path).out.endswith(f"drawn: {path}\n")
    picture = media.read_image(path)
    assert picture.shape[-1] > 1000
    assert float(picture.std()) > 0.1
    assert run("plan", made, *QUICK, "--plot", path).err == (
        f"sphinx-nvs: output {path}: it exists; choose another name or add --overwrite\n"
    )


LONG = ("--targets", "interpolate", "--contexts", "0,4", "--frames", "7", "--window", "5")


def test_a_long_path_is_quoted_unit_by_unit(quote, run, made, tmp_path):
    report = quote(*LONG)
    units = report["units"]
    assert sorted(target for unit in units for target in unit["targets"]) == list(range(7))
    assert report["predicted"]["seconds"] == pytest.approx(sum(unit["seconds"] for unit in units), abs=0.01)
    assert report["plan"] is None
    assert report["levels"][0]["seconds"] == pytest.approx(0.01 + len(units) * 0.02)
    outcome = run("plan", made, *QUICK, *LONG, "--save-plan", tmp_path / "p.safetensors")
    assert "--save-plan: this path is made in " in outcome.err
    assert outcome.code == 2
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("method", ["diffusion", "regression"])
def test_methods_that_leave_no_choice_are_quoted_too(quote, method):
    report = quote("--method", method)
    assert report["levels"] == []
    assert report["predicted"]["quality"] == (1 if method == "diffusion" else None)
    assert report["predicted"]["active_share"] == (1 if method == "diffusion" else 0)


def test_bad_options_are_one_sentence(run, made):
    outcome = run("plan", made, "--quality", "95")
    assert (outcome.code, outcome.err) == (2, "sphinx-nvs: --quality: it is 95; give a number in 0..1, e.g. 0.95\n")


@pytest.mark.parametrize("starts", [(0, 2, 4), (4, 4, 4)])
def test_a_sheet_of_any_plan(starts):
    cells = torch.tensor(starts).view(3, 1, 1).expand(3, 8, 8).contiguous()
    plan = ComputePlan(start_step=cells, sigmas=torch.linspace(4, 0, 5), dense_steps=(0, 2))
    level = Level(name="render alone", asked=None, quality=-3.0, seconds=1.0, seconds_p95=2.0)
    full = Level(name="full diffusion", asked=None, quality=1.0, seconds=4.0, seconds_p95=5.0)
    figure = plan_sheet([torch.rand(3, 64, 64)] * 3, plan, [level, full], level, "three frames")
    texts = [text.get_text() for part in figure.subfigs for axes in part.axes for text in axes.texts]
    assert "render alone (-3.00)" in texts
    assert any("the render is kept" in text for text in texts) == (starts[0] == 4)
    titles = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    refined = 1.0 if starts[0] == 0 else 0.0
    assert titles[0] == f"frame 0: {refined:.0%} refined"
    assert json.dumps(titles).count("frame 2: 0% refined") == 1

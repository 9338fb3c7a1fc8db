"""`sphinx-nvs render` by quality, by deadline, by a profile and by the plan of an earlier run."""

import json
from dataclasses import replace

import pytest
import torch

from sphinx_nvs import media
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan
from sphinx_nvs.plan.profile import rules_to_json, shipped_profile

QUICK = ("--size", "64x64", "--steps", "8")


@pytest.fixture
def sentence(run, made, tmp_path):
    """Renders, expects exit 2 and nothing written, and returns the one sentence on standard error."""

    def sentence(*words: object) -> str:
        out = tmp_path / "out"
        outcome = run("render", made, *QUICK, "--out", out, *words)
        assert (outcome.code, outcome.out) == (2, ""), outcome
        assert not out.exists()
        (line,) = [line for line in outcome.err.splitlines() if not line.startswith("calibrating")]
        return line.removeprefix("sphinx-nvs: ").replace(str(tmp_path), "TMP")

    return sentence


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--quality", "1.2"), "--quality: it is 1.2; give a number in 0..1, e.g. 0.95"),
        (("--quality", "-0.1"), "--quality: it is -0.1; give a number in 0..1, e.g. 0.95"),
        (("--quality", "nan"), "--quality: it is nan; give a number in 0..1, e.g. 0.95"),
        (("--deadline-s", "0"), "--deadline-s: it is 0; give seconds above 0, e.g. 2.5"),
        (("--deadline-s", "-3"), "--deadline-s: it is -3; give seconds above 0, e.g. 2.5"),
        (("--deadline-s", "nan"), "--deadline-s: it is nan; give seconds above 0, e.g. 2.5"),
        (
            ("--deadline-s", "2", "--min-quality", "1.5"),
            "--min-quality: it is 1.5; give a number in 0..1, e.g. 0.95",
        ),
        (
            ("--deadline-s", "2", "--min-quality", "0.9", "--quality", "0.8"),
            "--min-quality: it is 0.9, above the quality of 0.8; give one that is not above it",
        ),
        (
            ("--min-quality", "0.5"),
            "--min-quality: there is no deadline that it could stand against; give --deadline-s, too",
        ),
        (("--strict",), "--strict: there is no deadline that it could stand against; give --deadline-s, too"),
        (
            ("--deadline-s", "2", "--method", "diffusion"),
            "--deadline-s: --method diffusion leaves no choice; leave one of them out",
        ),
        (
            ("--plan", "research", "--deadline-s", "2"),
            "--plan research: --deadline-s would be another plan; leave one of them out",
        ),
    ],
)
def test_options_that_contradict_each_other_are_one_sentence(sentence, words, expected):
    assert sentence(*words) == expected


def test_profiles_that_cannot_be(sentence, tmp_path):
    path = tmp_path / "p.json"
    words = ("--profile", path)
    assert sentence(*words) == (
        "profile TMP/p.json: cannot be read (No such file or directory); give a file that sphinx-nvs profile wrote"
    )
    path.write_text("{")
    assert sentence(*words) == "profile TMP/p.json: is not JSON; give a file that sphinx-nvs profile wrote"
    path.write_text('{"kind": "song"}')
    assert sentence(*words) == "profile TMP/p.json: it holds no profile; give a file that sphinx-nvs profile wrote"
    values = shipped_profile("embedded").to_json()
    path.write_text(json.dumps({**values, "clusters": [{}]}))
    assert sentence(*words) == "profile TMP/p.json: it is damaged; make it again with sphinx-nvs profile"
    path.write_text(json.dumps({**values, "preset": "seva-mvsplat"}))
    assert sentence(*words) == (
        "profile TMP/p.json: it was made for the preset seva-mvsplat, not embedded; "
        "make one with sphinx-nvs profile --preset embedded, or leave it out"
    )
    path.write_text(json.dumps(values))
    assert sentence(*words, "--exact") == (
        "--exact: a profile decides what is approximated; leave --exact or --profile out"
    )


def test_a_profile_plans(run, made, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(rules_to_json(replace(PAPER_PROFILE, name="mine"))))
    outcome = run("render", made, *QUICK, "--profile", path, "--out", tmp_path / "o", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["settings"]["profile"] == outcome.json["plan"]["profile"] == "mine"


def test_a_deadline_that_nothing_meets_gives_the_render_and_says_so(run, made, tmp_path, machine):
    machine(dense_s=100.0, regression_s=1e-3)
    outcome = run("render", made, *QUICK, "--deadline-s", "0.001", "--out", tmp_path / "late", "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json
    deadline = report["deadline"]
    assert (deadline["asked_s"], deadline["met"], deadline["render_only"]) == (0.001, False, True)
    assert deadline["taken_s"] == pytest.approx(report["seconds"])
    assert deadline["note"].startswith(
        "DEADLINE TOO SHORT: nothing can be refined within 0.001 s, these are the renders alone; LATE: "
    )
    assert report["warnings"][0] == deadline["note"]
    assert deadline["note"] in outcome.err
    assert report["reason"].startswith("deadline: ")
    assert report["quality_requested"] is None
    assert run("render", made, *QUICK, "--method", "regression", "--out", tmp_path / "render").code == 0
    for name in ("000.png", "001.png", "002.png"):
        frames = (media.read_image(tmp_path / kind / "frames" / name) for kind in ("late", "render"))
        assert torch.equal(*frames)


def test_a_strict_deadline_is_an_error_before_anything_is_rendered(sentence, machine):
    machine(regression_s=40.0)
    assert sentence("--deadline-s", "5", "--strict") == (
        "--deadline-s: it is 5 s, the render alone takes 120.00 s; allow more time, or leave strict out "
        "and take the render"
    )
    machine(dense_s=100.0, regression_s=1e-3)
    assert sentence("--deadline-s", "60", "--strict").startswith("--deadline-s: ")


def test_a_deadline_that_is_far_away_gives_the_best_and_the_floor_holds(run, made, tmp_path, machine):
    machine()
    far = run("render", made, *QUICK, "--deadline-s", "900", "--out", tmp_path / "far", "--json").json
    assert far["deadline"] == {
        "asked_s": 900,
        "taken_s": pytest.approx(far["seconds"]),
        "met": True,
        "render_only": False,
        "note": "",
    }
    assert far["predicted"]["quality"] == 1
    assert 0 < far["predicted"]["seconds"] < far["predicted"]["seconds_p95"]
    machine(dense_s=100.0)
    words = ("--deadline-s", "0.001", "--min-quality", "0.9")
    held = run("render", made, *QUICK, *words, "--out", tmp_path / "held", "--json").json
    assert held["deadline"]["note"].endswith("to keep the quality at 0.9")
    assert not held["deadline"]["render_only"]
    assert held["predicted"]["quality"] >= 0.9


def test_speed_is_measured_for_deadlines_only_and_again_with_calibrate(run, made, tmp_path, machine):
    uses = machine()
    words = (*QUICK, "--method", "sphinx", "--quality", "0.9", "--json")
    plain = run("render", made, *words, "--out", tmp_path / "a")
    assert (uses, plain.json["predicted"]["seconds"]) == ([], None)
    timed = run("render", made, *words, "--deadline-s", "900", "--out", tmp_path / "b")
    assert (uses, timed.err) == (["known"], "calibrating this machine, once: about 20 s\n")
    assert run("render", made, *words, "--calibrate", "--out", tmp_path / "c").json["predicted"]["seconds"] > 0
    assert uses == ["known", "again"]
    assert run("render", made, *words, "--out", tmp_path / "d").json["predicted"]["seconds"] > 0
    assert uses == ["known", "again"]


@pytest.fixture
def earlier(run, made, tmp_path):
    out = tmp_path / "earlier"
    assert run("render", made, *QUICK, "--quality", "0.9", "--seed", "3", "--out", out).code == 0
    return out


@pytest.mark.parametrize("what", ["plan.safetensors", "."])
def test_a_plan_is_replayed_bit_equal(run, made, tmp_path, earlier, what):
    out = tmp_path / "again"
    outcome = run("render", made, *QUICK, "--replay", earlier / what, "--seed", "3", "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["settings"]["replay"] == str(earlier / what)
    assert outcome.json["active_share"] > 0
    assert (out / "plan.safetensors").read_bytes() == (earlier / "plan.safetensors").read_bytes()
    for name in ("frames/000.png", "frames/001.png", "frames/002.png"):
        assert (out / name).read_bytes() == (earlier / name).read_bytes()


def test_plans_of_a_long_path_are_replayed(run, made, tmp_path):
    words = (*QUICK, "--targets", "interpolate", "--contexts", "0,4", "--frames", "7", "--window", "5")
    assert run("render", made, *words, "--out", tmp_path / "a").code == 0
    assert run("render", made, *words, "--replay", tmp_path / "a", "--out", tmp_path / "b").code == 0
    for name in [f"frames/{index:03d}.png" for index in range(7)]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    one = sorted((tmp_path / "a" / "plans").iterdir())[0]
    outcome = run("render", made, *words, "--replay", one, "--out", tmp_path / "c")
    assert "--replay: 1 plan for a path that is made in " in outcome.err


def test_plans_that_cannot_be_replayed(sentence, earlier, tmp_path):
    plan, path = ComputePlan.load(earlier / "plan.safetensors"), tmp_path / "p.safetensors"
    words = ("--replay", path)
    assert sentence(*words) == (
        "TMP/p.safetensors: cannot be read (No such file or directory); give a plan written by a render"
    )
    path.write_bytes((earlier / "plan.safetensors").read_bytes()[:-40])
    assert sentence(*words) == ("TMP/p.safetensors: is not a plan file; give a plan.safetensors written by a render")
    path.write_bytes((earlier / "frames" / "000.png").read_bytes())
    assert "is not a plan file" in sentence(*words)
    replace(plan, start_step=plan.start_step[:, 1:]).save(path)
    assert sentence(*words) == (
        "--replay: the plan is for 3 frames of 64x56 pixels, not 3 frames of 64x64 pixels; "
        "give the scene, --targets, --frames and --size of the earlier run"
    )
    replace(plan, sigmas=plan.sigmas * 70).save(path)
    assert sentence(*words) == (
        "--replay: its noise levels are not those of nano at 8 steps; give --preset and --steps of the earlier run"
    )
    assert sentence(*words, "--quality", "0.9") == ("--replay: --quality would be another plan; leave one of them out")
    (tmp_path / "empty").mkdir()
    assert sentence("--replay", tmp_path / "empty") == (
        "--replay TMP/empty: the folder holds no plan; give a plan.safetensors, or the folder of an earlier render"
    )

"""`sphinx-nvs render` end to end on a tiny scene with an untrained denoiser."""

import json
from pathlib import Path

import pytest
import torch

from sphinx_nvs import media
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan
from sphinx_nvs.plan.profile import rules_to_json
from sphinx_nvs.scene import read_capture
from sphinx_nvs.scene.camera_files import write_cameras

QUICK = ("--size", "64x64", "--steps", "2")


@pytest.fixture
def rendered(run, scene, tmp_path):
    """A finished folder and its report."""
    out = tmp_path / "out"
    outcome = run("render", scene, *QUICK, "--seed", "4", "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return out, outcome.json


def test_folder_holds_frames_video_cameras_plan_and_report(rendered):
    out, _ = rendered
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == [
        "SHA256SUMS",
        "frames/000.png",
        "frames/001.png",
        "frames/002.png",
        "plan.json",
        "plan.safetensors",
        "plan/000.png",
        "plan/001.png",
        "plan/002.png",
        "report.json",
        "transforms.json",
        "video.mp4",
    ]
    assert media.read_video(out / "video.mp4").shape == (3, 3, 64, 64)


def test_files_have_the_size_of_the_request_and_its_pixels(run, scene, tmp_path):
    """45 x 37 pixels are the top left ones of 64 x 64, computed with the same cameras."""
    outcome = run("render", scene, "--size", "45x37", "--steps", "2", "--out", tmp_path / "odd", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["size"] == "45x37"
    frame = media.read_image(tmp_path / "odd" / "frames" / "000.png")
    assert frame.shape == (3, 37, 45)
    assert media.read_video(tmp_path / "odd" / "video.mp4").shape == (3, 3, 37, 45)
    assert media.read_image(tmp_path / "odd" / "plan" / "000.png").shape[1] == 14 * 37
    written = read_capture(tmp_path / "odd")
    assert (written.views[0].height, written.views[0].width) == (37, 45)
    assert ComputePlan.load(tmp_path / "odd" / "plan.safetensors").start_step.shape == (3, 8, 8)
    # The same request once more, from the plan that was written.
    again = run(
        "render", scene, "--size", "45x37", "--steps", "2", "--replay", tmp_path / "odd", "--out", tmp_path / "b"
    )
    assert again.code == 0, again.err
    assert torch.equal(media.read_image(tmp_path / "b" / "frames" / "000.png"), frame)


def test_nothing_is_left_beside_the_result(rendered):
    out, _ = rendered
    assert sorted(p.name for p in out.parent.iterdir()) == ["out", "scene"]


def test_report_keeps_its_contract(rendered):
    out, printed = rendered
    report = json.loads((out / "report.json").read_text())
    assert printed == {**report, "out": str(out)}
    assert report["frames"] == 3
    assert report["method"] == "sphinx"
    assert report["seed"] == 4
    assert report["quality_requested"] == 0.98
    assert 0 <= report["active_share"] <= 1
    assert {"read", "reconstruct", "render", "assess"} <= set(report["stages_s"])
    assert all(seconds >= 0 for seconds in report["stages_s"].values())
    assert set(report["versions"]) == {"sphinx_nvs", "torch", "numpy", "python"}
    assert report["settings"]["contexts"] == [0, 4]
    assert report["settings"]["split"] == 2
    assert report["settings"]["test_views"] == [1, 2, 3]


def test_metrics_are_those_of_the_frames(rendered):
    out, report = rendered
    views = report["metrics"]["views"]
    assert [view["view"] for view in views] == [1, 2, 3]
    assert report["metrics"]["mean"]["psnr_db"] == pytest.approx(sum(v["psnr_db"] for v in views) / 3, abs=1e-3)
    truth = media.read_image(out.parent / "scene" / "images" / "002.png")
    frame = media.read_image(out / "frames" / "001.png")
    psnr = -10 * torch.log10((frame - truth).square().mean())
    assert views[1]["psnr_db"] == pytest.approx(float(psnr), abs=0.05)


def test_cameras_written_are_the_targets(rendered):
    out, _ = rendered
    truth = read_capture(out.parent / "scene").cameras([1, 2, 3], 64, 64)
    written = read_capture(out)
    assert torch.allclose(written.cameras([0, 1, 2], 64, 64).c2w, truth.c2w)
    assert torch.allclose(written.cameras([0, 1, 2], 64, 64).K, truth.K)
    assert written.load([0], 64, 64).images.shape == (1, 3, 64, 64)


def test_plan_can_be_loaded_and_says_what_the_report_says(rendered):
    out, report = rendered
    plan = ComputePlan.load(out / "plan.safetensors")
    assert plan.start_step.shape == (3, 8, 8)
    assert plan.to_json() == report["plan"] == json.loads((out / "plan.json").read_text())


def test_same_seed_gives_bit_equal_frames_and_another_seed_does_not(run, made, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        outcome = run("render", made, *QUICK, "--method", "diffusion", "--seed", seed, "--out", tmp_path / name)
        assert outcome.code == 0, outcome.err
    first, again, other = ((tmp_path / name / "frames" / "001.png").read_bytes() for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize(("method", "share"), [("regression", 0.0), ("diffusion", 1.0)])
def test_limits_of_the_family(run, made, tmp_path, method, share):
    report = run("render", made, *QUICK, "--method", method, "--out", tmp_path / "out", "--json").json
    assert report["active_share"] == share
    assert report["computed_share"] == share


def test_mp4_alone(run, made, tmp_path):
    out = tmp_path / "new" / "room.mp4"
    outcome = run("render", made, *QUICK, "--method", "regression", "--out", out)
    assert outcome.code == 0, outcome.err
    assert [p.name for p in out.parent.iterdir()] == ["room.mp4"]
    assert media.read_video(out).shape == (3, 3, 64, 64)
    assert outcome.out.startswith("3 frames of 64x64 in ")
    assert len(outcome.out.splitlines()) == 1


def test_a_pipe_sees_no_progress(run, made, tmp_path):
    assert run("render", made, *QUICK, "--method", "regression", "--out", tmp_path / "x.mp4").err == ""


@pytest.mark.parametrize(
    ("words", "contexts", "frames"),
    [
        (("--contexts", "3", "--targets", "interpolate", "--frames", "2"), [0, 2, 4], 2),
        (("--contexts", "1,3", "--targets", "test"), [1, 3], 3),
        (("--contexts", "1,3", "--targets", "orbit", "--frames", "2"), [1, 3], 2),
        (("--split", "2", "--targets", "dolly zoom-in", "--frames", "2"), [0, 4], 2),
        (("--frames", "1"), [0, 4], 1),
    ],
)
def test_views_by_choice(run, made, tmp_path, words, contexts, frames):
    outcome = run("render", made, *QUICK, *words, "--method", "regression", "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["settings"]["contexts"] == contexts
    assert outcome.json["frames"] == frames


def test_targets_from_a_camera_file_have_no_metrics(run, made, tmp_path):
    file = tmp_path / "cameras.json"
    write_cameras(file, read_capture(made).cameras([1, 2], 64, 64))
    outcome = run(
        "render", made, *QUICK, "--method", "regression", "--targets", file, "--out", tmp_path / "o", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json["frames"] == 2
    assert outcome.json["metrics"] is None


def test_several_splits_and_no_word_takes_all_views_and_says_so(run, scene, tmp_path):
    (scene / "train_test_split_3.json").write_text('{"train_ids": [0, 2, 4], "test_ids": [1, 3]}')
    outcome = run("render", scene, *QUICK, "--method", "regression", "--out", tmp_path / "out", "--json")
    assert outcome.json["settings"]["split"] is None
    assert outcome.json["settings"]["contexts"] == [0, 1, 2, 3, 4]
    assert outcome.err == "scene has splits 2, 3 and none is chosen: no photo is held out; see --split\n"


def test_overwrite_replaces_a_result_whole(run, made, tmp_path):
    out = tmp_path / "out"
    words = ("render", made, *QUICK, "--method", "regression", "--out", out)
    assert run(*words).code == 0
    assert run(*words, "--frames", "1", "--overwrite").code == 0
    assert [p.name for p in (out / "frames").iterdir()] == ["000.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_overwrite_never_replaces_a_folder_that_is_no_result(run, made, tmp_path):
    (tmp_path / "diary.txt").write_text("dear")
    outcome = run("render", made, *QUICK, "--out", tmp_path, "--overwrite")
    assert outcome.code == 2
    assert (
        outcome.err
        == f"sphinx-nvs: output {tmp_path}: it is a folder that holds no earlier result; choose another name\n"
    )
    assert (tmp_path / "diary.txt").read_text() == "dear"


def test_an_empty_folder_may_be_filled(run, made, tmp_path):
    (tmp_path / "out").mkdir()
    words = ("render", made, *QUICK, "--method", "regression", "--out", tmp_path / "out", "--overwrite")
    assert run(*words).code == 0
    assert Path(tmp_path / "out" / "report.json").is_file()


def test_exact_and_memory_flags(run, made, tmp_path):
    calls = {}
    # An untrained denoiser's first call changes every cell: score rules, which look at the render, hold some.
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(rules_to_json(PAPER_PROFILE)))
    saving = ("--profile", rules)
    for name, flags in (("fast", saving), ("exact", ("--exact",)), ("tight", (*saving, "--cache-gb", "0"))):
        report = run(
            "render",
            made,
            "--size",
            "128x128",
            "--steps",
            "12",
            "--quality",
            "0.9",
            *flags,
            "--out",
            tmp_path / name,
            "--json",
        ).json
        calls[name] = report["calls"]
        assert 0 < report["active_share"] <= report["computed_share"] <= 1
    assert calls["exact"]["sparse"] == calls["tight"]["sparse"] == 0
    assert calls["fast"]["sparse"] > 0
    assert calls["fast"]["dense"] + calls["fast"]["sparse"] == calls["tight"]["dense"] <= calls["exact"]["dense"]


LONG = ("--targets", "interpolate", "--contexts", "0,4", "--frames", "9", "--window", "6", "--method", "diffusion")


def test_a_long_path_is_made_in_units(run, made, tmp_path):
    out = tmp_path / "out"
    outcome = run("render", made, *QUICK, *LONG, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json
    assert (report["frames"], report["plan"]) == (9, None)
    assert (report["settings"]["window"], report["settings"]["chunks"]) == (6, "interp")
    assert sorted(target for unit in report["units"] for target in unit["targets"]) == list(range(9))
    assert report["units"] == json.loads((out / "plan.json").read_text())["units"]
    assert report["active_share"] == 1
    assert sorted(p.name for p in (out / "frames").iterdir()) == [f"{i:03d}.png" for i in range(9)]
    plans = [ComputePlan.load(path) for path in sorted((out / "plans").iterdir())]
    assert [len(plan.start_step) for plan in plans] == [len(unit["targets"]) for unit in report["units"]]
    assert media.read_video(out / "video.mp4").shape == (9, 3, 64, 64)


def test_frames_of_units_stand_in_the_order_of_the_path(run, made, tmp_path):
    """Regression knows no units, so that its frames are the same in one pass."""
    words = [word if word != "diffusion" else "regression" for word in LONG]
    assert run("render", made, *QUICK, *words, "--out", tmp_path / "units").code == 0
    assert run("render", made, *QUICK, *words, "--window", "99", "--out", tmp_path / "whole").code == 0
    for name in [f"{i:03d}.png" for i in range(9)]:
        assert torch.equal(*(media.read_image(tmp_path / kind / "frames" / name) for kind in ("units", "whole")))


def test_held_out_photos_of_a_long_render_are_measured_each_against_its_own(run, made, tmp_path):
    words = ("--contexts", "0,4", "--targets", "test", "--method", "regression")
    reports = [
        run("render", made, *QUICK, *words, "--window", w, "--out", tmp_path / w, "--json").json for w in ("4", "9")
    ]
    assert [report["settings"]["chunks"] for report in reports] == ["nearest-gt", "nearest-gt"]
    assert [len(report["units"]) > 1 for report in reports] == [True, False]
    assert reports[0]["metrics"] == reports[1]["metrics"]


def test_a_window_that_is_too_small(run, made, tmp_path):
    outcome = run("render", made, *QUICK, *LONG, "--window", "3", "--chunks", "interp-gt", "--out", tmp_path / "o")
    assert outcome.code == 2
    assert outcome.err == (
        "sphinx-nvs: window of interp-gt: 3 views have no room for a target beside two anchors and 2 photos; "
        "give at least 5, or choose interp\n"
    )
    assert not (tmp_path / "o").exists()
    outcome = run("render", made, *QUICK, *LONG, "--window", "0", "--out", tmp_path / "o")
    assert outcome.err == "sphinx-nvs: window: it is 0; give at least 2 views\n"

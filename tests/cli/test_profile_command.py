"""`sphinx-nvs profile` and `profile-show`: a small real profile, continuation after an interrupt, and errors."""

import json

import pytest

from sphinx_nvs.plan.profile import FittedProfile, load_profile, shipped_profile

SMALL = ("--quick", "--size", "32", "--views", "1", "--steps", "4")
FIVE = ("--scenes", "procedural:val:5")


def test_a_profile_is_made_shown_and_used(run, made, tmp_path, machine, monkeypatch):
    machine()
    out = tmp_path / "p" / "mine.json"
    words = ("profile", *FIVE, *SMALL, "--out", out)

    def stopping(pipeline, case, *rest):
        if case.name.endswith("002"):
            raise KeyboardInterrupt
        return measured_case(pipeline, case, *rest)

    from sphinx_nvs.profiling.profile_builder import measured_case

    with monkeypatch.context() as patch:
        patch.setattr("sphinx_nvs.profiling.profile_builder.measured_case", stopping)
        cut = run(*words)
    folder = out.with_name("mine.scenes")
    assert cut.code == 130
    assert cut.err.splitlines()[-1] == (
        f"sphinx-nvs: interrupted; scenes measured so far are kept in {folder}; the same command continues"
    )
    assert not out.exists()
    assert len(list((folder / "scenes").iterdir())) == 2

    outcome = run(*words, "--json")
    assert outcome.code == 0, outcome.err
    assert "2 of 5 scenes were measured before" in outcome.err
    assert "scene 3 of 5: procedural-val-002" in outcome.err
    assert "scene 5 of 5: procedural-val-004, 1 min to go" in outcome.err
    profile = load_profile(out, "embedded")
    assert isinstance(profile, FittedProfile)
    assert (profile.name, profile.num_steps, len(profile.levers)) == ("mine", 4, 4)
    assert outcome.json["evidence"]["scenes"] == 5
    assert outcome.json["report"] == str(out.with_name("mine.report.html"))
    page = out.with_name("mine.report.html").read_text()
    assert page.count("<svg") == 4
    for title in ("Loss by region", "Calibration", "Clusters and score bins", "Compute by quality"):
        assert title in page

    shown = run("profile-show", out)
    assert "mine, for the preset embedded" in shown.out
    assert "5 scenes (procedural:val:5)" in shown.out
    rendered = run(
        "render", made, "--size", "64x64", "--steps", "8", "--profile", out, "--out", tmp_path / "o", "--json"
    )
    assert rendered.json["plan"]["profile"] == "mine"
    assert run(*words).err == f"sphinx-nvs: output {out}: it exists; choose another name or add --overwrite\n"
    other = run("profile", *FIVE, *SMALL, "--metric", "rmse", "--out", out, "--overwrite")
    assert f"output {folder}: it was started with other metric" in other.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--scenes", "procedural:val:4"),
            "--scenes: there are 4; give at least 5: rules are checked on held-out scenes",
        ),
        (("--scenes", "demo-folder"), "scene demo-folder: there is no such file or folder"),
        (("--scenes", ","), "--scenes: ',' names no scene; give e.g. procedural:test:3 or captures:DIR"),
        (("--scenes", "procedural:val"), "--scenes: 'procedural:val'; give procedural:SPLIT:N"),
        (("--scenes", "procedural:val:5", "--views", "0"), "--views: it is 0; give 1 or more"),
        (("--scenes", "procedural:val:5", "--size", "big"), "--size: 'big'"),
        (("--scenes", "procedural:val:5", "--preset", "best"), "preset: there is no 'best'"),
    ],
)
def test_errors_are_one_sentence_and_leave_nothing(run, tmp_path, machine, words, expected):
    machine()
    outcome = run("profile", *words, "--out", tmp_path / "p.json")
    assert outcome.code == 2
    assert outcome.err.startswith(f"sphinx-nvs: {expected}")
    assert outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == []


def test_an_empty_folder_of_scenes(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    outcome = run("profile", "--scenes", empty, "--out", tmp_path / "p.json")
    assert outcome.err == f"sphinx-nvs: folder {empty}: it holds no scene; give a scene or a folder of scenes\n"


def test_a_profile_is_a_json_file(run, tmp_path):
    outcome = run("profile", *FIVE, "--out", tmp_path / "p")
    assert outcome.err == (f"sphinx-nvs: --out: {tmp_path / 'p'} is not a .json file; give a name that ends in .json\n")


def test_only_a_denoiser_that_decodes_beside_the_photos_redraws(run, tmp_path):
    words = ("--preset", "seva-planesweep", "--random-weights", "tiny", "--signal", "redraw")
    outcome = run("profile", *FIVE, *words, "--out", tmp_path / "p.json")
    assert outcome.err.splitlines()[-1] == (
        "sphinx-nvs: --signal: it is redraw, and seva decodes latents alone; give change, or leave it out"
    )
    assert list(tmp_path.iterdir()) == []


def test_profiles_of_presets_are_shown(run):
    about = run("profile-show", "embedded", "--json").json
    profile = shipped_profile("embedded")
    assert (about["kind"], about["name"], about["lever_sets"]) == ("tables", "embedded", len(profile.levers))
    assert [row["quality"] for row in about["typical"]] == [row[0] for row in profile.typical]
    rules = run("profile-show", "seva-mvsplat")
    assert rules.out.splitlines()[1].split() == ["rules", "for", "quality", "0.95,", "0.98;", "clusters:", "3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "cannot be read (No such file or directory); give a file that sphinx-nvs profile wrote"),
        ("{", "is not JSON; give a file that sphinx-nvs profile wrote"),
        (json.dumps({"kind": "tables", "version": 1}), "it is damaged; make it again with sphinx-nvs profile"),
    ],
)
def test_other_files_are_not_shown_as_profiles(run, tmp_path, text, expected):
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    outcome = run("profile-show", path)
    assert (outcome.code, outcome.err) == (2, f"sphinx-nvs: profile {path}: {expected}\n")

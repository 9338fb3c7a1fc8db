"""`sphinx-nvs render` with SEVA presets: missing weights, untrained models, licences."""

import json

import pytest

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.visualization.heatmap import plan_picture

QUICK = ("--size", "64x64", "--steps", "2", "--frames", "2")
TINY = ("--preset", "seva-planesweep", "--random-weights", "tiny")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Only the shipped weights are installed."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SPHINX_NVS_HOME", str(folder))
    return folder


@pytest.mark.parametrize("method", ["sphinx", "regression"])
def test_untrained_models_mark_every_output(run, made, tmp_path, method):
    outcome = run("render", made, *QUICK, *TINY, "--method", method, "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["random_weights"] is True
    assert outcome.json["settings"]["random_weights"] == "tiny"
    assert outcome.json["licences"] == outcome.json["credits"] == []
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["random_weights"] is True
    frames = [media.read_image(path) for path in sorted((tmp_path / "out" / "frames").glob("*.png"))]
    assert len(frames) == 2
    for frame in (*frames, *media.read_video(tmp_path / "out" / "video.mp4")):
        band = frame[:, 20:44]
        assert float((band.amin(0) > 0.7).float().mean()) > 0.05, "no white letters"
        assert float(band.median()) < 0.35, "no dark band"
    plan = ComputePlan.load(tmp_path / "out" / "plan.safetensors")
    for index, frame in enumerate(frames):
        drawn = media.read_image(tmp_path / "out" / "plan" / f"{index:03d}.png")
        of_marked = plan_picture(frame, plan.start_step[index], plan.num_steps)
        assert float((drawn - of_marked).abs().max()) < 0.02, "the heat map is not drawn over the marked frame"


def test_an_mp4_alone_is_marked_and_the_summary_says_so(run, made, tmp_path):
    outcome = run("render", made, *QUICK, *TINY, "--out", tmp_path / "x.mp4")
    assert outcome.code == 0, outcome.err
    assert ", of random weights: " in outcome.out
    assert float(media.read_video(tmp_path / "x.mp4")[:, :, 20:44].median()) < 0.35


def test_the_papers_pair_with_random_weights(run, made, tmp_path):
    words = ("--preset", "seva-mvsplat", "--random-weights", "tiny", "--out", tmp_path / "out", "--json")
    outcome = run("render", made, *QUICK, *words)
    assert outcome.code == 0, outcome.err
    assert (outcome.json["settings"]["regressor"], outcome.json["settings"]["denoiser"]) == ("mvsplat", "seva")


def test_missing_weights(run, made, tmp_path, home):
    outcome = run("render", made, "--preset", "seva-planesweep", "--out", tmp_path / "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"sphinx-nvs: the weights of seva-1.1, sd21-vae, clip-vit-h14: they are not in {home}/models; "
        "get them: sphinx-nvs models pull seva-1.1 sd21-vae clip-vit-h14 --accept-licence\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--model", "gone.safetensors"),
            "unet: 'gone.safetensors' is no model and no file; name one of: seva-1.1, seva-1.0; or give a .safetensors",
        ),
        (("--model", "other/repo"), "repository other/repo: nothing was pulled from there; do so first: "),
        (("--mvsplat", "mvsplat-acid"), "mvsplat: the preset seva-planesweep has no such part; its parts are: "),
        (("--offload", "--device", "cpu"), "offload: the models are in the CPU's memory already; "),
        (("--random-weights", "tiny", "--vae", "sd21-vae"), "random_weights: weights are given, too, for vae; "),
    ],
)
def test_errors(run, made, tmp_path, words, expected):
    outcome = run("render", made, "--preset", "seva-planesweep", *words, "--out", tmp_path / "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"sphinx-nvs: {expected}")
    assert outcome.err.count("\n") == 1


def test_sizes_between_multiples_of_64_are_padded_and_cropped(run, made, tmp_path):
    outcome = run("render", made, "--size", "96x64", *TINY, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert media.read_image(tmp_path / "out" / "frames" / "000.png").shape == (3, 64, 96)
    assert ComputePlan.load(tmp_path / "out" / "plan.safetensors").start_step.shape[1:] == (8, 16)


def test_frames_are_576_pixels_high_by_default(run, made, tmp_path, monkeypatch):
    asked = []

    def run_path(pipeline, scene, targets, params, **options):
        asked.append((targets.height, targets.width))
        raise InputError("test", "it has seen enough", "stop")

    monkeypatch.setattr("sphinx_nvs.cli.render.run_path", run_path)
    run("render", made, *TINY, "--out", tmp_path / "out")
    run("render", made, "--out", tmp_path / "out")
    assert asked == [(576, 576), (256, 256)]


def test_real_weights_carry_licence_and_credit(run, made, tmp_path, monkeypatch):
    monkeypatch.setattr("sphinx_nvs.presets.resolve_all", lambda specs: dict.fromkeys(specs, tmp_path))
    monkeypatch.setattr("sphinx_nvs.models.seva.checkpoint.load_seva", lambda *paths, **options: Nano().eval())
    words = ("--preset", "seva-planesweep", "--model", "seva-1.0", "--method", "regression")
    outcome = run("render", made, *QUICK, *words, "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.err == "Powered by Stability AI\n"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["random_weights"] is False
    assert report["credits"] == ["Powered by Stability AI"]
    assert [licence["model"] for licence in report["licences"]] == ["seva-1.0", "sd21-vae", "clip-vit-h14"]
    assert report["licences"][0]["licence"] == "Stability AI Non-Commercial License"
    assert "outputs are for non-commercial use only" in report["licences"][0]["summary"]
    assert report["settings"]["weights"] == {"unet": "seva-1.0"}
    assert report["frames"] == 2


def test_report_carries_the_licences(run, made, tmp_path):
    words = ("--size", "64x64", "--steps", "2", "--method", "regression", "--out", tmp_path / "out", "--json")
    report = run("render", made, *words).json
    assert report["random_weights"] is False
    assert [licence["model"] for licence in report["licences"]] == ["embedded"]
    assert report["credits"] == []
    assert json.loads((tmp_path / "out" / "report.json").read_text())["licences"] == report["licences"]

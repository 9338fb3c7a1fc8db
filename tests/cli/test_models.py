"""`sphinx-nvs models`, as a user types it."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save

from sphinx_nvs.models.registry.cards import CARDS, STABILITY, Card

SHAPES = {"a": (2, 3), "b": (4,)}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, and a toy model besides the real ones."""
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path / "home"))
    toy = Card(
        name="toy",
        about="a toy",
        part="toy",
        page="https://example.com",
        repo="maker/toy",
        file="toy.safetensors",
        licence=STABILITY,
        num_bytes=2_000_000_000,
        needs=("sd21-vae",),
        layouts=lambda: (SHAPES,),
    )
    monkeypatch.setitem(CARDS, "toy", toy)
    return tmp_path / "home" / "models"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "toy.safetensors"
    path.write_bytes(save({name: torch.rand(shape) for name, shape in SHAPES.items()}))
    return path


@pytest.fixture
def pulled(run, file, home):
    """Installs the toy model."""
    outcome = run("models", "pull", "toy", "--from", file, "--accept-licence")
    assert outcome.code == 0, outcome.err
    return home / "toy" / "toy.safetensors"


def _refused(run, *words: object) -> str:
    outcome = run("models", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    return outcome.err.removeprefix("sphinx-nvs: ").rstrip("\n")


def test_list_names_every_model_its_licence_and_where_it_is(run, pulled):
    outcome = run("models", "list")
    assert outcome.code == 0
    rows = {line.split()[0]: line for line in outcome.out.splitlines() if line and not line.startswith(" ")}
    assert set(CARDS) <= set(rows)
    assert " shipped " in rows["embedded"]
    assert " not here " in rows["seva-1.1"]
    assert " here " in rows["toy"]
    assert "Stability AI Non-Commercial" in rows["seva-1.0"]
    assert str(pulled.parents[1]) in outcome.out


def test_list_as_json(run, pulled):
    listed = run("models", "list", "--json").json
    models = {model["name"]: model for model in listed["models"]}
    assert list(models) == list(CARDS)
    assert listed["folder"] == str(pulled.parents[1])
    assert (models["toy"]["state"], models["toy"]["path"]) == ("here", str(pulled))
    assert (models["seva-1.1"]["state"], models["seva-1.1"]["path"], models["seva-1.1"]["sha256"]) == (
        "not here",
        None,
        None,
    )
    assert models["embedded"]["sha256"] is not None
    assert models["seva-1.1"]["licence"]["credit"] == "Powered by Stability AI"


def test_show_has_the_pull_command_and_the_credit(run):
    out = run("models", "show", "seva-1.1").out
    assert "get it      sphinx-nvs models pull seva-1.1 --accept-licence\n" in out
    assert 'credit      "Powered by Stability AI" beside every output\n' in out
    assert "needs       sd21-vae, clip-vit-h14\n" in out
    assert "source      stabilityai/stable-virtual-camera:modelv1.1.safetensors\n" in out
    assert "gated       yes: " in out


@pytest.mark.parametrize("name", ["embedded", "sd21-vae", "clip-vit-h14", "mvsplat-re10k", "mvsplat-acid", "seva-1.0"])
def test_show_as_json_equals_the_entry_of_list(run, name):
    listed = {model["name"]: model for model in run("models", "list", "--json").json["models"]}
    assert run("models", "show", name, "--json").json == listed[name]
    assert run("models", "show", name).out.startswith(f"model       {name}\n")


def test_pull_reports_the_file_and_missing_needs(run, file, home):
    outcome = run("models", "pull", "toy", "--from", file, "--accept-licence")
    assert outcome.out.startswith("toy: 0 MB, 2 tensors, sha256 ")
    assert outcome.out.endswith(f"…: {home}/toy/toy.safetensors\nit also needs: sphinx-nvs models pull sd21-vae\n")
    assert outcome.err == ""


def test_verify_finds_a_flipped_byte_and_reports_intact_files(run, pulled):
    assert run("models", "verify").out == "embedded: intact\ntoy: intact\n"
    data = bytearray(pulled.read_bytes())
    data[-1] ^= 1
    pulled.unlink()
    pulled.write_bytes(data)
    outcome = run("models", "verify")
    assert (outcome.code, outcome.out) == (2, "embedded: intact\n")
    assert outcome.err.startswith(f"sphinx-nvs: weights {pulled}: sha256 is ")
    assert outcome.err.endswith("was recorded; get it again: sphinx-nvs models pull toy --accept-licence --overwrite\n")
    outcome = run("models", "verify", "toy", "embedded", "--json")
    assert (outcome.code, outcome.json["embedded"]) == (2, {"ok": True, "problem": None})
    assert not outcome.json["toy"]["ok"]
    assert "sha256 is" in outcome.json["toy"]["problem"]


def test_verify_of_several_that_are_wrong_is_one_sentence(run, home):
    message = _refused(run, "verify", "seva-1.0", "sd21-vae")
    assert message.startswith("2 models: weights of seva-1.0: it is not in ")
    assert "; weights of sd21-vae: it is not in " in message


def test_a_folder_without_its_record_is_no_model(run, home):
    (home / "toy").mkdir(parents=True)
    (home / "toy" / "toy.safetensors").write_bytes(b"half")
    outcome = run("models", "verify")
    assert (outcome.code, outcome.out) == (2, "embedded: intact\n")
    assert outcome.err.startswith("sphinx-nvs: weights of toy: it is not in ")
    listed = {model["name"]: model["state"] for model in run("models", "list", "--json").json["models"]}
    assert listed["toy"] == "not here"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("show", "gpt"), "model: there is no 'gpt'; choose one of: embedded, seva-1.1, "),
        (("pull",), "models pull: no model is named; name some of: embedded, seva-1.1, "),
        (("pull", "seva-1.1", "gpt"), "model: there is no 'gpt'; "),
        (("pull", "sd21-vae", "clip-vit-h14", "--from", "x"), "--from: 2 models are named; name one model"),
        (("pull", "sd21-vae", "clip-vit-h14", "--source", "a/b"), "--source: 2 models are named; name one model"),
        (("pull", "sd21-vae", "--source", "a/b", "--from", "x"), "--from: --source is given, too; leave one of them"),
        (("pull", "sd21-vae", "--from", "gone"), "--from gone: there is no such file or folder; correct the path"),
        (("pull", "embedded"), "model embedded: it is shipped with this package; "),
        (("pull", "toy", "--from", "x"), "model toy: its licence is the Stability AI Non-Commercial License ("),
        (
            ("pull", "mvsplat-re10k"),
            "model mvsplat-re10k: its owners offer no direct download; fetch ",
        ),
        (("verify", "gpt"), "model: there is no 'gpt'; "),
    ],
)
def test_errors(run, words, expected, home):
    assert _refused(run, *words).startswith(expected)
    assert not home.exists()


def test_list_does_not_wait_for_torch():
    program = (
        "import sys; from sphinx_nvs.cli import main; code = main(['models', 'list']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0

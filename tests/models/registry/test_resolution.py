"""Resolution of weights by name, path and repository, and the error for missing ones."""

import json

import pytest
import torch
from safetensors.torch import save

from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.models.registry import CARDS, card_named, find_record, locate, resolve, resolve_all
from sphinx_nvs.models.registry.cards import Card
from sphinx_nvs.models.registry.installation import adopt
from sphinx_nvs.models.registry.resolution import HOME, models_folder


@pytest.fixture
def toy(home, card, monkeypatch) -> Card:
    """The toy is the only model that can be a U-Net."""
    monkeypatch.setattr("sphinx_nvs.models.registry.resolution.CARDS", {card.name: card})
    monkeypatch.setattr("sphinx_nvs.models.registry.cards.CARDS", {card.name: card})
    return card


def _refused(*args: object) -> str:
    with pytest.raises(InputError) as caught:
        resolve(*args)
    return str(caught.value)


def test_home_is_the_users_choice_or_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(HOME, "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models_folder() == tmp_path / "elsewhere" / "models"
    monkeypatch.delenv(HOME)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert models_folder() == tmp_path / "cache" / "sphinx-nvs" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models_folder() == tmp_path / ".cache" / "sphinx-nvs" / "models"


def test_by_name_by_file_and_by_folder(toy, file, home):
    adopt(toy, file)
    path = home / "toy-1.0" / "toy-1.0.safetensors"
    assert resolve("unet", "toy-1.0") == locate(toy) == path
    assert resolve("unet", str(file)) == resolve("unet", file) == file
    assert resolve("unet", home / "toy-1.0") == path
    assert resolve("unet", file.parent) == file


def test_a_model_that_is_not_installed(toy, home):
    assert _refused("unet", "toy-1.0") == (
        f"weights of toy-1.0: it is not in {home}; get them: sphinx-nvs models pull toy-1.0"
    )
    assert _refused("unet", "maker/toy").startswith("weights of toy-1.0: it is not in ")


def test_a_record_without_its_file(toy, file):
    adopt(toy, file)
    locate(toy).unlink()
    assert _refused("unet", "toy-1.0").startswith("weights of toy-1.0: it is not in ")


def test_names_that_match_nothing(toy, tmp_path):
    assert _refused("unet", "nonsense") == (
        "unet: 'nonsense' is no model and no file; name one of: toy-1.0; or give a .safetensors file"
    )
    assert _refused("unet", "gone/toy.safetensors").startswith("unet: 'gone/toy.safetensors' is no model and no file")
    assert _refused("unet", "other/repo") == (
        "repository other/repo: nothing was pulled from there; "
        "do so first: sphinx-nvs models pull toy-1.0 --source other/repo"
    )
    assert _refused("unet", tmp_path) == f"folder {tmp_path}: it holds none of toy.safetensors; name the file itself"


def test_a_file_of_another_model(toy, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(save({"x": torch.zeros(1)}))
    assert "they are not toy-1.0's: encoder.a is missing" in _refused("unet", tmp_path / "x.safetensors")


def test_a_pickled_file_is_to_be_converted_first(toy, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"PK\x03\x04")
    assert _refused("unet", tmp_path / "x.ckpt") == (
        f"weights {tmp_path}/x.ckpt: a pickled checkpoint is never loaded; "
        f"convert it once: sphinx-nvs models pull toy-1.0 --from {tmp_path}/x.ckpt"
    )


def test_all_missing_models_are_reported_at_once(home):
    with pytest.raises(InputError) as caught:
        resolve_all({"unet": "seva-1.0", "vae": "sd21-vae"})
    assert str(caught.value) == (
        f"the weights of seva-1.0, sd21-vae: they are not in {home}; "
        "get them: sphinx-nvs models pull seva-1.0 sd21-vae --accept-licence"
    )


def test_a_wrong_name_is_reported_before_missing_models(home):
    with pytest.raises(InputError, match="'nonsense' is no model and no file"):
        resolve_all({"unet": "seva-1.0", "vae": "nonsense"})


@pytest.mark.parametrize("content", ["{", json.dumps({"name": "toy-1.0"}), json.dumps([1])])
def test_a_damaged_record(toy, file, content):
    adopt(toy, file)
    locate(toy).with_name("record.json").write_text(content)
    with pytest.raises(SphinxError, match=r"it is damaged; get the model again: sphinx-nvs models pull toy-1"):
        find_record(toy)


def test_unknown_model():
    with pytest.raises(InputError) as caught:
        card_named("gpt")
    assert str(caught.value) == f"model: there is no 'gpt'; choose one of: {', '.join(CARDS)}"


def test_needs_are_models():
    assert all(name in CARDS for card in CARDS.values() for name in card.needs)


def test_seva_requires_accepting_its_licence():
    for name in ("seva-1.0", "seva-1.1"):
        assert CARDS[name].gated
        assert CARDS[name].licence.to_accept
        assert CARDS[name].licence.credit == "Powered by Stability AI"
        assert CARDS[name].pull_command.endswith(" --accept-licence")


def test_layouts_are_those_of_the_networks_that_load_them():
    """Card by card: how many tensors, and one of them."""
    seva, mvsplat = (CARDS[name].layouts()[0] for name in ("seva-1.1", "mvsplat-acid"))
    assert (len(seva), seva["input_blocks.0.0.weight"]) == (1146, (320, 11, 3, 3))
    assert (len(mvsplat), mvsplat["encoder.backbone.backbone.conv1.weight"]) == (471, (64, 3, 7, 7))

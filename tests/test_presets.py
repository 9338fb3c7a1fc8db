import pytest

from sphinx_nvs import presets
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Denoiser, Regressor
from sphinx_nvs.models.nano import Nano


@pytest.fixture(autouse=True)
def _untrained(monkeypatch):
    monkeypatch.setattr("sphinx_nvs.presets.load_nano", Nano)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_meets_the_protocols(name):
    pipeline = presets.load_preset(name, num_steps=7)
    assert isinstance(pipeline.regressor, Regressor)
    assert isinstance(pipeline.denoiser, Denoiser)
    assert pipeline.num_steps == 7
    assert len(pipeline.denoiser.sigmas(pipeline.num_steps)) == 8


def test_the_default_is_the_embedded_pair():
    pipeline = presets.load_preset()
    assert (pipeline.regressor.name, pipeline.denoiser.name, pipeline.num_steps) == ("planesweep", "nano", 50)


def test_unknown_preset_lists_the_known():
    with pytest.raises(InputError) as caught:
        presets.load_preset("seva")
    assert str(caught.value) == "preset: there is no 'seva'; choose one of: embedded"


def test_no_steps():
    with pytest.raises(InputError) as caught:
        presets.load_preset(num_steps=0)
    assert str(caught.value) == "steps: 0 are asked for; ask for at least 1"

import pytest
import torch
from metrics_helpers import example, need_weights, photo

from sphinx_nvs.evaluation.perceptual import Lpips, Trunk, TruthMemory, dists, load_lpips, lpips


@pytest.mark.parametrize(("net", "first", "second"), [("alex", 0.722, 0.138), ("vgg", 0.5686, 0.4217)])
def test_lpips_reproduces_the_published_example(net, first, second):
    """AlexNet's figures are those of the authors' README; VGG's come from their code with the same trunk."""
    need_weights(f"lpips_{net}")
    values = [float(lpips(example(name), example("ref"), net)[0]) for name in ("p0", "p1")]
    assert values == pytest.approx([first, second], abs=5e-4)


def test_dists_equals_its_authors_code():
    """Made once with the DISTS-pytorch wheel's own class on the same trunk."""
    need_weights("dists", "lpips_vgg")
    values = [float(dists(example(name), example("ref"))) for name in ("p0", "p1")]
    assert values == pytest.approx([0.387927, 0.225024], abs=1e-5)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_equal_pictures_have_no_distance(net):
    need_weights(f"lpips_{net}", "dists")
    values, maps = lpips(example("ref"), example("ref"), net)
    assert float(values) == 0
    assert float(maps.abs().max()) == 0
    assert float(dists(example("ref"), example("ref"))) == pytest.approx(0, abs=1e-9)


def test_a_maps_mean_is_near_the_value_and_it_shows_where():
    need_weights("lpips_alex")
    truth = photo(96)
    damaged = truth.clone()
    damaged[..., 8:40, 8:40] = damaged[..., 8:40, 8:40].flip(-1)
    values, maps = lpips(damaged, truth)
    assert float(maps.mean()) == pytest.approx(float(values), rel=0.05)
    assert float(maps[0, :48, :48].mean()) > 4 * float(maps[0, 48:, 48:].mean())


def test_stronger_noise_is_farther():
    need_weights("lpips_alex")
    truth = photo(96)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    values = [float(lpips(truth + amount * noise, truth)[0]) for amount in (0.02, 0.05, 0.1)]
    assert values == sorted(values)
    assert values[0] > 0


def test_views_are_measured_apart():
    need_weights("lpips_alex")
    both = torch.cat([example("p0"), example("p1")])
    truth = example("ref").expand(2, -1, -1, -1)
    together, _ = lpips(both, truth)
    assert together.tolist() == pytest.approx([float(lpips(x[None], truth[:1])[0]) for x in both], abs=1e-6)


def test_models_are_loaded_once():
    need_weights("lpips_alex")
    assert load_lpips("alex") is load_lpips("alex")


@pytest.mark.parametrize(("net", "sizes"), [("alex", (15, 7, 3, 3, 3)), ("vgg", (64, 32, 16, 8, 4))])
def test_layers_have_the_trunks_sizes(net, sizes):
    need_weights(f"lpips_{net}")
    layers = Trunk.load(net).features(example("ref"))
    assert tuple(layer.shape[-1] for layer in layers) == sizes


def test_truth_features_are_cached_until_the_truth_changes(monkeypatch):
    need_weights("lpips_alex")
    truth, image = photo(64), photo(64).flip(-1)
    computed = []
    features = Lpips.features
    monkeypatch.setattr(Lpips, "features", lambda self, x: computed.append(1) or features(self, x))
    first = float(lpips(image, truth)[0])
    assert len(computed) == 2
    assert float(lpips(image, truth)[0]) == first
    assert len(computed) == 3
    truth += 0.1
    assert float(lpips(image, truth)[0]) != first
    assert len(computed) == 5
    assert float(lpips(image, truth.clone())[0]) == float(lpips(image, truth)[0])


def test_large_truths_are_not_cached(monkeypatch):
    need_weights("lpips_alex")
    monkeypatch.setattr(TruthMemory, "MOST_PIXELS", 10)
    truth, memory = photo(64), TruthMemory()
    model = load_lpips("alex")
    assert len(list(memory.features(model, truth))) == len(list(memory.features(model, truth))) == 1
    assert memory._features == []

import numpy as np
import pytest
import torch
from eval_helpers import SIZE, fast_pipeline, made_case, tiny_case

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation import fidelity, harness, optional
from sphinx_nvs.evaluation.fidelity import (
    features_from_text,
    frechet_distance,
    kernel_distance,
    set_distances,
    text_from_features,
)
from sphinx_nvs.evaluation.harness import EvalConfig


def normal(count, mean, spread, features=3, seed=0):
    return mean + spread * np.random.default_rng(seed).normal(size=(count, features))


def test_frechet_distance_of_gaussians_is_the_closed_form():
    """|m_a - m_b|^2 + D (s_a - s_b)^2 for covariances s^2 I."""
    a, b = normal(200_000, 0.0, 1.0), normal(200_000, 0.5, 2.0, seed=1)
    assert frechet_distance(a, b) == pytest.approx(3 * 0.25 + 3 * 1.0, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_unbiased_and_grows():
    same = [kernel_distance(normal(60, 0, 1, seed=2 * i), normal(60, 0, 1, seed=2 * i + 1)) for i in range(40)]
    assert np.mean(same) == pytest.approx(0, abs=4 * np.std(same) / np.sqrt(len(same)))
    assert kernel_distance(normal(200, 0, 1), normal(200, 1, 1, seed=1)) > 10 * abs(np.mean(same))


def test_kernel_distance_of_a_small_example():
    a, b = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    # k(x, y) = (xy + 1)^3: among a 1, among b 1, between 1, 1, 1, 27.
    assert kernel_distance(a, b) == pytest.approx(1 + 1 - 2 * 30 / 4)


def test_features_survive_as_text():
    features = normal(5, 0, 1, 7)
    assert features_from_text(text_from_features(features)) == pytest.approx(features, abs=2e-3)


def test_a_set_needs_two_images():
    with pytest.raises(InputError, match=r"images: there are 1 and 5; give at least 2 of each"):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))


def test_sets_are_pooled_over_cases(monkeypatch):
    seconds = {"full-50": 1.0, "warm": 0.5}
    cases = [made_case(f"s{i}", dict.fromkeys(seconds, 0.0), seconds) for i in range(3)]
    assert set_distances(cases) == {}
    for i, case in enumerate(cases):
        truth = normal(4, 0, 1, seed=i)
        case["features"] = {
            "truth": text_from_features(truth),
            "methods": {"full-50": text_from_features(truth), "warm": text_from_features(truth + 1)},
        }
    found = set_distances(cases)
    assert found["warm"]["pictures"] == 12
    assert found["warm"]["fid"] is None
    assert found["warm"]["kid"] > found["full-50"]["kid"]
    monkeypatch.setattr(fidelity, "FEWEST_FOR_FID", 12)
    assert set_distances(cases)["warm"]["fid"] == pytest.approx(3.0, abs=0.05)


def test_features_are_stored_if_the_network_is_available(monkeypatch):
    class Inception:
        def __call__(self, pixels):
            assert pixels.dtype == torch.uint8
            return (pixels.float().mean((2, 3)),)

    monkeypatch.setattr(harness, "why_missing", lambda load: None)
    monkeypatch.setattr(optional, "load_inception", Inception)
    config = EvalConfig(methods=("regression",), size=SIZE, seeds=1, metrics=("rmse",), warmups=0)
    found = harness.measure_case(fast_pipeline(), tiny_case(), config)
    assert set(found["features"]["methods"]) == {"full-50", "regression"}
    truth = tiny_case().load(SIZE).truth
    assert features_from_text(found["features"]["truth"]) == pytest.approx(255 * truth.mean((2, 3)).numpy(), abs=1.0)


def test_the_reason_for_a_missing_model_is_reported():
    def without_package():
        raise ModuleNotFoundError("No module named 'torch_fidelity'", name="torch_fidelity")

    def without_weights():
        raise OSError("no route to host")

    assert optional.why_missing(without_package) == "package torch-fidelity missing"
    assert optional.why_missing(without_weights) == "weights missing (OSError)"
    assert optional.why_missing(dict) is None

"""Compiled kernels against their twins in plain torch."""

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.planesweep import PlaneSweep, PlaneSweepConfig, RenderConfig
from sphinx_nvs.models.planesweep.completion import CompletionConfig, complete
from sphinx_nvs.models.planesweep.depth_consistency import support
from sphinx_nvs.models.planesweep.matching_cost import cost_volume, reference_patches
from sphinx_nvs.models.planesweep.reconstruction import is_compiled
from sphinx_nvs.models.planesweep.sgm import aggregate, best_inverse_depth
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene


def scene(views=3, height=48, width=60, seed=5):
    rgb, _, cameras, _ = procedural_views(seed, views, height, width, split="val", supersample=1)
    return Scene(name="room", images=rgb, cameras=cameras)


@torch.inference_mode()
@pytest.mark.parametrize("sources", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 2])
def test_matching_equals_its_twin(sources, threads):
    views = scene(sources + 1)
    planes = torch.linspace(0.05, 1.2, 24)
    patches = reference_patches(views.images[0], 3)
    cost = cost_volume(patches, views.cameras[0], views.images[1:], views.cameras[1:], planes, 3, 0.12, 0.3)
    plain = best_inverse_depth(aggregate(cost, patches.grey, 0.2, 2.5), planes)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        compiled = PlaneSweep()._match_compiled(
            patches, views.cameras[0], views.images[1:], views.cameras[1:], planes, 3
        )
    finally:
        torch.set_num_threads(before)
    # A tie between two planes may go the other way by rounding.
    same = (compiled[0] - plain[0]).abs() < 1e-3
    assert float(same.float().mean()) > 0.999
    torch.testing.assert_close(compiled[1][same], plain[1][same], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("height", "width", "views"), [(48, 60, 3), (5, 7, 1), (3, 40, 2)])
def test_completion_equals_its_twin(height, width, views):
    generator = torch.Generator().manual_seed(height)
    inverse_depth = 0.5 + torch.rand(views, height, width, generator=generator)
    confidence = 0.03 + 0.97 * torch.rand(views, height, width, generator=generator) ** 4
    grey = torch.rand(views, height, width, generator=generator)
    plain, compiled = (
        complete(inverse_depth, confidence, grey, CompletionConfig(), compiled=compiled) for compiled in (False, True)
    )
    assert not torch.allclose(plain, inverse_depth, atol=0.01)
    torch.testing.assert_close(compiled, plain, atol=4e-3, rtol=0)


@pytest.mark.parametrize(("height", "width", "views"), [(48, 60, 3), (5, 7, 1)])
def test_support_equals_its_twin(height, width, views):
    generator = torch.Generator().manual_seed(height)
    inverse_depth = 0.5 + 0.2 * torch.rand(views, height, width, generator=generator)
    inverse_depth[:, height // 2 :] *= 40
    confidence = torch.rand(views, height, width, generator=generator)
    plain, compiled = (support(inverse_depth, confidence, compiled=compiled) for compiled in (False, True))
    assert 0 < float(plain.min()) < 0.2
    torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=0)


def test_threads_change_no_bit():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            views = scene()
            compiled = PlaneSweep()._match_compiled(
                reference_patches(views.images[0], 3),
                views.cameras[0],
                views.images[1:],
                views.cameras[1:],
                torch.linspace(0.05, 1.2, 24),
                3,
            )
            results.append(compiled)
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])


def test_reconstructions_of_both_backends_are_alike():
    views = scene(height=64, width=80)
    plain, compiled = (
        PlaneSweep(PlaneSweepConfig(render=RenderConfig(backend=backend))).reconstruct(views)
        for backend in ("torch", "numba")
    )
    off = (compiled.inverse_depth / plain.inverse_depth - 1).abs()
    assert float(off.mean()) < 1e-3
    # Of planes that cost nearly the same, another is the best one where a processor rounds otherwise.
    assert float((compiled.confidence - plain.confidence).abs().mean()) < 3e-3


def test_kernels_are_for_the_cpu():
    assert is_compiled(RenderConfig(), torch.device("cpu"))
    assert not is_compiled(RenderConfig(), torch.device("meta"))
    assert not is_compiled(RenderConfig(backend="torch"), torch.device("cpu"))
    with pytest.raises(InputError, match="numba compiles for the CPU"):
        is_compiled(RenderConfig(backend="numba"), torch.device("meta"))

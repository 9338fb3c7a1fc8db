import torch

from sphinx_nvs.evaluation.regions import BAND_PX, regions_of, shares
from sphinx_nvs.models.base import Render


def render(alpha: torch.Tensor) -> Render:
    rgb = torch.zeros(len(alpha), 3, *alpha.shape[1:])
    ones = torch.ones_like(alpha)
    return Render(rgb=rgb, alpha=alpha, depth=ones, confidence=ones, disagreement=0 * alpha)


def test_masked_boundary_and_rest_partition_the_image():
    refined = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0)) > 0.97
    found = regions_of(render(torch.ones(3, 96, 128)), refined)
    together = sum(found[name].int() for name in ("masked", "boundary", "rest"))
    assert torch.equal(together, torch.ones_like(together))
    assert shares(found)["masked"] == float(refined.double().mean())


def test_the_band_is_so_many_pixels_wide_and_outside():
    refined = torch.zeros(1, 12, 12, dtype=torch.bool)
    refined[0, 6, 6] = True
    found = regions_of(render(torch.ones(1, 96, 96)), refined)
    row = found["boundary"][0, 52]
    assert row.nonzero().flatten().tolist() == [*range(48 - BAND_PX, 48), *range(56, 56 + BAND_PX)]


def test_unseen_is_where_alpha_is_low():
    alpha = torch.ones(1, 40, 40)
    alpha[0, :, :20] = 0
    found = regions_of(render(alpha), torch.zeros(1, 5, 5, dtype=torch.bool))
    assert bool(found["unseen"][0, :, :18].all())
    assert not bool(found["unseen"][0, :, 22:].any())
    assert not bool(found["masked"].any())
    assert bool(found["rest"].all())

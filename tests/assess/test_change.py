import pytest
import torch

from sphinx_nvs.assess.change import cell_means, structural_change
from sphinx_nvs.evaluation.image_metrics import ssim_with_map


@pytest.mark.parametrize("size", [(24, 40), (11, 16)])
def test_it_is_scikit_images_map(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.rand(2, 3, *size, generator=generator)
    b = (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    _, maps = ssim_with_map(b, a)
    torch.testing.assert_close(structural_change(a, b).double(), 1 - maps.double(), atol=5e-5, rtol=0)


def test_nothing_changed_is_nothing() -> None:
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(structural_change(images, images).abs().max()) < 1e-5
    assert torch.equal(cell_means(torch.ones(1, 16, 16), 8), torch.ones(1, 2, 2))

import pytest
import torch

from sphinx_nvs.geometry.se3 import so3_exp
from sphinx_nvs.models.gaussians.harmonics import basis, colours
from sphinx_nvs.models.mvsplat.sh_axes import rendered_from_mvsplat, rotations_of_harmonics


def directions(count=50):
    return torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)


def rotations(count):
    return so3_exp(2 * torch.randn(count, 3, dtype=torch.float64))


def e3nn_basis(v, degree):
    """By hand up to degree 1 (y first there), to anchor the convention; else by the stated relation."""
    values = basis(v[:, [2, 0, 1]], degree)
    return torch.stack([-b if k % 2 else b for k, b in enumerate(values.unbind(-1))], -1)


@pytest.mark.parametrize("degree", range(5))
def test_converted_coefficients_show_what_the_original_evaluates(degree):
    means, centre = 3 * torch.randn(40, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    stored = torch.randn(40, 3, (degree + 1) ** 2, dtype=torch.float64)
    original = colours(means, stored, centre, min(degree, 3), axes=(2, 0, 1))
    converted = stored @ rendered_from_mvsplat(degree).T
    assert torch.allclose(colours(means, converted, centre, 3), original, atol=1e-12)
    assert converted.shape[-1] == (min(degree, 3) + 1) ** 2


def test_the_conversion_is_not_the_identity():
    assert not torch.allclose(rendered_from_mvsplat(1), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("degree", range(5))
def test_rotated_coefficients_are_those_of_the_rotated_function(degree):
    v, R = directions(), rotations(3)
    D = rotations_of_harmonics(R, degree)
    before = e3nn_basis(v, degree) @ D.transpose(1, 2)
    after = torch.stack([e3nn_basis(v @ r.T, degree) for r in R])
    assert torch.allclose(before, after, atol=1e-12)


def test_degree_one_of_that_basis_is_x_y_z():
    v = directions()
    assert torch.allclose(e3nn_basis(v, 1)[:, 1:] / (3 / (4 * torch.pi)) ** 0.5, v)


def test_rotations_of_harmonics_form_the_same_group():
    first, second = rotations(2)
    D = rotations_of_harmonics(torch.stack([first, second, first @ second]), 4)
    assert torch.allclose(D[0] @ D[1], D[2], atol=1e-11)
    assert torch.allclose(D[0] @ D[0].T, torch.eye(25, dtype=torch.float64), atol=1e-11)

"""The embedded denoiser: residual form, conditioning, and independence of what else is in a call."""

import math

import pytest
import torch

from sphinx_nvs.geometry import Cameras
from sphinx_nvs.models.base import DenoiseCall, Denoiser, Render, SelectiveDenoiser
from sphinx_nvs.models.embedded.denoiser import (
    SIGMA_MAX,
    SIGMA_MIN,
    Nano,
    preconditioning,
    relative_plucker,
    timestep_from_sigma,
)
from sphinx_nvs.scene.scene import Scene

SIZE = 32


def cameras(count):
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 0, 3] = torch.arange(count) * 0.2
    K = torch.tensor([[30.0, 0, SIZE / 2], [0, 30, SIZE / 2], [0, 0, 1]]).repeat(count, 1, 1)
    return Cameras(c2w, K, SIZE, SIZE)


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(1)
    model = Nano().eval()
    for parameter in model.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def request_of(nano, order=(0, 1, 2)):
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(5, 3, SIZE, SIZE, generator=generator)
    alpha = torch.rand(3, SIZE, SIZE, generator=generator)
    scene = Scene(name="noise", images=images[:2], cameras=cameras(5)[:2])
    targets = cameras(5)[[2 + i for i in order]]
    render = Render(
        rgb=images[[2 + i for i in order]],
        alpha=alpha[list(order)],
        depth=torch.full((3, SIZE, SIZE), 2.0),
        confidence=alpha[list(order)],
        disagreement=torch.zeros(3, SIZE, SIZE),
    )
    z_render = nano.encode(render.rgb)
    return z_render, nano.condition(scene, targets, render, z_render)


def test_it_meets_the_protocol(nano):
    assert isinstance(nano, Denoiser)
    assert isinstance(nano, SelectiveDenoiser)
    sigmas = nano.sigmas(50)
    assert len(sigmas) == 51
    assert math.isclose(float(sigmas[0]), SIGMA_MAX)
    assert math.isclose(float(sigmas[-2]), SIGMA_MIN, rel_tol=1e-6)


def test_a_fresh_network_trusts_the_render_at_high_noise_and_the_input_at_low_noise():
    nano = Nano().eval()
    z_render, conditioning = request_of(nano)
    truth = z_render + 0.1
    high = nano.denoise(truth, SIGMA_MAX, conditioning)
    torch.testing.assert_close(high, z_render, atol=1e-3, rtol=0)
    low = nano.denoise(truth, 1e-4, conditioning)
    torch.testing.assert_close(low, truth, atol=1e-3, rtol=0)


def test_preconditioning_gives_unit_scale():
    sigma, spread = torch.tensor(0.7), torch.tensor(0.2)
    c_skip, c_out, c_in = preconditioning(sigma, spread)
    clean, eps = spread * torch.randn(200_000), torch.randn(200_000)
    noisy = clean + sigma * eps
    assert abs(float((c_in * noisy).std()) - 1) < 0.01
    assert abs(float(((clean - c_skip * noisy) / c_out).std()) - 1) < 0.01


def test_permuting_targets_permutes_estimates(nano):
    z_render, conditioning = request_of(nano)
    noisy = z_render + torch.randn(z_render.shape, generator=torch.Generator().manual_seed(5))
    plain = nano.denoise(noisy, 1.0, conditioning)
    order = [2, 0, 1]
    _, permuted = request_of(nano, order)
    torch.testing.assert_close(nano.denoise(noisy[order], 1.0, permuted), plain[order], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain[0], plain[1], atol=1e-2)


def test_scenes_in_one_call_do_not_touch_each_other(nano):
    _, conditioning = request_of(nano)
    _, other = request_of(nano, (1, 2, 0))
    residuals = list(torch.randn(2, 3, 24, 4, 4))
    sigmas = torch.tensor([1.0, 0.1])
    with torch.no_grad():
        both = nano.predict([conditioning, other], residuals, sigmas)
        alone = nano.predict([other], residuals[1:], sigmas[1:])
    torch.testing.assert_close(both[1], alone[0], atol=1e-5, rtol=1e-4)


def test_rays_do_not_depend_on_the_worlds_units_or_frame():
    two = cameras(2)
    moved = two.c2w.clone()
    moved[:, :3, 3] *= 7
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.3, 0.2], [0.3, 0, 0.1], [-0.2, -0.1, 0]], dtype=torch.float64))
    world = torch.eye(4, dtype=torch.float64)
    world[:3, :3], world[:3, 3] = turn, torch.tensor([1.0, 2, 3])
    other = Cameras(world @ moved, two.K, SIZE, SIZE)
    torch.testing.assert_close(relative_plucker(two, 2.0, 4, 4), relative_plucker(other, 14.0, 4, 4), atol=1e-5, rtol=0)


def test_timesteps_span_the_networks_range():
    steps = timestep_from_sigma(torch.tensor([SIGMA_MIN, SIGMA_MAX]))
    torch.testing.assert_close(steps, torch.tensor([0.0, 1000.0]), atol=1e-3, rtol=0)


def test_serving_equals_the_plain_network(nano):
    z_render, conditioning = request_of(nano)
    noisy = z_render + torch.randn(z_render.shape, generator=torch.Generator().manual_seed(6))
    plain = nano.denoise(noisy, 0.7, conditioning)
    request = nano.begin(conditioning)
    served = nano.denoise_calls([DenoiseCall(request=request, latents=noisy, sigma=0.7, keep=True)])[0]
    torch.testing.assert_close(served, plain, atol=1e-5, rtol=1e-5)
    cells = torch.rand(3, 4, 4) < 0.5
    call = DenoiseCall(request=request, latents=noisy, sigma=0.7, active=nano.active_tokens(request, cells))
    sparse = nano.denoise_calls([call])[0]
    where = cells[:, None].expand_as(plain)
    torch.testing.assert_close(sparse[where], plain[where], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(sparse).all()


def test_memory_bounds_drop_maps_first_and_features_then(nano):
    _, conditioning = request_of(nano)
    film, features = nano.selective.memory(5, 4, 4)
    everything, no_maps, nothing = (nano.begin(conditioning, b) for b in (film + features, features, features - 1))
    assert everything.constants.film is not None
    assert len(everything.caches) == 1
    assert no_maps.constants.film is None
    assert len(no_maps.caches) == 1
    assert nothing.caches == ()

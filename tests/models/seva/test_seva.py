"""SEVA's denoiser: the inputs of its branches, guidance, and skipped branches."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import Cameras, normalise_cameras, plucker
from sphinx_nvs.models.base import DenoiseCall, Render, SelectiveDenoiser
from sphinx_nvs.models.seva.seva_denoiser import Autoencoder, ImageEmbedder, Seva, SevaConditioning, SevaSettings
from sphinx_nvs.models.unet.network import UNet, UNetConfig
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine import Refinement
from sphinx_nvs.refine.refinement import step_together
from sphinx_nvs.scene.scene import Scene

SIZE, CELLS, NUM_CONTEXT, NUM_TARGETS = 64, 8, 2, 3
SMALL = UNetConfig(
    in_channels=11,
    out_channels=4,
    model_channels=8,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    attention_resolutions=(2, 4),
    num_head_channels=4,
    context_dim=6,
    joint=("middle_ds4", "output_ds2"),
    norm_groups=4,
    ff_mult=2,
)
# Widths of 32, so that packed rows are computed by the same vector code as rows alone.
WIDE = replace(SMALL, model_channels=32, channel_mult=(1, 1), num_head_channels=32, norm_groups=32, joint=())


class Averages(nn.Module):
    """Latents that are block averages, and an embedding of the mean colour."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(channels, 3, generator=torch.Generator().manual_seed(7)))

    def encode(self, images: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(images, 8)
        return 2 * torch.cat([small, small.mean(1, keepdim=True)], 1) - 1

    def decode(self, latents: Tensor) -> Tensor:
        return nn.functional.interpolate((latents[:, :3] + 1) / 2, scale_factor=8.0)

    def embed(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) @ self.weight.T


def seva_of(config: UNetConfig = SMALL, **settings: float) -> Seva:
    torch.manual_seed(1)
    parts = Averages(config.context_dim or 0)
    model = Seva(UNet(config), parts, parts, SevaSettings(**settings))
    return model.eval().requires_grad_(False)


def cameras(shifts: tuple[float, ...]) -> Cameras:
    c2w = torch.eye(4).repeat(len(shifts), 1, 1)
    c2w[:, 0, 3] = torch.tensor(shifts)
    K = torch.tensor([[60.0, 0, SIZE / 2], [0, 60, SIZE / 2], [0, 0, 1]]).repeat(len(shifts), 1, 1)
    return Cameras(c2w, K, SIZE, SIZE)


def pictures(seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(NUM_CONTEXT + NUM_TARGETS, 3, SIZE, SIZE, generator=generator)


def conditioned(model: Seva, images: Tensor, shifts: tuple[float, ...] = (0.0, 1.0, 0.2, 0.5, 0.7)):
    scene = Scene(name="noise", images=images[:NUM_CONTEXT], cameras=cameras(shifts[:NUM_CONTEXT]))
    maps = torch.ones(NUM_TARGETS, SIZE, SIZE)
    render = Render(rgb=images[NUM_CONTEXT:], alpha=maps, depth=maps, confidence=maps, disagreement=maps)
    z_render = model.encode(render.rgb)
    return z_render, model.condition(scene, cameras(shifts[NUM_CONTEXT:]), render, z_render)


def noisy_of(z_render: Tensor, seed: int = 5) -> Tensor:
    return z_render + torch.randn(z_render.shape, generator=torch.Generator().manual_seed(seed))


def random_cells(seed: int = 9, share: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(NUM_TARGETS, CELLS, CELLS, generator=generator) < share


class Served:
    """One request's calls, at noise level 0.7."""

    def __init__(self, model: Seva, conditioning: SevaConditioning) -> None:
        self.model, self.request = model, model.begin(conditioning)
        self.active = model.active_tokens(self.request, random_cells())

    def dense(self, latents: Tensor, *, keep: bool = True, fresh: bool = True) -> Tensor:
        return self.model.denoise_calls([self._call(latents, keep=keep, fresh_guidance=fresh)])[0]

    def sparse(self, latents: Tensor, *, fresh: bool = True) -> Tensor:
        return self.model.denoise_calls([self._call(latents, active=self.active, fresh_guidance=fresh)])[0]

    def _call(self, latents: Tensor, **changes) -> DenoiseCall:
        return DenoiseCall(request=self.request, latents=latents, sigma=0.7, **changes)


@pytest.fixture(scope="module")
def model() -> Seva:
    return seva_of()


@pytest.fixture
def request_of(model):
    z_render, conditioning = conditioned(model, pictures())
    return z_render, conditioning, noisy_of(z_render)


def test_it_implements_the_protocols(model):
    assert isinstance(model, SelectiveDenoiser)
    assert isinstance(model.autoencoder, Autoencoder)
    assert isinstance(model.embedder, ImageEmbedder)
    sigmas = model.sigmas(50)
    assert len(sigmas) == 51
    assert float(sigmas[0]) == pytest.approx(84.916, abs=1e-3)


def test_rows_of_the_branches(model, request_of):
    _, conditioning, noisy = request_of
    conditional, unconditional = conditioning.rows(noisy, 0.7)
    assert torch.equal(conditional, torch.cat([conditioning.z_context, noisy]))
    assert torch.equal(unconditional[:2], conditioning.z_context + 0.7 * conditioning.eps_context)
    assert torch.equal(unconditional[2:], noisy)
    known, unknown = conditioning.features()
    assert known[:, 0].mean((1, 2)).tolist() == [1, 1, 0, 0, 0]
    assert not unknown[:, 0].any()
    assert torch.equal(known[:, 1:], unknown[:, 1:])
    assert [bool(part.any()) for part in conditioning.contexts()] == [True, False]


def test_serving_equals_the_plain_network(model, request_of):
    _, conditioning, noisy = request_of
    plain = model.denoise(noisy, 0.7, conditioning)
    served = Served(model, conditioning).dense(noisy)
    torch.testing.assert_close(served, plain, atol=1e-5, rtol=1e-5)
    assert float((plain - noisy).abs().max()) > 0.05


def test_all_active_equals_dense(model, request_of):
    _, conditioning, noisy = request_of
    served = Served(model, conditioning)
    # Context views, too: they are never active in service, but then keep features of other targets.
    served.active = ActiveTokens.from_cells(torch.ones(5, CELLS, CELLS, dtype=torch.bool), SMALL.num_levels)
    served.dense(noisy_of(noisy, 6))
    torch.testing.assert_close(served.sparse(noisy), model.denoise(noisy, 0.7, conditioning), atol=1e-5, rtol=1e-5)


def test_unchanged_inputs_give_unchanged_estimates_where_active(model, request_of):
    _, conditioning, noisy = request_of
    served = Served(model, conditioning)
    dense, sparse = served.dense(noisy), served.sparse(noisy)
    where = random_cells()[:, None].expand_as(dense)
    torch.testing.assert_close(sparse[where], dense[where], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(sparse).all()


def test_half_precision_is_confined_to_the_network(request_of):
    _, conditioning, noisy = request_of
    model = seva_of()
    exact = model.denoise(noisy, 0.7, conditioning)
    model.unet.to(torch.bfloat16)
    plain, served = model.denoise(noisy, 0.7, conditioning), Served(model, conditioning)
    for estimate in (plain, served.dense(noisy), served.sparse(noisy)[random_cells()[:, None].expand_as(noisy)]):
        assert estimate.dtype == torch.float32
    assert 0 < float((plain - exact).abs().max()) < 0.1


def test_a_scale_of_1_ignores_the_unconditional_branch(request_of):
    _, _, noisy = request_of
    model = seva_of(guidance_scale=1.0, guidance_scale_min=1.0)
    _, conditioning = conditioned(model, pictures())
    other = replace(conditioning, eps_context=torch.randn_like(conditioning.eps_context))
    plain = [model.denoise(noisy, 0.7, c) for c in (conditioning, other)]
    torch.testing.assert_close(*plain, atol=1e-6, rtol=0)
    guided = replace(other, scale=torch.full((NUM_TARGETS,), 2.0))
    assert float((model.denoise(noisy, 0.7, guided) - plain[0]).abs().max()) > 1e-3
    for served in (Served(model, conditioning), Served(model, other)):
        torch.testing.assert_close(served.dense(noisy), plain[0], atol=1e-5, rtol=1e-5)


def test_stale_guidance_at_the_same_input_changes_nothing(model, request_of):
    _, conditioning, noisy = request_of
    served = Served(model, conditioning)
    assert torch.equal(served.dense(noisy), served.dense(noisy, keep=False, fresh=False))
    moved = noisy_of(noisy, 6)
    fresh, stale = served.sparse(moved), served.sparse(moved, fresh=False)
    where = random_cells()[:, None].expand_as(fresh)
    torch.testing.assert_close(stale[where], fresh[where], atol=1e-6, rtol=1e-6)


def test_stale_guidance_at_another_input_uses_the_last_difference(model, request_of):
    _, conditioning, noisy = request_of
    served = Served(model, conditioning)
    first, moved = served.dense(noisy), noisy_of(noisy, 6)
    stale = served.dense(moved, keep=False, fresh=False)
    alone = replace(conditioning, scale=torch.ones(NUM_TARGETS))
    push = first - model.denoise(noisy, 0.7, alone)
    torch.testing.assert_close(stale, model.denoise(moved, 0.7, alone) + push, atol=1e-5, rtol=1e-5)
    assert float((stale - model.denoise(moved, 0.7, conditioning)).abs().max()) > 1e-4


def test_a_sparse_call_renews_the_difference_only_where_it_is_active(model, request_of):
    _, conditioning, noisy = request_of
    served = Served(model, conditioning)
    served.dense(noisy)
    before = served.request.residual.clone()
    served.sparse(noisy_of(noisy, 6))
    where = random_cells()[:, None].expand_as(before)
    assert torch.equal(served.request.residual[~where], before[~where])
    assert float((served.request.residual - before)[where].abs().max()) > 1e-4


def test_a_skipped_unconditional_branch_leaves_no_trace_in_later_fresh_calls(model, request_of):
    _, conditioning, noisy = request_of
    results = []
    for fresh in (True, False):
        served = Served(model, conditioning)
        served.dense(noisy)
        served.sparse(noisy_of(noisy, 6), fresh=fresh)
        results.append(served.sparse(noisy_of(noisy, 7))[random_cells()[:, None].expand_as(noisy)])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keep", [True, False])
def test_guidance_that_was_never_fresh_is_an_error(model, request_of, keep):
    _, conditioning, noisy = request_of
    served = Served(model, conditioning)
    if keep:
        served.dense(noisy)
    with pytest.raises(ValueError, match="needs fresh guidance"):
        served.dense(noisy, keep=keep, fresh=False)


def test_context_images_reach_the_targets(model, request_of):
    _, conditioning, noisy = request_of
    images = pictures()
    images[1, :, :32] = 1 - images[1, :, :32]
    _, other = conditioned(model, images)
    assert torch.equal(other.eps_context, conditioning.eps_context)
    before, after = (model.denoise(noisy, 0.7, c) for c in (conditioning, other))
    assert float((before - after).abs().amax((1, 2, 3)).min()) > 1e-4
    for name in ("z_context", "token"):
        changed = model.denoise(noisy, 0.7, replace(conditioning, **{name: getattr(conditioning, name) + 1}))
        assert float((before - changed).abs().amax((1, 2, 3)).min()) > 1e-4, name


def test_context_noise_comes_from_the_generator_or_a_seed_of_its_own(model):
    images = pictures()
    scene = Scene(name="noise", images=images[:2], cameras=cameras((0.0, 1.0)))
    maps = torch.ones(3, SIZE, SIZE)
    render = Render(rgb=images[2:], alpha=maps, depth=maps, confidence=maps, disagreement=maps)
    given = [
        model.condition(scene, cameras((0.2, 0.5, 0.7)), render, model.encode(render.rgb), generator).eps_context
        for generator in (None, None, torch.Generator().manual_seed(0))
    ]
    assert torch.equal(given[0], given[1])
    assert not torch.allclose(given[0], given[2])


def test_permuting_targets_permutes_estimates(model, request_of):
    _, conditioning, noisy = request_of
    order = [2, 0, 1]
    images = pictures()
    _, permuted = conditioned(model, torch.cat([images[:2], images[2:][order]]), (0.0, 1.0, 0.7, 0.2, 0.5))
    plain = model.denoise(noisy, 0.7, conditioning)
    torch.testing.assert_close(model.denoise(noisy[order], 0.7, permuted), plain[order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("guider", "expected"), [(0, [2.0, 2.0, 2.0]), (1, [2.0, 1.2, 2.0]), (2, [1.2 + 0.8 / 3, 1.2, 2.0])]
)
def test_guiders(guider, expected):
    model = seva_of(guider=guider)
    # The second target stands where the second context view does.
    _, conditioning = conditioned(model, pictures(), (0.0, 1.0, 0.2, 1.0, 0.7))
    torch.testing.assert_close(conditioning.scale, torch.tensor(expected))


def test_guidance_is_full_with_other_intrinsics(model):
    row = cameras((0.0, 1.0, 1.0))
    K = row.K.clone()
    K[2, 0, 0] += 1
    assert model.guidance_scale(row, 2).tolist() == pytest.approx([1.2])
    assert model.guidance_scale(Cameras(row.c2w, K, SIZE, SIZE), 2).tolist() == pytest.approx([2.0])


def test_rays_are_the_first_context_views_in_the_networks_units(request_of):
    _, conditioning, _ = request_of
    moved = seva_of(camera_scale=4.0)
    _, doubled = conditioned(moved, pictures())
    _, elsewhere = conditioned(seva_of(), pictures(), (10.0, 13.0, 10.6, 11.5, 12.1))
    torch.testing.assert_close(elsewhere.plucker, conditioning.plucker, atol=1e-5, rtol=0)
    torch.testing.assert_close(doubled.plucker[:, 3:], 2 * conditioning.plucker[:, 3:], atol=1e-5, rtol=0)
    assert not conditioning.plucker[0, 3:].any()
    assert conditioning.plucker[1, 3:].any()


def test_the_origin_of_a_long_path_is_the_centroid_of_all_its_cameras(model):
    images = pictures()
    scene = Scene(name="noise", images=images[:NUM_CONTEXT], cameras=cameras((0.0, 1.0)))
    targets, path = cameras((0.2, 0.5, 0.7)), cameras((0.0, 1.0, 0.2, 0.5, 0.7, 2.0, 3.0))
    maps = torch.ones(NUM_TARGETS, SIZE, SIZE)
    render = Render(rgb=images[NUM_CONTEXT:], alpha=maps, depth=maps, confidence=maps, disagreement=maps)
    z_render = model.encode(render.rgb)
    own, same, wide = (
        model.condition(scene, targets, render, z_render, reference=reference).plucker
        for reference in (None, path[:5], path)
    )
    assert torch.equal(own, same)
    expected = normalise_cameras(Cameras.cat([scene.cameras, targets]), reference=path, camera_scale=2.0)
    assert torch.equal(wide, plucker(expected, *z_render.shape[-2:]).to(z_render))
    assert not torch.equal(wide, own)


def test_memory_bounds_drop_maps_first_and_features_then(model, request_of):
    _, conditioning, noisy = request_of
    film, features = model.selective.memory(NUM_CONTEXT + NUM_TARGETS, CELLS, CELLS)
    bounds = (film + 2 * features, 2 * features, 2 * features - 1)
    everything, no_maps, nothing = (model.begin(conditioning, bound) for bound in bounds)
    conditional, unconditional = everything.constants
    assert conditional.film is not None
    assert unconditional.film is conditional.film
    assert unconditional.dense is conditional.dense
    assert len(everything.caches) == len(no_maps.caches) == 2
    assert no_maps.constants[0].film is None
    assert nothing.caches == ()
    plain = model.denoise(noisy, 0.7, conditioning)
    for request in (no_maps, nothing):
        estimate = model.denoise_calls([DenoiseCall(request=request, latents=noisy, sigma=0.7)])[0]
        torch.testing.assert_close(estimate, plain, atol=1e-5, rtol=1e-5)


def test_images_survive_the_round_trip(model):
    images = pictures()
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(model.decode(model.encode(flat)), flat, atol=1e-5, rtol=0)
    assert float(model.decode(torch.full((1, 4, 8, 8), 3.0)).max()) == 1


def plan_of(model: Seva, **changes) -> ComputePlan:
    """Six steps, some sparse, with cells that start late."""
    start = torch.where(random_cells(share=0.6), 0, 6)
    start[0, :2] = 2
    return ComputePlan(**{"start_step": start, "sigmas": model.sigmas(6), "dense_steps": (0, 3)} | changes)


def refine(model: Seva, seeds: tuple[int, ...] = (0,), together: bool = False, **changes) -> list[Refinement]:
    """Requests of different pictures, stepped in turn or together."""
    refinements = []
    for seed in seeds:
        z_render, conditioning = conditioned(model, pictures(seed))
        refinements.append(Refinement(model, conditioning, z_render, plan_of(model, **changes), seed))
    while not refinements[0].done:
        if together:
            step_together(refinements)
        else:
            for refinement in refinements:
                refinement.step()
    return refinements


SKIPPING = {"unconditional_steps": (4,)}


@pytest.mark.parametrize("changes", [{}, SKIPPING, {"solver": "euler", "refresh_drift": 0.2} | SKIPPING])
def test_refinement_is_repeated_bit_for_bit_and_requests_do_not_touch_each_other(changes):
    model = seva_of(WIDE)
    first, second = (refine(model, (seed,), **changes)[0].latents for seed in (0, 1))
    assert torch.isfinite(first).all()
    assert torch.equal(refine(model, **changes)[0].latents, first)
    for together in (False, True):
        both = refine(model, (0, 1), together, **changes)
        assert torch.equal(both[0].latents, first)
        assert torch.equal(both[1].latents, second)
    assert not torch.allclose(first, second)


def test_refinement_skips_the_unconditional_branch_where_the_plan_says(model, monkeypatch):
    seen = []
    plain = Seva.denoise_calls

    def watched(self, calls):
        seen.extend((call.active is None, call.keep, call.fresh_guidance) for call in calls)
        return plain(self, calls)

    monkeypatch.setattr(Seva, "denoise_calls", watched)
    # Dense at 0, 2 and 3; the call at 2 fills no caches, since 3 is dense again, the one at 3 does.
    skipped = refine(model, dense_steps=(0, 2, 3), unconditional_steps=(4,))[0]
    assert seen == [
        (True, True, True),
        (False, False, False),
        (True, False, False),
        (True, True, True),
        (False, False, True),
        (False, False, False),
    ]
    exact = refine(model, dense_steps=(0, 2, 3))[0]
    assert not torch.allclose(skipped.latents, exact.latents)
    assert torch.equal(
        refine(model, dense_steps=(0, 2, 3), unconditional_steps=tuple(range(6)))[0].latents, exact.latents
    )


def test_with_every_step_dense_refinement_is_the_plain_denoiser(model):
    class Plain:
        """The same denoiser without caches: only what `Denoiser` requires."""

        name, factor, size_multiple, latent_channels = "plain", 8, 64, 4
        encode, decode, sigmas = map(staticmethod, (model.encode, model.decode, model.sigmas))
        condition, denoise = map(staticmethod, (model.condition, model.denoise))

    z_render, conditioning = conditioned(model, pictures(0))
    plan = plan_of(model, dense_steps=tuple(range(6)))
    refinement = Refinement(Plain(), conditioning, z_render, plan, 0)
    while not refinement.done:
        refinement.step()
    served = refine(model, dense_steps=tuple(range(6)))[0]
    torch.testing.assert_close(served.latents, refinement.latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"guider": 3}, "SevaSettings.guider: it is 3; choose 0, 1 or 2"),
        ({"guidance_scale": -1.0}, "SevaSettings.guidance_scale: it is -1; give a number from 0"),
        ({"guidance_scale_min": torch.inf}, "SevaSettings.guidance_scale_min: it is inf; give a number from 0"),
        ({"camera_scale": 0.0}, "SevaSettings.camera_scale: it is 0; give a positive number"),
    ],
)
def test_impossible_settings_are_refused(change, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        SevaSettings(**change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"in_channels": 12},
            "Seva.unet: its input, output and dense channels are (12, 4, 6); give (11, 4, 6)",
        ),
        ({"context_dim": None}, "Seva.unet: its context_dim is None; give a network that takes a context"),
    ],
)
def test_other_networks_are_refused(change, sentence):
    parts = Averages(6)
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        Seva(UNet(replace(SMALL, **change)), parts, parts)

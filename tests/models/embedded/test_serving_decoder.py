"""Decoding laid out for the CPU against the plain modules, which train."""

import math
from dataclasses import replace

import pytest
import torch

from sphinx_nvs.models.base import Render
from sphinx_nvs.models.embedded.decoder_inputs import decoder_inputs, redraw
from sphinx_nvs.models.embedded.serving_decoder import ServingDecoder
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.embedded.temporal_consistency import Path, neighbours_of
from sphinx_nvs.procedural import procedural_views


@pytest.fixture(scope="module")
def nano():
    return load_nano()


def serving(nano, dtype=torch.float32):
    return ServingDecoder(nano.autoencoder, nano.reference, nano.agreement, dtype)


def given(contexts=2, views=2, height=64, width=96, seed=3):
    """Context cameras, target cameras, pictures that are a little wrong, and inputs with a rough render."""
    rgb, depth, cameras, _ = procedural_views(seed, contexts + views, height, width, split="val", supersample=1)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(views, 3, height, width, generator=generator)
    trust = torch.rand(3, views, height, width, generator=generator)
    render = Render(
        rgb=(0.7 * rgb[contexts:] + 0.3 * noise).clamp(0, 1),
        alpha=trust[0],
        confidence=trust[1],
        disagreement=0.2 * trust[2],
        depth=depth[contexts:].float(),
        context_inverse_depth=1 / depth[:contexts].float(),
        context_confidence=torch.full((contexts, height, width), 0.4),
    )
    inputs = decoder_inputs(rgb[:contexts], cameras[:contexts], cameras[contexts:], render)
    return cameras[:contexts], cameras[contexts:], (rgb[contexts:] + 0.1 * (noise - 0.5)).clamp(0, 1), inputs


def share_apart(a, b):
    """Share of inverse depths that differ; where two planes are equally likely, rounding decides."""
    return float(((a / b - 1).abs() > 1e-4).float().mean())


def decibels(a, b):
    return -10 * math.log10(max(float((a - b).square().mean()), 1e-20))


@torch.inference_mode()
def test_latents_are_decoded_as_by_the_autoencoder(nano):
    latents = nano.encode(given()[2]) + 0.05 * torch.randn(2, 24, 8, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(serving(nano).decode(latents), nano.decode(latents), atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize(("contexts", "size"), [(1, (64, 96)), (2, (64, 96)), (3, (32, 160)), (5, (160, 128))])
def test_search_and_fusion_equal_the_plain_decoder(nano, contexts, size):
    context, targets, pictures, inputs = given(contexts, 2, *size)
    fast = serving(nano)
    photos = fast.photo_maps(inputs.photos)
    survey = nano.reference.survey(inputs)
    found = fast.survey(inputs, photos)
    if contexts == 1:
        assert found is None
    else:
        assert share_apart(found.inverse_depth, survey.inverse_depth) < 1e-3
        assert float((found.sureness - survey.sureness).abs().mean()) < 1e-4
    inputs = replace(inputs, redrawn=redraw(inputs, context, targets, survey))
    for view in range(2):
        one, picture = inputs.of(view), pictures[view : view + 1]
        plain, quick = nano.reference.find(picture, one), fast.find(picture, one, photos)
        assert share_apart(quick.inverse_depth, plain.inverse_depth) < 1e-3
        frame = nano.reference.compose(picture, one, plain).clamp(0, 1)
        torch.testing.assert_close(fast.compose(picture, one, plain, photos), frame, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_frames_agree_as_the_plain_network_makes_them(nano):
    _, targets, pictures, inputs = given(views=4)
    path = Path(
        frames=pictures,
        rendered=inputs.rendered,
        signals=inputs.signals,
        inverse_depth=inputs.inverse_depth,
        neighbours=neighbours_of(targets),
    )
    plain = torch.stack([nano.agreement(path, view).clamp(0, 1) for view in range(4)])
    torch.testing.assert_close(serving(nano).agreed(path, [0, 1, 2, 3]), plain, atol=2e-5, rtol=0)
    torch.testing.assert_close(serving(nano).agreed(path, [2]), plain[2:3], atol=2e-5, rtol=0)


@torch.inference_mode()
def test_bfloat16_is_invisible(nano):
    _, _, pictures, inputs = given()
    frames = []
    for dtype in (torch.float32, torch.bfloat16):
        fast = serving(nano, dtype)
        photos = fast.photo_maps(inputs.photos)
        latents = nano.encode(pictures[:1])
        found = fast.find(pictures[:1], inputs.of(0), photos)
        frames.append((fast.decode(latents), fast.compose(pictures[:1], inputs.of(0), found, photos)))
    assert decibels(frames[0][0], frames[1][0]) > 60
    assert decibels(frames[0][1], frames[1][1]) > 50


@torch.inference_mode()
def test_the_number_of_threads_changes_no_loop(nano):
    """Convolutions may sum in another order with more threads; the loops between them may not."""
    _, _, pictures, inputs = given(height=96)
    fast, threads, frames = serving(nano), torch.get_num_threads(), []
    photos = fast.photo_maps(inputs.photos)
    found = fast.find(pictures[:1], inputs.of(0), photos)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            frames.append(fast.compose(pictures[:1], inputs.of(0), found, photos))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(frames[0], frames[1], atol=1e-5, rtol=0)


def test_changed_weights_are_seen():
    nano = load_nano()
    latents = nano.encode(given()[2])
    before = nano.serving_decoder
    assert nano.serving_decoder is before
    first = before.decode(latents)
    with torch.no_grad():
        nano.autoencoder.leave.bias.add_(1)
    assert nano.serving_decoder is not before
    assert not torch.allclose(nano.serving_decoder.decode(latents), first, atol=0.01)

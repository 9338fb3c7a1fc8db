"""Laws of the research code's masks and scores."""

import numpy as np
import torch

from sphinx_nvs.assess.quality import eased_benchmark, image_quality
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.models.base import Render
from sphinx_nvs.released_code.masks import (
    area_share,
    cleaned,
    eight_bit,
    inverted_detail,
    otsu_threshold,
    research_assess,
    research_blur_mask,
    research_scores,
)
from sphinx_nvs.scene.scene import Scene

SIDE, VIEWS = 48, 3


def textured(num, seed=0):
    """Noise on the left, flat on the right."""
    images = torch.rand(num, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    images[..., SIDE // 2 :] = 0.5
    return images


def scene_and_render(alpha):
    K = torch.tensor([[40.0, 0, SIDE / 2], [0, 40, SIDE / 2], [0, 0, 1]]).repeat(2, 1, 1)
    scene = Scene(name="noise", images=textured(2), cameras=Cameras(torch.eye(4).repeat(2, 1, 1), K, SIDE, SIDE))
    ones = torch.ones(VIEWS, SIDE, SIDE)
    render = Render(rgb=textured(VIEWS, 1), alpha=alpha, depth=ones, confidence=ones, disagreement=0 * ones)
    return scene, render


def test_any_views_hole_is_everyones_and_only_the_sharp_half_is_added():
    alpha = torch.ones(VIEWS, SIDE, SIDE)
    alpha[1, 10:30, 30:45] = 0.4
    found = research_assess(*scene_and_render(alpha), torch.ones(VIEWS))
    assert found.holes[12:28, 32:43].all()
    assert not found.holes[:, :26].any()
    assert found.holes_or_sharp[:, : SIDE // 2 - 4].float().mean() > 0.95
    assert not found.holes_or_sharp[35:, 30:].any()
    assert torch.equal(found.mask(1), found.holes)
    assert torch.equal(found.mask(0), found.holes_or_sharp)


def test_scores_are_over_the_benchmark_at_even_positions():
    scene, render = scene_and_render(torch.ones(VIEWS, SIDE, SIDE))
    context = image_quality(scene.images)
    benchmark = eased_benchmark(context[:1], context[1:], torch.tensor([0.05, 0.5, 0.95]))
    found = research_scores(scene, render, image_quality)
    torch.testing.assert_close(found, image_quality(render.rgb) / benchmark)


def test_scores_are_taken_as_they_are():
    scores = torch.tensor([0.5, 0.9, 1.1])
    found = research_assess(*scene_and_render(torch.ones(VIEWS, SIDE, SIDE)), scores, score_name="MUSIQ")
    assert torch.equal(found.scores, scores)
    assert found.score_name == "MUSIQ"


def test_specks_vanish_and_a_picture_full_of_holes_is_full():
    speck = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    speck[20, 20] = True
    assert area_share(cleaned(speck)) == 0
    assert area_share(cleaned(torch.ones_like(speck))) > 0.98


def test_a_straight_edge_grows_by_two_pixels():
    """The density filter is not joined with the mask: documented growth of the released code."""
    half = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    half[:, :20] = True
    assert cleaned(half)[SIDE // 2].nonzero().max() == 21


def test_a_flat_picture_is_blurry_all_over():
    flat = torch.full((3, SIDE, SIDE), 90, dtype=torch.uint8)
    assert (inverted_detail(flat) == 255).all()
    assert research_blur_mask(flat).all()


def test_otsu_splits_two_levels_and_takes_the_lowest_of_equals():
    values = torch.tensor([[10, 10, 200, 200]], dtype=torch.uint8)
    assert otsu_threshold(values) == 10


def test_eight_bits_round_to_the_nearest():
    images = torch.tensor([0.0, 0.5 / 255, 0.6 / 255, 1.0, 1.7]).expand(1, 3, 1, 5)
    assert eight_bit(images)[0, 0, 0].tolist() == [0, 0, 1, 255, 255]


def test_levels_are_cut_off_where_opencv_cuts_them_off():
    pixels = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    found = inverted_detail(torch.from_numpy(pixels).permute(2, 0, 1))
    assert found[19, 4] == 1, "0 if the sums are rounded in another order than OpenCV's"

from dataclasses import replace

import pytest
import torch

from sphinx_nvs.geometry import Cameras
from sphinx_nvs.models.embedded.denoiser import Nano, relative_plucker
from sphinx_nvs.training.batches import _mirrored, augmented, batch_from_samples, relative_rays


def test_mirroring_keeps_points_where_their_pixels_are(samples):
    chosen = torch.tensor([True, False])
    mirrored = _mirrored(samples, chosen)
    cameras = Cameras(mirrored.c2w[0].double(), mirrored.K[0].double(), 32, 32)
    point = samples.c2w[0, 0].double() @ torch.tensor([0.3, 0.1, 2.0, 1.0], dtype=torch.float64)
    reflected = point * torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64)
    for view in range(2):
        plain = samples.K[0, view].double() @ (torch.linalg.inv(samples.c2w[0, view].double()) @ point)[:3]
        there = cameras.K[view] @ (cameras.w2c[view] @ reflected)[:3]
        assert float(plain[0] / plain[2] + there[0] / there[2]) == pytest.approx(32, abs=1e-4)
        assert float(plain[1] / plain[2]) == pytest.approx(float(there[1] / there[2]), abs=1e-4)
    assert torch.equal(mirrored.rgb[0].flip(-1), samples.rgb[0])
    for name, part in mirrored.tensors().items():
        assert torch.equal(part[1], getattr(samples, name)[1])


def test_augmentation_drops_targets_and_keeps_context(samples):
    varied = augmented(samples, torch.Generator().manual_seed(0), drop=1)
    count, num_context = samples.rgb.shape[1], samples.num_context
    assert varied.rgb.shape[1] == varied.c2w.shape[1] == count - 1
    assert torch.equal(varied.render[:, :num_context], varied.rgb[:, :num_context])
    originals = samples.rgb.double().mean((2, 3, 4))
    for scene in range(len(samples)):
        means = varied.rgb[scene].double().mean((1, 2, 3))
        assert torch.equal(means[:num_context], originals[scene, :num_context])
        assert all(bool((originals[scene] == mean).any()) for mean in means)


def test_a_batch_is_what_serving_would_condition_on(samples):
    nano = Nano()
    batch = batch_from_samples(nano, samples)
    context = samples.num_context
    assert batch.num_context == context
    for scene in range(len(samples)):
        truth = nano.encode(samples.rgb[scene, context:].float() / 255)
        torch.testing.assert_close(batch.truth[scene], truth)
        maps = batch.features[scene, context:, nano.latent_channels : nano.latent_channels + 4]
        alone = nano.assemble(
            nano.encode(samples.rgb[scene, :context].float() / 255), batch.z_render[scene], maps, batch.plucker[scene]
        )
        conditioning = batch.conditioning(scene)
        for name in ("features", "plucker", "z_render", "sigma_data"):
            torch.testing.assert_close(getattr(conditioning, name), getattr(alone, name))


def test_rays_of_many_scenes_are_those_of_each(samples):
    rays = relative_rays(samples.c2w, samples.K, samples.depth_unit, 32, 4, 4)
    for scene in range(len(samples)):
        cameras = Cameras(samples.c2w[scene].double(), samples.K[scene].double(), 32, 32)
        alone = relative_plucker(cameras, float(samples.depth_unit[scene]), 4, 4)
        torch.testing.assert_close(rays[scene], alone, atol=1e-5, rtol=1e-5)


def test_two_scenes_of_other_colours_are_permuted_as_a_whole(samples):
    grey = replace(samples, rgb=samples.rgb[:, :, :1].expand_as(samples.rgb))
    varied = augmented(grey, torch.Generator().manual_seed(3))
    assert torch.equal(varied.rgb[:, :, 0], varied.rgb[:, :, 2])

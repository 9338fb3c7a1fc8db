"""Small evaluations for tests: a fast pair, and synthetic cases."""

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F

from sphinx_nvs.evaluation.datasets import Case, Loaded, Size
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.profile import CHANGE, FittedProfile
from sphinx_nvs.presets import load_preset
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene import Scene

SIZE = Size(short_side=32, most_views=3)


@cache
def pipeline() -> Pipeline:
    return load_preset()


class Smoother:
    """A denoiser without a network: the clean estimate is the noisy one, blurred and drawn to the render's mean."""

    name, factor, size_multiple, latent_channels = "smoother", 8, 8, 3

    def encode(self, images):
        return F.avg_pool2d(images, 8)

    def decode(self, latents):
        return F.interpolate(latents, scale_factor=8, mode="bilinear").clamp(0, 1)

    def sigmas(self, num_steps):
        return torch.cat([torch.logspace(1, -2, num_steps), torch.zeros(1)])

    def condition(self, scene, targets, render, z_render, reference=None):
        return z_render

    def denoise(self, latents, sigma, conditioning):
        return conditioning + (F.avg_pool2d(latents, 3, 1, 1) - conditioning) / (1 + sigma**2)


def fast_pipeline() -> Pipeline:
    """The embedded preset with a denoiser without a network, which is probed by its first step."""
    profile = pipeline().profile
    assert isinstance(profile, FittedProfile)
    return replace(pipeline(), denoiser=Smoother(), profile=replace(profile, signal=CHANGE))


@cache
def _views(seed: int) -> tuple:
    return procedural_views(seed, 6, 32, 32, split="test")


@dataclass(frozen=True)
class _Load:
    seed: int

    def __call__(self, size: Size) -> Loaded:
        rgb, depth, cameras, _ = _views(self.seed)
        scene = Scene(name=f"tiny-{self.seed}", images=rgb[[0, 3]], cameras=cameras[[0, 3]])
        held_out = [1, 2, 5]
        return Loaded(scene=scene, targets=cameras[held_out], truth=rgb[held_out], depth=depth[held_out])


def tiny_case(seed: int = 0) -> Case:
    return Case(name=f"tiny-{seed}", source="tests", load=_Load(seed))


def made_case(
    name: str, losses: dict[str, float], seconds: dict[str, float], *, seeds: int = 2, region: str = "unseen"
):
    """A synthetic result of the harness: full diffusion's RMSE is 0.1, a method's `1 + loss` times that, everywhere."""

    def run(method: str, seed: int) -> dict:
        rmse = 0.1 * (1 + losses[method])
        return {
            "seed": seed,
            "wall_s": [2 * seconds[method]],
            "cpu_s": [seconds[method]],
            "energy_j": [None],
            "stages_s": {"refine": seconds[method]},
            "metrics": {"whole": {"rmse": rmse, "psnr": 20.0}, region: {"rmse": rmse}},
            "views": {"rmse": [rmse], "psnr": [20.0]},
            "reprojection": 0.01,
            "psnr_to_warm": None,
            "calls": 0 if method == "regression" else 10,
            "dense_calls": 0 if method == "regression" else 10,
            "computed_share": 0.5,
            "active_share": 0.5,
            "flops": 0 if method == "regression" else 100,
            "ideal_flops": 0 if method == "regression" else 50,
        }

    picture = "AAAA"
    return {
        "case": name,
        "source": "made",
        "size": "32x32",
        "contexts": 2,
        "targets": 1,
        "distance": 0.1,
        "shares": {"unseen": 0.5, "masked": 0.2, "boundary": 0.1, "rest": 0.7},
        "truth_reprojection": 0.005,
        "energy": "unavailable: package zeus missing",
        "prepare": [{"wall_s": 0.0, "cpu_s": 0.0, "stages_s": {"render": 0.0}}],
        "methods": {method: [run(method, seed) for seed in range(seeds)] for method in losses},
        "features": None,
        "pictures": {"view": 0, "truth": picture, "methods": dict.fromkeys(losses, picture), "plans": {}},
    }


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

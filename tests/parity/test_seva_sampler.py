"""Schedules, guidance and whole sampling runs of the original, reproduced."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.diffusion.guidance import (
    constant_scale,
    guide,
    multiview_scale,
    rotations_deg,
    temporal_scale,
)
from sphinx_nvs.diffusion.preconditioning import NoisePrediction, denoise, insert_known
from sphinx_nvs.diffusion.sigmas import SigmaTable, alphas_cumprod, ddpm_sigmas
from sphinx_nvs.diffusion.solvers import Euler, trajectory

TABLE_TOLERANCE = 2e-6
RUN_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden(parity_dir):
    info = json.loads((parity_dir / "seva_sampler.json").read_text())
    return info, load_file(parity_dir / "seva_sampler.safetensors")


def table_of(info: dict) -> SigmaTable:
    ends = {"linear_start": info["linear_start"], "linear_end": info["linear_end"]}
    return SigmaTable(ddpm_sigmas(info["num_timesteps"], log_shift=info["log_snr_shift"], **ends))


def scales(info: dict, tensors: dict, prefix: str) -> dict[int, torch.Tensor]:
    """The per-view scale of guiders 0, 1 and 2."""
    known = tensors[f"{prefix}.input_mask"].bool()
    views = (tensors[f"{prefix}.c2w"], tensors[f"{prefix}.K"], known)
    strength = {"scale": info["cfg_scale"], "scale_min": info["cfg_min"]}
    return {
        0: constant_scale(len(known), info["cfg_scale"]),
        1: multiview_scale(*views, **strength),
        2: temporal_scale(*views, **strength),
    }


def test_seva_table_is_the_recorded_one(golden):
    info, tensors = golden
    torch.testing.assert_close(
        alphas_cumprod(info["num_timesteps"], linear_start=info["linear_start"], linear_end=info["linear_end"]),
        tensors["alphas_cumprod_f64"],
        rtol=1e-12,
        atol=0,
    )
    torch.testing.assert_close(table_of(info).sigmas, tensors["denoiser.sigmas_table"], rtol=TABLE_TOLERANCE, atol=0)


def test_preset_is_the_recorded_schedule(golden):
    info, _ = golden
    assert torch.equal(SigmaTable.seva().sigmas, table_of(info).sigmas)


def test_grids(golden, relative):
    info, tensors = golden
    plain = SigmaTable(
        ddpm_sigmas(info["num_timesteps"], linear_start=info["linear_start"], linear_end=info["linear_end"])
    )
    for name in (key for key in tensors if key.startswith("sigmas.")):
        kind, steps = name.removeprefix("sigmas.").rsplit("n", 1)
        table = plain if kind.startswith("noshift") else table_of(info)
        assert relative(table.grid(int(steps)), tensors[name]) < TABLE_TOLERANCE, name


def test_timesteps(golden):
    info, _ = golden
    names = [key for key in info if key.startswith("timesteps.n")]
    assert names
    for name in names:
        assert table_of(info).timesteps(int(name.removeprefix("timesteps.n"))).tolist() == info[name]


def test_nearest_index(golden):
    _, tensors = golden
    table = SigmaTable(tensors["denoiser.sigmas_table"])
    found = table.nearest(tensors["sigma_to_idx.sigma"])
    assert torch.equal(found, tensors["sigma_to_idx.idx"])
    assert torch.equal(table.sigmas[found], tensors["sigma_to_idx.quantised_sigma"])


def test_camera_distances(golden):
    _, tensors = golden
    c2w, known = tensors["cfg.c2w"], tensors["cfg.input_mask"].bool()
    found = rotations_deg(c2w, c2w[known])
    # The arc cosine turns single precision into hundredths of a degree near 0.
    torch.testing.assert_close(found, tensors["cfg.rotation_deg"], rtol=1e-4, atol=0.1)


def test_guidance(golden):
    info, tensors = golden
    found = scales(info, tensors, "cfg")
    torch.testing.assert_close(found[1], tensors["cfg.multiview_scale"])
    torch.testing.assert_close(found[2], tensors["cfg.temporal_scale"])
    for guider, name in enumerate(("vanilla", "multiview", "temporal")):
        result = guide(tensors["cfg.pred_uncond"], tensors["cfg.pred_cond"], found[guider])
        torch.testing.assert_close(result, tensors[f"cfg.{name}_result"], rtol=1e-5, atol=1e-5)


def test_trajectory_scale(golden):
    info, tensors = golden
    torch.testing.assert_close(scales(info, tensors, "traj")[1], tensors["traj.guider1.scale"])


def run(golden, seva_tiny, guider: int):
    """The recorded sampling run, as raw estimates per step and steps."""
    info, tensors = golden
    both = {
        name: torch.cat([tensors[f"traj.{branch}.{name}"] for branch in ("uncond", "cond")])
        for name in ("concat", "crossattn", "dense_vector", "replace")
    }
    known, mask = both["replace"].split([both["replace"].shape[1] - 1, 1], dim=1)
    scale, raw = scales(info, tensors, "traj")[guider], []

    def network(x, timestep):
        rows = torch.cat([x, both["concat"]], dim=1)
        return seva_tiny.unet(rows, timestep, both["dense_vector"], both["crossattn"], info["num_frames"])

    def guided(x, sigma):
        rows = insert_known(torch.cat([x, x]), known, mask)
        raw.append(denoise(NoisePrediction(table_of(info)), network, rows, sigma))
        return guide(*raw[-1].chunk(2), scale)

    sigmas = tensors["traj.sigmas"]
    start = tensors["traj.noise"] * (1 + sigmas[0] ** 2).sqrt()
    steps = list(trajectory(guided, start, sigmas, Euler(), offset=1e-6, noise=tensors["traj.eps"]))
    return raw, steps


@torch.no_grad()
def test_guider_1_trajectory(golden, seva_tiny, relative):
    _, tensors = golden
    raw, steps = run(golden, seva_tiny, 1)
    for index, step in enumerate(steps):
        assert relative(raw[index], tensors["traj.guider1.raw_denoised_uncond_cond"][index]) < RUN_TOLERANCE
        assert relative(step.denoised, tensors["traj.guider1.denoised"][index]) < RUN_TOLERANCE
        assert relative(step.x, tensors["traj.guider1.x_after"][index]) < RUN_TOLERANCE
    assert relative(steps[-1].x, tensors["traj.guider1.final"]) < RUN_TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("guider", [0, 2])
def test_other_guiders_finals(golden, seva_tiny, relative, guider):
    _, tensors = golden
    _, steps = run(golden, seva_tiny, guider)
    assert relative(steps[-1].x, tensors[f"traj.guider{guider}.final"]) < RUN_TOLERANCE

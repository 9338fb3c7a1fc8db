"""A plan of computation: one integer map, and what is needed to run it again.

`start_step[view, y, x]` says from which solver step on a latent cell is denoised; `num_steps` means never: the render
is kept. Full diffusion is the map of zeros, regression the map of `num_steps`; warm starts, per-view schedules and
masks are maps in between.

Shapes: V target views, h w latent cells, L = S + 1 noise levels of S steps.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject

SOLVERS = ("euler", "multistep")
ARITHMETICS = ("exact", "research", "research-tiled")
DECODINGS = ("survey", "search")
"""How a denoiser with `ReferenceDecoding` decodes, cheapest first; see `decode_frames`."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted quality, compute and seconds of a plan.

    Args:
        quality: at most 1, in the profile's sense; below 0 where a render is worse than is usual.
        compute: share of full diffusion's compute.
        seconds: median of stages 5 to 8 on this machine; None where it was never measured.
        seconds_p95: 95th percentile of it.
    """

    quality: float
    compute: float
    seconds: float | None = None
    seconds_p95: float | None = None


@dataclass(frozen=True, kw_only=True)
class ComputePlan:
    """A plan of computation, and the reason for it.

    Args:
        start_step: first solver step of each cell, 0..S; S = keep the render.
        sigmas: noise levels, descending, last 0.
        solver: `euler` or `multistep` (second order).
        temperature: [0, 1]; 1 samples the model's distribution, 0 gives its mean, in between lies a mixture: smaller
            errors, less detail.
        dense_steps: sorted steps at which every token is computed; at others active ones are, against cached features.
            The first step is dense in any case: there is nothing to read before.
        refresh_drift: a step is dense, too, once cached features have drifted further than this since the last dense
            one (see `FeatureCache.drift`); None leaves it to `dense_steps`.
        unconditional_steps: steps at which a guided denoiser computes its unconditional branch; at others it
            reuses the last difference between the branches. None is all steps. The first step computes it in
            any case, and so does a step that fills the caches (see `Refinement.next_call`).
        arithmetic: how sparse steps are computed: `exact` as in `models.unet.selective`; `research` and
            `research-tiled` as in the paper's released code, for comparison (SEVA-family denoisers only).
        network: whether the denoiser's network is called; without it, active cells are decoded from the latents of the
            render.
        decoding: one of `DECODINGS`; denoisers that decode latents alone know no difference.
        reason: one sentence that names the rule behind the plan.
        profile: name of the profile that holds the rule.
        quality: the requested quality, 0..1.
        predicted: the planner's prediction; None where it makes none.

    Raises:
        InputError: a start step outside 0..S, sigmas that do not descend to 0, a temperature outside 0..1, an unknown
            solver, arithmetic or decoding.
    """

    start_step: Int[Tensor, "V h w"]
    sigmas: Float[Tensor, "L"]
    solver: str = "multistep"
    temperature: float = 1.0
    dense_steps: tuple[int, ...] = field(default=())
    refresh_drift: float | None = None
    unconditional_steps: tuple[int, ...] | None = None
    arithmetic: str = "exact"
    network: bool = True
    decoding: str = DECODINGS[-1]
    reason: str = ""
    profile: str = ""
    quality: float = 1.0
    predicted: Prediction | None = None

    def __post_init__(self) -> None:
        low, high = int(self.start_step.min()), int(self.start_step.max())
        if low < 0 or high > self.num_steps:
            raise InputError("start_step", f"values {low}..{high}", f"give steps in 0..{self.num_steps}")
        if float(self.sigmas[-1]) != 0 or bool((self.sigmas.diff() >= 0).any()):
            raise InputError("sigmas", "they do not descend to 0", "give a strictly descending grid that ends in 0")
        if not 0 <= self.temperature <= 1:
            raise InputError("temperature", f"it is {self.temperature:g}", "give a number in 0..1")
        if self.solver not in SOLVERS:
            raise InputError("solver", f"'{self.solver}' is unknown", f"choose {' or '.join(SOLVERS)}")
        if self.arithmetic not in ARITHMETICS:
            raise InputError("arithmetic", f"'{self.arithmetic}' is unknown", f"choose {' or '.join(ARITHMETICS)}")
        if self.decoding not in DECODINGS:
            raise InputError("decoding", f"'{self.decoding}' is unknown", f"choose {' or '.join(DECODINGS)}")

    @property
    def num_steps(self) -> int:
        """S, the number of solver steps."""
        return len(self.sigmas) - 1

    @property
    def first_step(self) -> int:
        """The step at which the first cell starts; S if none ever does."""
        return int(self.start_step.min())

    @property
    def active_share(self) -> float:
        """Share of the plan's (cell, step) pairs that are active, 0..1; 0 without network calls."""
        if not self.network:
            return 0.0
        return float((self.num_steps - self.start_step).sum()) / (self.start_step.numel() * self.num_steps)

    def active(self, step: int) -> Tensor:
        """Bool `V h w`: cells that are denoised at `step`."""
        return self.start_step <= step

    def asks_unconditional(self, step: int) -> bool:
        """Whether the unconditional branch of guidance is computed at `step`."""
        return self.unconditional_steps is None or step == self.first_step or step in self.unconditional_steps

    def to_json(self) -> JSONObject:
        """A summary for people and logs; the full map is in `save`."""
        per_view = self.start_step.flatten(1)
        return {
            "num_steps": self.num_steps,
            "solver": self.solver,
            "temperature": self.temperature,
            "sigmas": [round(float(s), 6) for s in self.sigmas],
            "dense_steps": list(self.dense_steps),
            "refresh_drift": self.refresh_drift,
            "unconditional_steps": None if self.unconditional_steps is None else list(self.unconditional_steps),
            "arithmetic": self.arithmetic,
            "network": self.network,
            "decoding": self.decoding,
            "profile": self.profile,
            "reason": self.reason,
            "quality": self.quality,
            "predicted": None if self.predicted is None else asdict(self.predicted),
            "active_share": round(self.active_share, 6),
            "views": [
                {
                    "first_step": int(view.min()),
                    "share_of_cells_ever_active": round(float((view < self.num_steps).float().mean()), 6),
                }
                for view in per_view
            ],
        }

    def save(self, path: Path) -> None:
        """Writes the whole plan as safetensors with its settings as metadata, beside and then renamed."""
        settings = {
            "solver": self.solver,
            "temperature": self.temperature,
            "dense_steps": list(self.dense_steps),
            "refresh_drift": self.refresh_drift,
            "unconditional_steps": None if self.unconditional_steps is None else list(self.unconditional_steps),
            "arithmetic": self.arithmetic,
            "network": self.network,
            "decoding": self.decoding,
            "reason": self.reason,
            "profile": self.profile,
            "quality": self.quality,
            "predicted": None if self.predicted is None else asdict(self.predicted),
        }
        tensors = {
            "start_step": self.start_step.to(torch.int32).contiguous(),
            "sigmas": self.sigmas.contiguous(),
        }
        beside = path.with_name(path.name + ".partial")
        beside.write_bytes(save(tensors, metadata={"plan": json.dumps(settings)}))
        beside.replace(path)

    @staticmethod
    def load(path: Path) -> ComputePlan:
        """Reads a file that `save` wrote.

        Raises:
            InputError: the file is missing or is not a plan.
        """
        try:
            data = path.read_bytes()
            tensors = load(data)
            # The layout of safetensors: eight bytes with the header's length, then the header as JSON. The library
            # gives no access to metadata from bytes.
            header = json.loads(io.BytesIO(data[8 : 8 + int.from_bytes(data[:8], "little")]).read())
            settings = json.loads(header["__metadata__"]["plan"])
            settings["dense_steps"] = tuple(settings["dense_steps"])
            if settings.get("unconditional_steps") is not None:
                settings["unconditional_steps"] = tuple(settings["unconditional_steps"])
            if settings.get("predicted") is not None:
                settings["predicted"] = Prediction(**settings["predicted"])
            return ComputePlan(start_step=tensors["start_step"].long(), sigmas=tensors["sigmas"], **settings)
        except OSError as error:
            raise InputError(
                str(path), f"cannot be read ({error.strerror})", "give a plan written by a render"
            ) from None
        except (KeyError, TypeError, ValueError, SafetensorError):
            raise InputError(str(path), "is not a plan file", "give a plan.safetensors written by a render") from None


def guidance_interval_steps(sigmas: Float[Tensor, "L"], interval: tuple[float | int, float | int]) -> tuple[int, ...]:
    """Steps whose noise level lies strictly between the interval's ends: `unconditional_steps` for a plan.

    Guidance changes the picture mostly at middle noise levels (Kynkäänniemi et al., 2024, "Applying guidance in a
    limited interval improves sample and distribution quality in diffusion models").

    Args:
        sigmas: noise levels of a plan, the last one 0.
        interval: lowest and highest noise level, in the denoiser's units.

    Raises:
        InputError: the interval's ends are not in ascending order.
    """
    low, high = interval
    if not low < high:
        raise InputError("guidance interval", f"it is {low:g}..{high:g}", "give the lower noise level first")
    return tuple(step for step, sigma in enumerate(sigmas[:-1].tolist()) if low < sigma < high)

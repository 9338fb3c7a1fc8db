"""Plans of an earlier run, read and checked: the same plan, seed and options give the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sphinx_nvs.cli.opening import Opened
from sphinx_nvs.cli.options.render_options import Render
from sphinx_nvs.errors import InputError
from sphinx_nvs.long_paths.units import plan_units
from sphinx_nvs.plan import ComputePlan


def plans_at(path: Path, options: Render) -> list[ComputePlan]:
    """The plans of a file, of a folder of plans, or of an earlier result, in the order of its units.

    Args:
        path: a plan's file, a folder of plans, or the folder of an earlier render.
        options: options of the command, none of which may plan.

    Raises:
        InputError: there is no plan, one is damaged, or the options would make another plan.
    """
    conflicts = {
        f"--method {options.method}": options.method != "sphinx",
        "--plan research": options.plan != "ours",
        "--quality": options.quality is not None,
        "--deadline-s": options.deadline_s is not None,
        "--profile": options.profile is not None,
    }
    conflict = next((flag for flag, given in conflicts.items() if given), None)
    if conflict is not None:
        raise InputError("--replay", f"{conflict} would be another plan", "leave one of them out")
    if not path.is_dir():
        return [ComputePlan.load(path)]
    alone = path / "plan.safetensors"
    files = [alone] if alone.is_file() else sorted([*path.glob("plans/*.safetensors"), *path.glob("*.safetensors")])
    if not files:
        hint = "give a plan.safetensors, or the folder of an earlier render"
        raise InputError(f"--replay {path}", "the folder holds no plan", hint)
    return [ComputePlan.load(file) for file in files]


def check_plans(plans: Sequence[ComputePlan], request: Opened) -> None:
    """Raises InputError where plans are not for these frames or not for this denoiser."""
    targets, denoiser = request.targets, request.pipeline.denoiser
    units = plan_units(request.scene.cameras, targets, window=request.window, strategy=request.strategy)
    if len(plans) != len(units):
        found = f"{_counted(len(plans), 'plan')} for a path that is made in {_counted(len(units), 'unit')}"
        raise InputError("--replay", found, "give the options of the earlier run, --frames and --window among them")
    cells = targets.height // denoiser.factor, targets.width // denoiser.factor
    for unit, plan in zip(units, plans, strict=True):
        wanted, given = (len(unit.targets), *cells), tuple(plan.start_step.shape)
        if given != wanted:
            raise InputError(
                "--replay",
                f"the plan is for {_size(given, denoiser.factor)}, not {_size(wanted, denoiser.factor)}",
                "give the scene, --targets, --frames and --size of the earlier run",
            )
        own = denoiser.sigmas(request.pipeline.num_steps).double()
        gaps = (plan.sigmas.double()[:, None] - own).abs() / own.clamp_min(1e-9)
        if not bool((gaps.amin(1) < 1e-4).all()):
            levels = f"its noise levels are not those of {denoiser.name} at {request.pipeline.num_steps} steps"
            raise InputError("--replay", levels, "give --preset and --steps of the earlier run")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _size(shape: Sequence[int], factor: int) -> str:
    views, height, width = shape
    return f"{_counted(views, 'frame')} of {width * factor}x{height * factor} pixels"

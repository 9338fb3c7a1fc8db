"""The messages between engine and devices: commands go down, reports come back. Every message is a value.

A device holds models and, for each unit that has begun, the unit's state (render, latents, caches). It does one
command at a time, in order, and answers each with exactly one report, in order; `Drop` overtakes
nothing, and frees what the units held. A device that dies loses what it held: the engine gets `DeviceLost` and starts
its units again. Frames travel as files: a device writes them to the artifact store and reports digests.

Phases of a unit of refinement:  Begin (render, assess, plan, encode) -> Step, Step, ... -> Finish (decode, write)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.json_types import JSONObject

UnitKey = tuple[str, int]
"""Job id and unit index."""


@dataclass(frozen=True, kw_only=True)
class Regress:
    """Make the preview of every target view.

    Args:
        unit: the regression unit.
        spec: the job's request.
        scene_path: folder or file of the stored scene, readable by the device.
    """

    unit: UnitKey
    spec: JobSpec
    scene_path: str


@dataclass(frozen=True, kw_only=True)
class Begin:
    """Plan a unit of refinement and get it ready to step.

    Args:
        unit: the unit.
        spec: the job's request.
        scene_path: folder or file of the stored scene.
        targets: target views to make.
        photos: context views that the denoiser is given, by number; see `long_paths.units.Unit`.
        finished: frames of other units that it is given: target number -> artifact digest of the lossless frame.
        quality: to plan for, 0..1; None leaves it to `within_s`.
        within_s: seconds of device time that the unit may take; None is no limit.
        min_quality: floor for `within_s`.
        alone: whether the job is this one unit.
        again: what is stored of the unit's plan, see `plan_summary`, where its files are made again; None plans it.
    """

    unit: UnitKey
    spec: JobSpec
    scene_path: str
    targets: tuple[int, ...]
    photos: tuple[int, ...]
    finished: dict[int, str] = field(default_factory=dict)
    quality: float | None = None
    within_s: float | None = None
    min_quality: float = 0.0
    alone: bool = True
    again: JSONObject | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """Take one solver step of each of these units, packed into one network call where that is possible."""

    units: tuple[UnitKey, ...]


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Decode a unit's frames and write them."""

    unit: UnitKey


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Free units, whatever their phase: their jobs were cancelled."""

    units: tuple[UnitKey, ...]


Command = Regress | Begin | Step | Finish | Drop


@dataclass(frozen=True, kw_only=True)
class Regressed:
    """A preview is finished.

    Args:
        unit: the regression unit.
        frames: target number -> artifact digest of its PNG.
        num_contexts: photos of the scene.
        seconds: the device was busy.
    """

    unit: UnitKey
    frames: dict[int, str]
    num_contexts: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A unit is ready to step.

    Args:
        unit: the unit.
        steps: number of its solver steps.
        predicted_s: device seconds of its steps and of finishing.
        predicted_quality: 0..1.
        plan: summary, see `ComputePlan.to_json`.
        plan_file: artifact digest of the plan as safetensors.
        seconds: the device was busy.
        share_of_full: share of full diffusion's (cell, step) pairs that the plan computes, 0..1; None where it is in
            the summary, whose `active_share` refers to the plan's own steps.
    """

    unit: UnitKey
    steps: int
    predicted_s: float
    predicted_quality: float
    plan: JSONObject
    plan_file: str
    seconds: float
    share_of_full: float | None = None


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """One step was taken.

    Args:
        units: the units of the command.
        done: steps that each has taken until now.
        computed_cells: cells that the network computed, over all units.
        seconds: the device was busy.
    """

    units: tuple[UnitKey, ...]
    done: tuple[int, ...]
    computed_cells: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A unit's frames are finished.

    Args:
        unit: the unit.
        frames: target number -> artifact digest of its PNG.
        lossless: target number -> artifact digest of the frame in floats, for units that depend on it.
        figures: shares and seconds, as JSON values.
        seconds: the device was busy.
    """

    unit: UnitKey
    frames: dict[int, str]
    lossless: dict[int, str]
    figures: JSONObject
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """The units' memory is free."""

    units: tuple[UnitKey, ...]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A command could not be carried out; the device continues.

    Args:
        units: units of the command.
        sentence: for the user: no paths, no traces.
        is_users_fault: whether trying again is pointless.
    """

    units: tuple[UnitKey, ...]
    sentence: str
    is_users_fault: bool


@dataclass(frozen=True, kw_only=True)
class DeviceLost:
    """The device's process died or stopped answering; it is being started again.

    Args:
        device: its number.
    """

    device: int


@dataclass(frozen=True, kw_only=True)
class DeviceReady:
    """The device's models are loaded; it waits for commands.

    Args:
        device: its number.
        name: for people.
    """

    device: int
    name: str


Report = Regressed | Begun | Stepped | Finished | Dropped | Refused | DeviceLost | DeviceReady

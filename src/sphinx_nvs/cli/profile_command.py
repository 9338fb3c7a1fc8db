"""`sphinx-nvs profile` and `profile-show`: rules fitted to scenes, and the contents of a profile."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sphinx_nvs import media
from sphinx_nvs.cli.machine_speed import with_seconds
from sphinx_nvs.cli.options.profile_options import Profile, ProfileShow
from sphinx_nvs.cli.output import check_output
from sphinx_nvs.cli.progress import eta_text, say, share_progress
from sphinx_nvs.cli.sizes import size_from
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Case, cases_named
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.models.base import ReferenceDecoding
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan import PAPER_PROFILE, Levers
from sphinx_nvs.plan.profile import CHANGE, REDRAW, AnyProfile, FittedProfile, load_profile, rules_to_json
from sphinx_nvs.plugins import preset_names
from sphinx_nvs.presets import load_preset, preset_named, preset_profile
from sphinx_nvs.profiling.closed_loop import PLANNING, outcomes_path
from sphinx_nvs.profiling.fitting import LEAST_SCENES
from sphinx_nvs.profiling.measuring import LEVERS, REFERENCE_LEVERS, ProfileConfig, record_path
from sphinx_nvs.profiling.profile_builder import make_profile
from sphinx_nvs.profiling.profile_report import profile_report

QUICK_LEVERS = (LEVERS[1], LEVERS[5], LEVERS[8])
MEASURING = 3
"""Time to measure a scene over the time to plan for it and run the plans."""

_SIDE, _QUICK_SIDE, _VIEWS, _QUICK_VIEWS = 128, 64, 8, 3

OnRun = Callable[[str, str, int, int], None]
"""See `profile_builder.Progress`."""


def profile(options: Profile) -> None:
    """Runs `sphinx-nvs profile`.

    Raises:
        InputError: an option cannot be used.
        OutputError: the profile cannot be written, or its folder has other contents.
    """
    if options.out.suffix != ".json":
        raise InputError("--out", f"{options.out} is not a .json file", "give a name that ends in .json")
    if options.views is not None and options.views < 1:
        raise InputError("--views", f"it is {options.views}", "give 1 or more")
    for file, ending in ((options.out, ".json"), (options.report, ".html")):
        for scene in options.scenes:
            check_output(file, options.overwrite, Path(scene), ending=ending)
    cases = _cases(options.scenes)
    pipeline = load_preset(
        options.preset,
        num_steps=options.steps,
        exact=True,
        device=options.device,
        random_weights=options.random_weights,
    )
    config = _config(options, pipeline)
    # Rules without tables: measurements must not depend on an earlier profile.
    pipeline = replace(with_seconds(pipeline, again=options.calibrate), profile=PAPER_PROFILE)
    assert pipeline.cost_model is not None, "with_seconds sets it"
    name = options.name or options.out.stem
    with _reporter(options.folder, cases) as on_run:
        made, choices, records = make_profile(
            pipeline, cases, config, options.folder, name, pipeline.cost_model, on_run
        )
    page = profile_report(made, choices, records, config, pipeline.denoiser.sigmas(config.num_steps))
    media.write_bytes(options.report, page.encode())
    media.write_bytes(options.out, (json.dumps(made.to_json(), indent=1) + "\n").encode())
    about = {**described(made), "out": str(options.out), "report": str(options.report)}
    text = f"{text_of(about)}\nprofile    {options.out}\nreport     {options.report}"
    sys.stdout.write(f"{json.dumps(about) if options.json else text}\n")


def show(options: ProfileShow) -> None:
    """Runs `sphinx-nvs profile-show`.

    Raises:
        InputError: there is no such profile, or it is damaged.
    """
    path = Path(options.profile)
    shipped = not path.exists() and options.profile in preset_names()
    about = described(preset_profile(options.profile) if shipped else load_profile(path))
    sys.stdout.write(f"{json.dumps(about) if options.json else text_of(about)}\n")


def described(profile: AnyProfile) -> JSONObject:
    """A summary of a profile; plain values for JSON."""
    if not isinstance(profile, FittedProfile):
        rules = rules_to_json(profile)
        qualities = sorted({rule["quality"] for cluster in rules["clusters"] for rule in cluster})
        return {"name": profile.name, "kind": "rules", "clusters": len(profile.clusters), "qualities": qualities}
    return {
        "name": profile.name,
        "kind": "tables",
        "preset": profile.preset,
        "metric": profile.metric,
        "against": profile.against,
        "scale": profile.scale,
        "signal": profile.signal,
        "steps": profile.num_steps,
        "lever_sets": len(profile.levers),
        "clusters": len(profile.clusters),
        "score": profile.score,
        "score_bins": len(profile.score_edges) + 1,
        "signal_bins": len(profile.signal_edges) + 1,
        "evidence": profile.evidence,
        "typical": [
            {"quality": quality, "compute": mean, "compute_p95": most} for quality, mean, most in profile.typical
        ],
    }


def text_of(about: JSONObject) -> str:
    """A description as lines of `field  value`."""
    if about["kind"] == "rules":
        qualities = ", ".join(f"{quality:g}" for quality in about["qualities"])
        rows = [("profile", about["name"]), ("rules", f"for quality {qualities}; clusters: {about['clusters']}")]
    else:
        rows = _rows(about)
    return "\n".join(f"{name:<9}  {value}" for name, value in rows)


def _rows(about: JSONObject) -> list[tuple[str, str]]:
    evidence, error = about["evidence"], about["evidence"].get("held_out", {})
    reference = "full diffusion" if about["against"] == "full" else "the photos"
    rows = [
        ("profile", f"{about['name']}, for the preset {about['preset']}"),
        ("quality", f"{about['metric']} against {reference}; 0 is a loss of {about['scale']:.4g}"),
        (
            "tables",
            f"{about['signal']} in {about['signal_bins']} bins, {about['score']} in {about['score_bins']}, "
            f"{about['clusters']} clusters, {about['lever_sets']} lever sets, {about['steps']} steps",
        ),
    ]
    if "scenes" in evidence:
        sources = ", ".join(evidence.get("sources", ()))
        rows.append(("made of", f"{evidence['scenes']} scenes ({sources}), {evidence.get('runs', 0)} runs"))
    if error.get("runs"):
        rows.append(
            (
                "held out",
                f"delivered minus predicted quality {error['mean']:+.4f} on average, mean absolute error "
                f"{error['mean_absolute']:.4f}, short by 0.03 in {error['share_below_by_0.03']:.1%} of runs",
            )
        )
    rows += [
        (f"q {row['quality']:g}", f"{row['compute']:.1%} of full diffusion's compute (95 %: {row['compute_p95']:.1%})")
        for row in about["typical"]
    ]
    return rows


def _cases(scenes: Sequence[str]) -> list[Case]:
    """Scenes with held-out photos; checks that there are enough."""
    try:
        cases = cases_named(",".join(scenes))
    except InputError as error:
        if error.where != "--data":
            raise
        raise InputError("--scenes", error.found, error.hint) from None
    if len(cases) < LEAST_SCENES:
        found = "there is only one" if len(cases) == 1 else f"there are {len(cases)}"
        raise InputError("--scenes", found, f"give at least {LEAST_SCENES}: rules are checked on held-out scenes")
    return cases


def _config(options: Profile, pipeline: Pipeline) -> ProfileConfig:
    usual = preset_named(options.preset).short_side if options.preset != "embedded" else _SIDE
    side = _QUICK_SIDE if options.quick else usual
    views = options.views or (_QUICK_VIEWS if options.quick else _VIEWS)
    redraws = isinstance(pipeline.denoiser, ReferenceDecoding)
    if options.signal == REDRAW and not redraws:
        found = f"it is {REDRAW}, and {pipeline.denoiser.name} decodes latents alone"
        raise InputError("--signal", found, f"give {CHANGE}, or leave it out")
    settings = {
        "regressor": pipeline.regressor.name,
        "denoiser": pipeline.denoiser.name,
        "random_weights": str(options.random_weights),
    }
    return ProfileConfig(
        preset=options.preset,
        metric=options.metric,
        against=options.against,
        signal=options.signal or (REDRAW if redraws else CHANGE),
        size=size_from(options.size, side, views, pipeline.denoiser.size_multiple),
        levers=_levers(quick=options.quick, redraws=redraws),
        num_steps=options.steps,
        settings=tuple(sorted(settings.items())),
    )


def _levers(*, quick: bool, redraws: bool) -> tuple[Levers, ...]:
    if quick:
        return (REFERENCE_LEVERS[0], *QUICK_LEVERS) if redraws else QUICK_LEVERS
    return REFERENCE_LEVERS if redraws else LEVERS


@contextmanager
def _reporter(folder: Path, cases: Sequence[Case]) -> Iterator[OnRun]:
    """A progress bar with the time left on a terminal; else one line per scene."""
    places = {case.name: place for place, case in enumerate(cases)}
    before = {case.name for case in cases if record_path(folder, case).is_file()}
    planned = {case.name for case in cases if outcomes_path(folder, case.name).is_file()}
    if before:
        say(f"{len(before)} of {len(cases)} scenes were measured before")
    weights = {(name, False): float(MEASURING) for name in places if name not in before}
    weights |= {(name, True): 1.0 for name in places if name not in planned}
    shares = dict.fromkeys(weights, 0.0)
    started = time.perf_counter()
    with share_progress() as bar:

        def report(scene: str, what: str, done: int, total: int) -> None:
            shares[scene, what == PLANNING] = done / total
            share = sum(weights[key] * shares[key] for key in weights) / sum(weights.values())
            spent_s = time.perf_counter() - started
            eta = eta_text(spent_s * (1 - share) / share if share > 0 else float("nan"))
            where = f"scene {places[scene] + 1} of {len(cases)}: {scene}"
            if bar is not None:
                bar(f"{where}, {what}", share, eta)
            elif done == 0 and what in ("regression", PLANNING):
                again = ", planned for" if what == PLANNING else ""
                say(f"{where}{again}{f', {eta}' if eta else ''}")

        yield report

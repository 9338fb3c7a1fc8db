"""A device with the real pair of models on small frames: bit for bit what the pipeline makes."""

import io
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from device_fakes import spec_from, store_scene
from PIL import Image
from safetensors.torch import load

from sphinx_nvs import media
from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.device.device import Device
from sphinx_nvs.engine.device.failures import is_out_of_memory, without_paths
from sphinx_nvs.engine.device.frame_files import FLOATS
from sphinx_nvs.engine.device.scene_cache import SceneCache
from sphinx_nvs.engine.device.startup_timing import REFERENCE
from sphinx_nvs.engine.jobs.active_job import plan_summary
from sphinx_nvs.engine.jobs.splitting import split_path
from sphinx_nvs.engine.types.job_validation import cameras_of
from sphinx_nvs.engine.types.jobs import UnitKind, UnitRow
from sphinx_nvs.engine.types.messages import (
    Begin,
    Begun,
    Drop,
    Dropped,
    Finish,
    Finished,
    Refused,
    Regress,
    Regressed,
    Step,
    Stepped,
)
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.long_paths.long_path import run_path
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.presets import WatermarkedPipeline, load_preset
from sphinx_nvs.profiling.calibration import network_of
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import read_capture

SIZE, WINDOW, SEED = 64, 5, 3


@pytest.fixture(scope="module")
def pipeline():
    return load_preset(num_steps=8)


@pytest.fixture(scope="module")
def costs(pipeline):
    return CostModel(network=network_of(pipeline), coefficients=REFERENCE, refining_p95=1.2, regressing_p95=1.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device") / "photos"
    store_scene(folder, size=80)
    return folder


@pytest.fixture(scope="module")
def scene(folder):
    return read_capture(folder).load([0, 1], SIZE, SIZE)


@pytest.fixture(scope="module")
def jobs(scene):
    """A short path and one that is longer than the window, at two qualities."""
    path = scene_path("interpolate", scene.cameras, 6)
    return {
        "short": spec_from(path[[1, 3]], quality=0.97, seed=SEED),
        "long": spec_from(path, quality=0.9, seed=SEED),
    }


@pytest.fixture(scope="module")
def expected(pipeline, scene, jobs):
    """Frames of each job by target, as the pipeline makes them."""
    frames = {}
    for name, spec in jobs.items():
        made = run_path(
            pipeline, scene, cameras_of(spec), SamplingParams(quality=spec.quality, seed=SEED), window=WINDOW
        )
        frames[name] = {t: f for unit in made for t, f in zip(unit.unit.targets, unit.frames, strict=True)}
    return frames


@pytest.fixture
def artifacts(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def device(pipeline, artifacts):
    return Device(pipeline, artifacts)


class Job:
    """A job's units on a device, one phase at a time."""

    def __init__(self, device, name, spec, folder):
        self.device, self.name, self.spec, self.folder = device, name, spec, folder
        self.units, _ = split_path(spec, str(folder), WINDOW)
        self.frames, self.lossless, self.left = {}, {}, 0

    def regress(self):
        return self.device.do(Regress(unit=(self.name, 0), spec=self.spec, scene_path=str(self.folder)))

    def begin(self, index, **fields):
        unit = self.units[index]
        command = Begin(
            unit=(self.name, 1 + unit.index),
            spec=self.spec,
            scene_path=str(self.folder),
            targets=unit.targets,
            photos=unit.photos,
            finished={frame: self.lossless[frame] for frame in unit.frames},
            alone=len(self.units) == 1,
            **{"quality": self.spec.quality, **fields},
        )
        report = self.device.do(command)
        self.key, self.left = command.unit, getattr(report, "steps", 0)
        return report

    def step(self):
        report = self.device.do(Step(units=(self.key,)))
        self.left -= 1
        return report

    def finish(self):
        report = self.device.do(Finish(unit=self.key))
        assert isinstance(report, Finished), report
        self.frames |= report.frames
        self.lossless |= report.lossless
        return report

    def end(self):
        while self.left:
            self.step()
        self.finish()

    def run(self):
        for index in range(len(self.units)):
            assert isinstance(self.begin(index), Begun)
            self.end()
        return self


def test_a_stored_plan_is_carried_out_whatever_quality_is_requested(device, jobs, folder, artifacts):
    """Frames that are made again have the plan that they had, which load or a deadline may have chosen."""
    first, again = (Job(device, name, jobs["short"], folder) for name in ("first", "again"))
    stored = plan_summary(first.begin(0), UnitRow(job_id="first", index=1, kind=UnitKind.CHUNK, targets=(0, 1)))
    first.end()
    begun = again.begin(0, quality=0.0, again=stored)
    assert again.left > 0, "at this quality nothing is refined"
    assert begun.plan_file == stored["file"]
    again.end()
    assert again.frames == first.frames
    artifacts.delete(stored["file"])
    assert again.begin(0, quality=0.0, again=stored).plan_file == stored["file"], "a lost plan is made again"


def assert_frames(job, expected, artifacts):
    assert sorted(job.frames) == sorted(expected)
    for target, frame in expected.items():
        assert artifacts.read(job.frames[target]) == media.png_bytes(frame)
    for target, digest in job.lossless.items():
        assert torch.equal(load(artifacts.read(digest))[FLOATS], expected[target])


def test_a_preview_shows_every_target(device, jobs, folder, artifacts, pipeline, scene):
    report = Job(device, "short", jobs["short"], folder).regress()
    assert isinstance(report, Regressed)
    assert (report.unit, report.num_contexts, sorted(report.frames)) == (("short", 0), 2, [0, 1])
    render = pipeline.prepare(scene, cameras_of(jobs["short"])).render.rgb
    assert [artifacts.read(report.frames[i]) for i in (0, 1)] == [media.png_bytes(frame) for frame in render]
    assert 0 < report.seconds < 60


def test_frames_of_any_size_are_cropped_from_padded_ones(device, jobs, folder, artifacts, scene):
    """64 x 50 pixels are the top of 64 x 64, computed with the same cameras; later units see the whole frames."""
    low = replace(jobs["long"], height=50)
    odd, full = (Job(device, name, spec, folder) for name, spec in (("odd", low), ("full", jobs["long"])))
    padded = SceneCache(regressor=device.pipeline.regressor, memory=device.memory).scene(str(folder), SIZE, SIZE)
    assert torch.equal(padded.scene.images, scene.images)
    for odd_frames, full_frames in (
        (odd.regress().frames, full.regress().frames),
        (odd.run().frames, full.run().frames),
    ):
        for target, digest in full_frames.items():
            shown = media.png_bytes(media.read_image(artifacts.path(digest))[:, :50])
            assert artifacts.read(odd_frames[target]) == shown
    assert odd.lossless == full.lossless


def test_a_long_preview_is_rendered_a_part_at_a_time(device, jobs, folder, artifacts, monkeypatch):
    whole = Job(device, "long", jobs["long"], folder).regress()
    monkeypatch.setattr("sphinx_nvs.engine.device.device.PREVIEW_PIXELS", 4 * SIZE * SIZE)
    counted = Counted(device.pipeline.regressor)
    parts = Job(Device(replace(device.pipeline, regressor=counted), artifacts), "long", jobs["long"], folder).regress()
    assert counted.rendered == 2
    assert parts.frames == whole.frames


def test_frames_of_untrained_models_say_so(pipeline, jobs, folder, artifacts):
    parts = {field.name: getattr(pipeline, field.name) for field in fields(pipeline) if field.init}
    random = WatermarkedPipeline(**parts)
    job = Job(Device(random, artifacts), "short", replace(jobs["short"], quality=0.5), folder)
    plain = Job(Device(pipeline, artifacts), "short", jobs["short"], folder).regress()
    frames = job.regress().frames, job.run().frames
    for shown in frames:
        assert not set(shown.values()) & set(plain.frames.values())
        for digest in shown.values():
            with Image.open(io.BytesIO(artifacts.read(digest))) as picture:
                middle = np.array(picture)[SIZE // 2 - 12 : SIZE // 2 + 12]
            assert (middle > 250).all(-1).sum() > 20, "white letters"


@pytest.mark.parametrize("name", ["short", "long"])
def test_frames_are_the_pipelines_bit_for_bit(device, jobs, folder, artifacts, expected, name):
    job = Job(device, name, jobs[name], folder)
    job.regress()
    job.run()
    assert_frames(job, expected[name], artifacts)
    assert len(job.lossless) == (0 if name == "short" else jobs[name].num_views)
    assert device.held == ()


@pytest.mark.parametrize("packed", [False, True])
def test_and_between_another_jobs_steps(device, jobs, folder, artifacts, expected, packed):
    short, long = Job(device, "short", jobs["short"], folder), Job(device, "long", jobs["long"], folder)
    short.begin(0)
    for index in range(len(long.units)):
        long.begin(index)
        while long.left:
            if packed and short.left:
                report = device.do(Step(units=(long.key, short.key)))
                assert isinstance(report, Stepped), report
                short.left, long.left = short.left - 1, long.left - 1
                assert report.done[0] >= 1
                assert len(report.done) == 2
            else:
                long.step()
                if short.left:
                    short.step()
        long.finish()
    while short.left:
        short.step()
    short.finish()
    assert_frames(short, expected["short"], artifacts)
    assert_frames(long, expected["long"], artifacts)


def test_a_device_without_memory_makes_the_same_frames(pipeline, jobs, folder, artifacts, expected):
    device = Device(pipeline, artifacts, memory_bytes=0)
    job = Job(device, "short", jobs["short"], folder)
    job.regress()
    assert_frames(job.run(), expected["short"], artifacts)
    assert device.memory.used_bytes == 0


def test_scenes_are_understood_and_previews_rendered_once(pipeline, jobs, folder, artifacts, expected):
    counted = Counted(pipeline.regressor)
    device = Device(replace(pipeline, regressor=counted), artifacts)
    job = Job(device, "short", jobs["short"], folder)
    job.regress()
    job.regress()
    assert_frames(job.run(), expected["short"], artifacts)
    assert (counted.reconstructed, counted.rendered) == (1, 1)
    assert device.memory.used_bytes > 4 * 2 * 3 * SIZE * SIZE


def test_context_views_are_encoded_once(pipeline, jobs, folder, artifacts, expected, monkeypatch):
    seen, original = [], type(pipeline.denoiser).encode_context
    monkeypatch.setattr(type(pipeline.denoiser), "encode_context", lambda *args: seen.append(1) or original(*args))
    device = Device(pipeline, artifacts)
    for _ in range(2):
        assert_frames(Job(device, "short", jobs["short"], folder).run(), expected["short"], artifacts)
    assert len(seen) == 1
    assert_frames(Job(device, "long", jobs["long"], folder).run(), expected["long"], artifacts)
    assert len(seen) > 1


class Counted:
    """A regressor that counts."""

    def __init__(self, inner):
        self.inner, self.name, self.min_context_views = inner, inner.name, inner.min_context_views
        self.reconstructed = self.rendered = 0

    def reconstruct(self, scene):
        self.reconstructed += 1
        inner, outer = self.inner.reconstruct(scene), self

        class Rendering:
            def render(self, cameras):
                outer.rendered += 1
                return inner.render(cameras)

        return Rendering()


def test_the_plan_is_reported(device, jobs, folder, artifacts, tmp_path):
    job = Job(device, "short", jobs["short"], folder)
    report = job.begin(0)
    assert report.steps == job.left > 0
    assert 0.5 < report.predicted_quality <= 1
    (tmp_path / "plan").write_bytes(artifacts.read(report.plan_file))
    plan = ComputePlan.load(tmp_path / "plan")
    assert plan.to_json() == report.plan
    assert 0 < report.plan["active_share"] <= 1
    stepped = job.step()
    assert (stepped.units, stepped.done) == ((job.key,), (1,))
    assert stepped.computed_cells > 0
    while job.left:
        job.step()
    figures = job.finish().figures
    assert figures["steps"] == report.steps
    assert 0 < figures["active_share"] <= figures["computed_share"] <= 1
    assert {"refine", "decode"} <= set(figures["stages_s"])


def test_a_plan_that_keeps_the_render_takes_no_step(jobs, folder, artifacts, pipeline, scene):
    device = Device(replace(pipeline, profile=PAPER_PROFILE), artifacts)
    job = Job(device, "short", replace(jobs["short"], quality=0.0), folder)
    assert job.begin(0).steps == 0
    job.finish()
    render = pipeline.prepare(scene, cameras_of(jobs["short"])).render.rgb
    assert artifacts.read(job.frames[0]) == media.png_bytes(render[0])


def test_a_time_limit_without_a_known_speed_is_a_quality(device, jobs, folder):
    """This pipeline was never measured; the job is planned for the usual quality then."""
    job = Job(device, "short", jobs["short"], folder)
    assert job.begin(0, quality=None, within_s=1e-3).plan["quality"] == pytest.approx(0.98)


def test_a_time_limit_lowers_quality_to_the_floor_and_no_further(pipeline, costs, jobs, folder, artifacts):
    device = Device(replace(pipeline, cost_model=costs), artifacts)
    job = Job(device, "short", jobs["short"], folder)
    job.regress()
    full = job.begin(0, quality=1.0)
    assert full.predicted_s > 0
    hurried = job.begin(0, quality=1.0, within_s=0.0)
    floored = job.begin(0, quality=1.0, within_s=0.0, min_quality=0.97)
    # In eight steps, a plan of seven after a probe may take longer than full diffusion, which needs no probe.
    assert hurried.predicted_s < min(floored.predicted_s, full.predicted_s)
    assert hurried.predicted_quality < 0.97 <= floored.predicted_quality + 0.02
    rounded = job.begin(0, quality=0.9)
    for floor in (0.9, 0.85):
        held = job.begin(0, quality=0.9, min_quality=floor)
        assert held.predicted_quality >= max(floor, rounded.predicted_quality)


def test_a_missing_frame_is_not_the_users_fault(device, jobs, folder, artifacts, caplog):
    job = Job(device, "long", jobs["long"], folder)
    job.begin(0)
    while job.left:
        job.step()
    job.finish()
    for digest in set(job.lossless.values()):
        artifacts.delete(digest)
    report = job.begin(1)
    assert isinstance(report, Refused)
    assert not report.is_users_fault
    assert "a finished frame is missing" in caplog.text


def test_dropped_units_are_freed_immediately(device, jobs, folder):
    job = Job(device, "short", jobs["short"], folder)
    job.begin(0)
    assert device.held == (job.key,)
    assert device.do(Drop(units=(job.key, ("never", 1)))) == Dropped(units=(job.key, ("never", 1)))
    assert device.held == ()
    report = job.step()
    assert report == Refused(
        units=(job.key,),
        sentence="the frames could not be refined: the server has the reason in its log",
        is_users_fault=False,
    )


def test_a_finish_before_its_time_is_refused(device, jobs, folder):
    job = Job(device, "short", jobs["short"], folder)
    job.begin(0)
    report = device.do(Finish(unit=job.key))
    assert isinstance(report, Refused)
    assert not report.is_users_fault
    assert device.held == ()


def test_users_mistakes_are_sentences_without_paths(device, jobs, tmp_path):
    report = Job.regress(_at(device, jobs, tmp_path / "nowhere" / "photos"))
    assert report.is_users_fault
    assert str(tmp_path) not in report.sentence
    assert report.sentence.startswith("scene photos: there is no such file or folder")


def _at(device, jobs, folder):
    job = object.__new__(Job)
    job.device, job.name, job.spec, job.folder = device, "short", jobs["short"], folder
    return job


def test_bugs_are_sentences_and_their_traces_are_logged(device, jobs, folder, monkeypatch, caplog):
    job = Job(device, "short", jobs["short"], folder)
    monkeypatch.setattr(type(device.pipeline), "begin", _raising(ValueError("/secret/place is broken")))
    report = job.begin(0)
    assert not report.is_users_fault
    assert report.sentence == "the frames could not be planned: the server has the reason in its log"
    assert device.held == ()
    assert "/secret/place is broken" in caplog.text
    assert "Traceback" in caplog.text


def _raising(error):
    """A function that raises."""

    def raising(*args, **kwargs):
        raise error

    return raising


@pytest.mark.parametrize("phase", ["prepare", "begin", "finish"])
def test_out_of_memory_once_costs_only_time(device, jobs, folder, artifacts, expected, phase, monkeypatch):
    job = Job(device, "short", jobs["short"], folder)
    job.regress()
    assert device.memory.used_bytes > 0
    kind, original, failures = type(device.pipeline), getattr(type(device.pipeline), phase), [1]

    def scarce(*args, **kwargs):
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError("too much was wanted")
        return original(*args, **kwargs)

    monkeypatch.setattr(kind, phase, scarce)
    assert_frames(job.run(), expected["short"], artifacts)
    assert not failures


@pytest.mark.parametrize("after", [0, 2])
def test_a_step_that_ran_out_of_memory_is_taken_again(device, jobs, folder, scene, artifacts, after, monkeypatch):
    """Its caches are lost: the unit repeats its steps."""
    spec = replace(jobs["short"], quality=1.0)
    (made,) = run_path(device.pipeline, scene, cameras_of(spec), SamplingParams(seed=SEED, quality=1.0), window=WINDOW)
    job = Job(device, "full", spec, folder)
    job.begin(0)
    for _ in range(after):
        job.step()
    network = device.pipeline.denoiser.selective
    kind, failures = type(network), [1]
    original = kind.__call__

    def scarce(self, calls):
        made = original(self, calls)
        if failures:
            failures.pop()
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return made

    monkeypatch.setattr(kind, "__call__", scarce)
    while job.left:
        assert isinstance(job.step(), Stepped)
    job.finish()
    assert not failures
    assert_frames(job, dict(zip(made.unit.targets, made.frames, strict=True)), artifacts)


def test_out_of_memory_twice_is_reported(device, jobs, folder, monkeypatch):
    job = Job(device, "short", jobs["short"], folder)
    job.regress()
    monkeypatch.setattr(type(device.pipeline), "begin", _raising(MemoryError()))
    report = job.begin(0)
    assert report.sentence == "the device has too little memory for this; request fewer or smaller frames"
    assert not report.is_users_fault
    assert device.memory.used_bytes == 0


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_paths_become_names():
    assert without_paths("scene /a/b/photos: it is bad; see /x/y.json, a/b and 3/4") == (
        "scene photos: it is bad; see y.json, a/b and 3/4"
    )

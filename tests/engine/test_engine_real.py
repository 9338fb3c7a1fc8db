"""The whole engine with the real pair of models: frames depend on a job and its seed, and on nothing else."""

import asyncio
import time

import pytest
from real_world import SIZE, STEPS, WINDOW, RealWorld, accept, first, frames, run, story

from sphinx_nvs import media
from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.device.startup_timing import measured_costs
from sphinx_nvs.engine.engine import REPAIRS
from sphinx_nvs.engine.scheduler.types import SchedulerConfig
from sphinx_nvs.engine.types.job_validation import cameras_of
from sphinx_nvs.engine.types.jobs import EventKind, JobState
from sphinx_nvs.engine.types.messages import Begin, Finish, Regress, Step
from sphinx_nvs.long_paths.long_path import run_path
from sphinx_nvs.plan import PAPER_PROFILE
from sphinx_nvs.presets import load_preset
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import read_capture

REQUEST = {"quality": 0.97, "min_quality": 0.97}
"""Of `RealWorld.spec`, so that the library plans the same."""

LONG_PATH = 6
"""Views of a job that is made in two units."""

PREVIEW_S = 3.0
"""Until an idle engine shows something of two views of 256x256."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """No calibration of this machine is known."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", autouse=True)
def _timed_once():
    """The device is timed at the first start alone, which takes longer than most of these tests."""
    costs = {}

    def timed(pipeline, *, calibrate):
        key = (pipeline.num_steps, calibrate)
        if key not in costs:
            costs[key] = measured_costs(pipeline, calibrate=calibrate)
        return costs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sphinx_nvs.engine.device.loading.measured_costs", timed)
        yield


@pytest.fixture(autouse=True)
def _own_home(home, monkeypatch):
    monkeypatch.setenv("SPHINX_NVS_HOME", str(home))


def test_a_jobs_life_and_its_frames_are_those_of_the_library(tmp_path):
    world = RealWorld(tmp_path / "engine")
    spec = world.spec(3, seed=5)

    async def scene():
        async with world.engine() as engine:
            job_id = await accept(engine, spec)
            events = await story(engine, job_id)
            kinds = [event.kind.value for event in events if event.kind is not EventKind.PROGRESS]
            assert kinds == ["queued", *["preview_frame"] * 3, "plan", *["frame_refined"] * 3, "completed"]
            row = await engine.job(job_id)
            assert (row.state, row.level, row.quality) == (JobState.COMPLETED, "final", events[-1].data["quality"])
            (plan,) = [event.data for event in events if event.kind is EventKind.PLAN]
            return await frames(engine, job_id), await frames(engine, job_id, "preview"), plan

    final, preview, plan = run(scene())
    photos = read_capture(world.photos).load([0, 1], SIZE, SIZE)
    expected = load_preset(num_steps=STEPS)(photos, cameras_of(spec), **REQUEST, seed=5)
    artifacts = ArtifactStore(world.folder / "artifacts")
    assert [artifacts.read(digest) for digest in final] == [media.png_bytes(frame) for frame in expected.frames]
    # Views that are not worth it keep their render.
    assert 3 < len({*final, *preview}) <= 6
    assert plan["active_share"] == pytest.approx(expected.active_share)
    assert plan["active_share"] < 1
    assert plan["compute_share"] == pytest.approx(expected.plan.predicted.compute)
    assert 0 < plan["compute_share"] < 1, "decoding counts, too"


def test_frames_are_bit_equal_alone_and_with_other_jobs(tmp_path):
    """Jobs of other seeds, lengths, sizes, qualities and priorities run between the steps of each other."""
    # All jobs are urgent, so priority alone decides which goes first, not the clock.
    world = RealWorld(tmp_path / "engine", scheduler=SchedulerConfig(urgent_s=1e12))
    specs = [
        world.spec(3, seed=1, quality=1.0),
        world.spec(6, seed=1, quality=1.0),
        world.spec(2, seed=2, size=96, quality=1.0, priority=5),
        world.spec(3, seed=1, quality=0.9),
        world.spec(1, seed=4, deadline_s=0.5),
    ]

    async def scene():
        async with world.engine() as engine:
            alone = [await frames(engine, await accept(engine, spec)) for spec in specs]
            world.commands.clear()
            jobs = [await accept(engine, spec, key) for spec, key in zip(specs, "abcde", strict=True)]
            # Another job arrives between two steps of the longest one, and goes first.
            async with world.held(lambda command: isinstance(command, Step) and command.units[0][0] == jobs[1]):
                urgent = world.spec(3, seed=1, quality=1.0, priority=10, deadline_s=90.0)
                jobs.append(await accept(engine, urgent, "f"))
            gone = await accept(engine, world.spec(4, seed=9, deadline_s=2.0), "g")
            await first(engine, gone, EventKind.QUEUED)
            await engine.cancel(gone)
            together = [await frames(engine, job_id) for job_id in jobs]
        assert together == [*alone, alone[0]]
        assert len({digest for each in alone for digest in each}) == sum(spec.num_views for spec in specs)
        steps = [command.units[0][0] for command in world.commands if isinstance(command, Step)]
        turns = [job for job, before in zip(steps, [None, *steps], strict=False) if job != before]
        assert len(turns) > len(set(turns)), "no job was interrupted between two steps"

    run(scene())


def test_frames_are_bit_equal_alone_and_in_shared_network_calls(tmp_path, monkeypatch):
    packing = SchedulerConfig(packing=True, pack_below=0.99)
    # The paper's rules refine some cells in many calls, of which the preset's savings make most sparse.
    monkeypatch.setattr("sphinx_nvs.presets.preset_profile", lambda name: PAPER_PROFILE)
    world = RealWorld(tmp_path / "engine", scheduler=packing)
    specs = [world.spec(3, seed=1, quality=0.95), world.spec(2, seed=2, quality=0.95)]

    async def scene():
        async with world.engine() as engine:
            alone = [await frames(engine, await accept(engine, spec)) for spec in specs]
            assert _most_packed(world.commands) == 1
            jobs = [await accept(engine, spec, key) for spec, key in zip(specs, "ab", strict=True)]
            assert [await frames(engine, job_id) for job_id in jobs] == alone
            assert _most_packed(world.commands) == 2

    run(scene())


def _most_packed(commands):
    """Units of the largest step."""
    return max(len(command.units) for command in commands if isinstance(command, Step))


@pytest.fixture(scope="module")
def long_path(tmp_path_factory, home):
    """A job of two units, which nothing disturbs; its world, the digests of its frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPHINX_NVS_HOME", str(home))
        world = RealWorld(tmp_path_factory.mktemp("long") / "engine")

        async def scene():
            async with world.engine() as engine:
                return await frames(engine, await accept(engine, world.spec(LONG_PATH, seed=7)))

        return world, run(scene())


def test_a_long_paths_frames_are_those_of_the_library(long_path):
    world, final = long_path
    spec = world.spec(LONG_PATH, seed=7)
    photos = read_capture(world.photos).load([0, 1], SIZE, SIZE)
    expected = {}
    for made in run_path(
        load_preset(num_steps=STEPS), photos, cameras_of(spec), SamplingParams(**REQUEST, seed=spec.seed), window=WINDOW
    ):
        expected |= dict(zip(made.unit.targets, made.frames, strict=True))
    artifacts = ArtifactStore(world.folder / "artifacts")
    assert [artifacts.read(digest) for digest in final] == [media.png_bytes(expected[i]) for i in range(6)]


def test_damaged_frames_of_a_finished_job_are_made_again_bit_by_bit(long_path):
    """A frame, the floats that later units depend on, the preview and a plan, of a job of two units."""
    world, final = long_path
    artifacts = ArtifactStore(world.folder / "artifacts")

    async def scene():
        async with world.engine() as engine:
            (row,) = await engine.jobs(key_id="k")
            units = await engine.units(row.id)
            preview = await engine.frame(row.id, 1, "preview")
            lossless = [next(iter(unit.result["lossless"].values())) for unit in units[1:] if unit.result["lossless"]]
            damaged = [final[0], final[-1], preview, units[1].result["plan"]["file"], *lossless]
            for digest in damaged:
                path = artifacts.path(digest)
                path.write_bytes(path.read_bytes()[:-9] + b"123456789")
            assert await engine.repair(row.id)
            # The repair removes itself once everything is there again.
            while [job.id for job in await engine.jobs()] != [row.id]:
                assert not any(
                    job.state.is_final and artifacts.lost(damaged) for job in await engine.jobs(key_id=REPAIRS)
                )
                await asyncio.sleep(0.01)
            assert artifacts.lost(damaged) == frozenset()

    run(scene())


def test_cancel_frees_the_device_within_one_step(tmp_path):
    world = RealWorld(tmp_path / "engine")

    async def scene():
        async with world.engine() as engine:
            job_id = await accept(engine, world.spec(3, quality=1.0))
            await first(engine, job_id, EventKind.PROGRESS)
            sent = len(world.commands)
            row = await engine.cancel(job_id)
            assert row.state is JobState.CANCELLED
            other = await accept(engine, world.spec(1))
            assert (await story(engine, other))[-1].kind is EventKind.COMPLETED
            after = [command for command in world.commands[sent:] if job_id in repr(command)]
            assert [type(command).__name__ for command in after] in (["Drop"], ["Step", "Drop"])
            assert engine._parts.executor._opened[0].device.held == ()

    run(scene())


@pytest.mark.parametrize(
    "phase", [pytest.param(Regress, marks=pytest.mark.slow), pytest.param(Begin, marks=pytest.mark.slow), Step, Finish]
)
def test_a_restart_in_the_middle_ends_with_the_same_frames(tmp_path, phase, long_path):
    world = RealWorld(tmp_path / "engine")
    spec = world.spec(LONG_PATH, seed=7)

    async def scene():
        async with world.engine() as engine:
            job_id = await accept(engine, spec)
            # After the first unit of refinement, unless it is the preview that is to be interrupted.
            while not isinstance(world.commands[-1], phase) or (
                phase is not Regress and not _is_second(world.commands)
            ):
                await asyncio.sleep(0.002)
        async with world.engine() as engine:
            assert not (await engine.job(job_id)).state.is_final
            assert {unit.attempt for unit in await engine.units(job_id)} <= {0, 1}
            assert await frames(engine, job_id) == long_path[1]

    run(scene())


def _is_second(commands):
    """Whether a unit of refinement has begun after another one."""
    return sum(isinstance(command, Begin) for command in commands) > 1


@pytest.mark.slow
def test_a_pool_makes_the_same_frames_and_a_preview_within_three_seconds(tmp_path):
    inline = RealWorld(tmp_path / "inline", size=256)
    pool = RealWorld(tmp_path / "pool", size=256, executor="pool")

    async def made(world):
        async with world.engine() as engine:
            started = time.perf_counter()
            large = await accept(engine, world.spec(2, size=256, quality=0.9))
            await first(engine, large, EventKind.PREVIEW_FRAME)
            preview_s = time.perf_counter() - started
            job_id = await accept(engine, world.spec(3, seed=5))
            return preview_s, await frames(engine, job_id), await frames(engine, large)

    _, *expected = run(made(inline))
    preview_s, *digests = run(made(pool))
    assert preview_s < PREVIEW_S
    assert digests == expected

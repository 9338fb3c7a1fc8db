"""Damaged files of finished jobs are made again, with the same bytes or not at all."""

import asyncio

import pytest
from engine_fakes import World, hold, until

from sphinx_nvs.engine.artifacts import DamagedError
from sphinx_nvs.engine.engine import REPAIRS
from sphinx_nvs.engine.scheduler.types import SchedulerConfig
from sphinx_nvs.engine.types.engine_errors import RefusedError
from sphinx_nvs.engine.types.jobs import EventKind, JobState
from sphinx_nvs.engine.types.messages import Begin, Regress


def damage(world, digest):
    """Flips a bit of a stored file."""
    path = world.artifacts.path(digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


async def repaired(world, engine, job_id):
    """Waits for the end of a repair."""
    assert await engine.repair(job_id)
    await until(lambda: not engine._life.jobs and not world.store.list_jobs(key_id=REPAIRS))


@pytest.mark.parametrize("level", ["preview", "final"])
def test_a_damaged_frame_of_a_finished_job_is_made_again_with_the_same_bytes(tmp_path, level):
    world = World(tmp_path)

    async def scene(engine):
        job_id = await world.accept(2, seed=3, deadline_s=30.0)
        await world.story(job_id)
        await engine.video(job_id)
        digest, before = await engine.frame(job_id, 1, level), (await engine.job(job_id), await engine.units(job_id))
        good = world.artifacts.read(digest)
        damage(world, digest)
        with pytest.raises(DamagedError):
            await engine.library.file(digest)
        await repaired(world, engine, job_id)
        assert (await engine.library.file(digest)).read_bytes() == good
        assert (await engine.job(job_id), await engine.units(job_id)) == before
        assert [event.kind for event in await world.story(job_id)][-1] is EventKind.COMPLETED

    world.run(scene)
    plans = [command.again for _, command in world.executor.commands if isinstance(command, Begin)]
    assert plans[0] is None, "a job is planned"
    assert plans[1] is not None, "its repair carries out the plan that the job had"


def test_files_that_nothing_is_wrong_with_are_left_alone(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        job_id = await world.accept(2)
        await world.story(job_id)
        sent = len(world.executor.commands)
        assert await engine.repair(job_id)
        assert len(world.executor.commands) == sent
        assert not await engine.repair("job_unknown")

    world.run(scene)


def test_a_repair_is_one_job_however_often_it_is_requested_and_outlasts_a_restart(tmp_path):
    world = World(tmp_path)

    async def begun(engine):
        job_id = await world.accept(2)
        await world.story(job_id)
        digests = [await engine.frame(job_id, index) for index in range(2)]
        good = [world.artifacts.read(digest) for digest in digests]
        for digest in digests:
            damage(world, digest)
        world.executor.is_paused = True
        assert [await engine.repair(job_id) for _ in range(3)] == [True] * 3
        assert len(world.store.list_jobs(key_id=REPAIRS)) == 1
        await world.crash()
        return job_id, digests, good

    async def scene():
        await world.open()
        job_id, digests, good = await begun(world.engine)
        await world.open()
        await until(lambda: not world.engine._life.jobs and not world.store.list_jobs(key_id=REPAIRS))
        assert [world.artifacts.read(digest) for digest in digests] == good
        assert len(world.store.list_jobs()) == 1
        (plan,) = [command.again for _, command in world.executor.commands if isinstance(command, Begin)]
        assert plan is not None
        # And a second damage is repaired as the first was.
        damage(world, digests[0])
        await repaired(world, world.engine, job_id)
        assert world.artifacts.read(digests[0]) == good[0]
        await world.engine.close()

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_repair_that_makes_other_bytes_is_not_tried_for_ever(tmp_path):
    """As after an update of the models: nothing is served under the digest of the old frame."""
    world = World(tmp_path)

    async def scene(engine):
        job_id = await world.accept(2)
        await world.story(job_id)
        digest = await engine.frame(job_id, 1)
        world.artifacts.delete(digest)
        picture = world.executor.picture
        world.executor.picture = lambda job, seed, index, level: picture(job, seed + 1, index, level)
        assert await engine.repair(job_id)
        await until(lambda: world.store.list_jobs(key_id=REPAIRS)[0].state is JobState.COMPLETED)
        sent = len(world.executor.commands)
        assert not await engine.repair(job_id)
        assert len(world.executor.commands) == sent
        assert not world.artifacts.has(digest)

    world.run(scene)


def test_a_video_of_a_damaged_frame_needs_a_repair_first(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        job_id = await world.accept(2)
        await world.story(job_id)
        video = await engine.video(job_id)
        damage(world, video)
        damage(world, await engine.frame(job_id, 0))
        with pytest.raises(DamagedError):
            await engine.video(job_id)
        assert engine.health == "", "it is the disk that is in trouble"
        await repaired(world, engine, job_id)
        assert world.artifacts.has(await engine.video(job_id))

    world.run(scene)


def test_what_cannot_be_repaired_says_so(tmp_path):
    """An unfinished job, one whose scene is gone, and a full queue."""
    world = World(tmp_path, scheduler=SchedulerConfig(max_queue=1))
    hold(world, Regress)

    async def scene(engine):
        waiting = await world.accept(2)
        await until(lambda: world.executor.is_paused)
        assert not await engine.repair(waiting)
        world.executor.resume()
        await world.story(waiting)
        world.artifacts.delete(await engine.frame(waiting, 1))
        world.held, world.executor.is_paused = True, True
        other = await world.accept(1)
        with pytest.raises(RefusedError):
            await engine.repair(waiting)
        world.executor.resume()
        await world.story(other)
        await engine.library.delete_scene("scene")
        assert not await engine.repair(waiting)

    world.run(scene)

"""After any failure an accepted job ends once, with its best frames."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest
import sqlalchemy as sa
from engine_fakes import World, hold, refuse, until, write_scene

from sphinx_nvs.engine.engine import SCENE_GONE
from sphinx_nvs.engine.jobs import lifecycle
from sphinx_nvs.engine.jobs.coordinator import UNSENT
from sphinx_nvs.engine.store.tables import SCENES
from sphinx_nvs.engine.types.job_validation import Limits
from sphinx_nvs.engine.types.jobs import EventKind, JobState, UnitState
from sphinx_nvs.engine.types.messages import Begin, Begun, DeviceLost, DeviceReady, Finish, Regress, Step
from sphinx_nvs.engine.types.transitions import JobEvent

PHASES = [Regress, Begin, Step, Finish]


def times(number, phase, make):
    """An answer that differs for the first `times` commands of a kind."""
    left = [number]

    def answer(device, command):
        if isinstance(command, phase) and left[0]:
            left[0] -= 1
            return make(device, command)
        return None

    return answer


def dies(device, command):
    return DeviceLost(device=device)


def check_story(story):
    """The events of every completed job, in order and once."""
    kinds = [event.kind for event in story]
    assert kinds[0] is EventKind.QUEUED
    assert kinds.count(EventKind.COMPLETED) == 1
    assert kinds[-1] is EventKind.COMPLETED
    for kind in (EventKind.PREVIEW_FRAME, EventKind.FRAME_REFINED):
        events = Counter(event.data["index"] for event in story if event.kind is kind)
        assert set(events.values()) <= {1}


@pytest.mark.parametrize("phase", PHASES)
def test_a_device_that_dies_once_costs_nothing_but_time(tmp_path, phase):
    world = World(tmp_path, answer=times(1, phase, dies))

    async def scene(engine):
        job_id = await world.accept(2)
        story = await world.story(job_id)
        check_story(story)
        row = await engine.job(job_id)
        assert (row.state, row.level) == (JobState.COMPLETED, "final")
        attempts = [unit.attempt for unit in await engine.units(job_id)]
        assert attempts == ([2, 1] if phase is Regress else [1, 2])
        assert engine.metrics.value("device_crashes_total", device="0") == 1
        assert engine.ready

    world.run(scene)


@pytest.mark.parametrize("phase", PHASES)
def test_a_unit_that_kills_every_device_is_poison(tmp_path, phase):
    world = World(tmp_path, answer=times(99, phase, dies), limits=Limits(max_attempts=2))

    async def scene(engine):
        job_id = await world.accept(2)
        story = await world.story(job_id)
        row = await engine.job(job_id)
        reason = "the device stopped while it worked on this"
        assert row.reason == reason
        if phase is Regress:
            assert (row.state, row.level, row.video) == (JobState.FAILED, "none", None)
            assert story[-1].data == {"reason": reason}
        else:
            assert (row.state, row.level) == (JobState.COMPLETED, "preview")
            assert row.quality == 0.5
            assert world.artifacts.has(await engine.video(job_id))
            assert story[-1].data["reason"] == reason
        assert engine.metrics.value("device_crashes_total", device="0") == 2
        assert engine.metrics.value("units_poison_total", kind="regression" if phase is Regress else "chunk") == 1

    world.run(scene)


@pytest.mark.parametrize("phase", PHASES)
def test_a_command_that_fails_twice_is_tried_a_third_time(tmp_path, phase):
    world = World(tmp_path, answer=times(2, phase, lambda device, command: refuse(command)))

    async def scene(engine):
        job_id = await world.accept(2)
        check_story(await world.story(job_id))
        assert (await engine.job(job_id)).level == "final"

    world.run(scene)


@pytest.mark.parametrize("phase", PHASES)
def test_a_users_mistake_is_not_tried_again(tmp_path, phase):
    world = World(
        tmp_path, answer=times(1, phase, lambda _, command: refuse(command, "views: none is seen", is_users_fault=True))
    )

    async def scene(engine):
        job_id = await world.accept(2)
        await world.story(job_id)
        row = await engine.job(job_id)
        assert row.reason == "views: none is seen"
        assert row.state is (JobState.FAILED if phase is Regress else JobState.COMPLETED)
        (unit, *_) = [unit for unit in await engine.units(job_id) if unit.state is UnitState.POISON]
        assert unit.attempt == 1

    world.run(scene)


def test_bystanders_of_a_crash_are_not_blamed(tmp_path):
    """A unit that kills its device every time does not take those with it that the device holds besides."""
    world = World(tmp_path, limits=Limits(max_attempts=3))

    def answer(device, command):
        is_killer = isinstance(command, Step) and any(command_seed(world, unit) == 13 for unit in command.units)
        return DeviceLost(device=device) if is_killer else None

    world.answer = answer

    async def scene(engine):
        killer = await world.accept(2, seed=13, priority=10)
        others = [await world.accept(2, seed=seed) for seed in range(3)]
        await world.story(killer)
        for job_id in others:
            check_story(await world.story(job_id))
            assert (await engine.job(job_id)).level == "final"
        assert (await engine.job(killer)).level == "preview"

    world.run(scene)


def test_bystanders_of_a_crash_are_not_blamed_by_the_next_server_either(tmp_path):
    """What a unit was forgiven must outlive the server, or kills of others' making wear it out."""
    world = World(tmp_path, limits=Limits(max_attempts=2))
    killed, died = [], []

    def answer(device, command):
        if isinstance(command, Step) and any(command_seed(world, unit) == 13 for unit in command.units):
            killed.append(command)
            world.executor.is_paused = len(killed) == 2
            return DeviceLost(device=device)
        if isinstance(command, Step) and len(killed) == 2 and not died:
            died.append(command)
            return DeviceLost(device=device)
        return None

    world.answer = answer
    hold(world, Step)

    async def part():
        await world.open()
        bystander = await world.accept(2)
        await until(lambda: world.held)
        killer = await world.accept(2, seed=13, deadline_s=1.0)
        world.executor.resume()
        await world.story(killer)
        assert (await world.engine.job(killer)).level == "preview"
        assert not (await world.engine.job(bystander)).state.is_final
        await world.crash()
        await world.open()
        await world.story(bystander)
        assert died
        assert (await world.engine.job(bystander)).level == "final"
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 20))


def test_a_device_that_dies_between_two_commands_counts_no_attempt(tmp_path):
    world = World(tmp_path, limits=Limits(max_attempts=1))

    async def scene(engine):
        update, seen = engine._parts.scheduler.update, []

        def slips(now, report, device=None):
            update(now, report, device)
            if isinstance(report, Begun) and not seen:
                seen.append(report)
                engine._parts.scheduler.schedule = lambda now: []
            elif isinstance(report, DeviceLost):
                # Not sooner: a tick before this report is read would send a command to a device that holds nothing.
                engine._parts.scheduler.schedule = schedule

        schedule = engine._parts.scheduler.schedule
        engine._parts.scheduler.update = slips
        job_id = await world.accept(2)
        await until(lambda: seen and not engine._turn.locked())
        world.executor.steps[0].clear()
        world.executor.reports.put_nowait((0, DeviceLost(device=0)))
        world.executor.reports.put_nowait((0, DeviceReady(device=0, name="again")))
        check_story(await world.story(job_id))
        assert (await engine.job(job_id)).level == "final"

    world.run(scene)


def command_seed(world, unit):
    """The seed of the job of a unit that was begun."""
    return next(held[unit][1].spec.seed for held in world.executor.steps if unit in held)


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_server_continues_from_its_rows(tmp_path, phase):
    world = World(tmp_path, window=8)
    hold(world, phase)

    async def part():
        await world.open()
        job_id = await world.accept(12)
        await until(lambda: world.held)
        await world.crash()
        before = world.executor.commands
        await world.open()
        story = await world.story(job_id)
        check_story(story)
        row = await world.engine.job(job_id)
        assert (row.state, row.level) == (JobState.COMPLETED, "final")
        done_before = {command.unit for _, command in before if isinstance(command, Finish | Regress)} - {
            command.unit for _, command in before[-1:] if isinstance(command, Finish | Regress)
        }
        begun_after = {command.unit for _, command in world.executor.commands if isinstance(command, Begin | Regress)}
        assert not done_before & begun_after
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 20))


@pytest.mark.parametrize(("phase", "state"), [(Regress, JobState.FAILED), (Begin, JobState.COMPLETED)])
def test_a_job_without_its_scene_does_not_prevent_a_start(tmp_path, phase, state):
    world = World(tmp_path)
    hold(world, phase)

    async def part():
        await world.open()
        write_scene(tmp_path / "other")
        scene = await world.engine.library.scene("scene")
        await world.engine.library.add_scene(replace(scene, id="other", path=str(tmp_path / "other")))
        job_id, other = await world.accept(2), await world.accept(2, scene="other")
        await until(lambda: world.held and not world.engine._turn.locked())
        with world.store._database.writing() as writing:
            writing.conn.execute(sa.delete(SCENES).where(SCENES.c.id == "scene"))
        await world.crash()
        await world.open()
        story = await world.story(job_id)
        row = await world.engine.job(job_id)
        assert (row.state, row.reason, story[-1].data["reason"]) == (state, SCENE_GONE, SCENE_GONE)
        check_story(await world.story(other))
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 20))


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_path_is_split_again_if_its_units_were_not_stored(tmp_path, is_killed):
    world, failed = World(tmp_path, window=8), []

    async def part():
        await world.open()
        finish = world.store.finish_preview

        def without_units(*args, units, **fields):
            failed.append(finish(*args, units=(), **fields))
            raise OSError("no space")

        world.store.finish_preview = without_units
        job_id = await world.accept(12)
        await until(lambda: failed)
        if is_killed:
            await world.crash()
            await world.open()
        check_story(await world.story(job_id))
        assert (await world.engine.job(job_id)).level == "final"
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 20))


def test_a_stream_continues_after_its_last_event_after_a_restart(tmp_path):
    world = World(tmp_path)
    hold(world, Step)

    async def part():
        await world.open()
        job_id = await world.accept(2)
        first = asyncio.create_task(world.story(job_id))
        # The command is sent before the plan is published.
        await until(lambda: world.held and not world.engine._turn.locked())
        await world.crash()
        before = await first
        assert before[-1].kind is EventKind.PLAN
        await world.open()
        after = await world.story(job_id, before[-1].seq)
        assert after[0].seq > before[-1].seq
        check_story([*before, *after])
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 20))


def test_every_restart_in_a_row_leaves_attempts_for_real_failures(tmp_path):
    world = World(tmp_path, limits=Limits(max_attempts=2))

    async def part():
        await world.open()
        job_id = await world.accept(2)
        for _ in range(4):
            world.held = False
            hold(world, Begin)
            await world.crash()
            await world.open()
            await until(lambda: world.held)
        world.executor.resume()
        await world.story(job_id)
        assert (await world.engine.job(job_id)).level == "final"
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 20))


def test_rows_that_cannot_be_written_stop_nothing_permanently(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        finish = world.store.finish_unit
        failures = [OSError("no space"), OSError("no space")]

        def fails(*args, **fields):
            if failures:
                raise failures.pop()
            return finish(*args, **fields)

        world.store.finish_unit = fails
        job_id = await world.accept(2)
        check_story(await world.story(job_id))
        row = await engine.job(job_id)
        assert (row.state, row.level, row.finished_s) == (JobState.COMPLETED, "final", world.now)
        assert not failures
        assert not engine._life.jobs

    world.run(scene)


def test_devices_pause_while_frames_cannot_be_stored(tmp_path):
    world = World(tmp_path)
    tries, is_full = [], True

    async def scene(engine):
        finish = world.store.finish_unit

        def fails(*args, **fields):
            if is_full:
                tries.append(world.now)
                raise OSError("no space")
            return finish(*args, **fields)

        world.store.finish_unit = fails
        job_id = await world.accept(2)
        await until(lambda: len(tries) == 3)
        await asyncio.sleep(10 * world.config.tick_s)
        assert len(tries) == 3
        for count, rest_s in ((4, 1.0), (5, 2.0), (6, 4.0)):
            world.now += rest_s
            await until(lambda count=count: len(tries) == count)
        await asyncio.sleep(10 * world.config.tick_s)
        assert len(tries) == 6
        nonlocal is_full
        is_full = False
        world.now += 8.0
        check_story(await world.story(job_id))
        assert (await engine.job(job_id)).level == "final"
        await until(lambda: engine.health == "")

    world.run(scene)


def breaks(split, seed, times):
    """A split that fails unexpectedly for jobs of a seed, `times` times."""
    left = [times]

    def breaking(spec, *args):
        if spec.seed == seed and left[0]:
            left[0] -= 1
            raise ValueError("not what it was thought to be")
        return split(spec, *args)

    return breaking


@pytest.mark.parametrize(("failures", "state"), [(1, JobState.COMPLETED), (99, JobState.FAILED)])
def test_a_failed_split_fails_its_own_job_only(tmp_path, monkeypatch, failures, state):
    world = World(tmp_path, limits=Limits(max_attempts=4))
    monkeypatch.setattr(lifecycle, "split_path", breaks(lifecycle.split_path, 13, failures))

    async def scene(engine):
        broken = await world.accept(2, seed=13)
        await world.story(broken)
        row = await engine.job(broken)
        assert (row.state, row.reason) == (state, "" if failures == 1 else lifecycle.UNSPLIT)
        assert (await engine.units(broken))[0].attempt == (2 if failures == 1 else 4)
        check_story(await world.story(await world.accept(2)))
        assert engine.health == ""
        assert engine.metrics.value("unit_failures_total", kind="regression") == min(failures, 4)
        engine._parts.scheduler.check()

    world.run(scene)


def test_a_failed_split_at_a_restart_leaves_the_preview(tmp_path, monkeypatch):
    world = World(tmp_path)
    hold(world, Begin)

    async def part():
        await world.open()
        job_id, other = await world.accept(2, seed=13), await world.accept(2)
        await until(lambda: world.held and not world.engine._turn.locked())
        await world.crash()
        monkeypatch.setattr(lifecycle, "split_path", breaks(lifecycle.split_path, 13, 99))
        await world.open()
        await world.story(job_id)
        row = await world.engine.job(job_id)
        assert (row.state, row.level, row.reason) == (JobState.COMPLETED, "preview", lifecycle.UNSPLIT)
        check_story(await world.story(other))
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 20))


@pytest.mark.parametrize("phase", PHASES)
def test_a_command_that_cannot_be_sent_is_tried_again_and_then_given_up(tmp_path, phase):
    world = World(tmp_path, limits=Limits(max_attempts=2))
    failures = []

    async def scene(engine):
        submit = world.executor.submit

        def fails(device, command):
            if isinstance(command, phase) and len(failures) < most:
                failures.append(command)
                raise ValueError("it is no message")
            submit(device, command)

        world.executor.submit = fails
        for most, level in ((1, "final"), (3, "none" if phase is Regress else "preview")):
            job_id = await world.accept(2, seed=most)
            await world.story(job_id)
            row = await engine.job(job_id)
            assert (row.level, row.reason) == (level, "" if most == 1 else UNSENT)
        world.engine._parts.scheduler.check()
        assert engine._life.jobs == {}

    world.run(scene)


def test_a_job_whose_first_start_cannot_be_written_is_accepted_and_completes(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        start, failures = world.store.start_unit, [OSError("no space")]

        def fails(*args, **fields):
            if failures:
                raise failures.pop()
            return start(*args, **fields)

        world.store.start_unit = fails
        job_id = await world.accept(2)
        check_story(await world.story(job_id))
        assert not failures
        await until(lambda: engine.health == "")

    world.run(scene)


def test_a_start_that_cannot_be_written_holds_back_no_other_device(tmp_path):
    """Both jobs are scheduled together in the end: a failure of the first decision must not lose the second."""
    world = World(tmp_path, devices=2)

    async def scene(engine):
        await until(lambda: len(engine._roster.ready) == 2)
        start, failures = world.store.start_unit, [OSError("no space")]

        def fails(*args, **fields):
            if failures and len(engine._life.jobs) < 2:
                raise OSError("no space")
            if failures:
                raise failures.pop()
            return start(*args, **fields)

        world.store.start_unit = fails
        for job_id in [await world.accept(2, seed=seed) for seed in range(2)]:
            check_story(await world.story(job_id))
        assert not failures
        engine._parts.scheduler.check()
        await until(lambda: engine.health == "")
        await until(lambda: not any(device.is_busy for device in engine.capacity().devices))

    world.run(scene)


def test_a_device_comes_back_though_its_loss_cannot_be_written(tmp_path):
    """Neither when it is lost nor when it has started again."""
    world = World(tmp_path, devices=2, answer=times(1, Step, dies))

    async def scene(engine):
        give_up, left = world.store.give_up_unit, [OSError("no space")] * 2

        def fails(*args, **fields):
            if left:
                raise left.pop()
            return give_up(*args, **fields)

        world.store.give_up_unit = fails
        jobs = [await world.accept(2, seed=seed) for seed in range(4)]
        for job_id in jobs:
            check_story(await world.story(job_id))
            assert (await engine.job(job_id)).level == "final"
        assert all(device.is_ready for device in engine.capacity().devices)
        engine._parts.scheduler.check()

    world.run(scene)


def test_a_job_whose_rows_cannot_be_read_again_is_kept(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        start, reread, seen, failures = world.store.start_unit, engine._life.reread, [], [OSError("no rows")]

        def not_given(*args, **fields):
            seen.append(args)
            return None if len(seen) == 1 else start(*args, **fields)

        async def fails(job):
            if failures:
                raise failures.pop()
            return await reread(job)

        world.store.start_unit, engine._life.reread = not_given, fails
        check_story(await world.story(await world.accept(2)))
        assert not failures

    world.run(scene)


def test_the_final_event_agrees_with_the_row_even_if_memory_is_behind_it(tmp_path):
    """A commit whose answer is lost, e.g. with the connection, advances the row alone."""
    world = World(tmp_path)
    hold(world, Begin)

    async def scene(engine):
        job_id = await world.accept(2)
        await until(lambda: world.held)
        job = engine._life.jobs[job_id]
        job.row = replace(job.row, state=JobState.QUEUED, level="none")
        engine._conclude(job, "no more")
        story = await world.story(job_id)
        row = await engine.job(job_id)
        assert (story[-1].kind, row.state, row.level) == (EventKind.COMPLETED, JobState.COMPLETED, "preview")
        assert story[-1].data["level"] == "preview"
        world.executor.resume()

    world.run(scene)


@pytest.mark.parametrize(("phase", "end"), [(Regress, EventKind.FAILED), (Begin, EventKind.COMPLETED)])
def test_an_end_that_cannot_be_written_is_written_later(tmp_path, phase, end):
    def answer(device, command):
        return refuse(command, "no", is_users_fault=True) if isinstance(command, phase) else None

    world = World(tmp_path, answer=answer)

    async def scene(engine):
        record, failures = world.store.record, [OSError("no space"), OSError("no space")]

        def fails(job_id, event, **fields):
            if event is JobEvent.GIVEN_UP and failures:
                raise failures.pop()
            return record(job_id, event, **fields)

        world.store.record = fails
        job_id = await world.accept(2)
        story = await world.story(job_id)
        assert story[-1].kind is end
        assert not failures
        await until(lambda: engine.health == "" and not engine._life.jobs)

    world.run(scene)


def test_a_job_whose_time_is_over_expires(tmp_path):
    world = World(tmp_path, limits=Limits(ttl_s=50.0), sweep_s=0.02)
    hold(world, Begin)

    async def scene(engine):
        job_id = await world.accept(2)
        await until(lambda: world.held)
        stream = asyncio.create_task(world.story(job_id))
        await asyncio.sleep(0.02)
        world.now += 60
        story = await stream
        assert story[-1].kind is EventKind.EXPIRED
        await until(lambda: not engine._life.jobs)
        world.executor.resume()

    world.run(scene)


@pytest.mark.parametrize("seed", range(4))
def test_no_job_is_lost_or_ended_twice_under_random_failures(tmp_path, seed):
    """Crashes of devices and of the server, refusals and cancellations, by chance."""
    chance = random.Random(seed)

    def answer(device, command):
        roll = chance.random()
        if roll < 0.05:
            return DeviceLost(device=device)
        if roll < 0.08 and not isinstance(command, Step):
            return refuse(command) if isinstance(command, Regress | Begin | Finish) else None
        return None

    world = World(tmp_path, devices=2, answer=answer, window=8, limits=Limits(max_attempts=50))

    async def part():
        await world.open()
        jobs = [await world.accept(chance.choice([1, 2, 12]), seed=i) for i in range(6)]
        cancelled = set(chance.sample(jobs, 1))
        for job_id in cancelled:
            await world.engine.cancel(job_id)
        for _ in range(3):
            await asyncio.sleep(chance.random() * 0.1)
            await world.crash()
            await world.open()
        for job_id in jobs:
            story = await world.story(job_id)
            row = await world.engine.job(job_id)
            if job_id in cancelled:
                assert row.state is JobState.CANCELLED
                continue
            check_story(story)
            assert (row.state, row.level) == (JobState.COMPLETED, "final")
            units = await world.engine.units(job_id)
            made = [target for unit in units[1:] for target in unit.targets]
            assert sorted(made) == list(range(row.spec.num_views))
        world.engine._parts.scheduler.check()
        assert world.engine._life.jobs == {}
        await world.engine.close()

    asyncio.run(asyncio.wait_for(part(), 60))

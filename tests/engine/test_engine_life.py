"""The life of a job, from its row to its last event."""

import asyncio
import contextlib
import os
import threading

import pytest
import sqlalchemy as sa
from engine_fakes import STEPS, World, hold, until

from sphinx_nvs import media
from sphinx_nvs.engine.jobs.lifecycle import in_thread
from sphinx_nvs.engine.store.store import GRACE_S
from sphinx_nvs.engine.store.tables import ARTIFACTS
from sphinx_nvs.engine.types.jobs import EventKind, JobState, UnitKind, UnitState
from sphinx_nvs.engine.types.messages import Begin, Drop, Finish, Regress, Step
from sphinx_nvs.engine.video_maker import make_video


def kinds(story):
    return [event.kind.value for event in story if event.kind is not EventKind.PROGRESS]


def test_a_job_is_previewed_refined_and_completed(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        job_id = await world.accept(2)
        story = await world.story(job_id)
        assert kinds(story) == [
            "queued",
            "preview_frame",
            "preview_frame",
            "plan",
            "frame_refined",
            "frame_refined",
            "completed",
        ]
        assert [event.seq for event in story] == sorted({event.seq for event in story})
        row = await engine.job(job_id)
        assert (row.state, row.level, row.reason) == (JobState.COMPLETED, "final", "")
        assert story[-1].data == {
            "level": "final",
            "quality": row.quality,
            "latency_s": pytest.approx(0.06),
            "reason": "",
        }

    world.run(scene)
    assert [type(command) for _, command in world.executor.commands] == [Regress, Begin, *[Step] * STEPS, Finish]


def test_the_log_says_which_frames_a_job_ended_with_and_at_which_level_it_says_so(tmp_path, caplog):
    world = World(tmp_path)

    def ends():
        return [record for record in caplog.records if record.msg == "job ended"]

    async def scene(engine):
        await world.accept(2)
        await until(ends)

    with caplog.at_level("INFO", "sphinx_nvs.engine"):
        world.run(scene)
    (ended,) = ends()
    assert (ended.frames, ended.state, ended.levelname) == ("final", "completed", "INFO")
    assert not hasattr(ended, "level"), "structured logs would take it for their own"


def test_frames_plan_and_video_can_be_had(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        job_id = await world.accept(3)
        await world.story(job_id)
        for level, blue in (("preview", 0.0), ("final", 0.5)):
            digest = await engine.frame(job_id, 2, level)
            image = media.read_image(world.artifacts.path(digest))
            assert image[:2, 0, 0].tolist() == pytest.approx([2 / 16, blue], abs=0.01)
        video = await engine.video(job_id)
        assert len(media.read_video(world.artifacts.path(video))) == 3
        assert (await engine.job(job_id)).video == video
        (plan,) = await engine.plan(job_id)
        assert (plan["unit"], plan["targets"], plan["steps"], plan["reason"]) == (1, [0, 1, 2], STEPS, "fake")
        assert world.artifacts.has(plan["file"])
        assert await engine.frame(job_id, 3) is None
        assert await engine.job("nobody") is None
        assert await engine.video("nobody") is None

    world.run(scene)


def _held_films(monkeypatch):
    """Videos wait for an event; the frames of those that were begun, and the event."""
    made, may_go_on = [], threading.Event()

    def film(artifacts, frames, *, fps):
        made.append(frames)
        may_go_on.wait(20)
        return make_video(artifacts, frames, fps=fps)

    monkeypatch.setattr("sphinx_nvs.engine.video_maker.make_video", film)
    return made, may_go_on


async def _previewed(world, engine):
    """A job that has its preview, and continues when the executor resumes."""
    job_id = await world.accept(2)
    await until(lambda: world.executor.is_paused and not engine._turn.locked())
    return job_id


def test_jobs_do_not_wait_for_videos(tmp_path, monkeypatch):
    world, (made, may_go_on) = World(tmp_path), _held_films(monkeypatch)

    async def scene(engine):
        job_id = await world.accept(2)
        await world.story(job_id)
        await until(lambda: made)
        assert (await engine.job(job_id)).video is None
        asked = [asyncio.create_task(engine.video(job_id)) for _ in range(3)]
        await asyncio.sleep(0.05)
        may_go_on.set()
        assert set(await asyncio.gather(*asked)) == {(await engine.job(job_id)).video}
        assert len(made) == 1, "further requests wait for the same one"

    world.run(scene)


def test_a_video_is_made_once_though_its_client_disconnects(tmp_path, monkeypatch):
    """Requests that time out and come again neither make it again nor take the threads that rows need."""
    world, (made, may_go_on) = World(tmp_path), _held_films(monkeypatch)
    hold(world, Begin)

    async def scene(engine):
        job_id = await _previewed(world, engine)
        for _ in range(40):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(engine.video(job_id), 0.01)
        assert await asyncio.wait_for(in_thread(lambda: "there is a thread"), 5)
        may_go_on.set()
        assert world.artifacts.has(await engine.video(job_id))
        assert len(made) == 1
        await until(lambda: not engine._filming.locked())
        world.executor.resume()
        await world.story(job_id)

    world.run(scene)


def test_a_job_deleted_during_its_video_request_has_none_without_failure(tmp_path, monkeypatch):
    world, (made, may_go_on) = World(tmp_path), _held_films(monkeypatch)
    may_go_on.set()
    hold(world, Begin)

    async def scene(engine):
        job_id = await _previewed(world, engine)

        async def deleted_meanwhile(which):
            return []

        with monkeypatch.context() as patch:
            patch.setattr(engine, "units", deleted_meanwhile)
            assert await engine.video(job_id) is None
        assert engine.health == ""
        assert not made
        world.executor.resume()
        await world.story(job_id)

    world.run(scene)


def test_an_unfinished_jobs_video_is_made_once_as_long_as_it_is_there(tmp_path, monkeypatch):
    world, (made, may_go_on) = World(tmp_path), _held_films(monkeypatch)
    may_go_on.set()
    hold(world, Begin)

    async def scene(engine):
        job_id = await _previewed(world, engine)
        video = await engine.video(job_id)
        assert [await engine.video(job_id) for _ in range(3)] == [video] * 3
        assert len(made) == 1
        world.artifacts.delete(video)
        assert await engine.video(job_id) == video
        assert world.artifacts.has(video)
        assert len(made) == 2
        world.executor.resume()
        await world.story(job_id)
        assert await engine.video(job_id) != video

    world.run(scene)


def test_a_previews_video_does_not_become_that_of_a_job_that_ends_meanwhile(tmp_path, monkeypatch):
    world, (made, may_go_on) = World(tmp_path), _held_films(monkeypatch)
    hold(world, Begin)

    async def scene(engine):
        job_id = await world.accept(2)
        await until(lambda: world.executor.is_paused)
        previews = asyncio.create_task(engine.video(job_id))
        await until(lambda: made)
        world.executor.resume()
        await world.story(job_id)
        may_go_on.set()
        assert await previews != await engine.video(job_id) == (await engine.job(job_id)).video
        assert [frames[0] for frames in made] == [
            await engine.frame(job_id, 0, level) for level in ("preview", "final")
        ]

    world.run(scene)


def test_a_missing_video_is_made_at_the_first_request(tmp_path, monkeypatch):
    world, ids = World(tmp_path), []

    async def completed(engine):
        ids.append(await world.accept(2))
        await world.story(ids[0])

    async def asked_for(engine):
        assert (await engine.job(ids[0])).video is None
        video = await engine.video(ids[0])
        assert len(media.read_video(world.artifacts.path(video))) == 2
        assert (await engine.job(ids[0])).video == video

    with monkeypatch.context() as patch:
        patch.setattr("sphinx_nvs.engine.video_maker.make_video", lambda *args, **kwargs: 1 / 0)
        world.run(completed)
    world.run(asked_for)


def test_a_long_path_is_split_and_its_units_get_finished_frames(tmp_path):
    world = World(tmp_path, window=8)

    async def scene(engine):
        job_id = await world.accept(12)
        story = await world.story(job_id)
        units = await engine.units(job_id)
        assert [unit.kind for unit in units][:2] == [UnitKind.REGRESSION, UnitKind.ANCHORS]
        assert {unit.kind for unit in units[2:]} == {UnitKind.CHUNK}
        assert all(unit.state is UnitState.DONE for unit in units)
        refined = [event.data["index"] for event in story if event.kind is EventKind.FRAME_REFINED]
        assert sorted(refined) == list(range(12))
        begins = [command for _, command in world.executor.commands if isinstance(command, Begin)]
        assert not any(begin.alone for begin in begins)
        for begin in begins:
            new_frames = units[begin.unit[1]].depends_on
            assert 0 in new_frames
            assert set(begin.finished) <= {t for index in new_frames if index for t in units[index].targets}
        assert any(begin.finished for begin in begins)
        assert len(await engine.plan(job_id)) == len(units) - 1

    world.run(scene)


def test_a_short_path_is_one_unit_that_knows_it_is_alone(tmp_path):
    world = World(tmp_path)
    world.run(lambda engine: accept_and_end(world, 2))
    (begin,) = [command for _, command in world.executor.commands if isinstance(command, Begin)]
    assert begin.alone
    assert (begin.unit[1], begin.targets, begin.photos, begin.finished) == (1, (0, 1), (0, 1), {})


async def accept_and_end(world, *args, **fields):
    job_id = await world.accept(*args, **fields)
    story = await world.story(job_id)
    return await world.engine.job(job_id), story


def test_progress_is_published_at_most_four_times_a_second_but_always_at_the_end(tmp_path):
    world = World(tmp_path)
    _, story = world.run(lambda engine: accept_and_end(world, 2))
    progress = [event.data for event in story if event.kind is EventKind.PROGRESS]
    # The clock moves by 10 ms a step.
    assert [data["done"] for data in progress] == [1, STEPS]
    assert progress[0]["eta_s"] == pytest.approx(0.04 * 2 / 3)
    assert all(data["total"] == STEPS and data["unit"] == 1 for data in progress)

    slow = World(tmp_path / "slow")
    slow_step(slow, 0.3)
    _, story = slow.run(lambda engine: accept_and_end(slow, 2))
    assert [event.data["done"] for event in story if event.kind is EventKind.PROGRESS] == [1, 2, STEPS]


def slow_step(world, seconds):
    """Every command takes so long."""

    def answer(device, command):
        world.executor.seconds = seconds

    world.answer = answer


def _held_call(owner, name):
    """A method waits for an event; its calls that waited, and the event."""
    call, waiting, may_go_on = getattr(owner, name), [], threading.Event()

    def held(*args, **kwargs):
        if not may_go_on.is_set():
            waiting.append(args)
            may_go_on.wait(20)
        return call(*args, **kwargs)

    setattr(owner, name, held)
    return waiting, may_go_on


def test_requests_do_not_wait_for_sweeps(tmp_path):
    """Requests are accepted and jobs completed during a sweep."""
    world = World(tmp_path, sweep_s=0.02)

    async def scene(engine):
        waiting, may_go_on = _held_call(world.artifacts, "sweep")
        await until(lambda: waiting)
        job_id = await asyncio.wait_for(world.accept(2), 10)
        story = await asyncio.wait_for(world.story(job_id), 10)
        assert story[-1].kind is EventKind.COMPLETED
        assert len(waiting) == 1
        may_go_on.set()

    world.run(scene)


def test_requests_do_not_wait_for_measuring_files(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        first = await world.accept(2)
        await world.story(first)
        waiting, may_go_on = _held_call(world.artifacts, "sizes")
        job_id = await world.accept(2, seed=1)
        await until(lambda: waiting)
        other = await asyncio.wait_for(world.accept(2, seed=2), 10)
        assert (await asyncio.wait_for(engine.cancel(other), 10)).state is JobState.CANCELLED
        may_go_on.set()
        assert (await world.story(job_id))[-1].kind is EventKind.COMPLETED
        with world.store._database.reading() as conn:
            held = dict(map(tuple, conn.execute(sa.select(ARTIFACTS.c.digest, ARTIFACTS.c.bytes))))
        assert held == world.artifacts.sizes(held)

    world.run(scene)


def test_the_plan_of_a_unit_that_is_at_work_for_hours_stays(tmp_path):
    world = World(tmp_path)
    hold(world, Step)

    async def scene(engine):
        job_id = await world.accept(2)
        await until(lambda: world.held and not engine._turn.locked())
        (plan,) = await engine.plan(job_id)
        lost = world.artifacts.put(b"no row refers to it")
        for digest in (plan["file"], lost):
            os.utime(world.artifacts.path(digest), (world.now, world.now))
        world.now += 2 * GRACE_S
        await engine._sweep()
        assert (world.artifacts.has(plan["file"]), world.artifacts.has(lost)) == (True, False)
        world.executor.resume()
        await world.story(job_id)

    world.run(scene)


@pytest.mark.parametrize("phase", [Regress, Begin, Step, Finish])
def test_a_job_can_be_cancelled_in_each_phase_and_its_device_is_free(tmp_path, phase):
    world = World(tmp_path)
    hold(world, phase)

    async def scene(engine):
        job_id = await world.accept(2)
        await until(lambda: any(isinstance(command, phase) for _, command in world.executor.commands))
        row = await engine.cancel(job_id)
        assert row.state is JobState.CANCELLED
        sent = len(world.executor.commands)
        world.executor.resume()
        assert kinds(await world.story(job_id))[-1] == "cancelled"
        other, _ = await accept_and_end(world, 2, seed=1)
        assert other.state is JobState.COMPLETED
        after = [command for _, command in world.executor.commands[sent:]]
        if phase in (Begin, Step):
            # The command that was running is the last one of the job.
            assert after[0] == Drop(units=((job_id, 1),))
        assert not any(job_id in repr(command) for command in after if not isinstance(command, Drop))
        assert not any(key[0] == job_id for held in world.executor.steps for key in held)
        assert (await engine.cancel(job_id)).state is JobState.CANCELLED
        assert await engine.cancel("nobody") is None
        assert engine.metrics.value("jobs_ended_total", state="cancelled", level=row.level) == 1

    world.run(scene)

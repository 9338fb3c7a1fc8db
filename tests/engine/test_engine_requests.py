"""What the engine accepts, what it quotes, and what it refuses."""

import asyncio
import math
from dataclasses import replace

import pytest
from engine_fakes import FakePricing, World, hold, spec_of, until

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.device.loading import BYTES_PER_PIXEL, memory_limit, open_device
from sphinx_nvs.engine.scheduler.types import SchedulerConfig
from sphinx_nvs.engine.types.device_setup import DeviceSetup
from sphinx_nvs.engine.types.engine_errors import MissingError, RefusedError
from sphinx_nvs.engine.types.job_validation import Limits
from sphinx_nvs.engine.types.jobs import EventKind, JobState
from sphinx_nvs.engine.types.messages import Begin, Regress
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.models.seva.seva_denoiser import Seva
from sphinx_nvs.presets import SHIPPED


@pytest.mark.parametrize("preset", SHIPPED)
def test_sizes_are_those_that_the_denoisers_take(tmp_path, preset):
    denoiser = Nano if preset == "embedded" else Seva
    assert EngineConfig(folder=tmp_path, preset=preset).size_multiple == denoiser.size_multiple


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"preset": "best"}, "preset: there is no 'best'; choose one of"),
        ({"devices": 0}, "devices: it is 0; give at least 1"),
        ({"executor": "cloud"}, "executor: there is no 'cloud'; choose pool or inline"),
        ({"tick_s": 0.0}, "tick_s: it is 0; give a number of seconds above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        EngineConfig(folder=tmp_path, **fields)


def test_what_cannot_fit_into_the_devices_memory_is_refused_before_anything_is_queued(tmp_path):
    world = World(tmp_path)
    table = FakePricing.table

    async def scene(engine):
        fits = replace(table(None, contexts=2, views=2, height=64, width=64), memory_bytes=7.9e9, memory_limit=8e9)
        engine._parts.pricing.table = lambda **shape: fits
        assert await engine.quote(spec_of(2))
        engine._parts.pricing.table = lambda **shape: replace(fits, memory_bytes=41e9)
        found = "size: frames of 64x64 take 41 GB of memory, and the device has 8 GB; request smaller frames"
        for request in (engine.quote(spec_of(2)), engine.accept(spec_of(2), key_id="k")):
            with pytest.raises(InputError, match=found):
                await request
        assert await engine.jobs() == []
        assert world.executor.commands == []

    world.run(scene)


@pytest.mark.parametrize(("text", "limit"), [("1000000\n", 1e6), ("max\n", math.inf), (None, math.inf)])
def test_a_containers_memory_counts(tmp_path, text, limit):
    if text is not None:
        (tmp_path / "memory.max").write_text(text)
    assert memory_limit(tmp_path / "memory.max") == limit


def test_a_device_says_how_much_memory_it_has(tmp_path):
    facts = open_device(DeviceSetup(preset="embedded", artifacts=str(tmp_path), options={"num_steps": 2})).facts
    assert 1e9 < facts.memory_bytes < 1e14
    assert facts.bytes_per_pixel == BYTES_PER_PIXEL["embedded"]


def test_a_quote_equals_the_quote_at_acceptance_and_stores_nothing(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        asked = spec_of(2, quality=0.8)
        quote = await engine.quote(asked)
        assert (quote.quality, quote.active_share) == (0.8, 0.2)
        row, is_new = await engine.accept(asked, key_id="k")
        assert is_new
        assert row.quote == quote
        (queued, *_) = await world.story(row.id)
        assert (queued.kind, queued.data["position"]) == (EventKind.QUEUED, 0)
        assert queued.data["quote"]["latency_s"] == quote.latency_s

    world.run(scene)


def test_the_same_idempotency_key_gives_the_same_job_even_when_the_queue_is_full(tmp_path):
    world = World(tmp_path, scheduler=SchedulerConfig(max_queue=1))
    hold(world, Regress)

    async def scene(engine):
        first, is_new = await engine.accept(spec_of(2), key_id="k", idempotency_key="once")
        again, is_new_again = await engine.accept(spec_of(2), key_id="k", idempotency_key="once")
        assert (is_new, is_new_again) == (True, False)
        assert again.id == first.id
        with pytest.raises(InputError, match="idempotency_key: 'once' was used for another request"):
            await engine.accept(spec_of(2, seed=1), key_id="k", idempotency_key="once")
        with pytest.raises(RefusedError, match="the queue is full: 1 jobs are not finished") as caught:
            await engine.accept(spec_of(2), key_id="other", idempotency_key="once")
        assert (caught.value.http_status, caught.value.retry_after_s) == (429, pytest.approx(1.0, abs=9))
        assert engine.metrics.value("jobs_rejected_total", why="queue") == 1
        assert engine.metrics.value("jobs_accepted_total") == 1
        world.executor.resume()
        await world.story(first.id)
        row, is_new = await engine.accept(spec_of(2), key_id="k", idempotency_key="once")
        assert (row.id, row.state, is_new) == (first.id, JobState.COMPLETED, False)

    world.run(scene)


def test_a_keys_limit_holds_for_concurrent_requests(tmp_path):
    world = World(tmp_path)
    hold(world, Regress)

    def allow(usage):
        if usage.running_jobs >= 3:
            raise RefusedError("you have enough", retry_after_s=5, http_status=429)

    async def scene(engine):
        asking = (engine.accept(spec_of(2, seed=i), key_id="k", idempotency_key=f"{i}", allow=allow) for i in range(8))
        answers = await asyncio.gather(*asking, return_exceptions=True)
        taken = [answer for answer in answers if not isinstance(answer, RefusedError)]
        assert len(taken) == (await engine.library.usage("k")).running_jobs == 3
        same, is_new = await engine.accept(spec_of(2, seed=0), key_id="k", idempotency_key="0", allow=allow)
        assert (same.id, is_new) == (taken[0][0].id, False)
        assert (await engine.accept(spec_of(2), key_id="other", allow=allow))[1]
        world.executor.resume()
        for row, _ in taken:
            await world.story(row.id)
        used = await engine.library.usage("k")
        assert (used.running_jobs, used.stored_jobs, used.stored_bytes > 0) == (0, 3, True)
        assert (await engine.accept(spec_of(2, seed=9), key_id="k", allow=allow))[1]

    world.run(scene)


def test_mistakes_and_unknown_scenes_leave_no_row(tmp_path):
    world = World(tmp_path, limits=Limits(max_views=3))

    async def scene(engine):
        with pytest.raises(InputError, match="cameras: there are 4; give 1 to 3"):
            await engine.accept(spec_of(4), key_id="k")
        with pytest.raises(MissingError, match="scene: there is no 'nowhere'; upload it first") as caught:
            await engine.quote(spec_of(2, scene="nowhere"))
        assert caught.value.http_status == 404
        assert await engine.jobs() == []

    world.run(scene)


def test_a_scene_that_goes_while_its_job_is_accepted_leaves_no_row(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        checked = engine._checked

        async def then_gone(spec):
            found = await checked(spec)
            await engine.library.delete_scene(spec.scene)
            return found

        engine._checked = then_gone
        with pytest.raises(MissingError, match="scene: there is no 'scene'; upload it first"):
            await engine.accept(spec_of(2), key_id="k")
        assert await engine.jobs() == []
        assert engine._life.jobs == {}

    world.run(scene)


def test_a_closing_engine_accepts_nothing_but_ends_its_jobs(tmp_path):
    world = World(tmp_path)
    hold(world, Begin)

    async def scene(engine):
        job_id = await world.accept(2)
        await until(lambda: world.held)
        closing = asyncio.create_task(engine.close(5.0))
        await asyncio.sleep(0.02)
        assert not engine.ready
        with pytest.raises(RefusedError, match="the server is closing"):
            await engine.accept(spec_of(2), key_id="k")
        world.executor.resume()
        await closing
        return job_id

    async def whole():
        job_id = await scene(await world.open())
        await world.open()
        row = await world.engine.job(job_id)
        await world.engine.close()
        return row

    assert asyncio.run(whole()).state is JobState.COMPLETED


def test_a_job_stays_in_the_queue_when_its_client_disconnects(tmp_path):
    world = World(tmp_path)

    async def scene(engine):
        task = asyncio.create_task(engine.accept(spec_of(2), key_id="k"))
        while not engine._life.jobs and not engine._turn.locked():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: engine.metrics.value("jobs_ended_total", state="completed", level="final") == 1)
        (row,) = await engine.jobs()
        assert row.state is JobState.COMPLETED

    world.run(scene)


def test_capacity_models_and_readiness(tmp_path):
    world = World(tmp_path, devices=2)
    hold(world, Begin)

    async def scene(engine):
        await until(lambda: engine.ready and len(engine._roster.ready) == 2)
        job_id = await world.accept(2)
        await until(lambda: world.held)
        seen = engine.capacity()
        assert [device.name for device in seen.devices] == ["fake 0", "fake 1"]
        assert [device.is_busy for device in seen.devices].count(True) == 1
        assert (seen.queued, seen.running, seen.slo_attainment) == (0, 1, 1.0)
        assert [model.name for model in engine.models()] == ["embedded"]
        assert engine.health == ""
        world.executor.resume()
        await world.story(job_id)
        assert engine.capacity().running == 0
        assert engine.metrics.value("devices_ready") == 2

    world.run(scene)


def test_under_load_quality_is_lowered_to_the_floor_at_most_with_an_event(tmp_path):
    world = World(tmp_path)
    hold(world, Regress)

    async def scene(engine):
        jobs = [await world.accept(8, min_quality=0.6, deadline_s=3.0, seed=seed) for seed in range(6)]
        world.executor.resume()
        stories = [await world.story(job_id) for job_id in jobs]
        events = [event.data for story in stories for event in story if event.kind is EventKind.DEGRADED]
        assert events
        assert all(0.6 <= data["to"] < data["from"] and data["why"] for data in events)
        assert engine.metrics.value("jobs_degraded_total") == len(events)
        rows = [await engine.job(job_id) for job_id in jobs]
        assert all(row.quality >= 0.6 for row in rows)

    world.run(scene)

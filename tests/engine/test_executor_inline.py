"""Devices in the engine's own process, and reports on their way to the engine."""

import asyncio

import pytest
from executor_fakes import FACTS, draw, fake_setup, simple_spec

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.executor.factory import open_executor
from sphinx_nvs.engine.executor.inline import InlineExecutor
from sphinx_nvs.engine.executor.outbox import Outbox
from sphinx_nvs.engine.executor.pool import PoolExecutor
from sphinx_nvs.engine.protocols import Devices
from sphinx_nvs.engine.types.messages import DeviceLost, DeviceReady, Drop, Dropped, Regress, Regressed, Step, Stepped
from sphinx_nvs.errors import InputError


def ready(device, name="x"):
    return DeviceReady(device=device, name=name)


def stepped(done):
    return Stepped(units=(("a", 1),), done=(done,), computed_cells=1, seconds=0.1)


def regress(job="a"):
    return Regress(unit=(job, 0), spec=simple_spec(), scene_path="nowhere")


async def take(executor, count):
    """The next `count` reports, in order."""
    reports = []
    while len(reports) < count:
        reports += await asyncio.wait_for(executor.next_reports(), 60)
    return reports


def run(scene):
    return asyncio.run(scene())


def test_reports_wait_in_order():
    async def scene():
        box = Outbox()
        box.put(0, ready(0))
        box.put(0, stepped(1))
        box.put(1, stepped(2))
        assert await box.take() == [(0, ready(0)), (0, stepped(1)), (1, stepped(2))]

    run(scene)


def test_nothing_comes_before_something_happens():
    async def scene():
        box = Outbox()
        waiting = asyncio.create_task(box.take())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        box.put(0, ready(0))
        assert await waiting == [(0, ready(0))]

    run(scene)


def test_a_new_process_starts_after_the_loss_of_the_previous_one_was_processed():
    async def scene():
        box = Outbox()
        box.put(0, ready(0))
        await box.take()
        assert box.is_open(0)
        box.put(0, stepped(1))
        box.put(0, DeviceLost(device=0))
        assert not box.is_open(0)
        box.put(0, ready(0, "again"))
        assert await box.take() == [(0, stepped(1)), (0, DeviceLost(device=0))]
        assert not box.is_open(0)
        assert await box.take() == [(0, ready(0, "again"))]
        assert box.is_open(0)

    run(scene)


def test_a_process_that_was_never_reported_is_dropped_with_its_reports():
    async def scene():
        box = Outbox()
        box.put(0, ready(0))
        box.put(1, ready(1))
        box.put(0, DeviceLost(device=0))
        assert await box.take() == [(1, ready(1)), (0, DeviceLost(device=0))]
        assert [box.is_open(device) for device in (0, 1)] == [False, True]

    run(scene)


def test_commands_are_answered_in_order(tmp_path):
    async def scene():
        facts = []
        executor = InlineExecutor(fake_setup(tmp_path), 2, facts.append)
        assert isinstance(executor, Devices)
        await executor.start()
        assert facts == [FACTS, FACTS]
        assert await take(executor, 2) == [(0, ready(0, "fake of embedded")), (1, ready(1, "fake of embedded"))]
        for command in (regress(), Step(units=(("a", 1),)), Step(units=(("a", 1),)), Drop(units=(("a", 1),))):
            executor.submit(1, command)
        made = await take(executor, 4)
        assert [device for device, _ in made] == [1] * 4
        assert [type(report) for _, report in made] == [Regressed, Stepped, Stepped, Dropped]
        assert [report.done for _, report in made[1:3]] == [(1,), (2,)]
        await executor.close()

    run(scene)


def test_the_loop_runs_while_a_device_works(tmp_path):
    async def scene():
        executor = InlineExecutor(fake_setup(tmp_path))
        await executor.start()
        executor.submit(0, regress("slow"))
        executor.submit(0, regress("never"))
        turns = 0
        while turns < 5:
            await asyncio.sleep(0.01)
            turns += 1
        await executor.close()
        assert [unit for _, report in await take(executor, 2) for unit in [getattr(report, "unit", None)]] == [
            None,
            ("slow", 0),
        ]

    run(scene)


def test_models_that_cannot_be_loaded_are_reported(tmp_path):
    async def scene():
        executor = InlineExecutor(fake_setup(tmp_path, **{"raise": True}))
        with pytest.raises(RuntimeError):
            await executor.start()
        await executor.close()

    run(scene)


@pytest.mark.parametrize("maker", ["nowhere:make", "executor_fakes:nothing", "executor_fakes", ""])
def test_a_missing_maker(tmp_path, maker):
    async def scene():
        setup = fake_setup(tmp_path)
        executor = InlineExecutor(type(setup)(**{**vars(setup), "maker": maker}))
        with pytest.raises(InputError, match=r"name a function that takes a DeviceSetup as module:function"):
            await executor.start()
        await executor.close()

    run(scene)


@pytest.mark.parametrize(("name", "kind"), [("inline", InlineExecutor), ("pool", PoolExecutor)])
def test_a_configuration_names_its_executor(tmp_path, name, kind):
    config = EngineConfig(folder=tmp_path, executor=name, options={"weights": {"unet": tmp_path / "a"}})
    assert isinstance(open_executor(config, str(tmp_path), lambda facts: None), kind)


def test_frames_of_live_sessions_are_drawn_while_a_command_is_carried_out(tmp_path):
    async def scene():
        executor = InlineExecutor(fake_setup(tmp_path))
        await executor.start()
        assert [report for _, report in await take(executor, 1)] == [ready(0, "fake of embedded")]
        executor.submit(0, regress("slow"))
        executor.draw(0, draw(1, is_still=True))
        executor.draw(0, draw(2))
        gave_way, drawn, regressed = [report for _, report in await take(executor, 3)]
        assert (gave_way.sentence, drawn.jpeg, type(regressed)) == ("", b"2", Regressed)
        await executor.close()

    run(scene)

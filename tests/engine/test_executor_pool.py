"""Devices in processes of their own: they die in every way, and are started again. Workers here have no models."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch
import zmq
from executor_fakes import FACTS, FakeDevice, draw, fake_setup, python_path, simple_spec

from sphinx_nvs.engine.executor import worker
from sphinx_nvs.engine.executor.pool import KERNEL_CACHES, PoolExecutor, Timeouts, environment_of
from sphinx_nvs.engine.executor.wire_codec import MessageError, encode
from sphinx_nvs.engine.malloc_trim import trim_malloc
from sphinx_nvs.engine.types.messages import (
    Begin,
    DeviceLost,
    DeviceReady,
    Drop,
    Refused,
    Regress,
    Regressed,
    Step,
    Stepped,
)
from sphinx_nvs.errors import InputError, SphinxError

READY = DeviceReady(device=0, name="fake of embedded")
LOST = DeviceLost(device=0)


@pytest.fixture(autouse=True)
def _fakes_for_workers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())


def regress(job="a"):
    return Regress(unit=(job, 0), spec=simple_spec(), scene_path="nowhere")


def step(*jobs):
    return Step(units=tuple((job, 1) for job in jobs))


async def take(executor, count):
    """The next `count` reports without their devices, in order."""
    reports = []
    while len(reports) < count:
        reports += [report for _, report in await asyncio.wait_for(executor.next_reports(), 60)]
    return reports


def with_pool(tmp_path, scene, *, options=None, timeouts=None, **more):
    """Carries out a coroutine function of a started pool, and closes it."""

    async def whole():
        executor = PoolExecutor(fake_setup(tmp_path, **(options or {})), timeouts=timeouts, **more)
        await executor.start()
        try:
            await scene(executor)
        finally:
            await executor.close()
        return executor

    executor = asyncio.run(whole())
    assert executor.pids == {}
    assert not executor._folder.exists()


def test_commands_go_there_and_reports_come_back(tmp_path):
    facts = []

    async def scene(executor):
        assert facts == [FACTS]
        assert await take(executor, 1) == [READY]
        executor.submit(0, regress())
        executor.submit(0, step("a", "b"))
        executor.submit(0, Begin(unit=("a", 1), spec=simple_spec(), scene_path="", targets=(0,), photos=(0, 1)))
        executor.submit(0, Drop(units=()))
        made = await take(executor, 3)
        assert [type(report) for report in made[:3]] == [Regressed, Stepped, Refused]
        assert made[0].frames == {0: "f" * 64}
        assert made[1].done == (1, 1)

    with_pool(tmp_path, scene, on_facts=facts.append)


def test_a_worker_that_is_killed_is_lost_and_comes_back_without_what_it_held(tmp_path):
    async def scene(executor):
        assert await take(executor, 1) == [READY]
        executor.submit(0, step("a"))
        executor.submit(0, step("a"))
        assert [report.done for report in await take(executor, 2)] == [(1,), (2,)]
        pid = executor.pids[0]
        os.kill(pid, signal.SIGKILL)
        assert await take(executor, 1) == [LOST]
        executor.submit(0, step("a"))
        assert await take(executor, 1) == [READY]
        assert executor.pids[0] != pid
        executor.submit(0, step("a"))
        (report,) = await take(executor, 1)
        assert report.done == (1,), "what was sent between loss and rebirth must go nowhere"

    with_pool(tmp_path, scene)


@pytest.mark.skipif(not trim_malloc(), reason="this C library has no malloc_trim")
def test_an_idle_worker_gives_back_what_it_freed(tmp_path):
    async def scene(executor):
        assert await take(executor, 1) == [READY]
        memory = psutil.Process(executor.pids[0]).memory_info
        executor.submit(0, regress("hoard"))
        await take(executor, 1)
        busy = memory().rss
        until = time.monotonic() + 30
        while memory().rss > busy - 30 * 2**20:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
        executor.submit(0, regress())
        assert isinstance((await take(executor, 1))[0], Regressed)

    with_pool(tmp_path, scene)


@pytest.mark.parametrize(("busy_s", "times"), [(0.0, 4), (60.0, 0)])
def test_a_busy_worker_returns_freed_memory_periodically(monkeypatch, tmp_path, busy_s, times):
    given = []
    monkeypatch.setattr(worker, "trim_malloc", lambda: given.append(True))
    with zmq.Context() as context:
        pool, down, up, heard = (context.socket(kind) for kind in (zmq.PUSH, zmq.PULL, zmq.PUSH, zmq.PULL))
        down.bind("inproc://down")
        heard.bind("inproc://up")
        pool.connect("inproc://down")
        up.connect("inproc://up")
        for message in (*[encode(regress())] * 3, b"no command"):
            pool.send(message)
        heartbeat = worker.Heartbeat(address="", parent=0, beat_s=1.0, folder=tmp_path)
        with pytest.raises(MessageError):
            worker.carry_out(FakeDevice(), heartbeat, down, up, busy_s)
        for socket in (pool, down, up, heard):
            socket.close(linger=0)
    assert len(given) == times


def test_a_worker_that_dies_of_a_command_is_lost(tmp_path):
    async def scene(executor):
        assert await take(executor, 1) == [READY]
        executor.submit(0, regress("die"))
        executor.submit(0, regress("after"))
        assert await take(executor, 2) == [LOST, READY]

    with_pool(tmp_path, scene)


def test_a_worker_that_hangs_is_killed(tmp_path):
    async def scene(executor):
        assert await take(executor, 1) == [READY]
        pid = executor.pids[0]
        executor.submit(0, regress("sleep"))
        assert await take(executor, 1) == [LOST]
        assert not psutil.pid_exists(pid)

    # Loading is a command, too.
    with_pool(tmp_path, scene, timeouts=Timeouts(beat_s=0.1, command_s=6.0))


def test_a_worker_that_is_silent_is_killed(tmp_path):
    async def scene(executor):
        assert await take(executor, 1) == [READY]
        os.kill(executor.pids[0], signal.SIGSTOP)
        assert await take(executor, 1) == [LOST]

    with_pool(tmp_path, scene, timeouts=Timeouts(beat_s=0.1, silence_s=6.0))


def test_a_worker_that_does_not_end_is_not_waited_for(tmp_path, caplog):
    """A process that the system cannot get rid of holds back neither the loop nor the next process."""

    async def scene(executor):
        assert await take(executor, 1) == [READY]
        process, asked, may_end = executor._children[0]._process, threading.Event(), threading.Event()
        wait = process.wait

        def stays(timeout=None):
            asked.set()
            assert may_end.wait(20), "the loop stands still"
            wait()
            raise subprocess.TimeoutExpired("worker", timeout)

        process.wait = stays
        process.kill()
        while not asked.is_set():
            await asyncio.sleep(0.01)
        may_end.set()
        assert await take(executor, 2) == [LOST, READY]
        executor.submit(0, regress())
        assert isinstance((await take(executor, 1))[0], Regressed)

    with_pool(tmp_path, scene)
    assert "worker does not end and is left running" in caplog.messages


def test_signals_to_end_are_the_parents_business(tmp_path):
    async def scene(executor):
        assert await take(executor, 1) == [READY]
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(executor.pids[0], number)
        executor.submit(0, regress())
        (report,) = await take(executor, 1)
        assert isinstance(report, Regressed)

    with_pool(tmp_path, scene)


def test_models_that_cannot_be_loaded(tmp_path):
    """What went wrong is in the worker's log, not in the sentence."""
    with pytest.raises(SphinxError, match="no worker became ready: the models could not be loaded; see the log"):
        with_pool(tmp_path, None, options={"raise": True}, timeouts=Timeouts(first_wait_s=0.01))


def test_facts_that_cannot_be_used(tmp_path):
    def refuse(facts):
        raise ValueError("what is that?")

    with pytest.raises(SphinxError, match=r"no worker became ready: the pool could not run it \(ValueError\)"):
        with_pool(tmp_path, None, on_facts=refuse, timeouts=Timeouts(first_wait_s=0.01))


def test_a_missing_maker_is_the_users_error(tmp_path):
    setup = fake_setup(tmp_path)

    async def whole():
        await PoolExecutor(type(setup)(**{**vars(setup), "maker": "executor_fakes:nothing"})).start()

    with pytest.raises(SphinxError, match="maker: there is no 'executor_fakes:nothing'") as caught:
        asyncio.run(whole())
    assert caught.value.http_status == 422


MOTHER = """
import asyncio, sys
from executor_fakes import fake_setup
from sphinx_nvs.engine.executor import worker
from sphinx_nvs.engine.executor.wire_codec import MessageError, encode
from sphinx_nvs.engine.executor.pool import PoolExecutor

async def main():
    pool = PoolExecutor(fake_setup("."))
    await pool.start()
    print(pool.pids[0], flush=True)
    await asyncio.sleep(1e6)

asyncio.run(main())
"""


def test_workers_end_with_the_server_however_it_ends():
    server = subprocess.Popen([sys.executable, "-c", MOTHER], stdout=subprocess.PIPE, text=True)
    with server:
        pid = int(server.stdout.readline())
        assert psutil.pid_exists(pid)
        server.kill()
    end = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_worker_has_its_share_of_the_machine(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name in KERNEL_CACHES:
        monkeypatch.delenv(name, raising=False)
    assert environment_of(0, 1) == dict.fromkeys(KERNEL_CACHES, "128")
    for name in KERNEL_CACHES:
        monkeypatch.setenv(name, "7")
    assert environment_of(0, 1) == {}
    assert environment_of(1, 2) == {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment_of(2, 3) == {"CUDA_VISIBLE_DEVICES": "5"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment_of(2, 3) == {}


MANY_SHAPES = """
import psutil, torch
from sphinx_nvs.nn.packed_linear import PackedLinear
linear = PackedLinear(torch.randn(256, 128), torch.randn(256))
memory = psutil.Process().memory_info
for rows in range(1, 450):
    linear(torch.randn(rows, 128))
    if rows == 150:
        before = memory().rss
print(memory().rss - before)
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN here")
def test_a_worker_does_not_keep_the_kernels_of_every_shape(monkeypatch):
    for name in KERNEL_CACHES:
        monkeypatch.delenv(name, raising=False)

    def grown(more):
        environment = {**os.environ, **more, "OMP_NUM_THREADS": "1"}
        return int(subprocess.run([sys.executable, "-c", MANY_SHAPES], env=environment, capture_output=True).stdout)

    assert grown(environment_of(0, 1)) < 0.5 * grown({})


def test_patience_is_above_zero():
    with pytest.raises(InputError, match=r"timeouts.beat_s: it is 0; give a number of seconds above 0"):
        Timeouts(beat_s=0.0)


def test_frames_of_live_sessions_are_drawn_while_a_command_is_carried_out(tmp_path):
    async def scene(executor):
        assert await take(executor, 1) == [READY]
        executor.submit(0, regress("slow"))
        executor.draw(0, draw(1))
        drawn, regressed = await take(executor, 2)
        assert (drawn.jpeg, type(regressed)) == (b"1", Regressed)
        executor.draw(0, draw(2, is_still=True))
        executor.draw(0, draw(3))
        gave_way, drawn = await take(executor, 2)
        assert (gave_way.turn, gave_way.sentence, drawn.jpeg) == (2, "", b"3")

    with_pool(tmp_path, scene)

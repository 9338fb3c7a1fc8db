"""Live sessions of an engine on fake devices: cameras in, frames out, beside jobs and through lost devices."""

import asyncio

from executor_fakes import draw

from sphinx_nvs.engine.live_desk import LiveDesk
from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.scheduler.live_turns import LiveTurns
from sphinx_nvs.engine.types.live import Drawn, NotDrawn


class FakeDevices:
    """Keeps what it was sent until a test answers it."""

    def __init__(self):
        self.sent = []

    def draw(self, device, command):
        self.sent.append((device, command))


class World:
    """A desk with a clock that tests set."""

    def __init__(self, rest_s=0.05):
        self.devices, self.metrics, self.working, self.now = FakeDevices(), Metrics(), set(), 0.0
        self.desk = LiveDesk(
            LiveTurns(0.5, rest_s), self.devices.draw, lambda: self.working, self.metrics, lambda: self.now
        )
        self.desk.device_ready(0)

    def answer(self, sentence=None, seconds=0.02):
        device, command = self.devices.sent.pop(0)
        made = {"session": command.session, "turn": command.turn, "seconds": seconds}
        if sentence is not None:
            self.desk.take(device, NotDrawn(**made, sentence=sentence))
        else:
            self.desk.take(device, Drawn(**made, jpeg=str(command.camera.number).encode(), active_share=0.5))
        return command


def camera(number):
    return draw(number).camera


def run(scene):
    return asyncio.run(asyncio.wait_for(scene(), 20))


def test_the_newest_camera_becomes_a_frame():
    async def scene():
        world = World()
        session = world.desk.open("folder", "key")
        session.move(camera(7))
        session.move(camera(8))
        session.move(camera(9))
        assert world.answer().camera.number == 7
        assert (await session.next()).jpeg == b"7"
        assert world.answer().scene_path == "folder"
        frame = await session.next()
        assert (frame.jpeg, frame.camera.number, frame.is_still) == (b"9", 9, False)
        assert world.metrics.value("live_frames_total", level="regression") == 2

    run(scene)


def test_a_client_that_reads_slowly_gets_the_newest_frame():
    async def scene():
        world = World()
        session = world.desk.open("folder", "key")
        for number in (1, 2, 3):
            session.move(camera(number))
            world.answer()
        assert (await session.next()).jpeg == b"3"
        assert session.dropped == 2

    run(scene)


def test_a_still_is_made_once_the_camera_rests():
    async def scene():
        world = World(rest_s=0.01)
        session = world.desk.open("folder", "key")
        session.move(camera(1))
        world.answer()
        await session.next()
        world.now = 0.02
        while not world.devices.sent:
            await asyncio.sleep(0.005)
        assert world.answer().is_still
        frame = await session.next()
        assert (frame.is_still, frame.active_share) == (True, 0.5)

    run(scene)


def test_a_still_that_gave_way_is_not_shown():
    async def scene():
        world = World(rest_s=0.01)
        session = world.desk.open("folder", "key")
        session.move(camera(1))
        world.answer()
        await session.next()
        world.now = 0.02
        world.desk.dispatch()
        session.move(camera(2))
        assert world.answer(sentence="").is_still
        assert world.answer().camera.number == 2
        assert (await session.next()).jpeg == b"2"

    run(scene)


def test_a_frame_that_cannot_be_made_is_a_sentence_and_is_not_tried_again():
    async def scene():
        world = World()
        session = world.desk.open("folder", "key")
        session.move(camera(4))
        world.answer(sentence="scene: it is damaged")
        frame = await session.next()
        assert (frame.sentence, frame.camera.number) == ("scene: it is damaged", 4)
        assert world.devices.sent == []

    run(scene)


def test_a_lost_device_draws_again_when_it_is_back():
    async def scene():
        world = World()
        session = world.desk.open("folder", "key")
        session.move(camera(1))
        (lost,) = world.devices.sent
        world.desk.device_lost(0)
        assert world.devices.sent == [lost]
        world.desk.device_ready(0)
        world.answer()
        assert world.devices.sent, "the answer of a process that is gone changes nothing"
        world.answer()
        assert (await session.next()).jpeg == b"1"

    run(scene)


def test_a_closed_session_ends_its_reader_and_takes_nothing_more():
    async def scene():
        world = World()
        session = world.desk.open("folder", "key")
        session.move(camera(1))
        reading = asyncio.ensure_future(session.next())
        await asyncio.sleep(0)
        world.desk.close()
        assert await reading is None
        assert world.metrics.value("live_sessions") == 0
        session.close()
        session.move(camera(2))
        world.answer()
        assert world.devices.sent == []

    run(scene)

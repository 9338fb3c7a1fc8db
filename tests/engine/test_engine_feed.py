"""Every listener gets every event once, in order, and leaves nothing when it ends."""

import asyncio

from sphinx_nvs.engine.event_streams import PAGE, EventStreams
from sphinx_nvs.engine.types.jobs import Event, EventKind


class SchedulerState:
    """A store of one job's events."""

    def __init__(self):
        self.events = []
        self.is_over = False
        self.feed = EventStreams(self.read, self.over)

    async def read(self, job_id, after, limit):
        await asyncio.sleep(0)
        return [event for event in self.events if event.seq > after][:limit]

    async def over(self, job_id):
        return self.is_over

    def add(self, kind):
        self.events.append(Event(seq=10 + len(self.events), job_id="j", kind=kind, at_s=0.0))
        self.is_over = self.is_over or kind is EventKind.COMPLETED
        self.feed.wake("j")


async def collect(feed, after=0):
    return [event.seq async for event in feed.listen("j", after)]


def test_what_was_stored_comes_first_then_what_happens():
    async def scene():
        book = SchedulerState()
        book.add(EventKind.QUEUED)
        listeners = [asyncio.create_task(collect(book.feed)) for _ in range(2)]
        await asyncio.sleep(0.01)
        late = asyncio.create_task(collect(book.feed, 10))
        for _ in range(3):
            book.add(EventKind.PROGRESS)
            await asyncio.sleep(0)
        book.add(EventKind.COMPLETED)
        assert [await listener for listener in listeners] == [[10, 11, 12, 13, 14]] * 2
        assert await late == [11, 12, 13, 14]
        assert book.feed.num_listeners == 0

    asyncio.run(asyncio.wait_for(scene(), 5))


def test_more_events_than_a_page_arrive():
    async def scene():
        book = SchedulerState()
        for _ in range(PAGE + 10):
            book.add(EventKind.PROGRESS)
        book.add(EventKind.COMPLETED)
        assert len(await collect(book.feed)) == PAGE + 11

    asyncio.run(asyncio.wait_for(scene(), 5))


def test_a_finished_job_ends_a_stream_that_starts_after_its_last_event():
    async def scene():
        book = SchedulerState()
        book.add(EventKind.COMPLETED)
        assert await collect(book.feed, 10) == []

    asyncio.run(asyncio.wait_for(scene(), 5))


def test_a_disconnected_listener_leaves_nothing():
    async def scene():
        book = SchedulerState()
        task = asyncio.create_task(collect(book.feed))
        await asyncio.sleep(0.01)
        assert book.feed.num_listeners == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert book.feed.num_listeners == 0
        book.add(EventKind.COMPLETED)

    asyncio.run(asyncio.wait_for(scene(), 5))


def test_closing_ends_streams_of_unfinished_jobs():
    async def scene():
        book = SchedulerState()
        book.add(EventKind.QUEUED)
        task = asyncio.create_task(collect(book.feed))
        await asyncio.sleep(0.01)
        book.feed.close()
        assert await task == [10]

    asyncio.run(asyncio.wait_for(scene(), 5))


def test_an_end_that_is_stored_during_the_check_is_delivered():
    async def scene():
        book = SchedulerState()
        book.add(EventKind.QUEUED)

        async def over(job_id):
            if not book.is_over:
                book.add(EventKind.COMPLETED)
            return True

        book.feed = EventStreams(book.read, over)
        task = asyncio.create_task(collect(book.feed, 9))
        await asyncio.sleep(0.01)
        book.feed.wake("j")
        assert await task == [10, 11]

    asyncio.run(asyncio.wait_for(scene(), 5))

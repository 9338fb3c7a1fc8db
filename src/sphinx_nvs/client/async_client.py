"""The client: `calls` and `event_source` say what is sent and how it is read, the methods here send it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import TypeVar, Unpack

import httpx

from sphinx_nvs.client import calls, transport
from sphinx_nvs.client.calls import Call, NoResponse, Response, id_of
from sphinx_nvs.client.deprecated import DeprecatedNames
from sphinx_nvs.client.downloads import result_calls, write_result
from sphinx_nvs.client.event_source import EventSource, Progress, SceneWait
from sphinx_nvs.client.exceptions import JobEndedError
from sphinx_nvs.client.job_options import JobOptions, body_of
from sphinx_nvs.client.retrying import Retrying
from sphinx_nvs.client.runtime import async_call, async_sleep
from sphinx_nvs.client.scene_upload import Cameras, Photo, upload_of
from sphinx_nvs.client.values import Capacity, Event, Health, Job, Level, Model, Plan, Quote, Scene
from sphinx_nvs.json_types import JSONObject

_T = TypeVar("_T")
_Row = TypeVar("_Row", Scene, Job)


class AsyncClient(DeprecatedNames):
    """A client of one server, which threads (`Client`) or tasks of one event loop (`AsyncClient`) may share.

    Methods raise `ApiError` for an error response, with the invalid field, and `UnreachableError` without a response.
    Requests that are safe to repeat are retried first, see `Retrying`.

    Args:
        base_url: the server's URL, as `sphinx-nvs serve` prints it.
        api_key: an API key, if the server needs one.
        timeout: longest wait for a part of a response, seconds.
        retrying: number of attempts and waits between them.
        http: replaces httpx's default transport.

    Raises:
        InputError: the URL or the timeout is invalid.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout: float | int = 60.0,
        retrying: Retrying | None = None,
        http: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retrying = retrying or Retrying()
        self._http = httpx.AsyncClient(transport=http, **transport.settings_of(base_url, api_key, timeout))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    # Scenes ---------------------------------------------------------------------------------------------------------

    async def upload_scene(
        self,
        source: str | Path | None = None,
        *,
        images: Sequence[Photo] | None = None,
        cameras: Cameras | None = None,
        contexts: int | Sequence[int] | None = None,
        split: int | None = None,
        focal_mm: float | int | None = None,
    ) -> Scene:
        """Uploads photos, with their cameras or without, or a video.

        The cameras of photos without any are found by the server, for which `wait_for_scene` waits.

        Args:
            source: a scene's folder (transforms.json or COLMAP), a folder of photos, a transforms.json whose photos are
                beside it, a zip archive, or a video.
            images: in place of `source`: image files, or the bytes of PNG or JPEG files.
            cameras: cameras of the images: a transforms.json, its content, or a list of its frames in the same order;
                None has them found.
            contexts: photos to keep: their numbers, or how many.
            split: keep the train views of train_test_split_N.json.
            focal_mm: focal length of the camera as that of 35 mm film, for photos without cameras that lost their EXIF.

        Raises:
            InputError: the files cannot be read.
        """
        upload = await async_call(upload_of, source, images, cameras, contexts, split, focal_mm)
        return await self._do(calls.create_scene(upload))

    async def wait_for_scene(
        self,
        scene: Scene | str,
        *,
        progress: Callable[[Scene], object] | None = None,
        timeout_s: float | int | None = None,
    ) -> Scene:
        """Waits until the cameras of a scene's photos are found.

        Args:
            scene: the scene.
            progress: called with every state that is seen.
            timeout_s: time limit in seconds; the search continues after it. None for no limit.

        Returns:
            The scene, which can be used.

        Raises:
            SceneFailedError: the photos do not determine cameras.
            TimeoutError: they are not found within the time limit.
        """
        waiting = SceneWait(timeout_s)
        while not waiting.is_over(found := await self.scene(scene)):
            if progress is not None:
                progress(found)
            await async_sleep(waiting.wait_s)
        if progress is not None:
            progress(found)
        return found

    async def scene(self, scene: Scene | str) -> Scene:
        """Returns the current state of a scene."""
        return await self._do(calls.get_scene(scene))

    def scenes(self) -> AsyncIterator[Scene]:
        """Yields the caller's scenes, newest first; pages are fetched on demand."""
        return self._pages(calls.list_scenes)

    async def scene_cameras(self, scene: Scene | str) -> JSONObject:
        """Returns the cameras of a scene's photos as a transforms.json, each with its image size."""
        return await self._do(calls.scene_cameras(scene))

    async def scene_points(self, scene: Scene | str) -> bytes:
        """Returns the points that were found with a scene's cameras as PLY; scenes that came with cameras have none."""
        return await self._do(calls.scene_points(scene))

    async def scene_photo(self, scene: Scene | str, index: int) -> bytes:
        """Returns one of a scene's stored photos as PNG."""
        return await self._do(calls.scene_photo(scene, index))

    async def delete_scene(self, scene: Scene | str) -> None:
        """Deletes a scene, unless an unfinished job needs it."""
        await self._do(calls.delete_scene(scene))

    # Jobs -----------------------------------------------------------------------------------------------------------

    async def quote(self, scene: Scene | str, **options: Unpack[JobOptions]) -> Quote:
        """Predicts a job's latency and quality; see `JobOptions` for the arguments."""
        return await self._do(calls.quote(body_of(id_of(scene), options)))

    async def create_job(
        self, scene: Scene | str, *, idempotency_key: str | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Creates a job and returns at once, with a quote.

        Args:
            scene: the scene to render.
            idempotency_key: any text; the same key returns the same job. None makes a new one, which all attempts of
                this call share.
            **options: see `JobOptions`.
        """
        return await self._do(calls.create_job(body_of(id_of(scene), options), idempotency_key))

    async def job(self, job: Job | str) -> Job:
        """Returns the current state of a job."""
        return await self._do(calls.get_job(job))

    def jobs(self) -> AsyncIterator[Job]:
        """Yields the caller's jobs, newest first; pages are fetched on demand."""
        return self._pages(calls.list_jobs)

    async def cancel(self, job: Job | str) -> Job:
        """Cancels a job; a finished job is not changed."""
        now = await self.job(job)
        return now if now.is_final else await self._do(calls.cancel(now))

    async def delete_job(self, job: Job | str) -> None:
        """Deletes a job and its files; cancels it first if it is unfinished."""
        # The first request cancels an unfinished job, the second deletes it.
        if not await self._do(calls.delete_job(job)):
            await self._do(calls.delete_job(job))

    async def events(
        self, job: Job | str, *, after: int = 0, timeout_s: float | int | None = None
    ) -> AsyncIterator[Event]:
        """Yields a job's past events, then new ones until its end; reconnects when the connection breaks.

        Args:
            job: the job.
            after: number of the last known event.
            timeout_s: time limit in seconds; None for none.

        Raises:
            TimeoutError: the job has not ended within the time limit.
        """
        source = EventSource(job, after, self._retrying, timeout_s)
        while not source.is_over:
            try:
                async with aclosing(self._connection(source)) as events:
                    async for event in events:
                        yield event
            except httpx.TransportError as error:
                source.disconnected(transport.reason_of(error), transport.address_of(self._http))
            await async_sleep(source.wait_s)

    async def wait(
        self,
        job: Job | str,
        *,
        progress: Callable[[float, Event], object] | None = None,
        timeout_s: float | int | None = None,
    ) -> Job:
        """Waits until a job is completed.

        Args:
            job: the job.
            progress: called for each event, with the share of the job that is done, 0..1.
            timeout_s: time limit in seconds; the job continues after it. None for no limit.

        Returns:
            The completed job.

        Raises:
            JobEndedError: the job failed, was cancelled or expired.
            TimeoutError: the job has not ended within the time limit.
        """
        share = Progress((await self.job(job)).num_frames)
        async for event in self.events(job, timeout_s=timeout_s):
            done = share.update(event)
            if progress is not None:
                progress(done, event)
        ended = await self.job(job)
        if ended.status != "completed":
            raise JobEndedError(ended)
        return ended

    # Results --------------------------------------------------------------------------------------------------------

    async def frame(self, job: Job | str, index: int, *, level: Level = "final") -> bytes:
        """Returns a frame as PNG; `ApiError` with status 409 while it is not ready."""
        return await self._do(calls.frame(job, index, level))

    async def video(self, job: Job | str) -> bytes:
        """Returns the frames as mp4, at the best level at which all exist."""
        return await self._do(calls.video(job))

    async def download(self, job: Job | str, folder: str | Path) -> list[Path]:
        """Writes a completed job's frames, video and cameras to a folder, as `sphinx-nvs render` does.

        Returns:
            The files: `frames/000.png` and so on, `video.mp4`, `transforms.json`.
        """
        job, folder = await self.job(job), Path(folder)
        found = result_calls(job).items()
        return [write_result(folder, name, await self._do(call), job) for name, call in found]

    async def cameras(self, job: Job | str) -> JSONObject:
        """Returns the frames' cameras as a transforms.json."""
        return await self._do(calls.cameras(job))

    async def plan(self, job: Job | str) -> Plan:
        """Returns the plan of every unit so far."""
        return await self._do(calls.plan(job))

    async def plan_image(self, job: Job | str, frame: int = 0) -> bytes:
        """Returns one frame as PNG, tinted brighter the earlier its refinement starts."""
        return await self._do(calls.plan_image(job, frame))

    # The server -----------------------------------------------------------------------------------------------------

    async def models(self) -> list[Model]:
        """Returns the server's models and their licences."""
        return await self._do(calls.models())

    async def capacity(self) -> Capacity:
        """Returns the server's load."""
        return await self._do(calls.capacity())

    async def health(self) -> Health:
        """Returns whether the server is alive and accepts jobs."""
        return calls.health_of(await self._do(calls.live()), await self._do(calls.ready()))

    # Sending --------------------------------------------------------------------------------------------------------

    async def _do(self, call: Call[_T]) -> _T:
        """Sends a request until there is a response that is not retried."""
        failures = 0
        while True:
            outcome = await self._send(call)
            wait_s = self._retrying.wait_s(call, outcome, failures)
            if wait_s is None:
                return call.result(outcome)
            failures += 1
            await async_sleep(wait_s)

    async def _send(self, call: Call[object]) -> Response | NoResponse:
        """Sends a request once."""
        with ExitStack() as stack:
            request = transport.request_of(self._http, call, await async_call(transport.files_for, call, stack))
            try:
                response = await self._http.send(request)
            except httpx.TransportError as error:
                return transport.no_response(error, self._http)
            return transport.response_of(response, response.content)

    async def _connection(self, source: EventSource) -> AsyncGenerator[Event, None]:
        """Yields the events of one connection."""
        call = source.call()
        request = transport.stream_request_of(self._http, call, source.silence_s)
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code != 200:
                source.refused(transport.response_of(response, await response.aread()))
                return
            async for line in response.aiter_lines():
                event = source.take(line)
                if event is not None:
                    yield event
                if source.is_over or source.is_near_timeout:
                    return
        finally:
            await response.aclose()
        source.disconnected("the stream ended early", transport.address_of(self._http))

    async def _pages(self, page: Callable[[str | None], Call[tuple[list[_Row], bool]]]) -> AsyncIterator[_Row]:
        """Yields the items of all pages of a list."""
        after, has_more = None, True
        while has_more:
            rows, has_more = await self._do(page(after))
            for row in rows:
                yield row
            after = rows[-1].id if rows else None

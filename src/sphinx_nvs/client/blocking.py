"""The client that waits: `calls` and `streams` say what is sent and read, here it is sent; `aio` is its twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack

import httpx

from sphinx_nvs.client import calls, transport
from sphinx_nvs.client.calls import Answer, Call, Lost, id_of
from sphinx_nvs.client.downloads import result_calls, write_result
from sphinx_nvs.client.problems import ViewEndedError
from sphinx_nvs.client.retrying import Retrying
from sphinx_nvs.client.streams import Share, Stream
from sphinx_nvs.client.uploads import Cameras, Photo, upload_of
from sphinx_nvs.client.values import Capacity, Event, Health, Level, Model, Plan, Quote, Scene, View
from sphinx_nvs.client.wishes import Wish, body_of

_T = TypeVar("_T")
_Row = TypeVar("_Row", Scene, View)


class Client:
    """A server; threads may share it.

    Methods raise `ApiError` where the server says no, with the field that is wrong, and `UnreachableError` where it
    says nothing: after requests that may be repeated were, see `Retrying`.

    Args:
        base_url: of the server, as `sphinx-nvs serve` prints it.
        api_key: where one is needed.
        timeout: seconds that a part of an answer is waited for.
        retrying: how patient it is with a server that is busy or starts again.
        http: in place of httpx's usual transport.

    Raises:
        InputError: an address that cannot be.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout: float | int = 60.0,
        retrying: Retrying | None = None,
        http: httpx.BaseTransport | None = None,
    ) -> None:
        self._retrying = retrying or Retrying()
        self._http = httpx.Client(transport=http, **transport.settings_of(base_url, api_key, timeout))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes connections."""
        self._http.close()

    # Scenes ---------------------------------------------------------------------------------------------------------

    def upload_scene(
        self,
        source: str | Path | None = None,
        *,
        images: Sequence[Photo] | None = None,
        cameras: Cameras | None = None,
        contexts: int | Sequence[int] | None = None,
        split: int | None = None,
    ) -> Scene:
        """Uploads photos with their cameras.

        Args:
            source: a scene's folder (transforms.json, or COLMAP), a transforms.json whose photos lie beside it, or a
                zip archive.
            images: in place of it: files, or the bytes of PNG or JPEG.
            cameras: of the images: a transforms.json, or its content; or a list of its frames, in their order.
            contexts: photos to keep: their numbers, or how many.
            split: keep the train views of train_test_split_N.json.

        Raises:
            InputError: the files cannot be read.
        """
        return self._do(calls.create_scene(upload_of(source, images, cameras, contexts, split)))

    def scene(self, scene: Scene | str) -> Scene:
        """A scene as it is now."""
        return self._do(calls.get_scene(scene))

    def scenes(self) -> Iterator[Scene]:
        """Your scenes, newest first; pages are fetched as they are needed."""
        return self._pages(calls.list_scenes)

    def scene_cameras(self, scene: Scene | str) -> dict[str, Any]:
        """The cameras of a scene's photos as a transforms.json, each with the size that it is for."""
        return self._do(calls.scene_cameras(scene))

    def scene_photo(self, scene: Scene | str, index: int) -> bytes:
        """One of a scene's photos as it is kept, PNG."""
        return self._do(calls.scene_photo(scene, index))

    def delete_scene(self, scene: Scene | str) -> None:
        """Deletes a scene, unless an unfinished view needs it."""
        self._do(calls.delete_scene(scene))

    # Views ----------------------------------------------------------------------------------------------------------

    def quote(self, scene: Scene | str, **wish: Unpack[Wish]) -> Quote:
        """What views would take and be like; for the arguments see `Wish`."""
        return self._do(calls.quote(body_of(id_of(scene), wish)))

    def create_view(self, scene: Scene | str, *, idempotency_key: str | None = None, **wish: Unpack[Wish]) -> View:
        """Asks for views; comes back at once, with a quote.

        Args:
            scene: of which.
            idempotency_key: any text; the same one gives the same view again. None makes a new one, which repeated
                requests of this call share.
            **wish: see `Wish`.
        """
        return self._do(calls.create_view(body_of(id_of(scene), wish), idempotency_key))

    def view(self, view: View | str) -> View:
        """A view as it is now."""
        return self._do(calls.get_view(view))

    def views(self) -> Iterator[View]:
        """Your views, newest first; pages are fetched as they are needed."""
        return self._pages(calls.list_views)

    def cancel(self, view: View | str) -> View:
        """Ends a view; one that has ended stays as it is."""
        now = self.view(view)
        return now if now.is_final else self._do(calls.cancel(now))

    def delete_view(self, view: View | str) -> None:
        """Removes a view and its files, whether it has ended or not."""
        # The first request ends it, unless it has ended; the second one then removes it.
        if not self._do(calls.delete_view(view)):
            self._do(calls.delete_view(view))

    def events(self, view: View | str, *, after: int = 0, timeout_s: float | int | None = None) -> Iterator[Event]:
        """What happened to a view, then what happens, up to its end; broken connections are resumed.

        Args:
            view: which.
            after: number of the last event that is known.
            timeout_s: after which `TimeoutError` is raised; None is never.
        """
        stream = Stream(view, after, self._retrying, timeout_s)
        while not stream.is_over:
            try:
                yield from self._connection(stream)
            except httpx.TransportError as error:
                stream.broken(transport.why_of(error), transport.address_of(self._http))
            time.sleep(stream.wait_s)

    def wait(
        self,
        view: View | str,
        *,
        progress: Callable[[float, Event], object] | None = None,
        timeout_s: float | int | None = None,
    ) -> View:
        """A view once it is completed.

        Args:
            view: which.
            progress: told of each event, with the share of the view that is done, 0..1.
            timeout_s: after which it is not waited for any more; it goes on, nevertheless.

        Raises:
            ViewEndedError: it failed, was cancelled or has expired.
            TimeoutError: it took longer.
        """
        share = Share(self.view(view).num_frames)
        for event in self.events(view, timeout_s=timeout_s):
            done = share.take(event)
            if progress is not None:
                progress(done, event)
        ended = self.view(view)
        if ended.status != "completed":
            raise ViewEndedError(ended)
        return ended

    # Results --------------------------------------------------------------------------------------------------------

    def frame(self, view: View | str, index: int, *, level: Level = "final") -> bytes:
        """A frame as PNG; 409 (`ApiError`) while it is not there."""
        return self._do(calls.frame(view, index, level))

    def video(self, view: View | str) -> bytes:
        """The frames as mp4, of the best level that all of them have."""
        return self._do(calls.video(view))

    def download(self, view: View | str, folder: str | Path) -> list[Path]:
        """Writes a completed view's frames, video and cameras to a folder, as `sphinx-nvs render` does.

        Returns:
            The files: `frames/000.png` and so on, `video.mp4`, `transforms.json`.
        """
        view, folder = self.view(view), Path(folder)
        found = result_calls(view).items()
        return [write_result(folder, name, self._do(call), view) for name, call in found]

    def cameras(self, view: View | str) -> dict[str, Any]:
        """The frames' cameras as a transforms.json."""
        return self._do(calls.cameras(view))

    def plan(self, view: View | str) -> Plan:
        """What is computed, and why."""
        return self._do(calls.plan(view))

    def plan_picture(self, view: View | str, frame: int = 0) -> bytes:
        """One frame as PNG, bright where it is refined from an early step on."""
        return self._do(calls.plan_picture(view, frame))

    # The server -----------------------------------------------------------------------------------------------------

    def models(self) -> list[Model]:
        """What frames are made with, and under which licences."""
        return self._do(calls.models())

    def capacity(self) -> Capacity:
        """How busy the server is."""
        return self._do(calls.capacity())

    def health(self) -> Health:
        """Whether the server is alive, and takes views."""
        return calls.health_of(self._do(calls.live()), self._do(calls.ready()))

    # Sending --------------------------------------------------------------------------------------------------------

    def _do(self, call: Call[_T]) -> _T:
        """Sends a request until there is an answer that counts."""
        failures = 0
        while True:
            outcome = self._send(call)
            wait_s = self._retrying.wait_s(call, outcome, failures)
            if wait_s is None:
                return call.result(outcome)
            failures += 1
            time.sleep(wait_s)

    def _send(self, call: Call[Any]) -> Answer | Lost:
        """Sends it once."""
        with ExitStack() as stack:
            request = transport.request_of(self._http, call, transport.files_for(call, stack))
            try:
                response = self._http.send(request)
            except httpx.TransportError as error:
                return transport.lost_of(error, self._http)
            return transport.answer_of(response, response.content)

    def _connection(self, stream: Stream) -> Iterator[Event]:
        """One connection's events."""
        call = stream.call()
        request = transport.stream_request_of(self._http, call, stream.silence_s)
        response = self._http.send(request, stream=True)
        try:
            if response.status_code != 200:
                stream.answered(transport.answer_of(response, response.read()))
                return
            for line in response.iter_lines():
                event = stream.take(line)
                if event is not None:
                    yield event
                if stream.is_over or stream.is_near_timeout:
                    return
        finally:
            response.close()
        stream.broken("the stream ended early", transport.address_of(self._http))

    def _pages(self, page: Callable[[str | None], Call[tuple[list[_Row], bool]]]) -> Iterator[_Row]:
        """Everything in a list."""
        after, has_more = None, True
        while has_more:
            rows, has_more = self._do(page(after))
            yield from rows
            after = rows[-1].id if rows else None

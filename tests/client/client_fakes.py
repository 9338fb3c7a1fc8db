"""A server in a thread, and the async client behind blocking methods."""

import asyncio
import inspect
import threading

import uvicorn

from sphinx_nvs.client import AsyncClient, Retrying
from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.listening import bound_socket, url_of
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig

QUICK = Retrying(attempts=4, first_wait_s=0.01, longest_wait_s=0.5)


class Served:
    """A server in a thread of its own.

    Args:
        engine: fake.
        port: to listen on; 0 is any.
        settings: of the server.
    """

    def __init__(self, engine, port=0, **settings):
        config = ServerConfig(
            **{"has_demo": False, "key": KeyLimits(rate_per_s=1e6, burst=10**6), "ping_s": 0.05, **settings}
        )
        self.engine, self.app = engine, create_app(engine, config)
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        )
        self._listening = bound_socket(ServerConfig(port=port))
        self.url = url_of(self._listening)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        with self._listening:
            await self._server._serve(sockets=[self._listening])

    def do(self, call, *arguments):
        """Calls a function in the engine's thread."""

        async def done():
            return call(*arguments)

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    def later(self, delay_s, call, *arguments):
        """Calls a function in the engine's thread after a delay."""
        self._loop.call_soon_threadsafe(self._loop.call_later, delay_s, call, *arguments)

    def stop(self):
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


class Waiting:
    """Wraps the async client so that methods block and async iterators become iterators."""

    def __init__(self, *arguments, **settings):
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*arguments, **settings)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def waited(*arguments, **more):
            made = method(*arguments, **more)
            return self._each(made) if inspect.isasyncgen(made) else self._loop.run_until_complete(made)

        return waited

    def _each(self, made):
        try:
            while True:
                yield self._loop.run_until_complete(anext(made))
        except StopAsyncIteration:
            return
        finally:
            self._loop.run_until_complete(made.aclose())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._loop.run_until_complete(self._client.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

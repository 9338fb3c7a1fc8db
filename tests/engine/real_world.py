"""An engine with the real pair of models on small frames."""

import asyncio
from contextlib import asynccontextmanager
from functools import partial

from device_fakes import spec_from, store_scene

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.engine import Engine
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.engine.types.jobs import EventKind
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.scene import read_capture

STEPS, SIZE, WINDOW = 6, 64, 5


class RealWorld:
    """A folder with a scene, and engines on it, one after another.

    Args:
        folder: the engines' folder.
        size: size of the photos, pixels.
        config: further fields of `EngineConfig`.
    """

    def __init__(self, folder, *, size=SIZE, **config):
        self.folder, self.photos = folder, folder / "scenes" / "scene"
        store_scene(self.photos, size=size)
        options = {"num_steps": STEPS}
        self.config = EngineConfig(
            folder=folder, **{"executor": "inline", "window": WINDOW, "options": options, **config}
        )
        self.commands = []
        self._holds, self._reached = _nothing, None

    def spec(self, views, *, size=SIZE, quality=0.97, **fields):
        """A job whose quality no load lowers."""
        capture = read_capture(self.photos)
        path = scene_path("interpolate", capture.cameras([0, 1], size, size), max(2, views))
        return spec_from(path[list(range(views))], quality=quality, min_quality=quality, **fields)

    @asynccontextmanager
    async def engine(self):
        """An engine that has the scene, and whose commands are noted."""
        engine = await Engine.open(self.config)
        try:
            if await engine.library.scene("scene") is None:
                row = {"key_id": "k", "path": str(self.photos), "num_views": 2, "width": SIZE, "height": SIZE}
                await engine.library.add_scene(SceneRow(id="scene", created_s=0.0, **row))
            submit = engine._parts.executor.submit

            def noted(device, command):
                self.commands.append(command)
                if self._holds(command):
                    self._holds = _nothing
                    self._reached.set_result(partial(submit, device, command))
                else:
                    submit(device, command)

            engine._parts.executor.submit = noted
            yield engine
        finally:
            await engine.close()

    @asynccontextmanager
    async def held(self, holds):
        """While the first command that `holds` is true of is kept from its device."""
        self._reached = asyncio.get_running_loop().create_future()
        self._holds = holds
        go_on = await self._reached
        yield
        go_on()


def _nothing(command):
    """True of no command."""
    return False


async def accept(engine, spec, key_id="k"):
    """A new job's id."""
    return (await engine.accept(spec, key_id=key_id))[0].id


async def story(engine, job_id):
    """All that happens to a job."""
    return [event async for event in engine.events(job_id)]


async def first(engine, job_id, kind):
    """The first event of a kind."""
    async for event in engine.events(job_id):
        if event.kind is kind:
            return event
    raise AssertionError(f"{kind} never came")


async def frames(engine, job_id, level="final"):
    """Digests of a job's frames once it is completed, in order."""
    assert (await story(engine, job_id))[-1].kind is EventKind.COMPLETED
    views = (await engine.job(job_id)).spec.num_views
    return [await engine.frame(job_id, index, level) for index in range(views)]


def run(scene, seconds=240):
    """Carries out a coroutine."""
    return asyncio.run(asyncio.wait_for(scene, seconds))

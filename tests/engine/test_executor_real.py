"""The whole way with the real pair of models: a worker is killed in the middle, and the frames are the pipeline's."""

import asyncio
import os
import signal

from device_fakes import spec_from, store_scene

from sphinx_nvs import media
from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.executor.pool import PoolExecutor
from sphinx_nvs.engine.pricing import ProfilePricing
from sphinx_nvs.engine.types.device_setup import setup_of
from sphinx_nvs.engine.types.job_validation import cameras_of
from sphinx_nvs.engine.types.messages import Begin, DeviceLost, DeviceReady, Finish, Regress, Step
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.presets import load_preset
from sphinx_nvs.scene import read_capture

STEPS, SIZE = 6, 64


def test_a_killed_workers_frames_are_the_same_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path / "home"))
    store_scene(tmp_path / "photos")
    scene = read_capture(tmp_path / "photos").load([0, 1], SIZE, SIZE)
    spec = spec_from(scene_path("interpolate", scene.cameras, 3), quality=1.0, seed=5)
    made, prices = asyncio.run(through_a_pool(tmp_path, spec))
    expected = load_preset(num_steps=STEPS)(scene, cameras_of(spec), quality=1.0, seed=5).frames
    artifacts = ArtifactStore(tmp_path / "artifacts")
    assert [artifacts.read(made[target]) for target in range(3)] == [media.png_bytes(frame) for frame in expected]
    assert prices.rungs[-1].seconds > prices.rungs[0].seconds >= 0


async def through_a_pool(folder, spec):
    """Frames of a job whose first worker dies in the middle of it, and its prices."""
    pricing = ProfilePricing(48)
    pool = PoolExecutor(setup_of("embedded", folder / "artifacts", {"num_steps": STEPS}), 1, pricing.learn)
    await pool.start()

    async def answer(command=None):
        if command is not None:
            pool.submit(0, command)
        ((_, report),) = await asyncio.wait_for(pool.next_reports(), 120)
        return report

    where = str(folder / "photos")
    begin = Begin(unit=("j", 1), spec=spec, scene_path=where, targets=(0, 1, 2), photos=(0, 1), quality=1.0)
    try:
        assert isinstance(await answer(), DeviceReady)
        preview = await answer(Regress(unit=("j", 0), spec=spec, scene_path=where))
        assert sorted(preview.frames) == [0, 1, 2]
        assert (await answer(begin)).steps == STEPS
        assert (await answer(Step(units=(("j", 1),)))).done == (1,)
        os.kill(pool.pids[0], signal.SIGKILL)
        assert isinstance(await answer(), DeviceLost)
        assert isinstance(await answer(), DeviceReady)
        for _ in range((await answer(begin)).steps):
            await answer(Step(units=(("j", 1),)))
        finished = await answer(Finish(unit=("j", 1)))
    finally:
        await pool.close()
    return finished.frames, pricing.table(contexts=2, views=3, height=SIZE, width=SIZE)

"""Frames of live sessions with the real pair on small frames: what the pipeline makes, as JPEG."""

import io
from dataclasses import fields, replace

import numpy as np
import pytest
from device_fakes import spec_from, store_scene
from PIL import Image

from sphinx_nvs.engine.device.live_painter import LivePainter
from sphinx_nvs.engine.types.live import Draw, LiveCamera, NotDrawn
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.presets import WATERMARK, WatermarkedPipeline, load_preset
from sphinx_nvs.scene import read_capture
from sphinx_nvs.watermark import watermarked

SIZE = 64


@pytest.fixture(scope="module")
def pipeline():
    return load_preset(num_steps=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live") / "photos"
    store_scene(folder, size=80)
    return folder


@pytest.fixture(scope="module")
def scene(folder):
    return read_capture(folder).load([0, 1], SIZE, SIZE)


@pytest.fixture(scope="module")
def painter(pipeline):
    return LivePainter(pipeline)


def command(folder, scene, *, quality=0.998, is_still=False, height=SIZE):
    spec = spec_from(scene_path("interpolate", scene.cameras, 5)[[2]])
    camera = LiveCamera(number=1, c2w=spec.c2w[0], K=spec.K[0], height=height, width=SIZE, quality=quality)
    return Draw(session="a", turn=1, scene_path=str(folder), camera=camera, is_still=is_still)


def never():
    return False


def pixels(report):
    return np.asarray(Image.open(io.BytesIO(report.jpeg))).astype(float) / 255


def difference(report, frames):
    return np.abs(pixels(report) - frames[0].permute(1, 2, 0).float().numpy()).mean()


def test_a_frame_is_the_regressors(painter, pipeline, folder, scene):
    targets = scene_path("interpolate", scene.cameras, 5)[[2]]
    report = painter.draw(command(folder, scene), never)
    assert report.active_share == 0
    assert difference(report, pipeline.prepare(scene, targets).render.rgb) < 0.02


def test_a_still_is_what_the_pipeline_makes_of_this_view(painter, pipeline, folder, scene):
    targets = scene_path("interpolate", scene.cameras, 5)[[2]]
    report = painter.draw(command(folder, scene, is_still=True, quality=1.0), never)
    expected = pipeline(scene, targets, quality=1.0)
    assert report.active_share == 1
    assert difference(report, expected.frames) < 0.02
    assert difference(report, expected.frames) < difference(report, expected.prepared.render.rgb)


def test_sides_of_any_length_are_padded_and_cropped(painter, folder, scene):
    report = painter.draw(command(folder, scene, height=43), never)
    assert Image.open(io.BytesIO(report.jpeg)).size == (SIZE, 43)


def test_a_still_gives_way_between_any_two_stages(painter, folder, scene):
    checks = []
    whole = painter.draw(command(folder, scene, is_still=True), lambda: bool(checks.append(1)))
    assert whole.jpeg
    assert len(checks) >= 3
    for last in range(len(checks)):
        left = iter([False] * last + [True])
        cut = painter.draw(command(folder, scene, is_still=True), left.__next__)
        assert isinstance(cut, NotDrawn)
        assert cut.sentence == ""


def test_a_missing_scene_is_a_sentence_without_a_path(painter, folder, scene):
    report = painter.draw(replace(command(folder, scene), scene_path=str(folder / "gone")), never)
    assert "gone" in report.sentence
    assert str(folder) not in report.sentence


def test_a_fault_of_the_models_is_logged_and_not_shown(pipeline, folder, scene, caplog, monkeypatch):
    def broken(scene):
        raise RuntimeError("an internal reason")

    painter = LivePainter(pipeline)
    monkeypatch.setattr(type(pipeline.regressor), "reconstruct", lambda regressor, scene: broken(scene))
    report = painter.draw(command(folder, scene), never)
    assert report.sentence == "the frame could not be drawn: the server has the reason in its log"
    assert "an internal reason" in caplog.text


def test_frames_of_random_weights_are_marked(pipeline, folder, scene):
    marked = WatermarkedPipeline(
        **{field.name: getattr(pipeline, field.name) for field in fields(pipeline) if field.init}
    )
    report = LivePainter(marked).draw(command(folder, scene), never)
    plain = pipeline.prepare(scene, scene_path("interpolate", scene.cameras, 5)[[2]]).render.rgb
    assert difference(report, watermarked(plain, WATERMARK)) < 0.03
    assert difference(report, plain) > 0.03

"""The size of frames that are not given: the photos' own if that is quick enough on this machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from sphinx_nvs.cli import default_size as module
from sphinx_nvs.cli.default_size import Shape, default_size
from sphinx_nvs.cli.options.render_options import Render
from sphinx_nvs.engine.device.startup_timing import REFERENCE
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.presets import load_preset
from sphinx_nvs.profiling.calibration import network_of
from sphinx_nvs.scene import read_capture

SHAPE = Shape(contexts=2, views=24, window=48)


@pytest.fixture(scope="module")
def pipeline():
    return load_preset()


def machine(pipeline, slowness):
    """The pipeline on a machine so many times slower than the reference."""
    coefficients = {kind: tuple(slowness * value for value in row) for kind, row in REFERENCE.items()}
    model = CostModel(network=network_of(pipeline), coefficients=coefficients, refining_p95=1.2, regressing_p95=1.2)
    return replace(pipeline, cost_model=model)


def photos(short_side):
    """The demo scene as if its photos had this short side."""
    demo = read_capture("demo")
    views = tuple(replace(view, width=short_side * 3 // 2, height=short_side) for view in demo.views)
    return replace(demo, views=views)


def chosen(pipeline, short_side, **options):
    options = Render(scene="demo", out=Path("out"), **options)
    return default_size(photos(short_side), pipeline, options, SHAPE)


def test_a_quick_machine_takes_the_photos_own_size_up_to_a_limit(pipeline):
    quick = machine(pipeline, 0.01)
    assert chosen(quick, 480)[:2] == (480, 720)
    height, width, note = chosen(quick, 2000)
    assert (height, width) == (720, 1080)
    assert note.startswith("frames of 1080x720, some ")
    assert "with --size 384x256 some " in note


def test_the_slower_the_machine_the_smaller_the_frames_down_to_the_presets(pipeline):
    found = [chosen(machine(pipeline, slowness), 2000) for slowness in (0.05, 0.3, 1.0, 3.0, 1000.0)]
    heights = [height for height, _, _ in found]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 720
    assert heights[-1] == 256
    assert len(set(heights)) >= 3
    assert "1080x720 would take some" in found[-1][2]


def test_what_the_request_takes_decides(pipeline):
    slow = machine(pipeline, 1.0)
    assert (
        chosen(slow, 2000, method="regression")[0] > chosen(slow, 2000)[0] >= chosen(slow, 2000, method="diffusion")[0]
    )
    assert chosen(slow, 2000, deadline_s=5.0)[0] < chosen(slow, 2000)[0]


def test_small_photos_and_machines_that_were_never_measured_keep_the_presets_size(pipeline):
    assert chosen(machine(pipeline, 0.01), 200) == (256, 384, "")
    assert chosen(pipeline, 2000, preset="seva-planesweep")[2] == ""


def test_a_machine_that_was_never_measured_is_by_one_small_request_once(pipeline, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "cached_path", lambda pipeline: tmp_path / "costs.json")
    measured = []

    def measure(pipeline):
        measured.append(1)
        return machine(pipeline, 0.01).cost_model

    monkeypatch.setattr(module, "measured_costs", measure)
    assert [chosen(pipeline, 2000)[0] for _ in range(3)] == [720, 720, 720]
    assert len(measured) == 1

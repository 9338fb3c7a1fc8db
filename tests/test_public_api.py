"""The public API: its names and signatures, and an import that costs nothing."""

import inspect
import subprocess
import sys

import pytest
import torch

import sphinx_nvs
from sphinx_nvs.cli.main import main

NAMES = [
    "Cameras",
    "ComputePlan",
    "Denoiser",
    "InputError",
    "LoadOptions",
    "Pipeline",
    "Reconstruction",
    "Regressor",
    "Render",
    "Result",
    "SamplingParams",
    "Scene",
    "SphinxError",
    "__version__",
    "camera_path",
    "load_preset",
    "read_capture",
    "read_scene",
    "register_denoiser",
    "register_preset",
    "register_regressor",
]

PARAMETERS = {
    "camera_path": "name contexts num_frames *median_depth",
    "load_preset": "name *num_steps *exact *cache_gb *compile *device *dtype *offload *random_weights *weights",
    "read_capture": "path_or_name",
    "read_scene": "path_or_name views *height *width",
    "register_denoiser": "name load *size_multiple *parts *cards *cpu_only",
    "register_preset": "name *regressor *denoiser *short_side *window *levers *profile *temperature",
    "register_regressor": "name load *parts *cards",
    "Pipeline.__call__": "self scene targets *method *quality *deadline_s *min_quality *strict *seed *progress",
    "Pipeline.plan": "self scene targets params *progress",
    "Pipeline.run": "self planned *progress",
    "SamplingParams": "*method *quality *min_quality *deadline_s *strict *seed",
    "LoadOptions": "*device *dtype *compile *offload *random_weights *paths",
    "InputError": "where found hint",
}


def test_names_are_pinned_and_all_there():
    assert sphinx_nvs.__all__ == NAMES
    for name in NAMES:
        assert getattr(sphinx_nvs, name) is not None
        assert name in dir(sphinx_nvs)


@pytest.mark.parametrize("name", PARAMETERS)
def test_signatures_are_pinned(name):
    value = sphinx_nvs
    for part in name.split("."):
        value = getattr(value, part)
    found = inspect.signature(value).parameters.values()
    spelled = " ".join(("*" if p.kind is p.KEYWORD_ONLY else "") + p.name for p in found)
    assert spelled == PARAMETERS[name]


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'sphinx_nvs' has no attribute 'render_everything'"):
        sphinx_nvs.render_everything  # noqa: B018


def test_importing_the_package_imports_nothing_that_computes():
    code = "import sys, sphinx_nvs; print(sorted({'torch', 'numpy', 'tyro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_example_of_the_package_runs():
    scene = sphinx_nvs.read_scene("demo", height=64, width=64)
    targets = sphinx_nvs.camera_path("interpolate", scene.cameras, 3)
    result = sphinx_nvs.load_preset("embedded", num_steps=4)(scene, targets, quality=0.95)
    assert result.frames.shape == (3, 3, 64, 64)
    assert torch.isfinite(result.frames).all()


def test_a_scene_has_the_chosen_views_and_size(tmp_path):
    room = tmp_path / "room"
    assert main(["scene", "make", "--seed", "3", "--views", "5", "--size", "96x64", "--out", str(room)]) == 0
    scene, capture = sphinx_nvs.read_scene(room, [4, 0], height=32, width=64), sphinx_nvs.read_capture(room)
    assert torch.equal(scene.images, capture.load([4, 0], 32, 64).images)
    assert sphinx_nvs.read_scene(room).images.shape[0] == len(capture) == 5
    with pytest.raises(sphinx_nvs.InputError, match="size: only one of height and width is given; give both, or"):
        sphinx_nvs.read_scene("demo", height=64)

"""The list of options is pinned; help is fast."""

import re
import subprocess
import sys
from typing import get_args

import pytest

from sphinx_nvs import __version__
from sphinx_nvs.cli.options import profile_options
from sphinx_nvs.cli.options import render_options as options
from sphinx_nvs.geometry.paths import PATH_NAMES
from sphinx_nvs.models.placement import DEVICES, DTYPES
from sphinx_nvs.pipeline.planners import PLANNERS
from sphinx_nvs.plan.profile import SIGNALS
from sphinx_nvs.presets import RANDOM_SIZES, SHIPPED
from sphinx_nvs.procedural import KINDS
from sphinx_nvs.profiling.measuring import METRICS
from sphinx_nvs.sampling_params import METHODS

REQUEST = [
    "--contexts",
    "--split",
    "--targets",
    "--frames",
    "--dataparser",
    "--size",
    "--method",
    "--window",
    "--chunks",
    "--quality",
    "--deadline-s",
    "--min-quality",
    "--strict",
    "--profile",
    "--calibrate",
    "--plan",
    "--preset",
    "--model",
    "--vae",
    "--clip",
    "--mvsplat",
    "--random-weights",
    "--device",
    "--dtype",
    "--offload",
    "--steps",
    "--exact",
    "--cache-gb",
    "--compile",
    "--seed",
]
"""Options that `render` and `plan` share."""

FLAGS = {
    ("render",): [*REQUEST, "--replay", "--out", "--overwrite", "--json"],
    ("plan",): [*REQUEST, "--plot", "--save-plan", "--overwrite", "--json"],
    ("scene", "make"): ["--seed", "--kind", "--views", "--size", "--out", "--overwrite", "--json"],
    ("scene", "inspect"): ["--plot", "--overwrite", "--json"],
    ("models", "list"): ["--json"],
    ("models", "show"): ["--json"],
    ("models", "pull"): ["--from", "--source", "--accept-licence", "--overwrite"],
    ("models", "verify"): ["--json"],
    ("eval",): [
        "--data",
        "--methods",
        "--out",
        "--preset",
        "--quick",
        "--size",
        "--views",
        "--splits",
        "--seeds",
        "--repeats",
        "--metrics",
        "--clock",
        "--device",
        "--random-weights",
        "--json",
    ],
    ("profile",): [
        "--preset",
        "--scenes",
        "--out",
        "--name",
        "--metric",
        "--against",
        "--signal",
        "--quick",
        "--size",
        "--views",
        "--steps",
        "--device",
        "--random-weights",
        "--calibrate",
        "--overwrite",
        "--json",
    ],
    ("profile-show",): ["--json"],
    ("bench",): [
        "--preset",
        "--methods",
        "--scene",
        "--size",
        "--repeats",
        "--clock",
        "--device",
        "--random-weights",
        "--json",
    ],
}


FLAGS |= {
    ("bench", "serve"): [
        "--pattern",
        "--trace",
        "--save-trace",
        "--seconds",
        "--seed",
        "--devices",
        "--prices",
        "--url",
        "--api-key",
        "--scene",
        "--real",
        "--rounds",
        "--json",
    ],
    ("serve",): [
        "--host",
        "--port",
        "--folder",
        "--database",
        "--artifacts",
        "--preset",
        "--devices",
        "--keys",
        "--rate",
        "--views",
        "--scenes",
        "--storage-gb",
        "--streams",
        "--queue",
        "--frames",
        "--attempts",
        "--upload-mb",
        "--keep-h",
        "--keep-scenes-h",
        "--drain-s",
        "--trusted-proxies",
        "--hosts",
        "--cors",
        "--no-demo",
        "--no-metrics",
        "--log-format",
        "--log-level",
        "--model",
        "--vae",
        "--clip",
        "--mvsplat",
        "--random-weights",
        "--device",
        "--dtype",
        "--offload",
        "--compile",
        "--cache-gb",
        "--remember-mb",
        "--steps",
        "--window",
        "--packing",
        "--calibrate",
    ],
    ("studio",): ["--port", "--folder", "--preset", "--api-key", "--no-browser"],
    ("keys", "create"): [
        "--rate",
        "--views",
        "--scenes",
        "--storage-gb",
        "--streams",
        "--folder",
        "--database",
        "--json",
    ],
    ("keys", "list"): ["--folder", "--database", "--json"],
    ("keys", "revoke"): ["--folder", "--database", "--json"],
    ("doctor",): ["--json"],
    ("completion",): [],
}


@pytest.mark.parametrize("command", FLAGS)
def test_list_of_options(run, command):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert re.findall(r"^\W*(--[a-z][a-z-]*)", outcome.out, re.MULTILINE) == FLAGS[command]


@pytest.mark.parametrize("command", [(), *FLAGS])
def test_help_teaches_by_example(run, command):
    assert "  sphinx-nvs " in run(*command, "--help").out


def test_help_names_every_path(run):
    text = re.sub(r"[^\w.,-]+", " ", run("render", "--help").out)
    assert all(name.replace("dolly zoom", "dolly-zoom") in text for name in PATH_NAMES)


def test_choices_match_the_libraries():
    """The choices are duplicated, because help must not import torch."""
    assert get_args(options.Method) == METHODS
    assert get_args(options.Planner) == PLANNERS
    assert set(get_args(options.Kind)) == {*KINDS, "mixed"}
    assert options.Render.__dataclass_fields__["preset"].default in SHIPPED
    assert get_args(options.RandomSize) == RANDOM_SIZES
    assert get_args(options.Device) == DEVICES
    assert get_args(options.Dtype) == ("auto", *DTYPES)
    assert get_args(profile_options.Metric) == METRICS
    assert get_args(profile_options.Signal) == SIGNALS


def test_version(run):
    outcome = run("--version")
    assert (outcome.code, outcome.out) == (0, f"sphinx-nvs {__version__}\n")


def test_help_does_not_wait_for_torch():
    program = (
        "import sys; from sphinx_nvs.cli import main; code = main(['--version']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_render_imports_only_what_it_computes_with(tmp_path):
    """Each of these takes a tenth of a second to two seconds to import, at every start."""
    program = (
        "import sys; from sphinx_nvs.cli import main\n"
        f"out = {str(tmp_path / 'out')!r}\n"
        "code = main(['render', 'demo', '--frames', '2', '--size', '64x64', '--method', 'regression', '--out', out])\n"
        "spared = ['pycolmap', 'fastapi', 'sqlalchemy', 'zmq', 'torch._dynamo', 'torch._inductor', 'torchmetrics',\n"
        "          'sympy', 'pandas', 'scipy.stats', 'scipy.ndimage', 'scipy.interpolate', 'scipy.spatial',\n"
        "          'skimage.io', 'matplotlib', 'diffusers', 'transformers', 'triton']\n"
        "sys.exit(code or ', '.join(name for name in spared if name in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

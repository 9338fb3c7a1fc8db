"""What is released: an sdist, and a wheel that works in an environment of its own, outside of the checkout."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from sphinx_nvs import __version__

ROOT = Path(__file__).parents[1]


def _run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Runs commands of an environment that has the wheel, and sees this environment's other packages (PyTorch)."""
    folder = tmp_path_factory.mktemp("installed")
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    python = folder / "env" / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", built[1])
    (packages,) = (folder / "env" / "lib").glob("*/site-packages")
    # Paths in a .pth file come behind the environment's own, and .pth files there (the editable install) are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["SPHINX_NVS_HOME"] = str(folder / "home")

    def run(command, *words):
        return _run(folder / "env" / "bin" / command, *words, cwd=folder, env=environment)

    return run


def test_versions_agree():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited[1] == __version__


def test_the_sdist_holds_the_sources_and_nothing_that_was_made(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "CHANGELOG.md", "src/sphinx_nvs/__init__.py", "tests/conftest.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "out/", "runs/"))]


def test_the_wheel_holds_every_file_of_the_package(built):
    files = [path.relative_to(ROOT / "src") for path in (ROOT / "src" / "sphinx_nvs").rglob("*") if path.is_file()]
    sources = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    with zipfile.ZipFile(built[1]) as archive:
        assert {name for name in archive.namelist() if name.startswith("sphinx_nvs/")} == sources


def test_the_installed_wheel_renders_outside_of_the_checkout(installed, tmp_path):
    assert installed("sphinx-nvs", "--version") == f"sphinx-nvs {__version__}\n"
    where = Path(installed("python", "-c", "import sphinx_nvs; print(sphinx_nvs.__file__)").strip())
    assert ROOT not in where.parents
    out = tmp_path / "demo.mp4"
    words = ("--size", "96x64", "--frames", "2", "--steps", "2", "--json", "--out", out)
    report = json.loads(installed("sphinx-nvs", "render", "demo", *words).splitlines()[-1])
    assert report
    assert out.stat().st_size > 1000


def test_the_installed_wheel_passes_the_doctor(installed):
    report = json.loads(installed("sphinx-nvs", "doctor", "--json").splitlines()[-1])
    assert report["works"]
    assert report["version"] == __version__

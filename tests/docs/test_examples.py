"""Each numbered example runs as it stands, within its size, and ends in the pictures that it names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sphinx_nvs.media import read_image

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_LINES = 48


def written_by(example):
    """The pictures that the example's first lines promise."""
    return re.findall(r"out/[\w.]+\.png", example.read_text().split('"""')[1])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_numbered_short_and_names_its_picture(example):
    assert re.fullmatch(r"\d\d_\w+", example.stem)
    assert len(example.read_text().splitlines()) <= MAX_LINES
    assert written_by(example)
    assert f"python examples/{example.name}" in example.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_writes_its_picture(example, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in written_by(example):
        picture = read_image(tmp_path / name)
        assert picture.std() > 0.05, f"{name} is blank"

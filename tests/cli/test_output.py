"""The place of a result while it is made."""

import subprocess
import sys

import pytest

from sphinx_nvs.cli.output import claimed
from sphinx_nvs.errors import OutputError

HOLDER = """
import pathlib, sys
from sphinx_nvs.cli.output import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_render_into_one_place_is_refused_while_the_first_runs(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another render is writing there"), claimed(out):
            pass
        with claimed(tmp_path / "other"):
            pass
        first.kill()
        first.wait()
    with claimed(out):
        pass

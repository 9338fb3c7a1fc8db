"""What README and tutorial tell people to type runs as it stands there."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from snippets import snippets_of

from sphinx_nvs.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "tutorial").glob("*.md")))


def page_id(page):
    return str(page.relative_to(ROOT))


def pages_with(action):
    return [page for page in PAGES if any(snippet.action == action for snippet in snippets_of(page))]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder of its own, in which `sphinx-nvs` is this checkout's command."""
    command = tmp_path / "bin" / "sphinx-nvs"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sphinx_nvs.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def run_shell(snippet):
    """Runs our own commands in this process, which has imported everything, and others in a shell."""
    place, lines = f"{page_id(snippet.page)}:{snippet.line}", snippet.code.splitlines()
    if all(line.startswith("sphinx-nvs ") for line in lines) and not set("|&;<>$\\") & set(snippet.code):
        for line in lines:
            assert main(shlex.split(line)[1:]) == 0, f"{place}: {line}"
        return
    done = subprocess.run(["bash", "-euc", snippet.code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{place}\n{done.stderr}"


def run_python(snippet, names):
    code = compile("\n" * (snippet.line - 1) + snippet.code, str(snippet.page), "exec")
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_says_whether_it_runs_and_why_not(page):
    for snippet in snippets_of(page):
        place = f"{page_id(page)}:{snippet.line}"
        assert snippet.action, f"{place} has no marker; put <!-- snippet: run --> before it"
        assert snippet.action == "run" or snippet.reason, f"{place} is skipped without a reason"


@pytest.mark.parametrize("page", pages_with("run"), ids=page_id)
def test_blocks_run(page, commands):
    names = {"__name__": "page"}
    for snippet in snippets_of(page):
        if snippet.action == "run":
            run_shell(snippet) if snippet.language == "sh" else run_python(snippet, names)


@pytest.mark.parametrize("page", pages_with("skip"), ids=page_id)
def test_python_that_is_skipped_is_valid(page):
    for snippet in snippets_of(page):
        if snippet.action == "skip" and snippet.language == "python":
            compile(snippet.code, f"{page}:{snippet.line}", "exec")

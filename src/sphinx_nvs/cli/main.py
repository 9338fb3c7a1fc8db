"""Entry point of the command: parses options and returns an exit code; a user error is one sentence, no traceback.

Exit codes: 0 success, 1 internal error, 2 invalid input, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from sphinx_nvs import __version__
from sphinx_nvs.cli.options.bench_serve_options import BenchServe
from sphinx_nvs.cli.options.doctor_options import Completion, Doctor
from sphinx_nvs.cli.options.eval_options import Bench, Eval
from sphinx_nvs.cli.options.pose_options import Poses
from sphinx_nvs.cli.options.profile_options import Profile, ProfileShow
from sphinx_nvs.cli.options.render_options import (
    Command,
    ModelsCommand,
    Plan,
    Render,
    SceneInspect,
    SceneMake,
    parse,
    print_completion,
)
from sphinx_nvs.cli.options.serve_options import KeysCommand, Serve
from sphinx_nvs.cli.options.studio_options import Studio
from sphinx_nvs.errors import SphinxError

DEBUG = "SPHINX_DEBUG"
"""Environment variable: set to 1 to see tracebacks."""


class _Terminated(BaseException):
    """Raised on SIGTERM, so that it unwinds and cleans up as Ctrl-C does."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        sys.stdout.write(f"sphinx-nvs {__version__}\n")
        return 0
    try:
        options = parse(argv)
    except BrokenPipeError:
        return _closed_pipe()
    # Read when torch is imported later: idle OpenMP threads sleep instead of spinning on shared cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return _guarded(lambda: _run(options), _interrupted_note(options))


def _interrupted_note(options: Command) -> str:
    """The sentence about what an interrupted command leaves behind."""
    if isinstance(options, Eval):
        return "scenes measured so far are kept"
    if isinstance(options, Profile):
        return f"scenes measured so far are kept in {options.folder}; the same command continues"
    if isinstance(options, Serve | Studio):
        return "unfinished views continue when the same folder is served again"
    if isinstance(options, Poses):
        return "finished stages are kept; the same command continues"
    return "nothing was written"


def _run(options: Command) -> None:
    """Imports what the command needs, and runs it."""
    # Imports wait until the options are known to be valid: torch alone takes longer than a wrong option's sentence.
    if isinstance(options, Render):
        from sphinx_nvs.cli.render import render

        render(options)
    elif isinstance(options, Plan):
        from sphinx_nvs.cli.plan import plan

        plan(options)
    elif isinstance(options, Poses):
        from sphinx_nvs.cli.poses import poses

        poses(options)
    elif isinstance(options, SceneMake):
        from sphinx_nvs.cli.scene_command import make

        make(options)
    elif isinstance(options, SceneInspect):
        from sphinx_nvs.cli.scene_command import inspect

        inspect(options)
    elif isinstance(options, ModelsCommand):
        from sphinx_nvs.cli.models import models

        models(options)
    elif isinstance(options, Eval):
        from sphinx_nvs.cli.eval_command import run_eval

        run_eval(options)
    elif isinstance(options, Bench):
        from sphinx_nvs.cli.eval_command import run_bench

        run_bench(options)
    elif isinstance(options, BenchServe):
        from sphinx_nvs.cli.bench_serve import bench_serve

        bench_serve(options)
    elif isinstance(options, Profile):
        from sphinx_nvs.cli.profile_command import profile

        profile(options)
    elif isinstance(options, ProfileShow):
        from sphinx_nvs.cli.profile_command import show

        show(options)
    elif isinstance(options, Serve):
        from sphinx_nvs.cli.serve import serve

        serve(options)
    elif isinstance(options, Studio):
        from sphinx_nvs.cli.studio import studio

        studio(options)
    elif isinstance(options, KeysCommand):
        from sphinx_nvs.cli.keys_command import keys

        keys(options)
    elif isinstance(options, Doctor):
        from sphinx_nvs.cli.doctor import doctor

        doctor(options)
    elif isinstance(options, Completion):
        print_completion(options.shell)


def _guarded(work: Callable[[], None], left: str) -> int:
    """Runs `work`; converts every outcome to an exit code and at most one sentence.

    Args:
        work: the command.
        left: what an interrupted command leaves behind.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        work()
        sys.stdout.flush()
    except SphinxError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {left}", 130)
    except _Terminated:
        return _fail(f"terminated; {left}", 143)
    except BrokenPipeError:
        return _closed_pipe()
    except Exception as error:
        first_line = f"{type(error).__name__}: {error}".splitlines()[0]
        return _fail(f"internal error, {first_line}; please report it with what {DEBUG}=1 prints", 1)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _fail(sentence: str, code: int) -> int:
    if os.environ.get(DEBUG) == "1":
        traceback.print_exc()
    sys.stderr.write(f"sphinx-nvs: {sentence}\n")
    return code


def _closed_pipe() -> int:
    """Handles a closed pipe: the reader stopped early, and Python would report it again on its flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # 128 + SIGPIPE is what a shell reports of a program that this signal ended.
    return 141

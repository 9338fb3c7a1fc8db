"""The command's entry: options in, exit code out; a user's mistake is one sentence, never a traceback.

Exit codes: 0 done, 1 our fault, 2 the user's input, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from sphinx_nvs import __version__
from sphinx_nvs.cli.options.bench_serve import BenchServe
from sphinx_nvs.cli.options.doctor import Completion, Doctor
from sphinx_nvs.cli.options.eval import Bench, Eval
from sphinx_nvs.cli.options.profile import Profile, ProfileShow
from sphinx_nvs.cli.options.render import (
    Command,
    ModelsCommand,
    Plan,
    Render,
    SceneInspect,
    SceneMake,
    parse,
    print_completion,
)
from sphinx_nvs.cli.options.serve import KeysCommand, Serve
from sphinx_nvs.errors import SphinxError

DEBUG = "SPHINX_DEBUG"
"""Environment variable: set to 1 to see tracebacks."""


class _Terminated(BaseException):
    """A SIGTERM, so that it unwinds and cleans up as Ctrl-C does."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after the program's name; None for the process's own.

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
        return _unheard()
    # Read when torch is imported, later: idle OpenMP threads sleep instead of spinning on shared cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return _guarded(lambda: _run(options), _left(options))


def _left(options: Command) -> str:
    """What there is if the command is cut short."""
    if isinstance(options, Eval):
        return "scenes measured so far are kept"
    if isinstance(options, Profile):
        return f"scenes measured so far are kept in {options.folder}; the same command goes on"
    if isinstance(options, Serve):
        return "unfinished views go on when the same folder is served again"
    return "nothing was written"


def _run(options: Command) -> None:
    """Imports what the command needs, and runs it."""
    if isinstance(options, Render):
        from sphinx_nvs.cli.render import render

        render(options)
    elif isinstance(options, Plan):
        from sphinx_nvs.cli.plan import plan

        plan(options)
    elif isinstance(options, SceneMake):
        from sphinx_nvs.cli.scene import make

        make(options)
    elif isinstance(options, SceneInspect):
        from sphinx_nvs.cli.scene import inspect

        inspect(options)
    elif isinstance(options, ModelsCommand):
        from sphinx_nvs.cli.models import models

        models(options)
    elif isinstance(options, Eval):
        from sphinx_nvs.cli.evaluate import run_eval

        run_eval(options)
    elif isinstance(options, Bench):
        from sphinx_nvs.cli.evaluate import run_bench

        run_bench(options)
    elif isinstance(options, BenchServe):
        from sphinx_nvs.cli.bench_serve import bench_serve

        bench_serve(options)
    elif isinstance(options, Profile):
        from sphinx_nvs.cli.profile import profile

        profile(options)
    elif isinstance(options, ProfileShow):
        from sphinx_nvs.cli.profile import show

        show(options)
    elif isinstance(options, Serve):
        from sphinx_nvs.cli.serve import serve

        serve(options)
    elif isinstance(options, KeysCommand):
        from sphinx_nvs.cli.keys import keys

        keys(options)
    elif isinstance(options, Doctor):
        from sphinx_nvs.cli.doctor import doctor

        doctor(options)
    elif isinstance(options, Completion):
        print_completion(options.shell)


def _guarded(work: Callable[[], None], left: str) -> int:
    """Runs `work`; every way it can end becomes an exit code and at most one sentence.

    Args:
        work: the command.
        left: what there is if it is cut short.
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
        return _unheard()
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


def _unheard() -> int:
    """Whoever read our output has enough; Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141

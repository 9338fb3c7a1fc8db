"""What an upload's process does in tests, in the place of `make_scene`; imports little, since processes import it."""

import os
import signal
import time
from pathlib import Path

from sphinx_nvs.errors import InputError
from sphinx_nvs.server.scenes import ingest_pool, limited_process
from sphinx_nvs.server.scenes.ingest import StoredScene

MADE = StoredScene(num_views=1, width=2, height=3, bytes=4, warnings=("w",))


def makes(*_):
    return MADE


def refuses(*_):
    raise InputError("photo a.png", "it is odd", "send another")


def takes_memory(*_):
    return bytearray(2 << 30)


def takes_time(*_):
    time.sleep(60)


def takes_processor_time(*_):
    while True:
        pass


def dies(*_):
    os.kill(os.getpid(), signal.SIGSEGV)


def is_killed_twice(_source, _folder, attempts, _limits):
    """By the system, say; a file counts the attempts."""
    with attempts.open("a") as file:
        file.write("x")
    if len(attempts.read_text()) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return MADE


def is_always_killed(_source, _folder, attempts, _limits):
    with attempts.open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def loses_its_forkserver(_source, _folder, attempts, _limits):
    with attempts.open("a") as file:
        file.write("x")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1.5)
    return MADE


def works_on(connection, attempts):
    """A process that nothing but the end of its connection ends."""
    limited_process.begin(connection, cpu_seconds=60, memory_bytes=1 << 30)
    attempts.write_text("begun")
    time.sleep(60)


class FakeWork:
    """Has a process call another function than `make_scene`."""

    def __init__(self, function, limits, request=None):
        self.function, self.limits, self.request = function, limits, request
        self.source = self.folder = Path("missing")


def decode_with(connection, work):
    ingest_pool.make_scene = work.function
    ingest_pool._decode(connection, work)

"""What an upload's process does in tests, in the place of `make_scene`; imports little, since processes import it."""

import os
import signal
import time

from sphinx_nvs.errors import InputError
from sphinx_nvs.server.scenes import ingest_pool
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


class FakeWork:
    """Has a process call another function than `make_scene`."""

    def __init__(self, function, limits):
        self.function, self.limits = function, limits
        self.source = self.folder = self.request = None


def decode_with(connection, work):
    ingest_pool.make_scene = work.function
    ingest_pool._decode(connection, work)

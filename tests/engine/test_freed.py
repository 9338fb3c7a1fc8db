"""What threads free does not stay with the process."""

import subprocess
import sys

import pytest

from sphinx_nvs.engine.malloc_trim import trim_malloc

# In a process of its own: how much of an arena is free depends on what ran before.
SCRIPT = """
import threading
from pathlib import Path
from sphinx_nvs.engine.malloc_trim import trim_malloc

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def work():
    # Blocks of 16 KB are in the thread's arena; the one that stays keeps those before it from being returned.
    blocks = [bytearray(16384) for _ in range(4096)]
    kept.append(blocks[-1])

kept = []
for _ in range(2):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
before = resident()
assert trim_malloc()
print((before - resident()) // 2**20)
"""


def test_freed_memory_goes_back_to_the_system():
    if not trim_malloc():
        pytest.skip("this C library has no malloc_trim")
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 30

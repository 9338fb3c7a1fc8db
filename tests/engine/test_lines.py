"""Lines of the log: of a process by itself, and of a worker's."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
import threading

import pytest
from executor_fakes import fake_setup, python_path

from sphinx_nvs.engine.executor.child import WORKER
from sphinx_nvs.engine.logs import LOG_FORMAT, line_formatter


def record(**more):
    """A message as the device writes it when a command fails."""
    extra = {"command": "Step", "units": [["job_7", 1]], **more}
    return logging.getLogger("sphinx_nvs.engine.device.device").makeRecord(
        "sphinx_nvs.engine.device.device", logging.ERROR, "f", 1, "command failed", (), None, extra=extra
    )


def test_a_json_line_names_its_job():
    line = json.loads(line_formatter(is_json=True).format(record()))
    assert (line["event"], line["level"], line["logger"]) == (
        "command failed",
        "error",
        "sphinx_nvs.engine.device.device",
    )
    assert (line["units"], line["command"]) == ([["job_7", 1]], "Step")
    assert line["timestamp"].endswith("Z")


def test_a_text_line_names_its_job():
    line = line_formatter(is_json=False).format(record())
    assert "command failed" in line
    assert "job_7" in line


def first_line_of_a_worker(folder, events):
    """What a worker writes that cannot load its models."""
    business = {"setup": dataclasses.asdict(fake_setup(folder, **{"raise": True})), "parent": os.getpid()}
    business |= {"up": f"ipc://{folder}/up", "down": f"ipc://{folder}/down", "beat_s": 1.0}
    environment = {**os.environ, "PYTHONPATH": python_path(), **({} if events is None else {LOG_FORMAT: events})}
    command = [sys.executable, "-m", WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdin.write(json.dumps(business).encode())
        process.stdin.close()
        timer = threading.Timer(60, process.kill)
        timer.start()
        line = process.stderr.readline().decode()
        timer.cancel()
        process.kill()
    return line


@pytest.mark.parametrize("events", [None, "json"])
def test_a_worker_that_writes_to_no_terminal_writes_json(tmp_path, events):
    line = json.loads(first_line_of_a_worker(tmp_path, events))
    assert (line["event"], line["level"]) == ("the models could not be loaded", "error")
    assert line["logger"].endswith("worker") or line["logger"] == "__main__"
    assert line["exception"][0]["frames"]


def test_a_worker_writes_text_if_configured(tmp_path):
    line = first_line_of_a_worker(tmp_path, "text")
    assert "the models could not be loaded" in line
    assert not line.startswith("{")

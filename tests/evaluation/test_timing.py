import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from sphinx_nvs.evaluation.energy import EnergyMeter
from sphinx_nvs.evaluation.timing import StageTimes, Stopwatch


def test_a_stopwatch_separates_wall_and_cpu_time():
    with Stopwatch.running() as watch:
        time.sleep(0.05)
    assert watch.wall_s >= 0.05
    assert watch.cpu_s < 0.04


def test_stages_are_timed_from_their_first_to_their_last_update():
    stages = StageTimes()
    stages("refine", 0, 1)
    stages("refine", 1, 2)
    assert "refine" not in stages.stages_s
    time.sleep(0.02)
    stages("refine", 2, 2)
    stages("refine", 1, 1)
    assert 0.02 <= stages.stages_s["refine"] < 1


def _with_zeus(monkeypatch, monitor):
    zeus, inner = ModuleType("zeus"), ModuleType("zeus.monitor")
    inner.ZeusMonitor = monitor
    monkeypatch.setitem(sys.modules, "zeus", zeus)
    monkeypatch.setitem(sys.modules, "zeus.monitor", inner)


class _Monitor:
    gpu_indices, cpu_indices = (0,), (0, 1)

    def __init__(self, approx_instant_energy):
        self.begun = []

    def begin_window(self, name):
        self.begun.append(name)

    def end_window(self, name):
        assert self.begun.pop() == name
        return SimpleNamespace(gpu_energy={0: 20.0}, cpu_energy={0: 3.0, 1: 4.0})


def test_gpu_and_cpu_energy_are_added(monkeypatch):
    _with_zeus(monkeypatch, _Monitor)
    meter = EnergyMeter.open()
    assert meter.missing is None
    meter.start()
    assert meter.stop() == 27.0


def _refused(approx_instant_energy):
    raise PermissionError("energy_uj")


@pytest.mark.parametrize(
    ("monitor", "missing"),
    [
        (_refused, "unavailable: PermissionError"),
        (lambda **_: SimpleNamespace(gpu_indices=(), cpu_indices=()), "unavailable: no counter can be read"),
    ],
)
def test_unreadable_counters_are_reported(monkeypatch, monitor, missing):
    _with_zeus(monkeypatch, monitor)
    meter = EnergyMeter.open()
    meter.start()
    assert meter.stop() is None
    assert meter.missing == missing


def test_without_zeus_nothing_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    monkeypatch.setitem(sys.modules, "zeus.monitor", None)
    assert EnergyMeter.open().missing == "unavailable: package zeus missing"

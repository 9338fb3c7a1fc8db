"""Figures of what a server holds."""

import pytest

from sphinx_nvs.load_testing.job_watcher import Sample, Watcher, metrics_of, slope
from sphinx_nvs.load_testing.server_process import ServerProcess


def sample(at_s, server_mb):
    return Sample(at_s=at_s, server_mb=server_mb, worker_mb=0.0, fds=1, sockets=0, threads=1, streams=0, unfinished=0)


def test_growth_is_of_the_second_half(tmp_path):
    watcher = Watcher(ServerProcess(tmp_path))
    watcher.samples = [
        sample(float(i), 100.0 + 50 * min(i, 10) + (0.01 * (i - 10) if i > 10 else 0)) for i in range(21)
    ]
    assert watcher.growth_per_h("server_mb") == pytest.approx(36.0)
    assert watcher.growth_per_h("fds") == pytest.approx(0.0)


def test_a_slope_needs_three_points():
    assert slope([0.0, 1.0], [0.0, 5.0]) == 0.0
    assert slope([1.0, 1.0, 1.0], [0.0, 5.0, 7.0]) == 0.0
    assert slope([1.0, 2.0, 3.0], [0.0, 5.0, 10.0]) == pytest.approx(5.0)


def test_counters_are_summed_over_labels():
    text = '# HELP a_total A.\na_total{device="0"} 1.5\na_total{device="1"} 2.0\nb 3\n'
    assert metrics_of(text) == {"a_total": 3.5, "b": 3.0}

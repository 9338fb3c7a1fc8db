import logging
import multiprocessing

import numpy as np
import pytest
import torch
from numba.core.event import Event, EventStatus
from numba.core.registry import cpu_target

from sphinx_nvs.nn import row_bands
from sphinx_nvs.nn.row_bands import in_bands, interleaved


def fill(start, stop, out, whole, number):
    out[start:stop] += number
    whole.append((start, stop, type(number), type(out)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bands_cover_every_row_once(threads):
    before, out, bands = torch.get_num_threads(), torch.zeros(50, 2), []
    try:
        torch.set_num_threads(threads)
        in_bands(lambda start, stop, *rest: fill(start, stop, rest[0], bands, rest[1]), 50, out, 2.0)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, torch.full((50, 2), 2.0))
    assert sorted(bands)[0][0] == 0
    assert len(bands) == threads
    assert {kind for *_, kind, _ in bands} == {np.float32}


def test_few_rows_are_one_band_and_errors_arrive():
    before, bands = torch.get_num_threads(), []

    def broken(start, stop):
        bands.append((start, stop))
        raise ValueError("broken")

    try:
        torch.set_num_threads(4)
        with pytest.raises(ValueError, match="broken"):
            in_bands(broken, 9)
        assert bands == [(0, 9)]
        with pytest.raises(ValueError, match="broken"):
            in_bands(broken, 4, fewest=1)
    finally:
        torch.set_num_threads(before)


def test_a_forked_process_has_threads_of_its_own():
    before, out = torch.get_num_threads(), torch.zeros(64)
    try:
        torch.set_num_threads(2)
        in_bands(lambda start, stop, rows: rows[start:stop].fill(1), 64, out)
        process = multiprocessing.get_context("fork").Process(target=_fill_in_child)
        process.start()
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
        torch.set_num_threads(before)


def _fill_in_child():
    rows = np.zeros(64)
    futures = row_bands._threads(2).submit(rows.fill, 1)
    futures.result(timeout=10)
    assert rows.all()


def test_colours_lie_beside_one_another():
    images = torch.rand(2, 3, 4, 5)
    mixed = interleaved(images)
    assert mixed.is_contiguous()
    assert torch.equal(mixed[..., :3].permute(0, 3, 1, 2), images)


def add_one(start, stop, out):
    for i in range(start, stop):
        out[i] += 1


def test_machine_code_is_read_without_what_compiling_needs(monkeypatch):
    out = torch.zeros(20)
    in_bands(row_bands.compiled(add_one), 20, out)
    monkeypatch.setattr(type(cpu_target.target_context), "refresh", lambda context: pytest.fail("all was loaded"))
    again = row_bands.compiled(add_one)
    in_bands(again, 20, out)
    assert torch.equal(out, torch.full((20,), 2.0))
    assert sum(again.stats.cache_hits.values()) == 1


def test_without_a_folder_for_machine_code_kernels_still_compile(monkeypatch):
    calls = []

    def njit(**options):
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(row_bands, "njit", njit)
    assert row_bands.compiled(fill) is fill
    assert [options.get("cache", False) for options in calls] == [True, False]


def test_compiling_is_said_once(caplog):
    announcement, event = row_bands._Announcement(), Event("numba:compile", {}, EventStatus.START)
    with caplog.at_level(logging.WARNING):
        announcement.on_start(event)
        announcement.on_start(event)
    assert len(caplog.records) == 1

"""Chunk plans, paddings and anchor counts against SEVA's recorded ones, exactly."""

import json

import pytest
import torch

from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.views import pose_distances
from sphinx_nvs.long_paths.anchors import anchor_order, first_pass
from sphinx_nvs.long_paths.chunks import ChunkViews, padded, plan_chunks


@pytest.fixture(scope="module")
def golden(parity_dir):
    return json.loads((parity_dir / "seva_chunks.json").read_text())


def cameras(entry):
    """The recorded ring of cameras."""
    centres = torch.tensor(entry["c2w_xyz"], dtype=torch.float64)
    angles = entry["c2w_yaw_step"] * torch.arange(len(centres), dtype=torch.float64)
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(centres), 1, 1)
    c2w[:, :3, :3] = se3.rotation_about(torch.tensor([[0.0, 1, 0]], dtype=torch.float64).expand_as(centres), angles)
    c2w[:, :3, 3] = centres
    return Cameras(c2w, torch.eye(3, dtype=torch.float64).expand(len(centres), 3, 3), 1, 1)


def views(entry):
    places = {"known_order": entry["input_ords"], "target_order": entry["test_ords"], "given": entry["gt_input_inds"]}
    if entry.get("task") == "img2trajvid":
        chain = [k for k in range(len(entry["input_ords"])) if k not in entry["gt_input_inds"]]
        return ChunkViews(**places, chain=chain)
    ring = cameras(entry)
    known, targets = ring[entry["input_ords"]], ring[entry["test_ords"]]
    to_known, to_targets = pose_distances(targets, known), pose_distances(targets, targets)
    return ChunkViews(**places, to_known=to_known, to_targets=to_targets)


def second(windows):
    """T of the second pass; a single number is both passes'."""
    return windows[1] if isinstance(windows, list) else windows


def planned(entry):
    return plan_chunks(entry["strategy"], views(entry), second(entry.get("T_after", entry["T"])))


def written(chunk, window):
    names = [f"{'!' if slot.known else '>'}{slot.number:03d}" for slot in chunk.slots]
    return names + ["NULL"] * (window - len(names))


def test_chunks(golden):
    assert golden["chunking"]
    for entry in golden["chunking"]:
        window = second(entry.get("T_after", entry["T"]))
        assert [written(chunk, window) for chunk in planned(entry)] == entry["chunks"], entry["strategy"]


def test_padding(golden):
    entries = [entry for entry in golden["chunking"] if "padded" in entry]
    assert entries
    for entry in entries:
        for chunk, expected in zip(planned(entry), entry["padded"], strict=True):
            found = padded(chunk, entry["T"])
            assert list(found.known_slots) == expected["input_sels"]
            assert list(found.target_slots) == expected["test_sels"]
            assert list(found.known_map) == expected["input_map"]
            assert list(found.target_map) == expected["test_map"]


def test_places_of_the_second_pass(golden):
    entries = [entry for entry in golden["chunking"] if "input_sels" in entry]
    assert entries
    for entry in entries:
        chunks = planned(entry)
        assert [[i for i, s in enumerate(c.slots) if s.known] for c in chunks] == entry["input_sels"]
        assert [[i for i, s in enumerate(c.slots) if not s.known] for c in chunks] == entry["test_sels"]


def test_anchors_stand_evenly(golden):
    entries = [entry for entry in golden["chunking"] if "num_anchors" in entry]
    assert entries
    for entry in entries:
        anchors = entry["input_ords"][len(entry["gt_input_inds"]) :]
        assert anchor_order(entry["test_ords"], entry["num_anchors"]) == pytest.approx(anchors, abs=1e-9)


def test_anchor_counts(golden):
    assert golden["anchor_counts"]
    for entry in golden["anchor_counts"]:
        windows = entry["T"] if isinstance(entry["T"], list) else [entry["T"]] * 2
        found = first_pass(entry["chunk_strategy"], entry["num_input"], entry["num_total"], tuple(windows))
        after = entry["T_after"] if isinstance(entry["T_after"], list) else [entry["T_after"]] * 2
        assert found.num_anchors == entry["num_anchors"], entry
        assert [found.window, found.chunk_window] == after, entry

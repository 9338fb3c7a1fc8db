import importlib.util
import sys
from collections import Counter
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.unet import flops
from sphinx_nvs.models.unet.flops import CallShape, active_counts, call_flops, folding_flops, total
from sphinx_nvs.models.unet.network import SEVA, UNet, UNetConfig
from sphinx_nvs.nn.resample import halved_sizes

SEVA_CALL = CallShape(size=(72, 72), num_frames=21, branches=2, context_tokens=1)
SEVA_ROWS = SEVA_CALL.num_frames * SEVA_CALL.branches
REFERENCE_PARTS = {
    flops.RES_CONV: "res conv3x3",
    flops.RES_SKIP: "res skip/emb",
    flops.FILM: "res skip/emb",
    flops.EMBEDDING: "res skip/emb",
    flops.OTHER_CONV: "conv in/out/down/up",
    flops.PROJ: "proj in/out",
    flops.SELF_PROJECTIONS: "self-attn qkvo",
    flops.JOINT_CORE: "joint attn core",
    flops.VIEW_CORE: "spatial attn core",
    flops.CROSS: "cross-attn (2x)",
    flops.FEED_FORWARD: "ff spatial",
    flops.TIME_FEED_FORWARD_IN: "time-mix ff_in",
    flops.TIME_ATTENTION: "time-mix attn",
    flops.TIME_FEED_FORWARD: "time-mix ff",
}


def small(**changes) -> UNetConfig:
    defaults = {
        "in_channels": 5,
        "out_channels": 3,
        "model_channels": 8,
        "channel_mult": (1, 2, 3),
        "num_res_blocks": 1,
        "attention_resolutions": (2, 4),
        "num_head_channels": 4,
        "joint": ("middle_ds4", "output_ds2"),
        "ff_mult": 2,
        "norm_groups": 4,
    }
    return UNetConfig(**(defaults | changes))


@pytest.fixture(scope="module")
def reference(design_dir):
    """The design's own FLOPs model, written independently of the package."""
    path = design_dir / "seva_flops.py"
    spec = importlib.util.spec_from_file_location("seva_flops", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(module)
    return module


def reference_flops(reference, plan) -> Counter:
    counts = Counter()
    for part, level, count, _ in reference.ops(plan):
        counts[part, level] += count
    return counts


def in_reference_s_parts(counts) -> Counter:
    """With the reference's part names, and without the two linear layers of the time embedding that it leaves out."""
    grouped = Counter()
    for (part, level), count in counts.items():
        grouped[REFERENCE_PARTS[part], level] += count
    grouped["res skip/emb", 0] -= 2 * (320 * 1280 + 1280 * 1280) * SEVA_ROWS
    return grouped


def assert_parts_agree(ours, theirs, rel=0.01):
    assert {key for key, count in ours.items() if count} == {key for key, count in theirs.items() if count}
    assert dict(ours) == {key: pytest.approx(theirs[key], rel=rel) for key in ours}


def test_a_dense_call_of_seva_takes_76_9_tflop():
    assert total(call_flops(SEVA, SEVA_CALL)) / 1e12 == pytest.approx(76.9, rel=0.01)


def test_levels_of_seva_take_what_the_design_s_table_says():
    levels = Counter()
    for (_, level), count in call_flops(SEVA, SEVA_CALL).items():
        levels[level] += count / 1e12
    assert dict(levels) == pytest.approx({0: 26.14, 1: 30.18, 2: 18.23, 3: 2.36}, rel=0.01)


def test_dense_call_agrees_with_the_design_s_model(reference):
    theirs = reference.flops(reference.Plan())
    assert total(call_flops(SEVA, SEVA_CALL)) == pytest.approx(theirs, rel=0.01)


def test_every_part_and_level_of_a_dense_call_agrees_with_the_design_s_model(reference):
    """The design projects the context of time mixing once per cell, as the original does; here once per request."""
    theirs = reference_flops(reference, reference.Plan())
    for kind, _, level, _, width in reference.layers():
        if kind == "mvt":
            cells = (72 >> level) ** 2
            theirs["cross-attn (2x)", level] -= 2 * 2 * 1024 * width * cells * SEVA_CALL.branches
    assert_parts_agree(in_reference_s_parts(call_flops(SEVA, SEVA_CALL)), theirs)


def random_counts(seed):
    """Tokens of 21 frames at SEVA's levels; the two context views and some others are idle."""
    random = torch.Generator().manual_seed(seed)
    idle = torch.rand(21, generator=random) < 0.2
    idle[[0, -1]] = True
    counts = []
    for level in range(4):
        shares = torch.rand(21, generator=random) * (0.2 + 0.2 * level)
        counts.append(tuple((shares * ~idle * (72 >> level) ** 2).int().tolist()))
    return tuple(counts)


def mask_counts(seed):
    """The same for drifting squares, so that levels belong together."""
    mask = torch.zeros(21, 72, 72, dtype=torch.bool)
    for frame in range(1, 20):
        top, left = 3 * seed, 2 * frame + seed
        mask[frame, top : top + 5 + 2 * frame, left : left + 20] = True
    return active_counts(mask, 4)


@pytest.mark.parametrize(
    "counts", [random_counts(0), random_counts(1), random_counts(2), mask_counts(1), mask_counts(8)]
)
def test_selective_call_agrees_with_the_design_s_model(reference, counts):
    """The reference folds cross-attention alone, so the modulation is added; it takes a quarter of the finer level's
    tokens for a strided convolution, here it is the coarser level's own.
    """
    np = reference.np
    tok = [np.array(level, float) for level in counts]
    plan = reference.Plan(tok=tok, frames=tok[0] > 0, kv="act", tmix="act", conv="sparse", cross=False, halo=1.0)
    theirs = reference_flops(reference, plan)
    for level, width in enumerate(SEVA.widths[:-1]):
        strided = sum(counts[level + 1]) - sum(counts[level]) / 4
        theirs["conv in/out/down/up", level] += 18 * width**2 * strided * SEVA_CALL.branches
    shape = {"size": (72, 72), "num_frames": 21, "branches": 2, "context_tokens": 1, "active": counts}
    ours = call_flops(SEVA, CallShape(**shape, folded=True))
    assert not {part for part, _ in ours} & {flops.FILM, flops.CROSS}
    assert total(ours) == pytest.approx(reference.flops(plan), rel=0.01)
    everything = call_flops(SEVA, CallShape(**shape))
    film = {key: count for key, count in everything.items() if key[0] == flops.FILM}
    assert_parts_agree(in_reference_s_parts(ours | film), theirs, rel=1e-9)


@torch.no_grad()
def counted(config, *, size, num_frames, requests=1, context_tokens=0, device="cpu") -> int:
    """FLOPs of the operators that a forward pass runs; unfused attention, as PyTorch counts no fused kernel on CPU."""
    rows = requests * num_frames
    with torch.device(device):
        unet, timesteps = UNet(config), torch.rand(rows)
        x, dense = torch.randn(rows, config.in_channels, *size), torch.randn(rows, config.dense_in_channels, *size)
        context = torch.randn(rows, context_tokens, config.context_dim) if context_tokens else None
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        unet(x, timesteps, dense, context, num_frames)
    return counter.get_total_flops()


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 12), (1, 3)])
@pytest.mark.parametrize(
    ("changes", "context_tokens"),
    [
        ({}, 0),
        ({"time_mix": False}, 0),
        ({"context_dim": 6}, 2),
        ({"context_dim": 6, "time_mix": False, "joint": ()}, 5),
        ({"transformer_depth": (1, 2, 3), "num_res_blocks": 2}, 0),
        ({"context_dim": 6, "transformer_depth": 2, "attention_resolutions": (1,), "joint": ("input_ds1",)}, 3),
        ({"channel_mult": (2,), "attention_resolutions": (), "joint": ("middle_ds1",), "dense_in_channels": 2}, 0),
    ],
)
def test_dense_call_counts_what_the_network_runs(changes, context_tokens, size):
    config = small(**changes)
    real = counted(config, size=size, num_frames=3, requests=2, context_tokens=context_tokens)
    shape = CallShape(size=size, num_frames=3, branches=2, context_tokens=context_tokens)
    assert total(call_flops(config, shape)) == real


@pytest.mark.parametrize("changes", [{}, {"time_mix": False}, {"transformer_depth": 2}, {"joint": ()}])
def test_folding_and_a_folded_call_are_what_the_network_runs_for_one_context_token(changes):
    config = small(context_dim=6, **changes)
    real = counted(config, size=(5, 6), num_frames=3, context_tokens=1)
    shape = CallShape(size=(5, 6), num_frames=3, context_tokens=1, folded=True)
    assert total(folding_flops(config, shape)) + total(call_flops(config, shape)) == real


def test_dense_call_of_seva_counts_what_the_network_runs():
    """On the meta device, where operators have shapes and no numbers."""
    real = counted(SEVA, size=(72, 72), num_frames=21, requests=2, context_tokens=2, device="meta")
    shape = CallShape(size=(72, 72), num_frames=21, branches=2, context_tokens=2)
    assert total(call_flops(SEVA, shape)) == real


def test_folding_keeps_cross_attention_to_several_tokens():
    config = small(context_dim=6)
    several = CallShape(size=(4, 4), num_frames=2, context_tokens=2, folded=True)
    one = CallShape(size=(4, 4), num_frames=2, context_tokens=1, folded=True)
    assert flops.CROSS in {part for part, _ in call_flops(config, several)}
    assert flops.CROSS not in {part for part, _ in folding_flops(config, several)}
    assert flops.CROSS not in {part for part, _ in call_flops(config, one)}
    assert flops.CROSS in {part for part, _ in folding_flops(config, one)}


def test_dense_map_is_folded_once_for_both_branches():
    one, two = (CallShape(size=(4, 4), num_frames=2, branches=branches) for branches in (1, 2))
    assert folding_flops(small(), one) == folding_flops(small(), two)


FULL = tuple((prod(size),) * 3 for size in halved_sizes(5, 6, 3))


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_one_more_active_token_costs_more(data):
    active = [[data.draw(st.integers(0, most - 1)) for most in counts] for counts in FULL]
    level, frame = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
    costs = []
    for _ in range(2):
        shape = CallShape(size=(5, 6), num_frames=3, active=tuple(map(tuple, active)))
        costs.append(call_flops(small(), shape))
        active[level][frame] += 1
    assert all(costs[1][key] >= costs[0][key] for key in costs[0])
    assert total(costs[1]) > total(costs[0])


@pytest.mark.parametrize("folded", [False, True])
def test_all_tokens_active_cost_a_dense_call(folded):
    config = small(context_dim=6)
    shapes = (
        CallShape(size=(5, 6), num_frames=3, branches=2, context_tokens=1, folded=folded, active=active)
        for active in (None, FULL)
    )
    assert len({tuple(call_flops(config, shape).items()) for shape in shapes}) == 1


def test_no_active_token_costs_the_embedding_alone():
    shape = CallShape(size=(5, 6), num_frames=3, active=((0, 0, 0),) * 3)
    assert {part for (part, _), count in call_flops(small(), shape).items() if count} == {flops.EMBEDDING}


def test_branches_cost_the_same_each():
    one, two = (CallShape(size=(5, 6), num_frames=3, branches=branches, active=FULL) for branches in (1, 2))
    doubled = {key: 2 * count for key, count in call_flops(small(), one).items()}
    assert call_flops(small(), two) == doubled


def test_a_query_attends_to_every_cell_even_if_few_are_active():
    """At a joint place one active token of n costs a share 1 / n of all of them, not 1 / n^2."""
    active = (FULL[0], (1, 0, 0), FULL[2])
    few, all_ = (CallShape(size=(5, 6), num_frames=3, active=counts) for counts in (active, FULL))
    key = flops.JOINT_CORE, 1
    assert call_flops(small(), few)[key] * sum(FULL[1]) == call_flops(small(), all_)[key]


def test_counting_leaves_the_random_generator_alone():
    state = torch.get_rng_state()
    call_flops(small(in_channels=7), CallShape(size=(4, 4), num_frames=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_active_counts_of_small_masks():
    mask = torch.zeros(3, 5, 7, dtype=torch.bool)
    mask[0, 4, 6] = True
    mask[1, 1, 1] = mask[1, 1, 2] = mask[1, 2, 2] = True
    assert active_counts(mask, 3) == ((1, 3, 0), (1, 3, 0), (1, 1, 0))
    assert active_counts(mask, 1) == ((1, 3, 0),)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 3), (1, 1)])
def test_active_counts_of_a_full_mask_are_all_cells(size):
    counts = active_counts(torch.ones(2, *size, dtype=torch.bool), 4)
    assert counts == tuple((prod(level),) * 2 for level in halved_sizes(*size, 4))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_a_coarse_cell_is_active_if_a_cell_it_covers_is(height, width, seed):
    mask = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)) < 0.2
    for level, counts in enumerate(active_counts(mask, 3)):
        for frame, count in enumerate(counts):
            assert count == len({(int(y) >> level, int(x) >> level) for y, x in mask[frame].nonzero()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (0, 6)}, "CallShape.size: it is (0, 6); give at least 1"),
        ({"num_frames": 0}, "CallShape.num_frames: it is 0; give at least 1"),
        ({"branches": 0}, "CallShape.branches: it is 0; give at least 1"),
        ({"context_tokens": -1}, "CallShape.context_tokens: it is -1; give at least 0"),
        ({"active": ((1, 2), (1,), (1,))}, "CallShape.active[0]: it has 2 frames; give one count for each of 3"),
        (
            {"active": ((30, 0, 0), (9, 10, 0), (0, 0, 0))},
            "CallShape.active[1]: its counts span 0..10; give 0..9, as the map has 3x3 cells",
        ),
        (
            {"active": ((-1, 0, 0), (0, 0, 0), (0, 0, 0))},
            "CallShape.active[0]: its counts span -1..0; give 0..30, as the map has 5x6 cells",
        ),
        ({"active": FULL[:2]}, "CallShape.active: it has 2 levels; give 3, as the network has"),
        (
            {"context_tokens": 1},
            "CallShape.context_tokens: it is 1 for context_dim None; give 0 exactly when context_dim is None",
        ),
    ],
)
def test_calls_that_cannot_be_counted_are_named(changes, message):
    with pytest.raises(InputError) as error:
        call_flops(small(), CallShape(**({"size": (5, 6), "num_frames": 3} | changes)))
    assert str(error.value) == message

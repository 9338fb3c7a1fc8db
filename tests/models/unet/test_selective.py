"""Laws of selective execution: invariants that a sparse call must satisfy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sphinx_nvs.errors import SphinxError
from sphinx_nvs.models.unet.flops import EMBEDDING, CallShape, call_flops, total
from sphinx_nvs.models.unet.network import UNet, UNetConfig
from sphinx_nvs.models.unet.operations import (
    NetworkCall,
    RequestConstants,
    attended_by_frame,
    attended_in_table,
    rows_from_map,
)
from sphinx_nvs.models.unet.selective import SelectiveUNet
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.nn.feature_cache import FeatureCache
from sphinx_nvs.nn.transformer import MultiviewTransformer

VARYING = 3


def config(**changes: object) -> UNetConfig:
    base = UNetConfig(
        in_channels=5,
        out_channels=4,
        model_channels=8,
        channel_mult=(1, 2, 2),
        num_res_blocks=1,
        attention_resolutions=(2, 4),
        num_head_channels=4,
        joint=("input_ds4", "middle_ds4", "output_ds2"),
        norm_groups=4,
        ff_mult=2,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


CONFIGS = {
    "plain": config(time_mix=False),
    "time mix and context": config(context_dim=6),
    "wide": config(model_channels=32, norm_groups=32, num_head_channels=32, context_dim=32),
    "deep, attention everywhere": config(attention_resolutions=(1, 2, 4), transformer_depth=2, context_dim=6),
}


@dataclass
class Case:
    unet: UNet
    network: SelectiveUNet
    x: Tensor
    features: Tensor
    dense: Tensor
    context: Tensor | None
    constants: RequestConstants

    def call(self, x: Tensor, cache: FeatureCache | None = None, active: ActiveTokens | None = None) -> NetworkCall:
        return NetworkCall(x=x, timestep=321.5, constants=self.constants, cache=cache, active=active, sigma=1.0)

    def run(self, x: Tensor, cache: FeatureCache | None = None, active: ActiveTokens | None = None) -> Tensor:
        return self.network([self.call(x, cache, active)])[0]

    def active(self, cells: Tensor) -> ActiveTokens:
        return ActiveTokens.from_cells(cells, self.unet.config.num_levels)


def case(
    name: str = "time mix and context",
    frames: int = 3,
    height: int = 6,
    width: int = 8,
    seed: int = 0,
    keep_film: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Case:
    torch.manual_seed(seed)
    unet = UNet(CONFIGS[name]).to(dtype).eval().requires_grad_(False)
    network = SelectiveUNet(unet, VARYING)
    x, features = (torch.randn(frames, channels, height, width, dtype=dtype) for channels in (VARYING, 2))
    dense = torch.randn(frames, 6, height, width, dtype=dtype)
    dim = unet.config.context_dim
    context = None if dim is None else torch.randn(frames, 1, dim, dtype=dtype)
    constants = network.constants(features, dense, context, keep_film=keep_film)
    return Case(unet, network, x, features, dense, context, constants)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("keep_film", [True, False])
def test_dense_call_equals_the_plain_network(name: str, keep_film: bool) -> None:
    c = case(name, height=7, width=5, keep_film=keep_film)
    timesteps = torch.full((len(c.x),), 321.5)
    plain = c.unet(torch.cat([c.x, c.features], 1), timesteps, c.dense, c.context, len(c.x))
    assert relative(c.run(c.x), plain) < 1e-5
    assert relative(c.run(c.x, FeatureCache()), plain) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
@given(
    frames=st.integers(1, 3),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    keep_film=st.booleans(),
    s=st.integers(0, 9),
)
@settings(max_examples=3, deadline=None)
def test_all_active_equals_dense(name: str, frames: int, height: int, width: int, keep_film: bool, s: int) -> None:
    # In double precision: some random networks amplify the last bit of single precision a thousandfold.
    c = case(name, frames, height, width, s, keep_film, torch.float64)
    cache = FeatureCache()
    c.run(torch.randn_like(c.x), cache)
    everything = c.active(torch.ones(frames, height, width, dtype=torch.bool))
    sparse = c.run(c.x, cache, everything)
    assert relative(sparse, rows_from_map(c.run(c.x))) < 1e-6
    cache.check()


@pytest.mark.parametrize("name", CONFIGS)
def test_all_active_equals_dense_in_single_precision(name: str) -> None:
    c = case(name, height=7, width=6)
    cache = FeatureCache()
    c.run(torch.randn_like(c.x), cache)
    sparse = c.run(c.x, cache, c.active(torch.ones(3, 7, 6, dtype=torch.bool)))
    assert relative(sparse, rows_from_map(c.run(c.x))) < 1e-5


def test_half_precision_computes_in_it_and_stays_near() -> None:
    c, half = case("wide"), case("wide", dtype=torch.bfloat16)
    half.unet.load_state_dict(c.unet.state_dict())
    half.network = SelectiveUNet(half.unet, VARYING)
    half.constants = half.network.constants(c.features.bfloat16(), c.dense.bfloat16(), c.context.bfloat16())  # type: ignore[union-attr]
    cache = FeatureCache()
    half.run(c.x.bfloat16(), cache)
    sparse = half.run(c.x.bfloat16(), cache, half.active(torch.ones(3, 6, 8, dtype=torch.bool)))
    assert sparse.dtype == torch.bfloat16
    assert relative(sparse.float(), rows_from_map(c.run(c.x))) < 0.1


@pytest.mark.parametrize("name", CONFIGS)
@given(share=st.floats(0.02, 1.0), s=st.integers(0, 9))
@settings(max_examples=3, deadline=None)
def test_unchanged_inputs_give_unchanged_outputs(name: str, share: float, s: int) -> None:
    c = case(name, seed=s, dtype=torch.float64)
    cache = FeatureCache()
    dense = c.run(c.x, cache)
    before = {k: v.clone() for k, v in cache.rows.items()}
    cells = torch.rand(len(c.x), 6, 8) < share
    cells[0, 0, 0] = True
    sparse = c.run(c.x, cache, c.active(cells))
    truth = rows_from_map(dense)[cells.flatten()]
    assert float((sparse - truth).abs().max() / dense.abs().max()) < 1e-6
    assert all(relative(cache.rows[k], v) < 1e-6 for k, v in before.items())
    assert cache.drift < 1e-6


@pytest.mark.parametrize("name", CONFIGS)
def test_one_active_token_with_fresh_inputs_equals_dense_at_that_token(name: str) -> None:
    c = case(name, height=5, width=7)
    for frame, y, x in ((0, 0, 0), (1, 2, 3), (2, 4, 6)):
        cache = FeatureCache()
        dense = c.run(c.x, cache)
        cells = torch.zeros(3, 5, 7, dtype=torch.bool)
        cells[frame, y, x] = True
        sparse = c.run(c.x, cache, c.active(cells))
        assert sparse.shape == (1, 4)
        assert float((sparse[0] - dense[frame, :, y, x]).abs().max() / dense.abs().max()) < 1e-5


def test_a_changed_neighbour_acts_through_the_first_convolution_only() -> None:
    c = case("plain")
    cache = FeatureCache()
    c.run(c.x, cache)
    changed = c.x.clone()
    changed[1, :, 3, 4] += 5
    cells = torch.zeros(3, 6, 8, dtype=torch.bool)
    cells[1, 3, 5] = True
    sparse = c.run(changed, cache, c.active(cells))
    exact = c.run(changed)[1, :, 3, 5]
    stale = c.run(c.x)[1, :, 3, 5]
    assert float((sparse[0] - stale).abs().max()) > 1e-3
    assert float((sparse[0] - exact).abs().max()) > 1e-4


def test_frames_sums_follow_many_sparse_calls() -> None:
    c = case()
    cache = FeatureCache()
    c.run(c.x, cache)
    for step in range(20):
        torch.manual_seed(step)
        c.run(torch.randn_like(c.x), cache, c.active(torch.rand(3, 6, 8) < 0.4))
    cache.check()
    everything = c.active(torch.ones(3, 6, 8, dtype=torch.bool))
    assert relative(c.run(c.x, cache, everything), rows_from_map(c.run(c.x))) < 1e-5


def test_packed_requests_equal_each_alone_bit_for_bit() -> None:
    # Widths are multiples of 32, as real networks' are: else the last odd elements of a row of numbers are computed by
    # scalar code, whose exponential differs in the last bit from the vector code's.
    sizes = ((3, 6, 8), (2, 5, 7), (4, 8, 4))
    cases = [case("wide", f, h, w, seed=i) for i, (f, h, w) in enumerate(sizes)]
    network = cases[0].network
    for i, c in enumerate(cases):
        c.constants = network.constants(c.features, c.dense, c.context)
        c.network = network
        torch.manual_seed(i)
        c.cells = torch.rand(sizes[i]) < 0.3 + 0.2 * i  # type: ignore[attr-defined]
    alone, packed = ([FeatureCache() for _ in cases] for _ in range(2))
    for c, a, b in zip(cases, alone, packed, strict=True):
        c.run(c.x, a)
        c.run(c.x, b)
    calls = [
        replace(c.call(c.x + 1, cache, c.active(c.cells)), timestep=100.0 * (i + 1))  # type: ignore[attr-defined]
        for i, (c, cache) in enumerate(zip(cases, packed, strict=True))
    ]
    together = network(calls)
    for c, call, cache, got in zip(cases, calls, alone, together, strict=True):
        assert torch.equal(network([replace(call, cache=cache)])[0], got), "rows of a product depend on its height"
        assert call.cache is not None
        assert all(torch.equal(cache.rows[k], call.cache.rows[k]) for k in cache.rows)
        assert len(got) == int(c.cells.sum())  # type: ignore[attr-defined]


def test_dense_and_sparse_calls_mix_in_one_call() -> None:
    first, second = case(seed=0), case(seed=1)
    second.network = first.network
    second.constants = first.network.constants(second.features, second.dense, second.context)
    cache = FeatureCache()
    first.run(first.x, cache)
    cells = torch.rand(3, 6, 8) < 0.5
    sparse, dense = first.network([first.call(first.x, cache, first.active(cells)), second.call(second.x)])
    assert sparse.shape == (int(cells.sum()), 4)
    assert torch.equal(dense, second.run(second.x))


def test_a_frame_without_active_tokens_costs_nothing_and_changes_nothing() -> None:
    c = case()
    cache = FeatureCache()
    c.run(c.x, cache)
    cells = torch.zeros(3, 6, 8, dtype=torch.bool)
    cells[2] = torch.rand(6, 8) < 0.5
    before = {k: v.clone() for k, v in cache.rows.items()}
    c.run(c.x * 2, cache, c.active(cells))
    for key, rows in cache.rows.items():
        per_frame = (len(rows) - key.endswith("conv")) // 3
        assert torch.equal(rows[: 2 * per_frame], before[key][: 2 * per_frame])


def test_no_active_token_gives_an_empty_result() -> None:
    c = case()
    cache = FeatureCache()
    c.run(c.x, cache)
    assert c.run(c.x, cache, c.active(torch.zeros(3, 6, 8, dtype=torch.bool))).shape == (0, 4)


def test_two_interleaved_requests_do_not_affect_each_other() -> None:
    a, b = case(seed=3), case(seed=4)
    b.network = a.network
    b.constants = a.network.constants(b.features, b.dense, b.context)
    cells = [torch.rand(3, 6, 8) < 0.4 for _ in range(3)]

    def walk(c: Case, cache: FeatureCache) -> list[Tensor]:
        return [c.run(c.x, cache), *(c.run(c.x + i, cache, c.active(m)) for i, m in enumerate(cells))]

    alone = walk(a, FeatureCache())
    cache_a, cache_b = FeatureCache(), FeatureCache()
    mixed = [a.run(a.x, cache_a)]
    b.run(b.x, cache_b)
    for i, mask in enumerate(cells):
        b.run(b.x - i, cache_b, b.active(mask))
        mixed.append(a.run(a.x + i, cache_a, a.active(mask)))
    assert all(torch.equal(x, y) for x, y in zip(alone, mixed, strict=True))


def test_attention_in_a_table_equals_the_loop_over_frames() -> None:
    cells = torch.rand(4, 5, 6) < 0.3
    cells[2] = False
    active = ActiveTokens.from_cells(cells, 2).levels[0]
    q, kv = torch.randn(len(active.index), 8), torch.randn(4, 30, 16)
    loop = attended_by_frame(q, kv, active, 4)
    assert float(loop.abs().max()) > 0.1
    torch.testing.assert_close(attended_in_table(q, kv, active, 4), loop, atol=1e-6, rtol=1e-5)


def test_drift_measures_how_far_features_moved() -> None:
    c = case("plain")
    cells = torch.rand(3, 6, 8) < 0.5
    drifts = []
    for change in (0.01, 0.1, 1.0):
        cache = FeatureCache()
        c.run(c.x, cache)
        c.run(c.x + change, cache, c.active(cells))
        drifts.append(cache.drift)
    assert 0 < drifts[0] < drifts[1] < drifts[2]


def test_a_sparse_call_without_a_filled_cache_is_an_error() -> None:
    c = case()
    with pytest.raises(ValueError, match="needs the cache"):
        c.run(c.x, None, c.active(torch.ones(3, 6, 8, dtype=torch.bool)))


def test_cross_attention_to_two_tokens_cannot_be_folded() -> None:
    c = case()
    with pytest.raises(ValueError, match="context must have 1 token to be folded to a constant, got 2"):
        c.network.constants(c.features, c.dense, torch.randn(3, 2, 6))
    with pytest.raises(ValueError, match="context must match context_dim=6"):
        c.network.constants(c.features, c.dense, None)


def test_check_finds_damage() -> None:
    c = case()
    with pytest.raises(SphinxError, match="is empty"):
        FeatureCache().check()
    for damage, words in (("nan", "not finite"), ("zero", "the zero row of"), ("sums", "are not those")):
        cache = FeatureCache()
        c.run(c.x, cache)
        cache.check()
        with torch.inference_mode():
            convs = [k for k in cache.rows if k.endswith("conv")]
            if damage == "nan":
                cache.rows[convs[0]][0, 0] = torch.nan
            elif damage == "zero":
                cache.rows[convs[1]][-1] = 1
            else:
                next(iter(cache.sums.values())).frames[0, 0] += 100
        with pytest.raises(SphinxError, match=words):
            cache.check()


@pytest.mark.parametrize("name", CONFIGS)
def test_memory_is_predicted_exactly(name: str) -> None:
    c = case(name, height=7, width=5)
    cache = FeatureCache()
    c.run(c.x, cache)
    film, features = c.network.memory(3, 7, 5)
    assert cache.num_bytes == features
    assert c.constants.film is not None
    assert sum(t.numel() * t.element_size() for pair in c.constants.film.values() for t in pair) == film


def _packed_flops(x_shape: tuple[int, ...], *_: object, out_shape: tuple[int, ...], **__: object) -> int:
    """PyTorch's counter does not know oneDNN's packed product."""
    return 2 * out_shape[0] * out_shape[1] * x_shape[-1]


@pytest.mark.parametrize("share", [None, 0.1, 0.6])
def test_the_cost_model_counts_what_is_executed(share: float | None) -> None:
    c = case("wide", frames=4, height=8, width=12)
    cache = FeatureCache()
    c.run(c.x, cache)
    active = None if share is None else c.active(torch.rand(4, 8, 12) < share)
    mapping = {torch.ops.mkldnn._linear_pointwise: _packed_flops} if torch.backends.mkldnn.is_available() else {}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        c.run(c.x, cache, active)
    counts = None if active is None else tuple(level.counts for level in active.levels)
    shape = CallShape(size=(8, 12), num_frames=4, active=counts, context_tokens=1, folded=True)
    flops = call_flops(c.unet.config, shape)
    # Embeddings are made once per call, not per frame, and constant channels leave the first convolution.
    small = sum(value for (part, _), value in flops.items() if part == EMBEDDING)
    first = 2 * 9 * 2 * 32 * (4 * 8 * 12 if active is None else len(active.levels[0].index))
    expected = total(flops) - small * 3 / 4 - first
    for name, module in c.unet.named_modules():
        if active is not None and isinstance(module, MultiviewTransformer):
            # Attention along frames takes a table of whole columns, with queries of inactive tokens in it.
            level = active.levels[c.network._level(name)]
            idle = len(level.columns[0]) * level.num_frames - len(level.index)
            expected += 4 * module.proj_in.in_features * level.num_frames * idle
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-9)

"""Execution of the U-Net for all tokens, or only for active tokens with cached features of all others.

One traversal of the network's layers, two sets of operations: a dense call computes every token and caches what other
tokens read from it; a sparse call computes active tokens, reads the others from the cache, and writes its own to it.
Linear layers act on rows of tokens; 3x3 convolutions gather nine taps per active token; active queries attend to all
keys and values; group norms use a frame's sums, corrected by the change of the active tokens. Values that are constant
over a request are computed once: the dense map's modulation, the part of the first convolution that reads constant
channels, and cross-attention to one token (its softmax is 1, so it is a constant).

Laws (tests/models/unet/test_selective.py): with every token active a sparse call equals a dense one; unchanged inputs
give unchanged outputs; a dense call equals `UNet.forward`.

Shapes: N frames of a request, T = N h w tokens of a level, n computed tokens (T in a dense call), C channels, Cv
varying and Cc constant input channels, D dense channels, M context tokens of X channels, H heads of d channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.unet.network import Stage, UNet, resized
from sphinx_nvs.models.unet.operations import (
    DenseOperations,
    Layer,
    NetworkCall,
    NetworkWeights,
    Operations,
    RequestConstants,
    SparseOperations,
    map_from_rows,
    modulation,
    rows_from_map,
)
from sphinx_nvs.nn.resample import Downsample, Upsample, halved_sizes
from sphinx_nvs.nn.resblock import ResBlock
from sphinx_nvs.nn.timestep import sinusoid
from sphinx_nvs.nn.transformer import MultiviewTransformer, SpatialBlock

FEED_FORWARD_ROWS = 16_384
"""Rows per chunk of a feed-forward: SEVA's 21 views at full size have 7 times as many."""


class SelectiveUNet:
    """A U-Net's weights in the layouts of both kinds of call; holds no request state.

    Args:
        unet: the network; its weights must not change afterwards. Computation uses their dtype.
        varying: number of leading input channels that change from step to step.
        compiled: whether the operations between matrix products are fused by a compiler; see `nn.token_ops`.
        joint_in_bfloat16: whether attention over all views may multiply in bfloat16, see `operations.attended`.
    """

    def __init__(self, unet: UNet, varying: int, *, compiled: bool = False, joint_in_bfloat16: bool = False) -> None:
        self.unet: Layer = unet
        self.weights = NetworkWeights(unet, varying, compiled=compiled, joint_in_bfloat16=joint_in_bfloat16)

    def constants(
        self,
        features: Float[Tensor, "N Cc h w"],
        dense: Float[Tensor, "N D h w"],
        context: Float[Tensor, "N M X"] | None,
        *,
        keep_film: bool = True,
    ) -> RequestConstants:
        """Computes the values shared by a request's calls.

        Args:
            features: the constant input channels, which follow the varying ones.
            dense: per-cell conditioning, e.g. Plücker rays.
            context: one cross-attention token per frame; None exactly when the network takes none.
            keep_film: whether to store the dense map's modulation for every block.

        Raises:
            ValueError: the context has more than one token, or is missing or unexpected.
        """
        if (context is None) != (self.unet.config.context_dim is None):
            raise ValueError(f"context must match context_dim={self.unet.config.context_dim}")
        if context is not None and context.shape[1] != 1:
            raise ValueError(f"context must have 1 token to be folded to a constant, got {context.shape[1]}")
        sizes = tuple(halved_sizes(features.shape[-2], features.shape[-1], self.unet.config.num_levels))
        conv = self.unet.input_blocks[0][0]
        # The bias goes with the constant part, so that it is added once.
        first = F.conv2d(features, conv.weight[:, self.weights.varying :], conv.bias, padding=1)
        dense_rows = tuple(rows_from_map(resized(dense, size)) for size in sizes)
        film, crosses = {}, {}
        for module, name in self.weights.names.items():
            if isinstance(module, ResBlock) and keep_film:
                film[name] = modulation(module, dense_rows[self._level(name)])
            if isinstance(module, SpatialBlock) and context is not None:
                crosses[name] = module.attn2.one_token(context)[:, 0]
        return RequestConstants(
            len(features), sizes, rows_from_map(first), dense_rows, film if keep_film else None, crosses
        )

    def memory(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """Bytes that a request of this size stores: modulation maps of all blocks, and a filled cache."""
        tokens = [num_frames * h * w for h, w in halved_sizes(height, width, self.unet.config.num_levels)]
        film = features = 0
        size = self.weights.first_weight.element_size()
        module: Layer
        for module, name in self.weights.names.items():
            if module in self.weights.dense_weights and module is not self.unet.input_blocks[0][0]:
                features += (tokens[self._level(name)] + 1) * module.in_channels * size
            # Sums and sums of squares per group: float32 (4 bytes) per token, float64 (8 bytes) per frame.
            elif isinstance(module, nn.GroupNorm):
                features += (tokens[self._level(name)] * 4 + num_frames * 8) * 2 * module.num_groups
            elif module in self.weights.keys_values:
                features += tokens[self._level(name)] * 2 * module.to_k.out_features * size
            elif isinstance(module, ResBlock):
                conv: Layer = module.dense_emb_layers[0]
                film += tokens[self._level(name)] * conv.out_channels * size
        return film, features

    def _level(self, name: str) -> int:
        """The level of the stage that contains a module; 0 for the last layers, which follow the stages."""
        parts = name.split(".")
        stage = self.unet.get_submodule(parts[0] if parts[0] == "middle_block" else ".".join(parts[:2]))
        return stage.level if isinstance(stage, Stage) else 0

    @torch.inference_mode()
    def __call__(self, calls: Sequence[NetworkCall]) -> list[Tensor]:
        """Runs the network for several requests: dense calls one by one, sparse ones concatenated.

        Returns:
            Per call, in order: `N C_out h w` for a dense call, rows `n C_out` at the finest level's active tokens for a
            sparse one.
        """
        outputs: dict[int, Tensor] = {}
        for place, call in enumerate(calls):
            # One by one: a dense call fills a device by itself, and requests may differ in size.
            if call.active is None:
                dense = DenseOperations(self.weights, call)
                height, width = call.constants.sizes[0]
                outputs[place] = map_from_rows(self._walk(dense, [call]), height, width)
        sparse = [place for place, call in enumerate(calls) if call.active is not None]
        if sparse:
            packed = [calls[place] for place in sparse]
            parts = self._walk(SparseOperations(self.weights, packed), packed).split(
                [_num_active(call) for call in packed]
            )
            outputs.update(zip(sparse, parts, strict=True))
        return [outputs[place] for place in range(len(calls))]

    def _walk(self, ops: Operations, calls: Sequence[NetworkCall]) -> Float[Tensor, "n C_out"]:
        """Runs the network's layers in order, over rows."""
        unet = self.unet
        # One per request: packed requests may be at different noise levels.
        embs = [self._embedding(call.timestep) for call in calls]
        x = ops.first_conv()
        skips = [x]
        for index, stage in enumerate(unet.input_blocks[1:], 1):
            x = self._stage(ops, f"input_blocks.{index}", stage, x, embs)
            skips.append(x)
        x = self._stage(ops, "middle_block", unet.middle_block, x, embs)
        for index, stage in enumerate(unet.output_blocks):
            # Skips hold active rows only, as `x` does: both sides of the U are computed for the same tokens.
            x = self._stage(ops, f"output_blocks.{index}", stage, torch.cat([x, skips.pop()], 1), embs)
        norm, _, conv = unet.out
        return ops.conv("out.2", conv, ops.norm_silu("out.0", norm, x, 0), 0, [conv.bias] * len(calls))

    def _embedding(self, timestep: float) -> Float[Tensor, "1 E"]:
        """SiLU of the noise level's embedding, the input of every residual block."""
        weight = self.unet.time_embed[0].weight
        waves = sinusoid(torch.tensor([timestep], device=weight.device), self.unet.config.model_channels)
        return F.silu(self.unet.time_embed(waves.to(weight.dtype)))

    def _stage(
        self, ops: Operations, name: str, stage: Layer, x: Float[Tensor, "n C"], embs: list[Tensor]
    ) -> Float[Tensor, "n2 C2"]:
        for index, layer in enumerate(stage):
            at = f"{name}.{index}"
            if isinstance(layer, ResBlock):
                x = self._res_block(ops, at, layer, x, stage.level, embs)
            elif isinstance(layer, MultiviewTransformer):
                x = self._transformer(ops, at, layer, x, stage.level)
            elif isinstance(layer, Downsample):
                x = ops.conv(f"{at}.op", layer.op, x, stage.level, [layer.op.bias] * len(embs), to=stage.level + 1)
            elif isinstance(layer, Upsample):
                x = ops.conv(f"{at}.conv", layer.conv, x, stage.level, [layer.conv.bias] * len(embs), stage.level - 1)
        return x

    def _res_block(
        self, ops: Operations, name: str, block: Layer, x: Float[Tensor, "n C"], level: int, embs: list[Tensor]
    ) -> Float[Tensor, "n C2"]:
        h = ops.norm_silu_film(name, block, x, level)
        conv = block.in_layers[2]
        # The noise level's embedding is the same for all of a request's tokens, so it is added to the bias.
        biases = [conv.bias + block.emb_layers[1](emb)[0] for emb in embs]
        h = ops.conv(f"{name}.in_layers.2", conv, h, level, biases)
        norm, _, _, conv = block.out_layers
        h = ops.norm_silu(f"{name}.out_layers.0", norm, h, level)
        h = ops.conv(f"{name}.out_layers.3", conv, h, level, [conv.bias] * len(embs))
        skip = block.skip_connection
        return h + (self.weights.linears[skip](x) if isinstance(skip, nn.Conv2d) else x)

    def _transformer(
        self, ops: Operations, name: str, transformer: Layer, x: Float[Tensor, "n C"], level: int
    ) -> Float[Tensor, "n C"]:
        tokens = self.weights.linears[transformer.proj_in](ops.norm(f"{name}.norm", transformer.norm, x, level))
        for depth, block in enumerate(transformer.transformer_blocks):
            at = f"{name}.transformer_blocks.{depth}"
            across = ops.attend_jointly if transformer.joint else ops.attend_per_view
            tokens = self._attention(ops, at, block, tokens, level, across, transformer.joint)
            tokens = tokens + self._feed_forward(block.ff, block.norm3(tokens))
            if len(transformer.time_mix_blocks):
                block, at = transformer.time_mix_blocks[depth], f"{name}.time_mix_blocks.{depth}"
                mixed = tokens + self._feed_forward(block.ff_in, block.norm_in(tokens))
                # Time mixing uses the first frame's context for all frames, as joint attention does.
                mixed = self._attention(ops, at, block, mixed, level, ops.attend_along_frames, True)
                tokens = tokens + self._feed_forward(block.ff, block.norm3(mixed))
        return x + self.weights.linears[transformer.proj_out](tokens)

    def _feed_forward(self, layers: Layer, x: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        """`nn.feedforward.FeedForward` with packed weights, in chunks of rows: its inner layer is 8 times as wide."""
        gated, _, last = layers.net
        widen, narrow, gate = self.weights.linears[gated.proj], self.weights.linears[last], self.weights.token_ops.gated
        # Rows are independent, so chunks change nothing but the peak of memory.
        parts = [narrow(gate(widen(part))) for part in x.split(FEED_FORWARD_ROWS)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attention(
        self,
        ops: Operations,
        name: str,
        block: Layer,
        tokens: Float[Tensor, "n C"],
        level: int,
        attend: Callable[[str, Tensor, Tensor, int, int], Tensor],
        first_only: bool,
    ) -> Float[Tensor, "n C"]:
        """Adds self-attention, then the precomputed cross-attention."""
        normed = block.norm1(tokens)
        attention = block.attn1
        kv, q = self.weights.keys_values[attention](normed), self.weights.linears[attention.to_q](normed)
        mixed = attend(f"{name}.attn1", q, kv, level, attention.head_dim)
        tokens = tokens + self.weights.linears[attention.to_out[0]](mixed)
        return ops.add_cross(name, tokens, level, first_only)


def _num_active(call: NetworkCall) -> int:
    return 0 if call.active is None else len(call.active.levels[0].index)

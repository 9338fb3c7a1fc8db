"""The tokens of a U-Net to compute, as index lists by which every layer can gather.

Feature maps are stored as *rows*: the cells of all frames in row-major order (frame, y, x), and a last row of zeros
that stands for everything outside a frame. A cell of a coarser level is active if any finer cell it covers is active.
The lists are built once per distinct set of cells, so that the denoising loop itself never reads a mask.

Shapes: N frames, h w cells of a level, T = N h w tokens, n active tokens, U cells with an active token in some frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from sphinx_nvs.nn.resample import halved_sizes

OFFSETS = (-1, 0, 1)


@dataclass(frozen=True, eq=False)
class ActiveLevel:
    """The active tokens of one level, in ascending order.

    Args:
        num_frames: N.
        size: height and width of the level's maps.
        index: row indices of the active tokens.
        frame: frame index of each active token.
        counts: number of active tokens in each frame; Python integers, so that loops over frames need no device sync.
    """

    num_frames: int
    size: tuple[int, int]
    index: Int[Tensor, "n"]
    frame: Int[Tensor, "n"]
    counts: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """T; also the index of the zero row."""
        return self.num_frames * self.size[0] * self.size[1]

    @cached_property
    def cell(self) -> Int[Tensor, "n"]:
        """Each token's cell inside its frame, y w + x."""
        return self.index - self.frame * (self.size[0] * self.size[1])

    def map_of(self, rows: Float[Tensor, "n C"]) -> Float[Tensor, "N C h w"]:
        """Scatters the active tokens' rows into a map; zeros elsewhere."""
        table = rows.new_zeros(self.num_tokens, rows.shape[1]).index_copy(0, self.index, rows)
        return table.view(self.num_frames, *self.size, -1).permute(0, 3, 1, 2)

    def add_to_frames(self, sums: Float64[Tensor, "N S"], values: Float64[Tensor, "n S"]) -> None:
        """Adds each token's values to its frame's sums, in place and in a deterministic order."""
        if sums.device.type == "cpu":
            sums.index_add_(0, self.frame, values)
        else:
            sums.addmm_(self._membership, values)

    @cached_property
    def _membership(self) -> Float64[Tensor, "N n"]:
        """Indicator matrix of frames and tokens: on a GPU matrix products are deterministic, indexed sums are not."""
        frames = torch.arange(self.num_frames, device=self.frame.device)
        return (frames[:, None] == self.frame).double()

    @cached_property
    def columns(self) -> tuple[Int[Tensor, "U"], Int[Tensor, "n"]]:
        """The distinct cells, and each token's position in a `U x N` table of cells by frames."""
        cells, inverse = self.cell.unique(return_inverse=True)
        return cells, inverse * self.num_frames + self.frame

    @cached_property
    def padded(self) -> tuple[Int[Tensor, "F"], Int[Tensor, "n"], int]:
        """Frames with active tokens, each token's position in a table of those frames, and the table's row length."""
        counts = torch.tensor(self.counts, device=self.index.device)
        longest = max(self.counts, default=0)
        # A token's rank inside its frame: its index minus the number of tokens in earlier frames.
        rank = torch.arange(len(self.index), device=self.index.device) - (counts.cumsum(0) - counts)[self.frame]
        frames = counts.nonzero().squeeze(1)
        row = torch.cumsum((counts > 0).long(), 0) - 1
        return frames, row[self.frame] * longest + rank, longest

    def taps(self, source: tuple[int, int], stride: int = 1, enlarged: bool = False) -> Int[Tensor, "n 9"]:
        """Rows that a 3x3 convolution reads for each active token, in row-major order of its kernel.

        Args:
            source: size of the input maps.
            stride: 2 if the source is twice as fine.
            enlarged: whether the source is upsampled by repetition before the convolution.
        """
        height, width = source
        offsets = torch.tensor(OFFSETS, device=self.index.device)
        y = stride * (self.cell // self.size[1])[:, None] + offsets
        x = stride * (self.cell % self.size[1])[:, None] + offsets
        # With an upsampled source, taps are bounded by the upsampled size and then mapped to the cells they repeat.
        bounds = self.size if enlarged else source
        inside = ((y >= 0) & (y < bounds[0]))[:, :, None] & ((x >= 0) & (x < bounds[1]))[:, None, :]
        if enlarged:
            y, x = y // 2, x // 2
        rows = (self.frame * (height * width))[:, None, None] + (y * width)[:, :, None] + x[:, None, :]
        return torch.where(inside, rows, self.num_frames * height * width).flatten(1)


@dataclass(frozen=True, eq=False)
class ActiveTokens:
    """The active tokens of every level, finest first.

    Args:
        levels: one list per level.
    """

    levels: tuple[ActiveLevel, ...]

    @staticmethod
    def from_cells(cells: Bool[Tensor, "N h w"], num_levels: int) -> ActiveTokens:
        """Builds the lists from the cells to compute at the finest level."""
        levels: list[ActiveLevel] = []
        for size in halved_sizes(cells.shape[1], cells.shape[2], num_levels):
            # Ceil mode, as the strided convolution rounds: with odd sides the last coarse cell covers a single fine row
            # or column.
            if levels:
                cells = F.max_pool2d(cells[:, None].float(), 2, ceil_mode=True)[:, 0] > 0
            index = cells.flatten().nonzero().squeeze(1)
            # With `nonzero` above, the only waits for the device, once per set of cells.
            counts = tuple(cells.flatten(1).sum(1).tolist())
            levels.append(ActiveLevel(len(cells), size, index, index // (size[0] * size[1]), counts))
        return ActiveTokens(tuple(levels))

    @staticmethod
    def of_targets(cells: Bool[Tensor, "V h w"], num_context: int, num_levels: int) -> ActiveTokens:
        """The same for frames whose first `num_context` are context views, which are never active."""
        # Context views' features stay as the last dense call left them, though attention would let them see the targets
        # change: that is part of the approximation, and a dense step ends it.
        context = cells.new_zeros(num_context, *cells.shape[1:])
        return ActiveTokens.from_cells(torch.cat([context, cells]), num_levels)

    @cached_property
    def same(self) -> tuple[Int[Tensor, "n 9"], ...]:
        """Taps of each level's convolutions that keep the size."""
        return tuple(level.taps(level.size) for level in self.levels)

    @cached_property
    def down(self) -> tuple[Int[Tensor, "n 9"], ...]:
        """Taps of the strided convolutions out of each level but the coarsest, in that level's rows."""
        return tuple(
            coarse.taps(fine.size, stride=2) for fine, coarse in zip(self.levels[:-1], self.levels[1:], strict=True)
        )

    @cached_property
    def up(self) -> tuple[Int[Tensor, "n 9"], ...]:
        """Taps of the upsampling convolutions out of each level but the finest, in that level's rows."""
        return tuple(
            fine.taps(coarse.size, enlarged=True)
            for fine, coarse in zip(self.levels[:-1], self.levels[1:], strict=True)
        )

"""Decoding on the CPU: the autoencoder, the reference decoder and the agreement of frames laid out for speed.

The same weights and the same arithmetic as `BlockAutoencoder.decode`, `ReferenceDecoder` and `Agreement`, for one view
at a time and without gradients: maps lie channels last, convolutions compute in bfloat16 where the processor multiplies
it, what lies between them are compiled loops (`search_kernels`, `decoder_kernels`), and what the photos alone decide is
computed once a request (`PhotoMaps`). In float32 its frames equal theirs up to rounding, in bfloat16 they lie 68 dB and
more from those on the demo.

Shapes: V target views, C photos, H W pixels, h w cells or places, hb wb blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.embedded import decoder_kernels as kernels
from sphinx_nvs.models.embedded import search_kernels
from sphinx_nvs.models.embedded.autoencoder import FACTOR, BlockAutoencoder
from sphinx_nvs.models.embedded.decoder_inputs import NUM_PLANES, DecoderInputs, Found
from sphinx_nvs.models.embedded.reference_decoder import (
    BLOCK,
    COST_CHANNELS,
    FEATURES,
    NEARNESS,
    VIEW_CHANNELS,
    ReferenceDecoder,
    block_movement,
    resized,
    search_stride,
)
from sphinx_nvs.models.embedded.temporal_consistency import (
    CALM,
    REACH,
    SAME_COLOUR,
    SAME_DEPTH,
    Agreement,
    Path,
)
from sphinx_nvs.nn.row_bands import in_bands, interleaved


@dataclass(frozen=True, kw_only=True, eq=False)
class PhotoMaps:
    """What decoding reads of a request's photos, whichever view it decodes.

    Args:
        colours: the photos, colours beside one another; the fourth channel is unused.
        features: eight features and three colours at the search's places, the rest unused; the last row and column
            repeat those before.
    """

    colours: Float[Tensor, "C H W 4"]
    features: Float[Tensor, "C h1 w1 16"]

    def of(self, photos: Sequence[int]) -> PhotoMaps:
        """The same for some of the photos."""
        return PhotoMaps(colours=self.colours[list(photos)], features=self.features[list(photos)])


class ServingDecoder:
    """See the module. Made of modules on the CPU, whose weights are copied.

    Args:
        autoencoder: decodes latents.
        reference: refines decoded views beside photos and render.
        agreement: brings neighbouring frames to agree.
        dtype: what convolutions compute in, float32 or bfloat16.
    """

    def __init__(
        self, autoencoder: BlockAutoencoder, reference: ReferenceDecoder, agreement: Agreement, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self._scale = autoencoder.scale.clone()
        self._synthesis = _block_rows(autoencoder.basis)
        self._correction = _laid_out([autoencoder.enter, autoencoder.body, nn.SiLU(), autoencoder.leave], dtype)
        self._of_photo = _laid_out([reference.of_photo], dtype)
        self._of_target = _laid_out([reference.of_target], dtype)
        self._weighing = deepcopy(nn.Sequential(reference.cost_in, reference.cost_out)).requires_grad_(False)
        self._reason = _laid_out([reference.gather, reference.reason, reference.decide], dtype)
        self._judge = _laid_out([reference.view_in, nn.SiLU(), reference.view_out], dtype)
        self._fuse = _laid_out([reference.fuse_in, reference.fuse, reference.fuse_out], dtype)
        self._of_neighbour = _laid_out([agreement.of_neighbour, nn.SiLU()], dtype)
        self._agree = _laid_out([agreement.of_frame, agreement.reason], dtype)
        self._own = _laid_out([nn.SiLU(), agreement.own], dtype)
        self._each = _laid_out([nn.SiLU(), agreement.each], dtype)

    def decode(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """See `BlockAutoencoder.decode`; one view at a time."""
        return torch.cat([self._decoded(view[None]) for view in latents])

    def _decoded(self, latents: Float[Tensor, "1 C h w"]) -> Float[Tensor, "1 3 H W"]:
        _, channels, h, w = latents.shape
        cells = (latents / self._scale)[0].permute(1, 2, 0).reshape(h * w, channels)
        # Quarters of a cell beside one another: the synthesis as blocks of 4 pixels, in the order of `pixel_unshuffle`.
        plain = (cells @ self._synthesis).view(h, w, 2, 2, 48).transpose(1, 2).reshape(2 * h, 2 * w, 48)
        known = latents[0].permute(1, 2, 0).repeat_interleave(2, 0).repeat_interleave(2, 1)
        correction = self._run(self._correction, torch.cat([plain, known], -1)[None])[0]
        blocks = (plain + correction).view(2 * h, 2 * w, 3, BLOCK, BLOCK)
        image = blocks.permute(2, 0, 3, 1, 4).reshape(1, 3, FACTOR * h, FACTOR * w)
        return image.add_(1).mul_(0.5).clamp_(0, 1)

    def photo_maps(self, photos: Float[Tensor, "C 3 H W"]) -> PhotoMaps:
        """What decoding reads of these photos."""
        small = F.avg_pool2d(photos, search_stride(*photos.shape[-2:]))
        features = self._run(self._of_photo, (small - 0.5).permute(0, 2, 3, 1))
        unused = small.new_zeros(*features.shape[:-1], 16 - FEATURES - 3)
        maps = torch.cat([features, small.permute(0, 2, 3, 1), unused], -1)
        # A row and a column more, so that every place has a neighbour.
        maps = torch.cat([maps, maps[:, -1:]], 1)
        return PhotoMaps(colours=interleaved(photos), features=torch.cat([maps, maps[:, :, -1:]], 2).contiguous())

    def survey(self, inputs: DecoderInputs, photos: PhotoMaps) -> Found | None:
        """See `ReferenceDecoder.survey`; None where a single photo leaves nothing to search."""
        count = len(inputs.photos)
        if count == 1:
            return None
        found = [
            self.find(
                inputs.photos[photo : photo + 1],
                inputs.of_photo(photo),
                photos.of([other for other in range(count) if other != photo]),
            )
            for photo in range(count)
        ]
        return Found(
            inverse_depth=torch.cat([one.inverse_depth for one in found]),
            sureness=torch.cat([one.sureness for one in found]),
        )

    def find(self, picture: Float[Tensor, "1 3 H W"], inputs: DecoderInputs, photos: PhotoMaps) -> Found:
        """See `ReferenceDecoder.find`."""
        height, width = picture.shape[-2:]
        stride, drawn = search_stride(height, width), inputs.drawn
        h, w = height // stride, width // stride
        maps = torch.cat([picture, drawn.rgb, drawn.signals, drawn.inverse_depth[:, None]], 1)
        pooled = F.avg_pool2d(maps, stride)[0]
        seen, rendered, signals, own = pooled.split([3, 3, 3, 1])
        of_view = torch.cat([seen - 0.5, rendered - 0.5, signals])
        target = self._run(self._of_target, of_view.permute(1, 2, 0)[None])[0]
        stacked = torch.empty(h, w, COST_CHANNELS * NUM_PLANES + target.shape[-1])
        size = (float(inputs.photos.shape[-1]), float(inputs.photos.shape[-2]))
        cost_in, cost_out = self._weighing
        in_bands(
            search_kernels.search_costs,
            h,
            photos.features,
            inputs.A[0],
            inputs.b[0],
            torch.tensor(size),
            float(stride),
            inputs.planes,
            target,
            seen,
            rendered,
            own[0],
            signals[1],
            cost_in.weight,
            cost_in.bias,
            cost_out.weight,
            cost_out.bias,
            stacked,
        )
        reasoned = self._run(self._reason, stacked[None]).permute(0, 3, 1, 2)
        logits = F.pixel_shuffle(reasoned, 2) + stacked[None, ..., :NUM_PLANES].permute(0, 3, 1, 2)
        inverse_depth, sureness = torch.empty(1, 1, *logits.shape[-2:]), torch.empty(1, 1, *logits.shape[-2:])
        in_bands(
            search_kernels.decide,
            logits.shape[-2],
            logits[0].softmax(0),
            inputs.planes,
            inverse_depth[0, 0],
            sureness[0, 0],
        )
        return Found(inverse_depth=inverse_depth, sureness=sureness)

    def compose(
        self, picture: Float[Tensor, "1 3 H W"], inputs: DecoderInputs, found: Found, photos: PhotoMaps
    ) -> Float[Tensor, "1 3 H W"]:
        """See `ReferenceDecoder.compose`; clamped to [0, 1]."""
        height, width = picture.shape[-2:]
        hb, wb, count = height // BLOCK, width // BLOCK, len(inputs.photos)
        fine = F.interpolate(found.inverse_depth, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
        sampled, inside = torch.empty(count, height, width, 3), torch.empty(count, height, width)
        parts = torch.empty(count, hb, wb, 7 * BLOCK**2 + 2)
        render, redrawn = inputs.rendered[0], inputs.drawn
        in_bands(
            kernels.sample_photos,
            hb,
            photos.colours,
            inputs.A[0],
            inputs.b[0],
            fine,
            render,
            picture[0],
            sampled,
            inside,
            parts,
        )
        sureness = resized(found.sureness, (hb, wb))
        movement = block_movement(inputs, resized(found.inverse_depth, (hb, wb)))[:, 0]
        parts[..., -2], parts[..., -1] = sureness[0, 0], movement
        judged = self._run(self._judge, parts)
        warped, blocks = torch.empty(3, height, width), torch.empty(hb, wb, 18 * BLOCK**2 + 1 + VIEW_CHANNELS)
        in_bands(
            kernels.weigh_photos,
            hb,
            judged,
            movement,
            NEARNESS,
            sampled,
            inside,
            render,
            picture[0],
            inputs.signals[0],
            redrawn.rgb[0],
            redrawn.signals[0],
            warped,
            blocks,
        )
        blocks[..., 18 * BLOCK**2] = sureness[0, 0]
        fused = self._run(self._fuse, blocks[None])[0]
        frame = torch.empty(3, height, width)
        in_bands(kernels.mix_sources, hb, fused, render, picture[0], warped, redrawn.rgb[0], frame)
        return frame[None]

    def agreed(self, path: Path, views: Sequence[int]) -> Float[Tensor, "v 3 H W"]:
        """See `Agreement`: the frames of `views`, clamped to [0, 1]."""
        colours = interleaved(path.frames)
        return torch.stack([self._agreed(path, colours, view) for view in views])

    def _agreed(self, path: Path, colours: Float[Tensor, "V H W 4"], view: int) -> Float[Tensor, "3 H W"]:
        height, width = path.frames.shape[-2:]
        hb, wb, beside = height // BLOCK, width // BLOCK, path.neighbours
        seen = torch.empty(2, height, width, 3)
        alike, apart, calm = (torch.empty(2, height, width) for _ in range(3))
        parts, known = torch.empty(2, hb, wb, 4 * BLOCK**2), torch.empty(hb, wb, 9 * BLOCK**2)
        in_bands(
            kernels.see_beside,
            hb,
            view,
            beside.index[view],
            beside.exists[view],
            beside.A[view],
            beside.b[view],
            colours,
            path.inverse_depth,
            path.rendered[view],
            path.signals[view],
            SAME_DEPTH,
            REACH,
            seen,
            alike,
            apart,
            parts,
            known,
        )
        in_bands(kernels.box_means, height, apart, calm)
        features = self._run(self._of_neighbour, parts)
        together = torch.cat([known, features.sum(0)], -1)[None]
        reasoned = self._run(self._agree, together)
        own = self._run(self._own, reasoned)[0]
        each = self._run(self._each, torch.cat([reasoned.expand(2, -1, -1, -1), features], -1))
        mixed = torch.empty(3, height, width)
        in_bands(
            kernels.mix_neighbours,
            hb,
            own,
            each,
            seen,
            alike,
            calm,
            colours[view],
            CALM,
            SAME_COLOUR,
            mixed,
        )
        return mixed

    def _run(self, network: nn.Module, maps: Float[Tensor, "B h w F"]) -> Float[Tensor, "B h2 w2 G"]:
        """A network over maps that lie channels last, in and out in float32."""
        out: Tensor = network(maps.to(self.dtype).permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1).float()


def _laid_out(modules: Sequence[nn.Module], dtype: torch.dtype) -> nn.Sequential:
    copied = deepcopy(nn.Sequential(*modules)).eval().requires_grad_(False)
    return copied.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _block_rows(basis: Float[Tensor, "C 3 8 8"]) -> Float[Tensor, "C 192"]:
    """The synthesis as rows: a cell's quarters, each with its colours and 4 x 4 pixels in `pixel_unshuffle`'s order."""
    quarters = basis.view(-1, 3, 2, BLOCK, 2, BLOCK).permute(0, 2, 4, 1, 3, 5)
    return quarters.reshape(len(basis), -1).contiguous()

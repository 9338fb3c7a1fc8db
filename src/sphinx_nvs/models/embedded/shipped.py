"""The embedded pair's weights: shipped inside the package, checked by hash, loaded without unpickling."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import torch
from safetensors.torch import load, save

from sphinx_nvs.errors import SphinxError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.models.embedded.denoiser import NANO, Nano
from sphinx_nvs.models.unet.network import UNetConfig

WEIGHTS, CARD = "nano.safetensors", "card.json"


def load_card() -> JSONObject:
    """The model card: data, steps, figures, licence, and the weights' sha256."""
    return json.loads((files(__package__) / CARD).read_text())


def network_from_card(values: JSONObject | None) -> UNetConfig:
    """The network that a card describes (lists stand for tuples); cards without one are of `NANO`."""
    if values is None:
        return NANO
    fields: JSONObject = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return UNetConfig(**fields)


def load_nano() -> Nano:
    """The embedded denoiser with its shipped weights, in float32, ready to infer.

    Raises:
        SphinxError: the shipped file is damaged.
    """
    data = (files(__package__) / WEIGHTS).read_bytes()
    card = load_card()
    found, wanted = hashlib.sha256(data).hexdigest(), card["sha256"]
    if found != wanted:
        raise SphinxError(f"{WEIGHTS}: sha256 is {found[:12]}…, the card says {wanted[:12]}…; install sphinx-nvs again")
    nano = Nano(network_from_card(card.get("network")))
    nano.load_state_dict({key: value.float() for key, value in load(data).items()}, assign=True)
    return nano.eval().requires_grad_(False)


def pack_weights(nano: Nano) -> tuple[bytes, str]:
    """The weights in half precision as safetensors bytes, and their sha256."""
    state = {key: value.detach().to(torch.float16).contiguous() for key, value in nano.state_dict().items()}
    data = save(state)
    return data, hashlib.sha256(data).hexdigest()

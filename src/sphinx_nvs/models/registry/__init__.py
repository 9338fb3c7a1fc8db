"""The model registry: which models exist, their licences, the source of their weights, and their local files.

cards    model descriptions          resolution     local weights by name, path or repository
header   safetensors headers         installation   installing weights (`pull`, `adopt`), checking them (`verify`)
hub      downloads                   convert        pickled checkpoints to safetensors, once, without running them
"""

from sphinx_nvs.models.registry.cards import CARDS, PLUGINS, Card, Licence, card_named
from sphinx_nvs.models.registry.resolution import Record, find_record, locate, resolve, resolve_all

__all__ = [
    "CARDS",
    "PLUGINS",
    "Card",
    "Licence",
    "Record",
    "card_named",
    "find_record",
    "locate",
    "resolve",
    "resolve_all",
]

"""The model registry: what can be run, under which licence, where its weights come from and where they live here.

cards    what there is              places   where it is, by name, path or repository
header   what a file holds          store    taking files in (`pull`, `adopt`), checking them (`verify`)
hub      downloads                  convert  pickled checkpoints to safetensors, once, without running them
"""

from sphinx_nvs.models.registry.cards import CARDS, Card, Licence, card_named
from sphinx_nvs.models.registry.places import Record, find_record, locate, resolve, resolve_all

__all__ = ["CARDS", "Card", "Licence", "Record", "card_named", "find_record", "locate", "resolve", "resolve_all"]

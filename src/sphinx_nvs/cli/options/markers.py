"""Annotations that several commands' options share."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg


def computed(metavar: str, hint: str) -> object:
    """For options with a computed default."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {hint})")


Flag = Annotated[bool, arg(help_behavior_hint="")]
"""A switch, whose default needs no words."""

"""How much of the target views the photos agree on, and whether to warn of soft frames before they are made.

    support = mean of alpha times confidence over all pixels of the target views

Predicted quality is measured against full diffusion's frames. Where hardly a place is matched, those are soft as well:
a plan may keep all of its quality and still show fog. Support tells the two apart, see docs/explanation/assessment.md.
"""

from __future__ import annotations

from sphinx_nvs.models.base import Render

SOFT = 0.25
"""Support below which frames are expected to be soft."""


def support(render: Render) -> float:
    """The module's equation, [0, 1]."""
    return float((render.alpha * render.confidence).mean())


def soft_frames_warning(render: Render) -> str | None:
    """A sentence for plans, quotes and reports; None where photos agree on enough."""
    share = support(render)
    if share >= SOFT:
        return None
    return f"wide baselines: the photos agree on {share:.0%} of these views, expect soft frames"

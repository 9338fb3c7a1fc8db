"""Made-up profiles and requests for tests of the planner."""

import numpy as np
import torch

from sphinx_nvs.plan.levers import Levers
from sphinx_nvs.plan.profile import FittedProfile
from sphinx_nvs.plan.profile_plan import Options, Signals
from sphinx_nvs.plan.search import Cluster, Costs

STEPS, STARTS, BINS = 12, (0, 4, 12), 5
LEVERS = (Levers(width_nats=0.5, refresh_nats=1.0), Levers(width_nats=2.0, refresh_nats=9.0), Levers(width_nats=9.0))
SIGMAS = torch.cat([torch.logspace(1, -2, STEPS), torch.zeros(1)])


def made_profile(seed: int = 0, **changes) -> FittedProfile:
    """A profile whose losses grow with the signal and with the coarseness of the levers."""
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.uniform(0, 2, BINS))
    tables = []
    for lever in range(len(LEVERS)):
        refined = kept[:, None] * np.sort(rng.uniform(0, 0.2 * (lever + 1), len(STARTS) - 1))
        tables.append(np.concatenate([refined, kept[:, None]], axis=1)[None])
    cluster = Cluster(
        centre=None,
        losses=tuple(tables),
        whole=tuple(np.concatenate([0.8 * t[..., :-1], t[..., -1:]], axis=-1) for t in tables),
    )
    fields = {
        "name": "made",
        "preset": "embedded",
        "metric": "ssim",
        "against": "full",
        "scale": 0.03,
        "signal": "change",
        "score": "frame score",
        "num_steps": STEPS,
        "starts": STARTS,
        "signal_edges": tuple(float(edge) for edge in np.linspace(0.1, 0.8, BINS - 1)),
        "score_edges": (),
        "levers": LEVERS,
        "clusters": (cluster,),
        "correction": ((0.0, 0.0), (0.5, 0.4), (1.0, 1.1)),
        "correction_held": ((0.0, 0.0), (1.0, 0.9)),
        "costs": Costs(fixed=1.0, sparse_base=0.3, sparse_slope=0.9),
        "typical": ((0.5, 0.1, 0.2),),
        "evidence": {"scenes": 3},
    }
    return FittedProfile(**(fields | changes))


def made_signals(seed: int = 0, views: int = 2) -> Signals:
    """Region signals of a few small views."""
    generator = torch.Generator().manual_seed(seed)
    region = torch.rand(views, 4, 5, generator=generator) * torch.rand(1, generator=generator)
    return Signals(region=region, scores=torch.full_like(region, 0.9), descriptor=torch.tensor([1.0]))


def made_options(seed: int = 0, timing=None, **changes) -> Options:
    """What a made-up profile offers a made-up request."""
    profile, signals = made_profile(seed, **changes), made_signals(seed)
    return Options.of(profile, signals, SIGMAS, solver="euler", temperature=1.0, timing=timing)

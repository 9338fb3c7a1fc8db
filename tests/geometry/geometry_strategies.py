"""Random cameras and rotations for the laws of geometry."""

import torch
from hypothesis import strategies as st

from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras


def generator(seed):
    return torch.Generator().manual_seed(seed)


@st.composite
def twists(draw, largest_angle=3.1):
    """(omega, v) with |omega| below `largest_angle`, tiny angles included."""
    rng = generator(draw(st.integers(0, 2**31)))
    angle = draw(st.one_of(st.floats(0, largest_angle), st.sampled_from([0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3])))
    axis = torch.randn(3, generator=rng, dtype=torch.float64)
    v = torch.randn(3, generator=rng, dtype=torch.float64)
    return torch.cat([axis / axis.norm() * angle, v])


@st.composite
def cameras(draw, num_views=3):
    """Cameras anywhere, looking anywhere, with off-centre principal points."""
    rng = generator(draw(st.integers(0, 2**31)))
    c2w = se3.exp(torch.randn(num_views, 6, generator=rng, dtype=torch.float64))
    height, width = draw(st.integers(4, 12)), draw(st.integers(4, 12))
    K = torch.eye(3, dtype=torch.float64).repeat(num_views, 1, 1)
    K[:, 0, 0] = width * (0.5 + torch.rand(num_views, generator=rng, dtype=torch.float64))
    K[:, 1, 1] = height * (0.5 + torch.rand(num_views, generator=rng, dtype=torch.float64))
    K[:, 0, 2] = width * (0.3 + 0.4 * torch.rand(num_views, generator=rng, dtype=torch.float64))
    K[:, 1, 2] = height * (0.3 + 0.4 * torch.rand(num_views, generator=rng, dtype=torch.float64))
    return Cameras(c2w, K, height, width)


def arc(num_views, *, radius=4.0, degrees=40.0, height=24, width=32):
    """Cameras on a circle round the point (0, 0, `radius`), all looking at it."""
    angles = torch.linspace(-degrees / 2, degrees / 2, num_views, dtype=torch.float64).deg2rad()
    positions = radius * torch.stack([angles.sin(), torch.zeros_like(angles), 1 - angles.cos()], dim=-1)
    target, up = (
        torch.tensor([0, 0, radius], dtype=torch.float64),
        torch.tensor([0.0, -1, 0], dtype=torch.float64),
    )
    K = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]], dtype=torch.float64).expand(num_views, 3, 3)
    return Cameras(se3.look_at(positions, target, up), K, height, width)

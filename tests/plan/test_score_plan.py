"""Laws of score rules: the scores decide, and a higher quality never computes less."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.assess import Assessment
from sphinx_nvs.errors import InputError
from sphinx_nvs.plan import PAPER_PROFILE, PlanConfig, score_plan, uniform_plan
from sphinx_nvs.plan.score_plan import uncertain_cells

SIGMAS = torch.cat([torch.linspace(10, 0.1, 50), torch.zeros(1)])


def assessment(seed: int = 0) -> Assessment:
    generator = torch.Generator().manual_seed(seed)
    uncertainty = torch.zeros(3, 32, 48)
    uncertainty[1, 8:24, 8:24] = 0.9
    uncertainty[2] = 0.8
    return Assessment(
        uncertainty=uncertainty,
        quality=torch.rand(3, generator=generator),
        descriptor=torch.ones(4) / 2,
    )


def test_full_diffusion_and_regression_are_plans():
    full = uniform_plan((3, 4, 6), SIGMAS, 0, reason="")
    none = uniform_plan((3, 4, 6), SIGMAS, 50, reason="")
    assert (full.start_step == 0).all()
    assert full.active_share == 1
    assert (none.start_step == 50).all()
    assert none.active_share == 0
    assert none.dense_steps == ()
    assert (full.quality, none.quality) == (1.0, 0.0)


def test_only_uncertain_cells_start_and_hopeless_views_start_whole():
    plan = score_plan(assessment(), SIGMAS, 8, quality=0.95)
    held = plan.start_step == 50
    assert held[0].all()
    assert not held[1, 1:3, 1:3].any()
    assert held[1].sum() == 24 - 4
    assert not held[2].any()


@given(seed=st.integers(0, 1000), a=st.floats(0, 1), b=st.floats(0, 1))
def test_higher_quality_never_computes_less(seed, a, b):
    low, high = sorted((a, b))
    plans = [score_plan(assessment(seed), SIGMAS, 8, quality=q) for q in (low, high)]
    assert plans[0].active_share <= plans[1].active_share


@given(quality=st.floats(0, 1), cluster=st.integers(0, 2), a=st.floats(0, 1.2), b=st.floats(0, 1.2))
def test_a_worse_view_never_starts_later(quality, cluster, a, b):
    worse, better = sorted((a, b))
    starts = [PAPER_PROFILE.start_step(score, quality, cluster, 50) for score in (worse, better)]
    assert starts[0] <= starts[1]


def test_quality_one_is_full_diffusion():
    assert (score_plan(assessment(), SIGMAS, 8, quality=1.0).start_step == 0).all()


@pytest.mark.parametrize("quality", [-0.1, 1.5, float("nan")])
def test_quality_outside_its_range_is_refused(quality):
    with pytest.raises(InputError, match=r"^quality: it is .*; give a number in 0\.\.1, e\.g\. 0\.95$"):
        score_plan(assessment(), SIGMAS, 8, quality=quality)


def test_a_cell_is_uncertain_by_its_share_of_pixels():
    uncertainty = torch.zeros(1, 16, 16)
    uncertainty[0, 0, :4] = 1.0
    config = PlanConfig(cell_share=4 / 64)
    assert uncertain_cells(uncertainty, 8, config).sum() == 1
    assert uncertain_cells(uncertainty, 8, PlanConfig(cell_share=5 / 64)).sum() == 0

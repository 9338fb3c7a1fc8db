"""Laws of plans: they survive the disk, and they know what they cost."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.compute_plan import ARITHMETICS, Prediction, guidance_interval_steps

SIGMAS = torch.tensor([3.0, 1.0, 0.3, 0.0])


@given(
    seed=st.integers(0, 2**31),
    solver=st.sampled_from(["euler", "multistep"]),
    unconditional=st.none() | st.sets(st.integers(0, 2)).map(lambda steps: tuple(sorted(steps))),
    predicted=st.sampled_from([None, Prediction(quality=0.9, compute=0.3, seconds=1.5)]),
)
def test_a_saved_plan_comes_back_equal(tmp_path_factory, seed, solver, unconditional, predicted):
    start = torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(seed))
    plan = ComputePlan(
        start_step=start,
        sigmas=SIGMAS,
        solver=solver,
        dense_steps=(0, 2),
        unconditional_steps=unconditional,
        reason="r",
        quality=0.9,
        temperature=0.5,
        predicted=predicted,
    )
    path = tmp_path_factory.mktemp("plan") / "plan.safetensors"
    plan.save(path)
    back = ComputePlan.load(path)
    assert torch.equal(back.start_step, plan.start_step)
    assert torch.equal(back.sigmas, plan.sigmas)
    assert back.to_json() == plan.to_json()
    assert back.unconditional_steps == plan.unconditional_steps
    assert back.predicted == plan.predicted
    assert [p.name for p in path.parent.iterdir()] == ["plan.safetensors"]


def test_active_share_counts_cell_steps():
    plan = ComputePlan(start_step=torch.tensor([[[0, 3], [3, 2]]]), sigmas=SIGMAS)
    assert plan.active_share == pytest.approx((3 + 0 + 0 + 1) / 12)
    assert plan.first_step == 0
    assert plan.active(2).tolist() == [[[True, False], [False, True]]]


def test_guidance_is_fresh_at_the_first_step_and_where_the_plan_says():
    start = torch.full((1, 1, 1), 1)
    plan = ComputePlan(start_step=start, sigmas=torch.tensor([9.0, 3.0, 1.0, 0.3, 0.0]), unconditional_steps=(3,))
    assert [plan.asks_unconditional(step) for step in range(1, 4)] == [True, False, True]
    assert plan.to_json()["unconditional_steps"] == [3]
    every = ComputePlan(start_step=start, sigmas=plan.sigmas)
    assert [every.asks_unconditional(step) for step in range(1, 4)] == [True, True, True]
    assert every.to_json()["unconditional_steps"] is None


def test_a_guidance_interval_leaves_out_its_ends():
    assert guidance_interval_steps(SIGMAS, (0.5, 3.0)) == (1,)
    assert guidance_interval_steps(SIGMAS, (0, 100)) == (0, 1, 2)
    assert guidance_interval_steps(SIGMAS, (4.0, 5.0)) == ()
    with pytest.raises(InputError, match=r"^guidance interval: it is 3\.\.0\.5; give the lower noise level first$"):
        guidance_interval_steps(SIGMAS, (3.0, 0.5))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"start_step": torch.full((1, 1, 1), 4)}, "start_step: values 4..4; give steps in 0..3"),
        (
            {"sigmas": torch.tensor([1.0, 2.0, 0.3, 0.0])},
            "sigmas: they do not descend to 0; give a strictly descending grid that ends in 0",
        ),
        ({"temperature": 1.5}, "temperature: it is 1.5; give a number in 0..1"),
        ({"solver": "rk4"}, "solver: 'rk4' is unknown; choose euler or multistep"),
        (
            {"arithmetic": "mental"},
            f"arithmetic: 'mental' is unknown; choose {' or '.join(ARITHMETICS)}",
        ),
    ],
)
def test_impossible_plans_are_refused(change, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        ComputePlan(**({"start_step": torch.zeros(1, 1, 1, dtype=torch.long), "sigmas": SIGMAS} | change))


def test_a_file_that_is_no_plan_is_named(tmp_path):
    path = tmp_path / "plan.safetensors"
    path.write_bytes(b"not a plan at all")
    with pytest.raises(InputError, match="is not a plan file"):
        ComputePlan.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        ComputePlan.load(tmp_path / "absent")

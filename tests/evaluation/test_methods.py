import pytest
import torch
from eval_helpers import SIZE, pipeline, tiny_case

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.methods import DEFAULT, FULL, every_kth_level, method_named, methods_named, plan_with
from sphinx_nvs.plan.levers import RESEARCH
from sphinx_nvs.sampling_params import SamplingParams


@pytest.fixture(scope="module")
def prepared():
    loaded = tiny_case().load(SIZE)
    return pipeline().prepare(loaded.scene, loaded.targets)


def plan_of(name, prepared):
    return method_named(name).make(pipeline(), prepared, 0).plan


@pytest.mark.parametrize(("name", "steps", "solver"), [("full-50", 50, "euler"), ("full-14", 14, "multistep")])
def test_full_diffusion_denoises_everything_from_the_first_step(prepared, name, steps, solver):
    plan = plan_of(name, prepared)
    assert (plan.num_steps, plan.solver) == (steps, solver)
    assert int(plan.start_step.max()) == 0
    assert plan.dense_steps == tuple(range(steps))
    assert torch.equal(plan.sigmas, pipeline().denoiser.sigmas(steps))


def test_skipping_keeps_every_third_level_of_full_diffusion(prepared):
    full, skip = plan_of("full-50", prepared), plan_of("skip-3", prepared)
    assert torch.equal(skip.sigmas, torch.cat([full.sigmas[:50:3], full.sigmas[-1:]]))
    assert skip.num_steps == 17
    assert every_kth_level(full, 1).num_steps == 50


def test_regression_denoises_nothing_and_is_not_random(prepared):
    plan = plan_of("regression", prepared)
    assert plan.first_step == plan.num_steps
    assert not method_named("regression").is_random


def test_the_warm_start_uses_the_rules_mask_with_dense_calls(prepared):
    plan = plan_of("warm", prepared)
    assert plan.num_steps == 50
    assert plan.dense_steps == tuple(range(plan.first_step, 50))
    assert torch.equal(plan.start_step, plan_with(pipeline(), prepared, method="sphinx").start_step)


def test_research_is_first_order_with_a_dense_tail(prepared):
    plan = plan_of("research", prepared)
    assert plan.solver == "euler"
    assert set(range(round(50 * (1 - RESEARCH.tail_share)), 50)) <= set(plan.dense_steps)


def test_ours_is_the_presets_own_plan_at_that_quality(prepared):
    for name, quality in (("ours-0.90", 0.90), ("ours-0.98", 0.98), ("ours-1", 1.0)):
        plan = plan_of(name, prepared)
        assert plan.quality == quality
        assert torch.equal(
            plan.start_step, pipeline().plan_prepared(prepared, SamplingParams(quality=quality)).plan.start_step
        )
    assert plan_of("ours-0.98", prepared).first_step <= plan_of("ours-0.90", prepared).num_steps


def test_all_share_the_presets_temperature(prepared):
    wanted = pipeline().plan_config.temperature
    assert {plan_of(name, prepared).temperature for name in (*DEFAULT, "d4", "rt", "r", "r-plus")} == {wanted}


def test_the_baseline_comes_first_and_once():
    names = [m.name for m in methods_named(["regression", "ours-0.95"])]
    assert names == [FULL, "regression", "ours-0.95"]
    assert [m.name for m in methods_named(["regression", FULL])] == [FULL, "regression"]


@pytest.mark.parametrize("name", ["ours", "ours-1.5", "full-0", "skip-0", "full-5x", "sphinx", ""])
def test_an_unknown_name_is_an_error(name):
    with pytest.raises(
        InputError, match=r"method: there is no '.*'; choose one of full-N, skip-K, ours-Q, deadline-F, regression"
    ):
        method_named(name)


def test_a_repeated_name_is_an_error():
    with pytest.raises(InputError, match=r"methods: warm is named twice; name every method once"):
        methods_named(["warm", "r", "warm"])

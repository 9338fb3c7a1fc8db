"""Laws of the research code's plan: one mask, its refreshes and tail, its special cases by area."""

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.seva.seva_denoiser import SigmaTable
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan, Profile
from sphinx_nvs.released_code.masks import ResearchAssessment
from sphinx_nvs.released_code.released_plan import research_plan

SIGMAS = SigmaTable.seva().grid(50)
SIZE, FACTOR = 128, 8


def assessment_of(share, scores=(0.9, 0.75, 1.2), score_name="our score", descriptor=(1.0, 0.0, 0.0)):
    """With the top `share` of rows as holes, and one more pixel row sharp."""
    rows = torch.arange(SIZE)[:, None].expand(SIZE, SIZE)
    return ResearchAssessment(
        holes=rows < share * SIZE,
        holes_or_sharp=rows < share * SIZE + (share > 0),
        scores=torch.tensor(scores),
        score_name=score_name,
        descriptor=torch.tensor(descriptor),
    )


def plan_of(share, **options):
    return research_plan(assessment_of(share), SIGMAS, FACTOR, **options)


def test_views_start_by_their_score_in_one_mask_and_the_rest_joins_at_the_tail():
    plan = plan_of(0.5)
    top, rest = plan.start_step[:, :8], plan.start_step[:, 9:]
    assert [view.unique().tolist() for view in top] == [[25], [15], [40]]
    assert rest.unique().tolist() == [40]
    assert plan.first_step == 15
    assert plan.solver == "euler"
    assert plan.temperature == 1


def test_every_fifth_step_and_the_last_ten_are_dense():
    assert plan_of(0.5).dense_steps == (15, 20, 25, 30, 35, *range(40, 50))


def test_a_view_without_uncertain_cells_of_its_own_is_refined_where_others_are():
    plan = plan_of(0.5)
    assert (plan.start_step[:, 0, 0] < 50).all()


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_without_a_mask_views_are_whole(share):
    plan = plan_of(share)
    assert all(len(view.unique()) == 1 for view in plan.start_step)


def test_nothing_uncertain_leaves_the_tail_alone():
    plan = plan_of(0.0)
    assert plan.start_step.unique().tolist() == [40]
    assert plan.dense_steps == tuple(range(40, 50))


@pytest.mark.parametrize(("share", "arithmetic"), [(0.05, "research-tiled"), (0.12, "research"), (0.0, "research")])
def test_small_masks_go_by_tiles(share, arithmetic):
    assert plan_of(share, arithmetic="research").arithmetic == arithmetic
    assert plan_of(share).arithmetic == "exact"


def test_maps_that_do_not_divide_into_tiles_do_without():
    assert research_plan(assessment_of(0.05), SIGMAS, 6, arithmetic="research").arithmetic == "research"


def test_the_hole_only_cluster_leaves_sharp_pixels_alone():
    profile = Profile(name="three", clusters=PAPER_PROFILE.clusters, centres=torch.eye(3))
    # One row of pixels more begins one row of cells more.
    rows = {
        cluster: int(
            (
                research_plan(
                    assessment_of(0.5, scores=(0.96,), descriptor=tuple(torch.eye(3)[cluster].tolist())),
                    SIGMAS,
                    FACTOR,
                    profile=profile,
                ).start_step[0, :, 0]
                < 40
            ).sum()
        )
        for cluster in range(3)
    }
    assert rows == {0: 9, 1: 8, 2: 9}


def test_start_steps_scale_with_the_grid():
    plan = research_plan(assessment_of(0.5), SigmaTable.seva().grid(20), FACTOR)
    assert plan.start_step[:, 0, 0].tolist() == [10, 6, 16]
    assert plan.dense_steps == (6, 8, 10, 12, 14, 16, 17, 18, 19)


def test_the_plan_is_a_value(tmp_path):
    plan = plan_of(0.05, arithmetic="research")
    plan.save(tmp_path / "plan.safetensors")
    again = ComputePlan.load(tmp_path / "plan.safetensors")
    assert torch.equal(again.start_step, plan.start_step)
    assert again.to_json() == plan.to_json()
    assert again.to_json()["arithmetic"] == "research-tiled"


def test_the_reason_says_what_stood_in_for_musiq():
    assert "scored by our score in the place of MUSIQ start at steps 15..40" in plan_of(0.5).reason
    scored = research_plan(assessment_of(0.5, score_name="MUSIQ"), SIGMAS, FACTOR)
    assert "scored by MUSIQ start" in scored.reason


def test_other_qualities_have_no_rules():
    with pytest.raises(InputError, match=r"quality: it is 0.9; the research plan has rules for 0.95 or 0.98 only"):
        plan_of(0.5, quality=0.9)
    with pytest.raises(InputError, match="'fast' is unknown"):
        plan_of(0.5, arithmetic="fast")


def test_the_pairs_temperature_may_be_kept():
    assert plan_of(0.5, temperature=0.25).temperature == 0.25

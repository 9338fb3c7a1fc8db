import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profile_helpers import made_profile

from sphinx_nvs.errors import InputError
from sphinx_nvs.plan import PAPER_PROFILE
from sphinx_nvs.plan.profile import FittedProfile, load_profile, profile_from_json, rules_to_json, shipped_profile


@given(seed=st.integers(0, 1000))
def test_a_profile_comes_back_from_its_file(seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "profile.json"
    profile = made_profile(seed)
    path.write_text(json.dumps(profile.to_json()))
    back = load_profile(path, "embedded")
    assert isinstance(back, FittedProfile)
    assert back.to_json() == profile.to_json()
    for ours, theirs in zip(profile.clusters, back.clusters, strict=True):
        for a, b in zip((*ours.losses, *ours.whole), (*theirs.losses, *theirs.whole), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_papers_rules_come_back_from_theirs():
    back = profile_from_json(json.loads(json.dumps(rules_to_json(PAPER_PROFILE))))
    assert rules_to_json(back) == rules_to_json(PAPER_PROFILE)
    assert len(back.clusters) == 3
    assert {quality for cluster in back.clusters for quality in cluster} == {0.95, 0.98}


@given(losses=st.lists(st.floats(0, 3), min_size=2, max_size=6), active=st.floats(0, 1))
def test_the_correction_ascends(losses, active):
    profile = made_profile()
    corrected = [profile.corrected(loss, active=active) for loss in sorted(losses)]
    assert corrected == sorted(corrected)
    assert profile.corrected(0.0, active=active) == 0.0


def test_a_plan_that_refines_next_to_nothing_is_corrected_as_the_render_is():
    profile = made_profile()
    held, whole = profile.corrected(0.4, active=0.5), profile.corrected(0.4, active=0.0)
    assert held != whole
    assert profile.corrected(0.4, active=1.0) == whole
    assert profile.corrected(0.4, active=1e-9) == pytest.approx(whole)
    assert profile.corrected(0.4, active=0.05) == pytest.approx((held + whole) / 2)


def test_the_shipped_profile_was_fitted_on_enough_scenes_and_its_front_ascends():
    profile = shipped_profile("embedded")
    assert isinstance(profile, FittedProfile)
    assert profile.preset == "embedded"
    assert profile.evidence["scenes"] >= 40
    qualities, shares, _ = zip(*profile.typical, strict=True)
    assert list(qualities) == sorted(qualities)
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON; give a file that sphinx-nvs profile wrote"),
        ("[]", "it holds no profile; give a file that sphinx-nvs profile wrote"),
        ('{"kind": "tables", "version": 99}', "its version is 99, this program's is 1; make it again with"),
        ('{"kind": "tables", "version": 1}', "it is damaged; make it again with sphinx-nvs profile"),
        ('{"kind": "rules", "version": 1, "clusters": 3}', "it is damaged; make it again with sphinx-nvs profile"),
        (
            '{"kind": "tables", "version": 1, "preset": "seva-mvsplat"}',
            "it was made for the preset seva-mvsplat, not embedded; make one with sphinx-nvs profile --preset embedded",
        ),
    ],
)
def test_files_that_hold_no_profile_of_this_pair(text, sentence, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_profile(path, "embedded")
    assert str(caught.value).startswith(f"profile {path}: {sentence}")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); give a file"):
        load_profile(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signal": "colour"}, "its signal is 'colour'"),
        ({"score": "mood"}, "its score is 'mood'"),
        ({"scale": 0.0}, "its scale is 0"),
        ({"starts": (0, 4, 9)}, "its start steps are"),
        ({"signal_edges": (0.5,)}, "its tables are not all"),
    ],
)
def test_numbers_that_do_not_fit_each_other(changes, words):
    with pytest.raises(InputError, match=words):
        made_profile(**changes)


def test_a_scene_belongs_to_the_nearest_cluster():
    (only,) = made_profile().clusters
    assert made_profile().cluster(torch.tensor([0.0, 1.0])) == 0
    clusters = tuple(replace(only, centre=torch.tensor(centre)) for centre in ([1.0, 0.0], [0.0, 1.0]))
    profile = made_profile(clusters=clusters)
    assert [profile.cluster(torch.tensor(seen)) for seen in ([0.9, 0.1], [0.1, 0.9])] == [0, 1]


def test_the_papers_rules_belong_to_the_nearest_cluster():
    assert PAPER_PROFILE.cluster(torch.tensor([0.0, 1.0])) == 0, "it has no centres"
    rules = replace(PAPER_PROFILE, centres=torch.eye(3))
    assert [rules.cluster(torch.eye(3)[index]) for index in range(3)] == [0, 1, 2]


@given(cut=st.integers(0, 4000), text=st.text(max_size=5))
def test_a_damaged_file_is_one_sentence(cut, text, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "p.json"
    whole = json.dumps(made_profile().to_json())
    path.write_text(whole[: cut % len(whole)] + text, encoding="utf-8")
    with pytest.raises(InputError):
        load_profile(path, "embedded")

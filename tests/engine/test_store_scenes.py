"""Scenes: rows, pages, who needs them, and folders that go with them."""

import dataclasses

import pytest
from store_fakes import add_job, finish, open_world, scene_of, spec_of

from sphinx_nvs.engine.store.folders import remove_within
from sphinx_nvs.engine.types.jobs import JobState
from sphinx_nvs.engine.types.transitions import JobEvent
from sphinx_nvs.errors import InputError


@pytest.fixture
def store(tmp_path):
    opened, _ = open_world(tmp_path)
    yield opened
    opened.close()


def add_scene(store, folder, scene_id, **fields):
    """A scene with a photo in its folder; the folder."""
    place = folder / "scenes" / scene_id
    place.mkdir(parents=True)
    (place / "0.png").write_bytes(b"photo")
    store.add_scene(scene_of(scene_id, str(place), **fields))
    return place


def test_a_scene_comes_back_as_it_was_written(store):
    scene = scene_of(
        "s1",
        "/somewhere/s1",
        digest="a" * 64,
        warnings=("dark", "blurred"),
        bytes=2**40,
        created_s=1_700_000_000.0,
        expires_s=1_800_000_000.0,
    )
    assert store.add_scene(scene) == scene
    assert store.scene("s1") == scene
    assert [type(x) for x in (store.scene("s1").created_s, store.scene("s1").expires_s)] == [float] * 2
    plain = store.add_scene(scene_of("s2"))
    assert store.scene("s2") == plain
    assert store.scene("s3") is None


def test_an_id_is_taken_once(store):
    first = store.add_scene(scene_of("s1"))
    with pytest.raises(InputError) as caught:
        store.add_scene(scene_of("s1", "/elsewhere", key_id="another"))
    assert str(caught.value) == "scene: there is one with the id 's1'; give it another id"
    assert store.scene("s1") == first


def test_pages_stay_as_they_are_while_scenes_are_added(store):
    for number in range(7):
        store.add_scene(scene_of(f"s{number}", key_id="ab"[number % 2]))
    first = store.list_scenes(limit=3)
    store.add_scene(scene_of("new"))
    second = store.list_scenes(limit=3, before=first[-1].id)
    assert [scene.id for scene in [*first, *second]] == ["s6", "s5", "s4", "s3", "s2", "s1"]
    assert [scene.id for scene in store.list_scenes(key_id="b", before="s5")] == ["s3", "s1"]
    assert store.list_scenes(key_id="nobody") == []
    with pytest.raises(InputError, match="before: there is no scene 'x'; leave it out to start with the newest"):
        store.list_scenes(before="x")


def test_a_deleted_scene_takes_its_folder_along_and_no_other(store, tmp_path):
    mine, other = add_scene(store, tmp_path, "s1"), add_scene(store, tmp_path, "s2")
    scene = store.scene("s1")
    assert store.delete_scene("s1") == scene
    assert store.scene("s1") is None
    assert (mine.exists(), other.exists()) == (False, True)
    assert store.delete_scene("s1") is None


def test_a_scene_outside_the_folder_keeps_its_files(store, tmp_path):
    captures = tmp_path / "captures"
    captures.mkdir()
    store.add_scene(scene_of("s1", str(captures)))
    store.delete_scene("s1")
    assert captures.is_dir()


@pytest.mark.parametrize("name", ["../captures", "..", ".", "", "link/photos"])
def test_no_path_leads_out_of_the_folder_of_scenes(tmp_path, name):
    scenes, captures = tmp_path / "scenes", tmp_path / "captures"
    (captures / "photos").mkdir(parents=True)
    scenes.mkdir()
    (scenes / "link").symlink_to(captures)
    assert not remove_within(scenes, scenes / name)
    assert (captures / "photos").is_dir()
    assert scenes.is_dir()


def test_a_link_in_the_scenes_folder_is_removed_and_its_target_stays(tmp_path):
    scenes, captures = tmp_path / "scenes", tmp_path / "captures"
    captures.mkdir()
    scenes.mkdir()
    (scenes / "link").symlink_to(captures)
    assert remove_within(scenes, scenes / "link")
    assert not (scenes / "link").is_symlink()
    assert captures.is_dir()


def test_a_scene_stays_while_an_unfinished_job_needs_it(store, tmp_path):
    place = add_scene(store, tmp_path, "s1", expires_s=1100.0)
    job = add_job(store, spec=spec_of("s1"))
    with pytest.raises(InputError) as caught:
        store.delete_scene("s1")
    assert str(caught.value) == "scene: an unfinished job needs 's1'; cancel the job first, or wait for its end"
    assert store.sweep(1200).scenes == ()
    assert place.is_dir()
    finish(store, job.id)
    store.record(job.id, JobEvent.REFINED, now=1201)
    assert store.delete_scene("s1").id == "s1"
    assert store.job(job.id).state is JobState.COMPLETED, "views that are done stay"


def test_use_prolongs_a_scenes_time_and_never_shortens_it(store):
    scene = store.add_scene(scene_of("s1", expires_s=1100.0))
    assert store.touch_scene("s1", 1500) == dataclasses.replace(scene, expires_s=1500.0)
    assert store.touch_scene("s1", 1200).expires_s == 1500.0
    assert store.touch_scene("s1", None).expires_s is None
    assert store.touch_scene("s1", 9999).expires_s is None, "what never goes is not made to"
    assert store.scene("s1").expires_s is None
    assert store.touch_scene("nowhere", 1) is None

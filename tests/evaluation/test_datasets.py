import json

import pytest
import torch

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Size, cases_named, default_split, evaluation_index
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene import read_capture
from sphinx_nvs.scene.procedural_captures import read_generated
from sphinx_nvs.scene.transforms import write_transforms

SMALL = Size(short_side=32, most_views=3)


def write_scene(folder, seed=0, splits=((2, (0, 4), (1, 2, 3)),), views=5):
    """A scene in nerfstudio's layout with SEVA's splits, as DL3DV and SEVA's benchmark come."""
    rgb, _, cameras, _ = procedural_views(seed, views, 32, 48, split="test")
    names = [f"images/{i:03d}.png" for i in range(views)]
    for name, image in zip(names, rgb, strict=True):
        media.write_png(folder / name, image)
    write_transforms(folder / "transforms.json", cameras, names)
    for number, train, test in splits:
        path = folder / f"train_test_split_{number}.json"
        path.write_text(json.dumps({"train_ids": list(train), "test_ids": list(test)}))


def write_re10k(folder, name="clip", views=5):
    rgb, _, cameras, _ = procedural_views(1, views, 32, 48, split="test")
    lines = ["https://example.invalid/watch"]
    for i in range(views):
        K, w2c = cameras.K[i], cameras.w2c[i]
        numbers = [K[0, 0] / 48, K[1, 1] / 32, K[0, 2] / 48, K[1, 2] / 32, 0, 0, *w2c[:3].flatten()]
        lines.append(" ".join([f"{1000 + i}", *(f"{float(n):.9f}" for n in numbers)]))
        media.write_png(folder / name / f"{1000 + i}.png", rgb[i])
    (folder / f"{name}.txt").write_text("\n".join(lines))


def test_procedural_scenes_by_name():
    cases = cases_named("procedural:test:3")
    assert [case.name for case in cases] == [f"procedural-test-{i:03d}" for i in range(3)]
    loaded = cases[1].load(SMALL)
    assert loaded.scene.images.shape == (2, 3, 32, 32)
    assert loaded.truth.shape == (3, 3, 32, 32)
    assert loaded.depth is not None
    assert loaded.depth.shape == (3, 32, 32)
    val = cases_named("procedural:val:2")[1].load(SMALL)
    assert float((val.truth - loaded.truth).abs().mean()) > 0.05


def test_every_split_of_every_scene_of_a_folder(tmp_path):
    write_scene(tmp_path / "b", 1, splits=((2, (0, 4), (1, 2, 3)), (3, (0, 2, 4), (1, 3))))
    write_scene(tmp_path / "a", 0, splits=())
    (tmp_path / "notes").mkdir()
    names = [case.name for case in cases_named(f"captures:{tmp_path}")]
    assert names == ["a-2", "b-2", "b-3"]
    assert [case.name for case in cases_named(str(tmp_path))] == names
    assert [case.name for case in cases_named(f"captures:{tmp_path}", splits=[3])] == ["a-2", "b-3"]
    assert [case.name for case in cases_named(f"{tmp_path / 'b'}", splits=[3])] == ["b-3"]


def test_a_capture_keeps_its_aspect_and_its_splits_views(tmp_path):
    write_scene(tmp_path / "b", 1, splits=((3, (0, 2, 4), (1, 3)),))
    loaded = cases_named(str(tmp_path / "b"))[0].load(SMALL)
    assert loaded.scene.images.shape == (3, 3, 32, 48)
    assert loaded.truth.shape == (2, 3, 32, 48)
    assert loaded.depth is None
    exact = cases_named(str(tmp_path / "b"))[0].load(Size(short_side=32, exact=(32, 40), most_views=1))
    assert exact.truth.shape == (1, 3, 32, 40)


def test_camera_files_with_and_without_an_evaluation_index(tmp_path):
    write_re10k(tmp_path / "test")
    case = cases_named(f"re10k:{tmp_path / 'test'}")[0]
    assert case.name == "re10k-clip"
    assert case.load(SMALL).truth.shape == (3, 3, 32, 48)
    (tmp_path / "evaluation_index.json").write_text(json.dumps({"clip": {"context": [1, 3], "target": [2]}}))
    assert cases_named(f"acid:{tmp_path / 'test'}")[0].load(SMALL).truth.shape == (1, 3, 32, 48)
    (tmp_path / "test" / "evaluation.json").write_text(json.dumps({"other": {"context": [1, 3], "target": [2]}}))
    with pytest.raises(InputError, match=r"names no scene"):
        cases_named(f"acid:{tmp_path / 'test'}")


def test_chunks_need_an_evaluation_index(tmp_path):
    torch.save([], tmp_path / "000000.torch")
    with pytest.raises(InputError, match=r"there is no evaluation index; put one there"):
        cases_named(f"re10k:{tmp_path}")
    for name in ("a_evaluation.json", "b_evaluation.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=r"it holds 2 evaluation indices"):
        evaluation_index(tmp_path)


def test_chunked_clips_are_cases(tmp_path):
    from sphinx_nvs.scene.torch_chunks import read_chunk

    read_chunk.cache_clear()
    capture = read_generated("procedural:5", num_views=4, height=32, width=48)
    import io

    import numpy as np
    from PIL import Image

    images, rows = [], torch.zeros(4, 18)
    for i, view in enumerate(capture.views):
        data = io.BytesIO()
        Image.fromarray((255 * view.image).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(data, "JPEG")
        images.append(torch.from_numpy(np.frombuffer(data.getvalue(), np.uint8).copy()))
        rows[i, :4] = torch.stack([view.K[0, 0] / 48, view.K[1, 1] / 32, view.K[0, 2] / 48, view.K[1, 2] / 32])
        rows[i, 6:] = torch.linalg.inv(view.c2w)[:3].flatten()
    torch.save([{"key": "k", "cameras": rows, "images": images}], tmp_path / "000000.torch")
    (tmp_path / "index.json").write_text(json.dumps({"k": "000000.torch"}))
    (tmp_path / "evaluation_index.json").write_text(json.dumps({"k": {"context": [0, 3], "target": [1, 2]}, "q": None}))
    (case,) = cases_named(f"re10k:{tmp_path}")
    loaded = case.load(SMALL)
    assert loaded.scene.images.shape == (2, 3, 32, 48)
    wanted = capture.load([1, 2], 32, 48)
    assert torch.allclose(loaded.targets.c2w, wanted.cameras.c2w, atol=1e-5)
    assert float((loaded.truth - wanted.images).abs().mean()) < 0.03


def test_a_scene_without_splits_gives_its_ends_and_three_between():
    split = default_split(read_generated("procedural:1", num_views=12, height=32, width=32))
    assert split.train_ids == (0, 11)
    assert split.test_ids == (3, 6, 8)
    long = default_split(read_generated("procedural:1", num_views=60, height=8, width=8))
    assert long.train_ids == (0, 45)


def test_several_names_are_joined_and_must_be_distinct(tmp_path):
    write_scene(tmp_path / "a")
    assert len(cases_named(f"procedural:test:2,{tmp_path / 'a'}")) == 3
    with pytest.raises(InputError, match=r"--data: procedural-test-000 is named twice"):
        cases_named("procedural:test:2,procedural:test:1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", r"names no scene"),
        ("procedural:test", r"give procedural:SPLIT:N, e.g. procedural:test:50"),
        ("procedural:test:0", r"give procedural:SPLIT:N"),
        ("procedural:mine:3", r"give procedural:SPLIT:N"),
        ("re10k:/nowhere", r"/nowhere is not a folder"),
        ("captures:/nowhere", r"there is no such file or folder"),
    ],
)
def test_invalid_data_names_are_errors(data, message):
    with pytest.raises(InputError, match=message):
        cases_named(data)


def test_a_folder_without_scenes_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"it holds no scene; give a scene or a folder of scenes"):
        cases_named(str(tmp_path))


def test_a_damaged_scene_in_a_folder_is_an_error_and_not_skipped(tmp_path):
    write_scene(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "transforms.json").write_text("{}")
    with pytest.raises(InputError, match=r"frames is missing"):
        cases_named(str(tmp_path))


def test_all_captures_are_cases(captures_dir):
    cases = cases_named(f"captures:{captures_dir}")
    scenes = [path.parent for path in captures_dir.glob("*/transforms.json")]
    assert len(cases) == sum(len(read_capture(scene).splits) for scene in scenes)

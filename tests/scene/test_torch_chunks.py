import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from sphinx_nvs.errors import InputError
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.torch_chunks import read_chunk, read_chunk_index, read_chunked_clip, read_evaluation_index


def jpeg(image: torch.Tensor) -> torch.Tensor:
    pixels = (255 * image).round().to(torch.uint8).permute(1, 2, 0).numpy()
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=98)
    return torch.from_numpy(np.frombuffer(data.getvalue(), np.uint8).copy())


def clip(key: str, frames: int = 5):
    """A clip in pixelSplat's layout, and what it was made from."""
    rgb, _, cameras, _ = procedural_views(3, frames, 24, 32, split="test")
    rows = torch.zeros(frames, 18)
    for i in range(frames):
        K, w2c = cameras.K[i], cameras.w2c[i]
        rows[i, :4] = torch.tensor([K[0, 0] / 32, K[1, 1] / 24, K[0, 2] / 32, K[1, 2] / 24])
        rows[i, 6:] = w2c[:3].flatten()
    entry = {
        "key": key,
        "url": "https://example.invalid/clip",
        "timestamps": torch.arange(frames),
        "cameras": rows,
        "images": [jpeg(image) for image in rgb],
    }
    return entry, rgb, cameras


@pytest.fixture
def folder(tmp_path):
    read_chunk.cache_clear()
    torch.save([clip("aaa")[0], clip("bbb")[0]], tmp_path / "000000.torch")
    (tmp_path / "index.json").write_text(json.dumps({"aaa": "000000.torch", "bbb": "000000.torch"}))
    return tmp_path


def test_a_clip_has_the_cameras_and_photos_it_was_made_from(folder):
    _, rgb, cameras = clip("aaa")
    capture = read_chunked_clip(folder, "000000.torch", "aaa")
    scene = capture.load(range(5), 24, 32)
    assert float((scene.images - rgb).abs().mean()) < 0.02
    assert torch.allclose(scene.cameras.c2w, cameras.c2w, atol=1e-5)
    assert torch.allclose(scene.cameras.K, cameras.K, atol=1e-4)


def test_only_wanted_frames_are_decoded(folder):
    capture = read_chunked_clip(folder, "000000.torch", "bbb", [0, 3])
    assert [view.image is not None for view in capture.views] == [True, False, False, True, False]
    assert len(capture) == 5


def test_the_index_is_read_or_made(folder):
    wanted = {"aaa": "000000.torch", "bbb": "000000.torch"}
    assert read_chunk_index(folder) == wanted
    (folder / "index.json").unlink()
    assert read_chunk_index(folder) == wanted


def test_an_evaluation_index_names_context_and_targets(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"aaa": {"context": [0, 4], "target": [1, 2, 3]}, "ccc": None}))
    splits = read_evaluation_index(path)
    assert list(splits) == ["aaa"]
    assert (splits["aaa"].train_ids, splits["aaa"].test_ids) == ((0, 4), (1, 2, 3))
    path.write_text(json.dumps({"aaa": {"context": [0, 4]}}))
    with pytest.raises(InputError, match=r"clip aaa of .*: its entry is .*; give an object with \"context\""):
        read_evaluation_index(path)


class _Evil:
    def __reduce__(self):
        return print, ("a pickle can call anything",)


def test_a_chunk_that_holds_anything_but_tensors_is_refused_and_not_run(tmp_path, capsys):
    read_chunk.cache_clear()
    torch.save([{"key": _Evil(), "cameras": 1, "images": []}], tmp_path / "evil.torch")
    with pytest.raises(InputError, match=r"chunk .*evil.torch: it holds something else than tensors"):
        read_chunk(tmp_path / "evil.torch")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", [b"", b"not a chunk at all", b"\x80\x04."])
def test_a_damaged_chunk_is_said(tmp_path, data):
    read_chunk.cache_clear()
    (tmp_path / "x.torch").write_bytes(data)
    with pytest.raises(InputError, match=r"chunk .*x.torch: it holds something else .* or is damaged"):
        read_chunk(tmp_path / "x.torch")


def test_other_shapes_are_said(tmp_path):
    read_chunk.cache_clear()
    torch.save({"key": 1}, tmp_path / "no_list.torch")
    with pytest.raises(InputError, match=r"it is no list of clips"):
        read_chunk(tmp_path / "no_list.torch")
    entry, _, _ = clip("aaa")
    torch.save([entry | {"cameras": entry["cameras"][:, :12]}], tmp_path / "narrow.torch")
    with pytest.raises(InputError, match=r"clip aaa of .*: cameras are \(5, 12\) for 5 images; give 18 numbers"):
        read_chunked_clip(tmp_path, "narrow.torch", "aaa")
    torch.save([entry | {"images": [torch.zeros(9, dtype=torch.uint8)] * 5}], tmp_path / "blank.torch")
    with pytest.raises(InputError, match=r"frame 0 of clip aaa of .*: it is no picture"):
        read_chunked_clip(tmp_path, "blank.torch", "aaa")
    with pytest.raises(InputError, match=r"it has no clip zzz"):
        read_chunked_clip(tmp_path, "blank.torch", "zzz")

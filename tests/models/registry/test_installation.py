"""Weights are installed atomically, and installed files are verified."""

import errno
import hashlib
import os
import pathlib

import pytest
import torch
from safetensors.torch import load_file, save

from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.models.registry.cards import CARDS, Card
from sphinx_nvs.models.registry.installation import adopt, pull, verify
from sphinx_nvs.models.registry.resolution import locate


def _refused(work, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        work(*args, **kwargs)
    return str(caught.value)


def _is_untouched(home) -> bool:
    """Whether nothing complete, and nothing half-written, is among the models."""
    return not home.exists() or not list(home.iterdir())


def test_an_adopted_file_is_found_intact(home, card, file, tensors):
    record = adopt(card, file)
    path = locate(card)
    assert path == home / "toy-1.0" / "toy-1.0.safetensors"
    assert path.read_bytes() == file.read_bytes()
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record.num_tensors, record.num_parameters) == (2, 10)
    assert record.source == str(file)
    assert verify(card) == record
    assert sorted(path.name for path in home.iterdir()) == ["toy-1.0"]


def test_a_file_on_the_same_disk_is_not_stored_twice(home, card, file):
    adopt(card, file)
    assert locate(card).samefile(file)


def test_a_file_on_another_disk_is_copied(home, card, file, monkeypatch):
    def link(*paths: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", link)
    adopt(card, file)
    assert not locate(card).samefile(file)
    assert verify(card) is not None


def test_a_folder_as_the_hub_keeps_it(home, card, file, tmp_path):
    (tmp_path / "snapshot" / "weights").mkdir(parents=True)
    (tmp_path / "snapshot" / "weights" / "toy.safetensors").symlink_to(file)
    adopt(card, tmp_path / "snapshot")
    assert not locate(card).is_symlink()
    assert verify(card) is not None


def test_a_flipped_byte_is_found(home, card, file):
    adopt(card, file)
    path = locate(card)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert locate(card) == path, "a glance cannot see it"
    message = _refused(verify, card)
    assert message.startswith(f"weights {path}: sha256 is ")
    assert message.endswith("… was recorded; get it again: sphinx-nvs models pull toy-1.0 --overwrite")


def test_a_lost_tail_is_found_without_reading_the_file(home, card, file):
    adopt(card, file)
    path = locate(card)
    path.write_bytes(path.read_bytes()[:-4])
    assert "bytes where" in _refused(locate, card)


def test_a_published_hash_is_checked_on_arrival(home, card, file):
    known = Card(**{**card.__dict__, "sha256": "0" * 64})
    message = _refused(adopt, known, file)
    assert "where 000000000000… should be; get the file again" in message
    assert _is_untouched(home)
    adopt(Card(**{**card.__dict__, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}), file)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"encoder.a": torch.zeros(2, 3)}, "encoder.b is missing"),
        (
            {"encoder.a": torch.zeros(2, 4), "encoder.b": torch.zeros(4)},
            "encoder.a is 2x4 where it should be 2x3",
        ),
        ({"encoder.a": torch.zeros(2, 3), "encoder.b": torch.tensor(1.0)}, "encoder.b is a single number where"),
    ],
)
def test_another_models_tensors(home, card, tmp_path, tensors, found):
    (tmp_path / "other.safetensors").write_bytes(save(tensors))
    message = _refused(adopt, card, tmp_path / "other.safetensors")
    assert message.startswith(f"weights {tmp_path}/other.safetensors: they are not toy-1.0's: {found}")
    assert message.endswith("; see https://example.com/toy")
    assert _is_untouched(home)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "it is not a safetensors file"),
        (b"not a model at all", "it is not a safetensors file"),
        ((20).to_bytes(8, "little") + b'{"a": {"shape": [1]', "it is not a safetensors file, or it is damaged"),
        ((2).to_bytes(8, "little") + b"{}rest", "it has 14 bytes where its header says 10"),
        ((4).to_bytes(8, "little") + b"null", "it is not a safetensors file, or it is damaged"),
    ],
)
def test_files_that_are_not_safetensors(home, card, tmp_path, data, found):
    (tmp_path / "x.safetensors").write_bytes(data)
    assert _refused(adopt, card, tmp_path / "x.safetensors") == (
        f"weights {tmp_path}/x.safetensors: {found}; get the file again"
    )
    assert _is_untouched(home)


def test_a_truncated_file(home, card, file):
    file.write_bytes(file.read_bytes()[:-1])
    assert "bytes where its header says" in _refused(adopt, card, file)
    assert _is_untouched(home)


def test_missing_file_and_folder_without_one(home, card, tmp_path):
    assert _refused(adopt, card, tmp_path / "no") == (
        f"--from {tmp_path}/no: there is no such file or folder; correct the path"
    )
    assert _refused(adopt, card, tmp_path) == (
        f"folder {tmp_path}: it holds none of toy.safetensors, toy-1.0.safetensors; name the file itself with --from"
    )


def test_a_licence_has_to_be_accepted(home, strict, file, hub):
    for work in (lambda: adopt(strict, file), lambda: pull(strict)):
        message = _refused(work)
        assert message.startswith("model toy-1.0: its licence is the Stability AI Non-Commercial License (https://")
        assert message.endswith("); read it, and add --accept-licence if you accept it")
    assert not hub.requests
    assert _is_untouched(home)
    adopt(strict, file, accept_licence=True)


def test_an_installed_model_stays_unless_overwrite_is_set(home, card, file):
    adopt(card, file)
    assert _refused(adopt, card, file) == (
        f"model toy-1.0: it is in {home}/toy-1.0; "
        "check it: sphinx-nvs models verify toy-1.0; or add --overwrite to get it again"
    )
    other = file.with_name("other.safetensors")
    other.write_bytes(save({"encoder.a": torch.ones(2, 3), "encoder.b": torch.ones(4)}))
    adopt(card, other, overwrite=True)
    assert float(load_file(locate(card))["encoder.b"].sum()) == 4
    assert sorted(path.name for path in home.iterdir()) == ["toy-1.0"]


def test_a_failed_replacement_leaves_what_was_there(home, card, file, tmp_path):
    record = adopt(card, file)
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    _refused(adopt, card, tmp_path / "bad.safetensors", overwrite=True)
    assert verify(card) == record


def test_shipped_weights_are_not_pulled_but_can_be_verified():
    assert _refused(pull, CARDS["embedded"]) == (
        "model embedded: it is shipped with this package; use it: there is nothing to install"
    )
    assert verify(CARDS["embedded"]) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_disk_full_and_no_permission(home, card, file, monkeypatch, code):
    def copyfile(*paths: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", copyfile)
    monkeypatch.setattr("shutil.copyfile", copyfile)
    with pytest.raises(OutputError, match="the disk is full" if code == errno.ENOSPC else "not permitted"):
        adopt(card, file)
    assert _is_untouched(home)


def test_an_interrupt_leaves_nothing_that_looks_complete(home, card, file, monkeypatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adopt(card, file)
    assert _is_untouched(home)


def test_progress_is_reported(home, card, file):
    reports = []
    adopt(card, file, progress=lambda *words: reports.append(words))
    assert reports == [("check toy-1.0.safetensors", 0, 0)]

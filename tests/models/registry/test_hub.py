"""Downloads from an in-memory hub; every refusal is one sentence."""

import os
import subprocess
import sys
import time

import pytest

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.registry.cards import CARDS, Card
from sphinx_nvs.models.registry.installation import pull, verify
from sphinx_nvs.models.registry.resolution import find_record, locate, resolve

NAME = "weights/toy.safetensors"


@pytest.fixture
def offered(hub, file):
    """The hub with the toy model."""
    hub.files[NAME] = file.read_bytes()
    return hub


def _refused(card, **options) -> str:
    with pytest.raises(InputError) as caught:
        pull(card, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_pulled_file_is_the_hubs(home, card, offered, file):
    record = pull(card)
    assert locate(card).read_bytes() == file.read_bytes()
    assert (record.source, record.revision) == ("maker/toy:weights/toy.safetensors", "c0ffee")
    assert verify(card) == record == find_record(card)
    assert [path.name for path in home.iterdir()] == ["toy-1.0"]


def test_a_failed_transfer_leaves_nothing(home, card, offered, file):
    offered.cut_after = 30
    assert _refused(card) == (
        "maker/toy:weights/toy.safetensors: the connection to the hub failed (ReadError); "
        "check the network and try again, or install a file that you have with --from FILE"
    )
    assert find_record(card) is None
    assert not list(home.iterdir())
    offered.cut_after = None
    pull(card)
    assert locate(card).read_bytes() == file.read_bytes()


def test_a_download_is_compared_with_the_hubs_hash(home, card, offered):
    offered.claimed_sha256 = "1" * 64
    assert "where 111111111111… should be" in _refused(card)
    assert not list(home.iterdir())


def test_another_repository_and_another_file(home, card, offered, file):
    offered.repo, offered.files = "mirror/toys", {"t.safetensors": file.read_bytes()}
    message = _refused(card, source="mirror/toys")
    assert message == (
        "repository mirror/toys: it has no weights/toy.safetensors; "
        "choose one of its files with --source mirror/toys:FILE: t.safetensors"
    )
    assert pull(card, source="mirror/toys:t.safetensors").source == "mirror/toys:t.safetensors"


def test_a_repository_names_what_was_pulled_from_it(home, card, offered, monkeypatch):
    monkeypatch.setitem(CARDS, card.name, card)
    offered.repo = "mirror/toys"
    pull(card, source="mirror/toys")
    assert resolve("unet", "mirror/toys") == locate(card)


@pytest.mark.parametrize(
    ("fail", "error_code", "expected"),
    [
        (
            {"head": 403, "get": 403},
            "GatedRepo",
            "maker/toy:weights/toy.safetensors: it is gated and you have no access; "
            "accept its terms at https://huggingface.co/maker/toy, then log in: hf auth login, or set HF_TOKEN",
        ),
        (
            {"info": 404},
            "RepoNotFound",
            "maker/toy:weights/toy.safetensors: there is no such repository, or it is private; "
            "give another with --source OWNER/NAME; for a private one log in: hf auth login, or set HF_TOKEN",
        ),
        (
            {"head": 404, "get": 404},
            "EntryNotFound",
            "maker/toy:weights/toy.safetensors: there is no such file; give another with --source OWNER/NAME:FILE",
        ),
        (
            {"info": 403},
            None,
            "maker/toy:weights/toy.safetensors: the hub refuses access (403); accept the terms at "
            "https://huggingface.co/maker/toy and log in: hf auth login, or set HF_TOKEN",
        ),
        (
            {"info": 429},
            None,
            "maker/toy:weights/toy.safetensors: the hub limits requests from this address (429); "
            "try again in some minutes",
        ),
        (
            {"info": 500},
            None,
            "maker/toy:weights/toy.safetensors: the hub answers 500; "
            "try again later, or give another with --source OWNER/NAME",
        ),
    ],
)
def test_refusals(home, card, offered, fail, error_code, expected):
    offered.fail, offered.error_code = fail, error_code
    assert _refused(card) == expected
    assert find_record(card) is None


def test_a_wrong_repository_name(home, card, offered):
    assert _refused(card, source="no good/x") == (
        "--source: 'no good/x' is not a repository; give OWNER/NAME or OWNER/NAME:FILE"
    )


def test_a_file_without_direct_download(home, card):
    assert _refused(Card(**{**card.__dict__, "repo": None, "file": "toy.ckpt"})) == (
        "model toy-1.0: its owners offer no direct download; fetch toy.ckpt from https://example.com/toy "
        "with a browser, then: sphinx-nvs models pull toy-1.0 --from toy.ckpt"
    )


def test_a_full_disk_is_reported_before_any_download(home, card, offered, monkeypatch):
    usage = type("Usage", (), {"free": 3})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert "0.0 GB are free where 0.0 GB are needed; free some space or set SPHINX_NVS_HOME" in _refused(card)
    assert not [request for request in offered.requests if "/resolve/" in request]


def test_without_the_client_the_error_says_what_to_install(home, card, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert _refused(card) == (
        "models pull: huggingface_hub is not installed; "
        "install it: pip install 'sphinx-nvs[seva]', or install a file that you have with --from FILE"
    )


def test_offline_machines_get_an_error_within_seconds(tmp_path):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra seva)")
    started = time.monotonic()
    words = ["models", "pull", "seva-1.1", "--accept-licence"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx_nvs.cli", *words],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "SPHINX_NVS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr == (
        "sphinx-nvs: stabilityai/stable-virtual-camera:modelv1.1.safetensors: HF_HUB_OFFLINE forbids network access; "
        "unset it, or install a file that you have with --from FILE\n"
    )
    assert time.monotonic() - started < 60
    assert not list(tmp_path.iterdir())

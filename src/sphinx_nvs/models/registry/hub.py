"""Downloads from the Hugging Face hub; whatever goes wrong there becomes one sentence with a hint.

The hub is asked first what the file is (size, sha256), with one short request: so a machine without network knows
within seconds, a full disk is found before gigabytes are fetched, and what arrives can be checked.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sphinx_nvs.errors import InputError, OutputError

ASK_S = 10.0
"""Seconds that the hub has to answer the first question."""

_OFFLINE = "take in a file that you have with --from FILE"
_BROKEN = f"check the network and try again, or {_OFFLINE}"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on the hub.

    Args:
        repo: its repository.
        path: in there.
        revision: the commit.
        num_bytes: its size, None if the hub does not say.
        sha256: None if the hub does not say.
    """

    repo: str
    path: str
    revision: str | None
    num_bytes: int | None
    sha256: str | None


def look_up(repo: str, path: str) -> RemoteFile:
    """Asks the hub about a file.

    Raises:
        InputError: no network, no such repository or file, or the hub refuses.
    """
    hub = _hub()
    with _in_one_sentence(repo, path):
        info = hub.HfApi().model_info(repo, files_metadata=True, timeout=ASK_S)
    files = {file.rfilename: file for file in info.siblings or ()}
    if path not in files:
        others = [name for name in files if name.endswith(".safetensors")]
        hint = f"choose one of its files with --source {repo}:FILE: {', '.join(others)}" if others else "choose another"
        raise InputError(f"repository {repo}", f"it has no {path}", hint)
    file = files[path]
    sha256 = file.lfs.sha256 if file.lfs else None
    return RemoteFile(repo=repo, path=path, revision=info.sha, num_bytes=file.size, sha256=sha256)


def download(file: RemoteFile, folder: Path) -> Path:
    """Fetches a file into a folder; the client tries again by itself where the network stutters.

    Args:
        file: from `look_up`.
        folder: made if it is missing.

    Raises:
        InputError: the hub refuses, or the network breaks.
        OutputError: the disk is full.
    """
    hub = _hub()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if file.num_bytes is not None and free < file.num_bytes:
        found = f"{free / 1e9:.1f} GB are free where {file.num_bytes / 1e9:.1f} GB are needed"
        raise OutputError(f"folder {folder}", found, "free some space or set SPHINX_NVS_HOME to another disk")
    with _in_one_sentence(file.repo, file.path):
        return Path(hub.hf_hub_download(file.repo, file.path, revision=file.revision, local_dir=folder))


def _hub() -> Any:
    """The client, with its own warnings off: errors are told in our words."""
    try:
        import huggingface_hub
        from huggingface_hub.utils import logging
    except ImportError as error:
        hint = "install it: pip install 'sphinx-nvs[seva]', or take in a file that you have with --from FILE"
        raise InputError("models pull", "huggingface_hub is not installed", hint) from error
    logging.set_verbosity_error()
    return huggingface_hub


@contextmanager
def _in_one_sentence(repo: str, path: str) -> Iterator[None]:
    """Turns the client's errors into ours; the order matters, for some of its classes are others' children.

    Its `HTTPError` is that of whatever library it talks HTTP with.
    """
    from huggingface_hub import errors

    where, page = f"{repo}:{path}", f"https://huggingface.co/{repo}"
    try:
        yield
    except errors.HFValidationError as error:
        raise InputError("--source", f"{repo!r} is no repository", "give OWNER/NAME or OWNER/NAME:FILE") from error
    except errors.GatedRepoError as error:
        hint = f"accept its terms at {page}, then log in: hf auth login, or set HF_TOKEN"
        raise InputError(where, "it is gated and the hub does not let you in", hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "give another with --source OWNER/NAME; for a private one log in: hf auth login, or set HF_TOKEN"
        raise InputError(where, "there is no such repository, or it is private", hint) from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(where, "HF_HUB_OFFLINE forbids asking the hub", f"unset it, or {_OFFLINE}") from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(where, "the hub cannot be reached", _BROKEN) from error
    except errors.EntryNotFoundError as error:
        raise InputError(where, "there is no such file", "give another with --source OWNER/NAME:FILE") from error
    except errors.HfHubHTTPError as error:
        raise _refused(where, page, error.response.status_code) from error
    except errors.HTTPError as error:
        raise InputError(where, f"the connection to the hub failed ({type(error).__name__})", _BROKEN) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise InputError(where, f"the transfer broke ({error})".splitlines()[0], _BROKEN) from error


def _refused(where: str, page: str, status: int) -> InputError:
    """The sentence for the hub's status code."""
    if status in (401, 403):
        hint = f"accept the terms at {page} and log in: hf auth login, or set HF_TOKEN"
        return InputError(where, f"the hub refuses you ({status})", hint)
    if status == 429:
        return InputError(where, "the hub has had too many requests from here (429)", "try again in some minutes")
    return InputError(where, f"the hub answers {status}", "try again later, or give another with --source OWNER/NAME")

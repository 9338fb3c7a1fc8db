"""Downloads from the Hugging Face hub; every failure becomes one sentence with a hint.

One short request first queries the file's size and sha256. So a missing network is reported within seconds, a full disk
before gigabytes are downloaded, and the download can be verified.
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

QUERY_TIMEOUT_S = 10.0
"""Timeout of the first query, in seconds."""

_OFFLINE = "install a file that you have with --from FILE"
_BROKEN = f"check the network and try again, or {_OFFLINE}"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on the hub.

    Args:
        repo: its repository.
        path: its path in the repository.
        revision: the commit.
        num_bytes: its size, None if the hub does not state it.
        sha256: its hash, None if the hub does not state it.
    """

    repo: str
    path: str
    revision: str | None
    num_bytes: int | None
    sha256: str | None


def look_up(repo: str, path: str) -> RemoteFile:
    """Queries the hub for a file.

    Raises:
        InputError: there is no network, no such repository or file, or the hub refuses access.
    """
    hub = _hub()
    with _in_one_sentence(repo, path):
        info = hub.HfApi().model_info(repo, files_metadata=True, timeout=QUERY_TIMEOUT_S)
    files = {file.rfilename: file for file in info.siblings or ()}
    if path not in files:
        others = [name for name in files if name.endswith(".safetensors")]
        hint = f"choose one of its files with --source {repo}:FILE: {', '.join(others)}" if others else "choose another"
        raise InputError(f"repository {repo}", f"it has no {path}", hint)
    file = files[path]
    sha256 = file.lfs.sha256 if file.lfs else None
    return RemoteFile(repo=repo, path=path, revision=info.sha, num_bytes=file.size, sha256=sha256)


def download(file: RemoteFile, folder: Path) -> Path:
    """Downloads a file into a folder; the hub's client retries failed transfers.

    Args:
        file: from `look_up`.
        folder: created if it is missing.

    Raises:
        InputError: the hub refuses access, or the connection fails.
        OutputError: the disk is full.
    """
    hub = _hub()
    folder.mkdir(parents=True, exist_ok=True)
    # Before the transfer: an hour of download should not end with a full disk.
    free = shutil.disk_usage(folder).free
    if file.num_bytes is not None and free < file.num_bytes:
        found = f"{free / 1e9:.1f} GB are free where {file.num_bytes / 1e9:.1f} GB are needed"
        raise OutputError(f"folder {folder}", found, "free some space or set SPHINX_NVS_HOME to another disk")
    with _in_one_sentence(file.repo, file.path):
        return Path(hub.hf_hub_download(file.repo, file.path, revision=file.revision, local_dir=folder))


def _hub() -> Any:
    """The hub's client, with its own warnings off: errors are reported in our sentences."""
    try:
        import huggingface_hub
        from huggingface_hub.utils import logging
    except ImportError as error:
        hint = "install it: pip install 'sphinx-nvs[seva]', or install a file that you have with --from FILE"
        raise InputError("models pull", "huggingface_hub is not installed", hint) from error
    logging.set_verbosity_error()
    return huggingface_hub


@contextmanager
def _in_one_sentence(repo: str, path: str) -> Iterator[None]:
    """Converts the client's errors to ours; the order matters, because some of its classes are subclasses of others.

    Its `HTTPError` is that of the HTTP library it uses.
    """
    from huggingface_hub import errors

    where, page = f"{repo}:{path}", f"https://huggingface.co/{repo}"
    try:
        yield
    except errors.HFValidationError as error:
        raise InputError("--source", f"{repo!r} is not a repository", "give OWNER/NAME or OWNER/NAME:FILE") from error
    except errors.GatedRepoError as error:
        hint = f"accept its terms at {page}, then log in: hf auth login, or set HF_TOKEN"
        raise InputError(where, "it is gated and you have no access", hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = "give another with --source OWNER/NAME; for a private one log in: hf auth login, or set HF_TOKEN"
        raise InputError(where, "there is no such repository, or it is private", hint) from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(where, "HF_HUB_OFFLINE forbids network access", f"unset it, or {_OFFLINE}") from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(where, "the hub cannot be reached", _BROKEN) from error
    except errors.EntryNotFoundError as error:
        raise InputError(where, "there is no such file", "give another with --source OWNER/NAME:FILE") from error
    except errors.HfHubHTTPError as error:
        raise _refused(where, page, error.response.status_code) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # it comes from requests or httpx, by version
        raise InputError(where, f"the connection to the hub failed ({type(error).__name__})", _BROKEN) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise InputError(where, f"the transfer failed ({error})".splitlines()[0], _BROKEN) from error


def _refused(where: str, page: str, status: int) -> InputError:
    """The error for the hub's status code."""
    if status in (401, 403):
        hint = f"accept the terms at {page} and log in: hf auth login, or set HF_TOKEN"
        return InputError(where, f"the hub refuses access ({status})", hint)
    if status == 429:
        return InputError(where, "the hub limits requests from this address (429)", "try again in some minutes")
    return InputError(where, f"the hub answers {status}", "try again later, or give another with --source OWNER/NAME")

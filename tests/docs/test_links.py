"""Links between pages, and from pages to source files, lead somewhere; so do pages that source files name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
SOURCES = [
    path
    for folder in ("src", "tests", "scripts", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sh", ".json"} and path.name != Path(__file__).name
]
PRIVATE_WORDS = (
    "foretold",
    "foretell",
    "reckon",
    "by heart",
    "by hand",
    "in vain",
    "deeds",
    "whoever",
    "hang on",
    "signs of life",
    "at the door",
)
"""Words of the project's own that have a plain equivalent."""


def page_id(page):
    return str(page.relative_to(ROOT))


def without_code(text):
    return re.sub(r"^\s*```.*?^\s*```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings_of(page):
    """Anchors as GitHub and the site make them; headings on which the two differ have none."""
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        github, site = plain.replace(" ", "-"), re.sub(r"[-\s]+", "-", plain)
        if github == site:
            anchors.add(github)
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page_id(page)} links to {target}, which is not there"
        assert not anchor or anchor in headings_of(file), f"{page_id(page)} links to {target}: no such heading"


def test_pages_that_source_files_name_exist():
    for source in SOURCES:
        for name in re.findall(r"\bdocs/[\w/-]+\.md", source.read_text(errors="ignore")):
            assert (ROOT / name).exists(), f"{page_id(source)} names {name}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_pages_are_in_plain_english(page):
    text = without_code(page.read_text()).lower()
    found = [word for word in PRIVATE_WORDS if re.search(rf"\b{word}", text)]
    assert not found, f"{page_id(page)} says {', '.join(found)}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_source_files_that_pages_name_exist(page):
    for name in re.findall(r"`([\w./-]+\.(?:py|sh))`", page.read_text()):
        if "/" in name:
            places = [ROOT / name, ROOT / "src" / "sphinx_nvs" / name]
            assert any(place.exists() for place in places), f"{page_id(page)} names {name}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tests_that_pages_name_exist(page):
    for file, name in re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", page.read_text()):
        path = ROOT / "tests" / file
        assert path.is_file(), f"{page_id(page)} names {file}, which is not there"
        assert f"def {name}(" in path.read_text(), f"{page_id(page)} names {file}::{name}, which is not there"

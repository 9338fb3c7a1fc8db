"""The page at `/`: its files, their policy, and that it is built from the sources beside it."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from sphinx_nvs.server.routes import page_routes

WEB = Path(__file__).parents[2] / "web"
BUILD_FILES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "stamp.mjs"]


def test_the_root_is_a_page_that_may_load_nothing_from_elsewhere(client):
    answer = client.get("/", follow_redirects=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-cache"
    # Nothing inline, which the policy would block, and no other host.
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", answer.text)


def test_every_part_that_the_page_names_is_served_for_ever(client):
    names = re.findall(r'(?:src|href)="(/[^"#]+)"', client.get("/").text)
    assert {Path(name).suffix for name in names} == {".js", ".css", ".svg"}
    for name in names:
        answer = client.get(name)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        again = client.get(name, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_clients_that_do_not_unpack_get_the_same_bytes(client):
    name = next(name for name in page_routes.page_files() if name.endswith(".css"))
    plain = client.get(f"/{name}", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed = client.get(f"/{name}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content == page_routes.page_files()[name].content


def test_the_first_load_is_under_a_megabyte(client):
    assert sum(len(file.packed) for file in page_routes.page_files().values()) < 1_000_000
    for file in page_routes.page_files().values():
        assert gzip.decompress(file.packed) == file.content


@pytest.mark.parametrize("name", ["nothing.js", "..%2findex.html", "%2e%2e%2f%2e%2e%2fapp.py"])
def test_what_is_no_part_of_the_page_is_a_problem(client, name):
    answer = client.get(f"/assets/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_built_page_is_the_built_source():
    paths = [*BUILD_FILES, *(path.relative_to(WEB).as_posix() for path in (WEB / "src").rglob("*") if path.is_file())]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path}\0{hashlib.sha256((WEB / path).read_bytes()).hexdigest()}\n".encode())
    stamp = (page_routes.PAGE / "source.sha256").read_text().strip()
    assert digest.hexdigest() == stamp, (
        "web/ has changed since the page was built; run: cd web && npm ci && npm run build"
    )


def test_the_licences_of_what_is_built_into_the_page_are_with_it():
    bundled = json.loads((WEB / "package.json").read_text())["dependencies"]
    licences = (page_routes.PAGE / "third-party.txt").read_text()
    assert all(f"{name}\n" in licences for name in bundled)
    assert licences.count("Permission is hereby granted, free of charge") == len(bundled)

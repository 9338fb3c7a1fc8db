"""The page in Chromium against a real server: web/browser/page.test.mjs, run by Node."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"
LIMIT_S = 400
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [
    *([] if shutil.which("node") else ["Node"]),
    *([] if CHROMIUM else ["Chromium"]),
    *([] if (WEB / "node_modules" / "playwright-core").is_dir() else ["web/node_modules (cd web && npm ci)"]),
]


@pytest.mark.skipif(bool(MISSING), reason=f"the page is not tried in a browser without {', '.join(MISSING)}")
def test_the_page_in_a_browser():
    environment = {**os.environ, "SPHINX_PYTHON": sys.executable, "CHROMIUM": CHROMIUM or ""}
    script = str(WEB / "browser" / "page.test.mjs")
    ended = subprocess.run(
        ["node", "--test", "--test-reporter=spec", script],
        cwd=WEB,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout[-8000:]}\n{ended.stderr[-2000:]}"

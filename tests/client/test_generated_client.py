"""The synchronous client is the asynchronous one, translated."""

import subprocess
import sys
from pathlib import Path

from sphinx_nvs.client import sync_client

SCRIPT = Path(__file__).parents[2] / "scripts/generate_client"


def test_the_sync_client_is_generated_from_the_async_one(tmp_path):
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "client.py")], check=True)
    renew = "run scripts/generate_client after a change of async_client.py"
    assert (tmp_path / "client.py").read_text() == Path(sync_client.__file__).read_text(), renew

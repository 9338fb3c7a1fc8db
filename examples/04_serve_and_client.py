"""Start a server, submit a job, watch its events, download its frames.

pip install '.[serve]'
python examples/04_serve_and_client.py      writes out/04_job.png (preview beside refined frame)
"""

import asyncio
import tempfile
from pathlib import Path

from sphinx_nvs.client import Client
from sphinx_nvs.load_testing.server_process import ServerProcess
from sphinx_nvs.media import read_image, write_png
from sphinx_nvs.visualization.contact_sheet import contact_sheet

with tempfile.TemporaryDirectory() as folder:
    server = ServerProcess(Path(folder) / "server")  # `sphinx-nvs serve` in a process of its own
    server.start()
    try:
        asyncio.run(server.ready())
        with Client(server.url) as client:
            options = {"num_frames": 3, "size": "192x128", "quality": 0.98}
            print("quote:", client.quote("demo", **options))
            job = client.create_job("demo", **options)
            for event in client.events(job):
                print(event.kind)
            preview = Path(folder) / "preview.png"
            preview.write_bytes(client.frame(job, 1, level="preview"))
            final = Path(folder) / "final.png"
            final.write_bytes(client.frame(job, 1))
    finally:
        server.stop()
    pair = [read_image(preview), read_image(final)]
write_png(Path("out/04_job.png"), contact_sheet([pair], [["preview", "final"]]))

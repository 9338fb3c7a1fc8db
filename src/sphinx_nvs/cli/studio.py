"""`sphinx-nvs studio`: a server, a scene on it, and the page in a browser.

a server answers at the address ─► upload ─► browser
none does ─► start one in this process ─► once it is ready: upload and browser in a thread beside it
"""

from __future__ import annotations

import sys
import threading
import webbrowser

from sphinx_nvs.cli.options.serve_options import Serve
from sphinx_nvs.cli.options.studio_options import Studio
from sphinx_nvs.cli.serve_requirements import check_packages
from sphinx_nvs.errors import InputError, SphinxError

PROBE_S = 3.0
"""Longest wait for the answer of a server that may run at the address, seconds."""


def studio(options: Studio) -> None:
    """Runs the command.

    Raises:
        InputError: the scene, the address or an option cannot be used.
        SphinxError: no server can be started, or a running one refuses the scene.
    """
    check_packages()
    check_scene(options)
    url = f"http://127.0.0.1:{options.port}"
    if options.port and is_running(url):
        sys.stdout.write(f"a server runs at {url} already\n")
        open_page(options, url)
        return
    from sphinx_nvs.cli.serve import serve

    serve(
        Serve(port=options.port, folder=options.folder, preset=options.preset), on_ready=lambda at: beside(options, at)
    )


def check_scene(options: Studio) -> None:
    """Raises InputError for a scene that cannot be read, before a server is started for it."""
    if options.scene is not None:
        from sphinx_nvs.client.scene_upload import upload_of

        upload_of(options.scene, None, None, None, None)


def is_running(url: str) -> bool:
    """Returns whether a server of this package answers at an address.

    Raises:
        InputError: another program does.
    """
    import httpx

    try:
        answer = httpx.get(f"{url}/healthz", timeout=PROBE_S, trust_env=False)
        status = answer.json().get("status")
    except httpx.TransportError:
        return False
    except (ValueError, AttributeError):
        status = None
    if status not in ("ok", "degraded"):
        raise InputError("--port", f"another program answers at {url}", "choose another port, or 0 for a free one")
    return True


def beside(options: Studio, url: str) -> None:
    """Opens the page in a thread, while this one serves."""

    def opened() -> None:
        try:
            open_page(options, url)
        except SphinxError as error:
            # The server goes on: the page can upload other photos.
            sys.stderr.write(f"sphinx-nvs: {error}\n")

    threading.Thread(target=opened, name="studio", daemon=True).start()


def open_page(options: Studio, url: str) -> None:
    """Uploads the scene, prints the page's address and opens it.

    Raises:
        SphinxError: the server refuses the scene.
    """
    page = f"{url}/"
    if options.scene is not None:
        from sphinx_nvs.client import Client

        with Client(url, options.api_key) as client:
            page += f"#/scene/{client.upload_scene(options.scene).id}"
    sys.stdout.write(f"studio: {page}\n")
    sys.stdout.flush()
    if not options.no_browser and not webbrowser.open(page):
        sys.stderr.write("sphinx-nvs: no browser can be opened here; open the address in one\n")

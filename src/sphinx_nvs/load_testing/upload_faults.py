"""Uploads while the processes that decode them are killed: what was answered with 201 or 202 becomes a whole scene.

An upload that was answered is *lost* if its scene is missing, its photos cannot be read, or they are other photos than
those of an undisturbed upload. A scene whose cameras were not found because its process was killed as often as it may
be is counted separately.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sphinx_nvs import media
from sphinx_nvs.client import ApiError, AsyncClient
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.scene.demo import read_demo
from sphinx_nvs.scene.transforms import frame_from

POSED, PLAIN = "with cameras", "photos alone"
"""Kinds of uploads: decoded before they are answered, and posed after that."""

PHOTOS = 8
"""Photos of an upload with cameras: enough for its process to be hit now and then."""

GIVEN_UP = "the process that reads it was killed"
"""Part of the sentence for files whose process was killed as often as it may be; uploads are sent again then."""

SETTLE_S = 300.0
"""Most seconds that scenes get to become ready after the last kill."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What is uploaded.

    Args:
        photos: image files.
        cameras: a transforms.json; None has the cameras found.
    """

    photos: Sequence[bytes]
    cameras: dict[str, Any] | None


@dataclass
class UploadRun:
    """The record of a run.

    Args:
        answered: ids of scenes whose 201 or 202 was seen, and the kind of upload.
        refused: sentences of the problems that were answered in place of those.
        put_off: uploads that were to be sent again later: the server was starting, or a process was killed too often.
        cut_off: uploads without an answer: the server was killed.
    """

    answered: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    put_off: int = 0
    cut_off: int = 0


@dataclass(frozen=True, kw_only=True)
class UploadVerdict:
    """The counts; see the module.

    Args:
        answered: scenes.
        lost: of those, the ones that are not whole in the end.
        given_up: scenes whose process was killed as often as it may be.
        reasons: a sentence for each that is lost.
    """

    answered: int
    lost: int
    given_up: int
    reasons: tuple[str, ...]


def uploads() -> dict[str, Upload]:
    """An upload of each kind: the demo's pair, with cameras several times over."""
    capture = read_demo()
    cameras = capture.cameras(range(len(capture)), capture.views[0].height, capture.views[0].width)
    photos = [media.png_bytes(view.fitted(view.height, view.width, "stretch")) for view in capture.views]
    size = {"w": cameras.width, "h": cameras.height}
    frames = [{**frame_from(cameras, i % len(photos), f"{i}.png", capture.world), **size} for i in range(PHOTOS)]
    many = [photos[i % len(photos)] for i in range(PHOTOS)]
    return {POSED: Upload(photos=many, cameras={"frames": frames}), PLAIN: Upload(photos=photos, cameras=None)}


async def send(client: AsyncClient, run: UploadRun, kind: str, is_over: Callable[[], bool], seed: int) -> None:
    """Uploads again and again; waits for the cameras of photos that were sent alone."""
    rng, upload = random.Random(f"uploads {seed} {kind}"), (await asyncio.to_thread(uploads))[kind]
    while not is_over():
        try:
            scene = await client.upload_scene(images=upload.photos, cameras=upload.cameras)
            run.answered[scene.id] = kind
            while scene.status == "posing" and not is_over():
                await asyncio.sleep(0.5)
                scene = await client.scene(scene)
        except ApiError as error:
            if error.status == 503 and error.retry_after_s is not None:
                run.put_off += 1
                await asyncio.sleep(error.retry_after_s)
                continue
            run.refused[f"{error.status} {error.detail}"] += 1
        except SphinxError:
            run.cut_off += 1
        await asyncio.sleep(rng.uniform(0.0, 2.0))


async def photos_of(client: AsyncClient, kind: str) -> tuple[str, ...]:
    """Digests of the photos of an upload that nothing disturbs."""
    upload = (await asyncio.to_thread(uploads))[kind]
    scene = await client.wait_for_scene(
        await client.upload_scene(images=upload.photos, cameras=upload.cameras), timeout_s=120
    )
    return await _photos(client, scene.id, scene.num_views)


async def judged(client: AsyncClient, run: UploadRun, expected: Mapping[str, tuple[str, ...]]) -> UploadVerdict:
    """What became of every upload that was answered.

    Args:
        client: of the server.
        run: the record.
        expected: digests of the photos of undisturbed uploads by kind; of other kinds photos need only be there.
    """
    reasons, given_up, until = [], 0, time.monotonic() + SETTLE_S
    for scene_id, kind in run.answered.items():
        sentence = await _trouble(client, scene_id, expected.get(kind), until)
        if GIVEN_UP in sentence:
            given_up += 1
        elif sentence:
            reasons.append(f"scene {scene_id} ({kind}) {sentence}")
    reasons += [f"an upload was refused {count} times: {text}" for text, count in run.refused.items()]
    lost = len(reasons)
    return UploadVerdict(answered=len(run.answered), lost=lost, given_up=given_up, reasons=tuple(reasons))


async def _trouble(client: AsyncClient, scene_id: str, expected: tuple[str, ...] | None, until: float) -> str:
    """What is wrong with a scene; nothing if it is whole."""
    try:
        scene = await client.scene(scene_id)
        while scene.status == "posing" and time.monotonic() < until:
            await asyncio.sleep(0.5)
            scene = await client.scene(scene_id)
        if scene.status != "ready":
            return f"is {scene.status} ({scene.reason})"
        await client.scene_cameras(scene_id)
        photos = await _photos(client, scene_id, scene.num_views)
    except SphinxError as error:
        return f"cannot be read: {error}"
    return "has other photos" if expected is not None and photos != expected else ""


async def _photos(client: AsyncClient, scene_id: str, count: int) -> tuple[str, ...]:
    """Digests of a scene's photos."""
    return tuple([hashlib.sha256(await client.scene_photo(scene_id, i)).hexdigest() for i in range(count)])

"""Uploads in processes of their own: turns, limits, deaths, and what they hold on their way."""

import asyncio
import io
import json
import multiprocessing
import os
import time
from dataclasses import replace
from multiprocessing import forkserver
from types import SimpleNamespace

import ingest_fakes
import pytest
from PIL import Image
from server_fakes import camera, png, run, transforms

from sphinx_nvs import media
from sphinx_nvs.engine.store.row_types import Usage
from sphinx_nvs.engine.types.engine_errors import RefusedError
from sphinx_nvs.errors import InputError
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.limits import LargeBodies, Uploads
from sphinx_nvs.server.scenes import ingest_pool, limited_process
from sphinx_nvs.server.scenes.form_spool import Piece
from sphinx_nvs.server.scenes.ingest import SceneRequest, make_scene
from sphinx_nvs.server.scenes.ingest_pool import IngestPool, Turns
from sphinx_nvs.server.server_config import KeyLimits, UploadLimits

LIMITS = UploadLimits(seconds=20.0, memory_bytes=512 << 20)
PATIENT = replace(LIMITS, seconds=300.0)
"""For processes whose forkserver has to start anew, on a busy machine."""

NOTHING = Usage(running_jobs=0, stored_jobs=0, stored_scenes=0, stored_bytes=0)


def test_keys_take_turns():
    async def scene():
        turns, order = Turns(1), []

        async def one(key, number):
            async with turns.turn(key):
                order.append((key, number))
                await asyncio.sleep(0)

        async with turns.turn("x"):
            tasks = [asyncio.create_task(one(*each)) for each in (*(("a", i) for i in range(4)), ("b", 0), ("c", 0))]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return order

    assert run(scene()) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("a", 2), ("a", 3)]


def test_one_key_never_holds_all_places():
    """An upload that takes minutes keeps none of another key's waiting."""

    async def scene():
        turns, entered = Turns(3), []
        let_go = asyncio.Event()

        async def one(key):
            async with turns.turn(key):
                entered.append(key)
                await let_go.wait()

        tasks = [asyncio.create_task(one(key)) for key in "aaab"]
        await asyncio.sleep(0.01)
        first, entered[:] = list(entered), []
        let_go.set()
        await asyncio.gather(*tasks)
        return first, entered

    assert run(scene()) == (["a", "a", "b"], ["a"])


def test_a_place_that_is_given_up_goes_to_the_next():
    async def scene():
        turns = Turns(1)
        entered = asyncio.Event()

        async def second():
            async with turns.turn("b"):
                entered.set()

        async with turns.turn("a"):
            given_up = asyncio.create_task(turns.turn("c").__aenter__())
            await asyncio.sleep(0)
            waiting = asyncio.create_task(second())
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.sleep(0)
        await asyncio.wait_for(entered.wait(), 1.0)
        await waiting

    run(scene())


def made_by(monkeypatch, function, limits=LIMITS, request=None):
    monkeypatch.setattr(ingest_pool, "_TARGET", ingest_fakes.decode_with)
    return run(IngestPool(limits)._made(ingest_fakes.FakeWork(function, limits, request)))


def test_an_upload_is_made_elsewhere(monkeypatch):
    assert made_by(monkeypatch, ingest_fakes.makes) == ingest_fakes.MADE


@pytest.mark.parametrize(
    ("function", "limits", "said"),
    [
        (ingest_fakes.refuses, LIMITS, "photo a.png: it is odd; send another"),
        (ingest_fakes.takes_memory, LIMITS, "more memory than an upload may"),
        (ingest_fakes.takes_time, replace(LIMITS, seconds=1.0), "more time than an upload may"),
        (ingest_fakes.takes_processor_time, replace(LIMITS, seconds=1.0), "time than an upload may"),
        (ingest_fakes.dies, LIMITS, "break the program that decodes them"),
    ],
)
def test_an_upload_that_goes_wrong_dies_alone(monkeypatch, function, limits, said):
    with pytest.raises(InputError, match=said):
        made_by(monkeypatch, function, limits)
    assert made_by(monkeypatch, ingest_fakes.makes) == ingest_fakes.MADE


@pytest.mark.parametrize(
    ("function", "attempts"), [(ingest_fakes.is_killed_twice, 3), (ingest_fakes.loses_its_forkserver, 1)]
)
def test_an_upload_whose_process_is_killed_is_decoded_all_the_same(monkeypatch, tmp_path, function, attempts):
    """One that only loses what it was forked from goes on."""
    assert made_by(monkeypatch, function, PATIENT, request=tmp_path / "attempts") == ingest_fakes.MADE
    assert len((tmp_path / "attempts").read_text()) == attempts


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_process_whose_answer_is_awaited_no_more_ends_at_once(tmp_path, has_begun):
    """Another one may do its work by then, in the same folder."""
    context, begun = limited_process._context(), tmp_path / "begun"
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=ingest_fakes.works_on, args=(there, begun))
    if not has_begun:
        here.close()
    process.start()
    there.close()
    while has_begun and process.is_alive() and not begun.exists():
        time.sleep(0.01)
    here.close()
    process.join(10.0)
    assert process.exitcode == limited_process._UNHEARD
    assert begun.exists() == has_begun


def test_the_time_until_a_process_has_started_is_no_fault_of_its_work(monkeypatch):
    """What it is forked from may have been killed, and takes seconds to come back."""
    real = multiprocessing.get_context("spawn")

    class SlowProcess:
        pid, exitcode = 1, None

        def __init__(self, target, args, daemon):
            self._connection = args[0]

        def start(self):
            time.sleep(0.3)
            limited_process.send(self._connection, {"kind": "made"})

    monkeypatch.setattr(limited_process, "_context", lambda: SimpleNamespace(Pipe=real.Pipe, Process=SlowProcess))
    monkeypatch.setattr(limited_process, "_end", lambda process: None)
    assert run(limited_process.answer_of(ingest_fakes.works_on, None, seconds=0.2)) == {"kind": "made"}


def test_what_decodes_is_started_while_the_body_arrives(client, monkeypatch):
    """It imports for seconds, which the first upload of a server need not wait for after its body."""
    happened = []

    async def receive(*_):
        happened.append("body")
        raise InputError("scene", "it did not arrive", "send it again")

    monkeypatch.setattr("sphinx_nvs.server.scenes.limited_process.prepare", lambda: happened.append("start"))
    monkeypatch.setattr("sphinx_nvs.server.routes.scene_routes.receive", receive)
    assert client.post("/v1/scenes", content=b"", headers={"Content-Type": "application/zip"}).status_code == 422
    assert happened == ["start", "body"]


def test_what_decodes_is_started_once():
    limited_process.prepare()
    first = forkserver._forkserver._forkserver_pid
    limited_process.prepare()
    assert first == forkserver._forkserver._forkserver_pid
    os.kill(first, 0)


def test_an_upload_that_is_always_killed_is_given_up(monkeypatch, tmp_path):
    """It is no fault of the client's: 503."""
    with pytest.raises(RefusedError, match="scene: the process that reads it was killed 3 times; send it") as raised:
        made_by(monkeypatch, ingest_fakes.is_always_killed, PATIENT, request=tmp_path / "attempts")
    assert (raised.value.http_status, raised.value.retry_after_s) == (503, 5.0)
    assert len((tmp_path / "attempts").read_text()) == limited_process.ATTEMPTS


def test_what_a_killed_process_left_of_a_scene_is_not_part_of_it(tmp_path):
    folder, source = tmp_path / "scene", tmp_path / "scene" / "incoming"
    (source / "images").mkdir(parents=True)
    (source / "images" / "0.png").write_bytes(png())
    (source / "transforms.json").write_text(transforms(1))
    (folder / ".000.1234.part.png").write_bytes(bytes(100_000))
    made = run(IngestPool(LIMITS).make("key", source, folder, SceneRequest(photos=("0.png",))))
    assert sorted(path.name for path in folder.iterdir()) == ["000.png", "incoming", "transforms.json"]
    assert made.bytes < 100_000


def test_a_real_upload_is_refused_in_words(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="there are no photos in it"):
        run(IngestPool(LIMITS).make("key", tmp_path / "in", tmp_path / "out", SceneRequest()))


@pytest.mark.slow
def test_twelve_photos_of_a_phone_take_less_than_ten_seconds_of_a_processor(tmp_path):
    """12 megapixels each, with distortion: they are undistorted at the size that is kept."""
    source = tmp_path / "in"
    (source / "images").mkdir(parents=True)
    noise = Image.effect_noise((4000, 3000), 60).convert("RGB")
    names = tuple(f"{index}.jpg" for index in range(12))
    frames = []
    for index, name in enumerate(names):
        noise.save(source / "images" / name, "JPEG", quality=85)
        lens = {"fl_x": 3000, "fl_y": 3000, "cx": 2000, "cy": 1500, "k1": 0.05, "k2": -0.01, "w": 4000, "h": 3000}
        frames.append({**camera(index), **lens, "file_path": name})
    (source / "transforms.json").write_text(json.dumps({"frames": frames}))
    before = os.times()
    made = make_scene(source, tmp_path / "out", SceneRequest(photos=names, contexts="12"), UploadLimits())
    assert (made.num_views, made.width, made.height) == (12, 1536, 1152)
    assert sum(os.times()[:4]) - sum(before[:4]) < 10.0


# What is held ---------------------------------------------------------------------------------------------------------


def test_uploads_hold_no_more_than_the_server_has():
    uploads = Uploads(replace(LIMITS, held_bytes=100, at_once=8))
    with uploads.counted("a", 40, NOTHING, KeyLimits()) as first:
        with pytest.raises(ProblemError) as raised, uploads.counted("a", 20, NOTHING, KeyLimits()):
            pass
        assert raised.value.status == 429
        with uploads.counted("b", 50, NOTHING, KeyLimits()):
            first.add(10)  # A key may hold 50 of 100.
            with pytest.raises(ProblemError) as raised:
                first.add(1)
            assert raised.value.status == 429
            with pytest.raises(ProblemError) as raised, uploads.counted("c", 1, NOTHING, KeyLimits()):
                pass
            assert raised.value.status == 503
    with uploads.counted("a", 50, NOTHING, KeyLimits()):
        pass


def test_a_key_has_a_quarter_of_the_places():
    uploads = Uploads(replace(LIMITS, at_once=8))
    with uploads.counted("a", 1, NOTHING, KeyLimits()), uploads.counted("a", 1, NOTHING, KeyLimits()):
        with pytest.raises(ProblemError) as raised, uploads.counted("a", 1, NOTHING, KeyLimits()):
            pass
        assert raised.value.status == 429
        with uploads.counted("b", 1, NOTHING, KeyLimits()):
            pass


def test_few_large_bodies_are_read_at_a_time():
    bodies = LargeBodies()
    with bodies.counted("a", None), bodies.counted("a", "70000"), bodies.counted("a", None), bodies.counted("a", None):
        with bodies.counted("a", "200"), bodies.counted("b", None):
            pass
        with pytest.raises(ProblemError) as raised, bodies.counted("a", "70000"):
            pass
    assert raised.value.status == 429
    with bodies.counted("a", "70000"):
        pass


def test_pieces_of_a_spool_are_files(tmp_path):
    with (tmp_path / "spool").open("w+b") as spool:
        first, second, empty = Piece(spool), Piece(spool), Piece(spool)
        first.write(b"abc")
        first.write(b"def")
        second.write(b"ghij")
        for piece, data in ((first, b"abcdef"), (second, b"ghij"), (empty, b"")):
            piece.seek(0)
            assert piece.read() == data
        assert first.seek(-2, io.SEEK_END) == 4
        assert first.read(1) == b"e"
        assert first.tell() == 5


# Pictures -------------------------------------------------------------------------------------------------------------


def test_only_known_formats_are_decoded_whatever_a_file_is_called(tmp_path):
    for kind in ("EPS", "PCX", "SGI", "PDF"):
        path = tmp_path / "a.png"
        Image.new("RGB", (8, 8)).save(path, kind)
        with pytest.raises(InputError, match="it is not an image"):
            media.image_size(path)


def test_files_of_strangers_have_fewer_pixels(tmp_path):
    path = tmp_path / "a.bin"
    Image.new("RGB", (100, 100)).save(path, "PNG")
    with media.pixels_at_most(9_999), pytest.raises(InputError, match=r"more than 0.009999 million pixels"):
        media.read_image(path)
    with media.pixels_at_most(10_000):
        assert media.read_image(path).shape == (3, 100, 100)
    assert media.image_size(path) == (100, 100)

"""Live sessions over WebSockets, on a fake engine: who may open one, what is understood, how it ends."""

import asyncio
import json
import time

import httpx
import numpy as np
import pytest
import websockets
from server_fakes import add_scene, camera, run
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from test_connections import served

from sphinx_nvs.engine.live_desk import LiveFrame
from sphinx_nvs.server import live_socket
from sphinx_nvs.server.live_socket import SUBPROTOCOL
from sphinx_nvs.server.server_config import KeyLimits

LIVE = "ws://localhost/v1/scenes/demo/live"


def message(number=1, **changes):
    """A camera at the scene's first photo."""
    c2w = np.array(camera(0)["transform_matrix"]) @ np.diag([1.0, -1.0, -1.0, 1.0])
    K = [[80.0, 0.0, 48.0], [0.0, 80.0, 32.0], [0.0, 0.0, 1.0]]
    return {"type": "camera", "id": number, "c2w": c2w.tolist(), "K": K, "width": 96, "height": 64, **changes}


def frame_of(data):
    """Header and JPEG of a binary message."""
    length = int.from_bytes(data[:4], "little")
    return json.loads(data[4 : 4 + length]), data[4 + length :]


def refusal(client, path=LIVE, **options):
    """The response in place of a connection."""
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(path, **options):
        pass
    return refused.value


def test_cameras_in_frames_out(client, engine):
    with client.websocket_connect(LIVE, subprotocols=[SUBPROTOCOL]) as socket:
        assert socket.accepted_subprotocol == SUBPROTOCOL
        assert socket.receive_json() == {"type": "ready", "scene": "demo", "max_side": 512}
        socket.send_json(message(7))
        header, jpeg = frame_of(socket.receive_bytes())
        assert header == {
            "type": "frame",
            "id": 7,
            "level": "regression",
            "seconds": 0.02,
            "refined_share": 0.0,
            "width": 96,
            "height": 64,
        }
        assert jpeg == b"a frame"
        (session,) = engine.live.sessions
        (seen,) = session.cameras
        assert np.allclose(seen.c2w, message()["c2w"])
        assert np.allclose(seen.K, message()["K"])
        session.put(LiveFrame(camera=seen, is_still=True, jpeg=b"better", active_share=0.25, seconds=0.5))
        header, jpeg = frame_of(socket.receive_bytes())
        assert (header["level"], header["refined_share"], jpeg) == ("refined", 0.25, b"better")
    assert session.is_closed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"c2w": [[1, 0], [0, 1]]}, "camera.c2w"),
        ({"K": None}, "camera.K"),
        ({"width": 4096}, "camera.width"),
        ({"type": "fly"}, "camera.type"),
        ({"speed": 3}, "camera.speed"),
        ({"quality": 2}, "camera.quality"),
        ({"K": [[0.0, 0, 48], [0, 80, 32], [0, 0, 1]]}, "focal"),
        ({"c2w": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]}, "camera"),
        ({"c2w": [[1, 0, 0, 9e8], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "camera"),
    ],
)
def test_a_message_that_is_no_camera_of_the_scene_is_refused_in_a_sentence(client, engine, changes, words):
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        socket.send_json(message(3, **changes))
        said = socket.receive_json()
        assert (said["type"], said["id"]) == ("refused", 3)
        assert words in said["detail"]
        socket.send_json(message(4))
        assert frame_of(socket.receive_bytes())[0]["id"] == 4
        assert len(engine.live.sessions[0].cameras) == 1


def test_a_client_that_sends_no_cameras_is_disconnected(client):
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        kinds = []
        while "error" not in kinds:
            socket.send_text("[[[")
            said = socket.receive_json()
            kinds.append(said["type"])
        assert kinds == ["refused"] * live_socket.MOST_REFUSED + ["error"]
        assert "were no cameras" in said["detail"]
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_json()
        assert end.value.code == 1008


def test_bytes_are_refused(client):
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        socket.send_bytes(b"\0\1")
        assert socket.receive_json()["status"] == 415


def test_an_idle_session_ends(make_client):
    with make_client(live_idle_s=0.05).websocket_connect(LIVE) as socket:
        socket.receive_json()
        said = socket.receive_json()
        assert (said["type"], said["status"]) == ("error", 408)


def test_a_frame_that_cannot_be_made_is_a_sentence(client, engine):
    engine.live.sentence = "scene: a photo is damaged"
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        socket.send_json(message(2))
        assert socket.receive_json() == {"type": "refused", "id": 2, "detail": "scene: a photo is damaged"}


def test_a_session_says_what_it_waits_for(client, engine, monkeypatch):
    monkeypatch.setattr(live_socket, "POLL_S", 0.02)
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        engine.live.is_slow = True
        socket.send_json(message())
        assert socket.receive_json()["type"] == "waiting"


def test_the_servers_end_is_said(client, engine):
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        engine.live.sessions[0].close()
        assert socket.receive_json()["status"] == 503


def test_a_key_is_needed_where_others_need_one_and_sees_its_own_scenes(make_client, engine):
    (ada, ada_key), (_, bob_key) = (engine.store.add_key(name, now=engine.now) for name in ("ada", "bob"))
    add_scene(engine, "hers", key_id=ada.id)
    client, hers = make_client(), "ws://localhost/v1/scenes/hers/live"
    assert refusal(client, hers).status_code == 401
    assert refusal(client, hers, subprotocols=[SUBPROTOCOL, "bearer.snvs_nonsense"]).status_code == 401
    assert refusal(client, hers, headers={"Authorization": f"Bearer {bob_key}"}).status_code == 404
    for options in (
        {"headers": {"Authorization": f"Bearer {ada_key}"}},
        {"subprotocols": [SUBPROTOCOL, f"bearer.{ada_key}"]},
    ):
        with client.websocket_connect(hers, **options) as socket:
            assert socket.receive_json()["scene"] == "hers"
            assert engine.live.sessions[-1].key_id == ada.id


def test_a_revoked_key_ends_its_sessions(make_client, engine, monkeypatch):
    monkeypatch.setattr(live_socket, "POLL_S", 0.02)
    row, key = engine.store.add_key("ada", now=engine.now)
    client = make_client()
    client.app.state.context.clock = iter(range(0, 10_000, 10)).__next__
    with client.websocket_connect(LIVE, headers={"Authorization": f"Bearer {key}"}) as socket:
        socket.receive_json()
        engine.store.revoke_key(row.id, now=engine.now)
        said = socket.receive_json()
        assert (said["type"], said["status"]) == ("error", 401)


def test_pages_of_other_sites_open_none(make_client):
    client = make_client()
    assert refusal(client, headers={"Origin": "http://evil.example"}).status_code == 403
    assert refusal(client, headers={"Host": "evil.example"}).status_code == 421
    with client.websocket_connect(LIVE, headers={"Origin": "http://localhost"}) as socket:
        assert socket.receive_json()["type"] == "ready"
    allowed = make_client(cors_origins=("http://page.example",))
    with allowed.websocket_connect(LIVE, headers={"Origin": "http://page.example"}) as socket:
        assert socket.receive_json()["type"] == "ready"


def test_a_caller_has_few_sessions(make_client):
    client = make_client(key=KeyLimits(rate_per_s=1e6, burst=1_000_000, live_sessions=1))
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        refused = refusal(client)
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:sphinx-nvs:problem:too-many"
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()


def test_other_addresses_are_no_sockets(client):
    assert refusal(client, "ws://localhost/v1/scenes/none/live").status_code == 404
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://localhost/v1/jobs"):
        pass


def test_a_real_connection_keeps_its_place_while_it_is_open_and_not_longer(tmp_path):
    async def scene():
        async with served(tmp_path, total=2, wait_s=0.2) as (url, port, crowd):
            address = LIVE.replace("localhost", f"127.0.0.1:{port}")
            async with websockets.connect(address, subprotocols=[SUBPROTOCOL]) as socket:
                assert json.loads(await socket.recv())["type"] == "ready"
                await asyncio.sleep(1.5)
                assert len(crowd) == 1, "it is not idle: it may wait for a camera"
                async with httpx.AsyncClient() as http:
                    assert (await http.get(f"{url}/healthz")).status_code == 200
                await socket.send(json.dumps(message(5)))
                assert frame_of(await socket.recv())[0]["id"] == 5
            until = time.monotonic() + 5
            while len(crowd):
                assert time.monotonic() < until
                await asyncio.sleep(0.02)

    run(scene())

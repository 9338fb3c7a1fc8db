"""OpenAI's SDK as a client of `/v1/videos`, as docs/reference/http-api.md shows it."""

import importlib

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
def openai():
    """The SDK, which takes seconds to import."""
    return importlib.import_module("openai")


@pytest.fixture
def sdk(served, openai):
    """The SDK's client of a server that needs no key, which insists on one."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_video_from_creation_to_its_file(served, sdk, engine):
    video = sdk.videos.create(prompt="", size="256x256", seconds="1", extra_body={"scene": "demo", "path": "orbit"})
    assert (video.status, video.size, engine.store.job(video.id).key_id) == ("queued", "256x256", "anonymous")
    served.do(engine.preview, video.id)
    served.do(engine.finish, video.id)
    done = sdk.videos.poll(video.id)
    assert (done.status, done.progress) == ("completed", 100)
    assert sdk.videos.download_content(video.id).read()[4:8] == b"ftyp"
    assert [each.id for each in sdk.videos.list()] == [video.id]
    assert sdk.videos.delete(video.id).deleted


@pytest.mark.parametrize(
    "size", ["1280x720", "720x1280", "1920x1080", "1080x1920", "1024x1792", "1792x1024", "333x111"]
)
def test_sizes_that_sdks_send(sdk, engine, size):
    video = sdk.videos.create(prompt="", size=size, seconds="4", extra_body={"num_frames": 2})
    spec = engine.store.job(video.id).spec
    assert f"{spec.width}x{spec.height}" == size == video.size


def test_an_unknown_field_is_refused_by_name(openai, sdk):
    with pytest.raises(openai.UnprocessableEntityError, match="qualty: there is no such field"):
        sdk.videos.create(prompt="", extra_body={"qualty": 0.9})


def test_a_key_is_needed_once_there_has_been_one(served, openai, sdk, engine):
    served.do(lambda: engine.store.add_key("ada", now=1.0))
    with pytest.raises(openai.AuthenticationError):
        sdk.videos.list()

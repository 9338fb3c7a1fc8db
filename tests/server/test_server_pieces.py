"""Units of the server: limits, settings, archives, file names, scrubbing."""

import io
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
from server_fakes import zipped

from sphinx_nvs.engine.store.row_types import Usage
from sphinx_nvs.errors import InputError
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.limits import RateLimiter, Streams, Uploads, limits_of
from sphinx_nvs.server.scenes.archives import safe_name, unpack
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig, UploadLimits

LIMITS = UploadLimits(files=10, unpacked_bytes=5_000_000, ratio=50.0)


def test_a_token_bucket_refills():
    now = [0.0]
    buckets, limits = RateLimiter(lambda: now[0]), KeyLimits(rate_per_s=2.0, burst=2)
    buckets.take("a", limits)
    buckets.take("a", limits)
    with pytest.raises(ProblemError) as refused:
        buckets.take("a", limits)
    assert refused.value.headers == {"Retry-After": "1"}
    buckets.take("b", limits)
    now[0] = 0.5
    buckets.take("a", limits)
    with pytest.raises(ProblemError):
        buckets.take("a", limits)


def test_streams_are_counted_while_open():
    streams, limits = Streams(), KeyLimits(streams=1)
    with streams.counted("a", limits.streams):
        with streams.counted("b", limits.streams):
            assert len(streams) == 2
        with pytest.raises(ProblemError), streams.counted("a", limits.streams):
            pass
        assert len(streams) == 1
    with streams.counted("a", limits.streams):
        pass
    assert len(streams) == 0


def test_uploads_are_counted_while_in_progress():
    uploads, limits = Uploads(UploadLimits()), KeyLimits(stored_scenes=3, stored_bytes=100)
    kept = Usage(stored_scenes=1)
    with uploads.counted("a", 60, kept, limits):
        with uploads.counted("b", 99, kept, limits), uploads.counted("a", 30, kept, limits):
            with (
                pytest.raises(ProblemError, match=r"2 uploads in progress") as refused,
                uploads.counted("a", 1, kept, limits),
            ):
                pass
            assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "5"})
        full = Usage(stored_bytes=40)
        with pytest.raises(ProblemError, match="uploads in progress"), uploads.counted("a", 1, full, limits):
            pass
    with uploads.counted("a", 1, Usage(stored_bytes=99), limits):
        pass
    with (
        pytest.raises(ProblemError, match="You store 100 of at most 100 bytes"),
        uploads.counted("a", 1, Usage(stored_bytes=100), limits),
    ):
        pass


def test_invalid_own_limits_are_ignored():
    limits = limits_of({"burst": 7.0, "rate_per_s": -1, "streams": "3", "colour": 1, "stored_bytes": True}, KeyLimits())
    assert limits == KeyLimits(burst=7)
    assert isinstance(limits.burst, int)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"port": 70_000}, "port: it is 70000"),
        ({"drain_s": -1.0}, "drain_s: it is -1"),
        ({"ping_s": 0.0}, "ping_s: it is 0"),
        ({"upload": UploadLimits(files=0)}, "upload.files: it is 0"),
        ({"key": KeyLimits(burst=0)}, "key.burst: it is 0"),
        ({"trusted_proxies": ("proxy.example",)}, "trusted_proxies: 'proxy.example' is not an address"),
    ],
)
def test_invalid_settings(settings, said):
    with pytest.raises(InputError, match=said):
        ServerConfig(**settings)


@pytest.mark.parametrize(("host", "is_loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True)])
def test_loopback(host, is_loopback):
    assert ServerConfig(host=host).is_loopback is is_loopback
    assert not ServerConfig(host="0.0.0.0").is_loopback
    assert not ServerConfig(host="example.org").is_loopback


@pytest.mark.parametrize(
    ("sentence", "scrubbed"),
    [
        ("frame 3 of /srv/data/scenes/s1/transforms.json: w is 0", "frame 3 of transforms.json: w is 0"),
        ("file /my data/s1/a.png is gone", "file a.png is gone"),
        ("folder /my data", "folder my data"),
        (r"C:\Users\me\a.png is gone", "a.png is gone"),
        ("see /v1/jobs and https://example.org/a/b", "see /v1/jobs and https://example.org/a/b"),
        ("1/2 of w/h, image/png or image/jpeg", "1/2 of w/h, image/png or image/jpeg"),
        ("'/home/me/x.py', line 3", "'x.py', line 3"),
    ],
)
def test_paths_are_removed_from_sentences(sentence, scrubbed):
    assert scrub(sentence, Path("/my data/s1"), Path("/my data")) == scrubbed


@pytest.mark.parametrize(
    ("name", "safe"), [("a.png", "a.png"), ("./a//b.png", "a/b.png"), ("ä/日本.png", "ä/日本.png")]
)
def test_safe_names(name, safe):
    assert str(safe_name(name, "x")) == safe


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../../b", "/a", "C:/a", "a\\b", "a\0b", "a\nb", "x" * 300, "a/" * 20 + "b", "\ud800"],
)
def test_unsafe_names_are_refused(name):
    with pytest.raises(InputError):
        safe_name(name, "x")


def unpacked(data, folder, limits=LIMITS):
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return unpack(file, folder, limits)


def test_unpacking_skips_files_of_other_types(tmp_path):
    files = {"a/0.PNG": b"x", "a/t.json": b"{}", "run.sh": b"x", ".git/config.txt": b"x", "__MACOSX/a.png": b"x"}
    assert unpacked(zipped(files), tmp_path) == ["run.sh", ".git/config.txt", "__MACOSX/a.png"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["0.PNG", "t.json"]


def link():
    entry = zipfile.ZipInfo("a.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def lying():
    """Returns an archive that declares fewer bytes than it unpacks to, in both headers."""
    data = bytearray(zipped({"a.png": b"\0" * 100_000}))
    for at in (data.find(b"PK\x03\x04") + 22, data.find(b"PK\x01\x02") + 24):
        struct.pack_into("<I", data, at, 10)
    return bytes(data)


def nameless():
    data = bytearray(zipped({"a": b"x"}))
    for at in (data.find(b"PK\x03\x04") + 26, data.find(b"PK\x01\x02") + 28):
        data[at] = 0
    return bytes(data)


def encrypted():
    data = bytearray(zipped({"a.png": b"x"}))
    for at in (data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8):
        data[at] |= 1
    return bytes(data)


def huge_directory():
    data = bytearray(zipped({"a.png": b"x"}))
    struct.pack_into("<I", data, data.rfind(b"PK\x05\x06") + 12, 2**31)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a zip archive"),
        (b"PK\x05\x06", "not a zip archive"),
        (zipped({"a.png": b"x" * 1000})[:-30], "not a zip archive"),
        (zipped({"a.png": b"\0" * 4_000_000}), "bytes unpack to 4000000"),
        (zipped({"a.png": b"\0" * 6_000_000}, compression=zipfile.ZIP_STORED), "it unpacks to 6000000"),
        (zipped({f"{i}.png": b"x" for i in range(11)}), "it holds 11 files"),
        (zipped({"../a.png": b"x"}), "leads out"),
        (zipped({"/a.png": b"x"}), "leads out"),
        (zipped({"a.png": b"x", "A.PNG": b"y"}), "two files have the same name"),
        (zipped({"a.png": b"x", "a.png/b.png": b"y"}), "not a zip archive"),
        (zipped({"a.png": b"x" * 100}, compression=zipfile.ZIP_BZIP2), "unsupported compression"),
        (zipped({"a.png": b"x" * 100}, compression=zipfile.ZIP_LZMA), "unsupported compression"),
        (nameless(), ""),
        (link(), "is a link"),
        (encrypted(), "is encrypted"),
        (lying(), ""),
        (huge_directory(), "lists more than 10 files"),
    ],
    # Archives hold the second at which they were made: as names, workers of pytest-xdist would not agree on them.
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_unsafe_archives_are_refused(tmp_path, data, said):
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InputError, match="archive") as refused:
        unpacked(data, folder)
    assert said in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 1_000_000

"""Settings of a server: its address, and the limits on what it accepts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from sphinx_nvs.errors import InputError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Limits on an uploaded scene.

    Args:
        body_bytes: largest request body.
        files: largest number of files in a request or an archive.
        unpacked_bytes: largest total size of an archive's files.
        ratio: largest ratio of unpacked to packed bytes of an archive.
        text_bytes: largest file of cameras. Such a file is read as a whole and takes a multiple of its size in memory;
            10,000 frames of a transforms.json fit.
        model_bytes: the same for the image list of a COLMAP model, which also holds the images' points.
        photo_pixels: largest photo, in pixels.
        views: largest number of photos in a scene.
        kept_side: longer side of a stored photo, pixels; larger photos are scaled down.
        seconds: time limit for receiving the body, and again for processing it.
        memory_bytes: memory that processing one may take.
        posing_seconds: time limit for finding the cameras of photos, on each core.
        posing_memory_bytes: memory that finding the cameras of one upload's photos may take.
        held_bytes: bytes of all uploads on their way together, unpacked ones included; one key may hold half of it.
        at_once: number of uploads on their way together; one key may have a quarter of it.
    """

    body_bytes: int = 512 * MIB
    files: int = 2000
    unpacked_bytes: int = 1024 * MIB
    ratio: float = 200.0
    text_bytes: int = 16 * MIB
    model_bytes: int = 64 * MIB
    photo_pixels: int = 100_000_000
    views: int = 32
    kept_side: int = 1536
    seconds: float = 300.0
    memory_bytes: int = 3072 * MIB
    posing_seconds: float = 3600.0
    posing_memory_bytes: int = 8192 * MIB
    held_bytes: int = 4096 * MIB
    at_once: int = 32


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """Limits on one API key, or on one address where no key is needed.

    Args:
        rate_per_s: average requests per second.
        burst: requests at once.
        stored_bytes: total size of scenes and frames.
        stored_scenes: number of scenes.
        running_jobs: number of unfinished jobs.
        streams: number of open event streams.
        live_sessions: number of open live sessions.
    """

    rate_per_s: float = 50.0
    burst: int = 200
    stored_bytes: int = 20 * 1024 * MIB
    stored_scenes: int = 1000
    running_jobs: int = 500
    streams: int = 64
    live_sessions: int = 8


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """All settings of the HTTP layer.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        upload: see `UploadLimits`.
        key: see `KeyLimits`; a key's own limits take precedence.
        json_bytes: largest request body that is not an upload.
        request_s: seconds until a response must start.
        connections: largest number of concurrent requests.
        connections_per_address: largest number of connections of one address; trusted proxies have no such limit.
        wait_s: seconds that a connection may wait for its client to send or to read.
        hosts: accepted names in `Host`, without port. On loopback, localhost and its addresses are always accepted;
            elsewhere, an empty list accepts every name. `*` accepts every name.
        cors_origins: origins of web pages that may call this server; `*` allows every origin.
        trusted_proxies: addresses or networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are
            believed; from every other address they are ignored.
        require_keys: whether requests need an API key. None: if the server has ever had a key, or `host` is not
            loopback.
        scene_ttl_s: seconds after its last use at which a scene is deleted.
        ping_s: seconds between keep-alive comments on an event stream.
        live_idle_s: seconds without a camera after which a live session ends.
        drain_s: seconds that unfinished jobs get on shutdown; what is not finished then resumes at the next start.
        metrics: whether `/metrics` is served.
        has_demo: whether there is a scene `demo` that all callers share.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    upload: UploadLimits = field(default_factory=UploadLimits)
    key: KeyLimits = field(default_factory=KeyLimits)
    json_bytes: int = 4 * MIB
    request_s: float = 60.0
    connections: int = 1000
    connections_per_address: int = 256
    wait_s: float = 30.0
    hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    require_keys: bool | None = None
    scene_ttl_s: float = 7 * 86_400.0
    ping_s: float = 15.0
    live_idle_s: float = 120.0
    drain_s: float = 30.0
    metrics: bool = True
    has_demo: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InputError("port", f"it is {self.port}", "give a number in 0..65535")
        if self.drain_s < 0:
            raise InputError("drain_s", f"it is {self.drain_s:g}", "give a number of seconds from 0")
        for proxy in self.trusted_proxies:
            _check_network(proxy)
        for place, part in (("", self), ("upload.", self.upload), ("key.", self.key)):
            _check_positive(place, part)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _check_network(text: str) -> None:
    """Raises InputError unless a text is an address or a network."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        hint = "give an address or a network, such as 10.0.0.2 or 10.0.0.0/24"
        raise InputError("trusted_proxies", f"{text!a} is not an address", hint) from error


def _check_positive(place: str, part: object) -> None:
    """Raises InputError unless every numeric limit is above 0."""
    for name, value in vars(part).items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in ("port", "drain_s") and not value > 0:
            raise InputError(f"{place}{name}", f"it is {value:g}", "give a number above 0")

"""How a server is set up: where it listens, and how much it takes from whom."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from sphinx_nvs.errors import InputError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """How much a scene that somebody uploads may be.

    Args:
        body_bytes: of the request.
        files: in a request or an archive.
        unpacked_bytes: of everything in an archive.
        ratio: of unpacked to packed bytes of an archive.
        text_bytes: of a file of cameras, which is read as a whole and takes a multiple of it in memory; 10,000 frames
            of a transforms.json fit.
        model_bytes: the same, of a COLMAP model's list of images, which holds their points, too.
        photo_pixels: of one photo.
        views: photos that a scene keeps at most.
        kept_side: longer side of a photo as it is kept, pixels; larger ones are scaled down.
        seconds: until the body must be there, and again until it must be understood.
    """

    body_bytes: int = 512 * MIB
    files: int = 2000
    unpacked_bytes: int = 1024 * MIB
    ratio: float = 200.0
    text_bytes: int = 16 * MIB
    model_bytes: int = 64 * MIB
    photo_pixels: int = 30_000_000
    views: int = 32
    kept_side: int = 1536
    seconds: float = 300.0


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """How much one API key, or without keys one address, may ask for.

    Args:
        rate_per_s: requests a second, on average.
        burst: requests at once.
        stored_bytes: of scenes and frames.
        stored_scenes: how many.
        running_jobs: unfinished ones.
        streams: of events, open at once.
    """

    rate_per_s: float = 50.0
    burst: int = 200
    stored_bytes: int = 20 * 1024 * MIB
    stored_scenes: int = 1000
    running_jobs: int = 500
    streams: int = 64


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Everything that the HTTP layer can be told.

    Args:
        host: address to listen on.
        port: 0 takes any free one.
        upload: see `UploadLimits`.
        key: see `KeyLimits`; a key's own limits go first.
        json_bytes: of a request that is no upload.
        request_s: seconds until a response must begin.
        connections: requests that are answered at once.
        hosts: names under which the server answers, without port. On loopback, localhost and its addresses are always
            among them; elsewhere, none given is any. `*` is any, too.
        cors_origins: web pages' origins that may call this server; none by default, `*` is every one.
        require_keys: whether requests need an API key. None: if there is one, or `host` can be reached from outside.
        scene_ttl_s: seconds after its last use when a scene goes.
        ping_s: between signs of life on a stream of events.
        drain_s: time that unfinished jobs are given when the server is told to stop; what is not finished then goes on
            at the next start.
        metrics: whether `/metrics` answers.
        has_demo: whether there is a scene `demo` for everybody.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    upload: UploadLimits = field(default_factory=UploadLimits)
    key: KeyLimits = field(default_factory=KeyLimits)
    json_bytes: int = 4 * MIB
    request_s: float = 60.0
    connections: int = 1000
    hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    require_keys: bool | None = None
    scene_ttl_s: float = 7 * 86_400.0
    ping_s: float = 15.0
    drain_s: float = 30.0
    metrics: bool = True
    has_demo: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InputError("port", f"it is {self.port}", "give a number in 0..65535")
        if self.drain_s < 0:
            raise InputError("drain_s", f"it is {self.drain_s:g}", "give a number of seconds from 0")
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


def _check_positive(place: str, part: object) -> None:
    """Raises InputError unless every number that is a limit is above 0."""
    for name, value in vars(part).items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in ("port", "drain_s") and not value > 0:
            raise InputError(f"{place}{name}", f"it is {value:g}", "give a number above 0")

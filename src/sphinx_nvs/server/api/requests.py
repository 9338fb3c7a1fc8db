"""Request bodies. Unknown fields are refused.

Numbers have the units that their names say. The field's name says a pose's convention: `c2w` has OpenCV axes (+x
right, +y down, +z forward), `transform_matrix` nerfstudio's OpenGL axes (+y up, -z forward).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from sphinx_nvs.geometry.paths import PATH_NAMES
from sphinx_nvs.json_types import JSONObject

Number = Annotated[FiniteFloat, Field(ge=-1e9, le=1e9)]
Row4 = Annotated[list[Number], Field(min_length=4, max_length=4)]
Row3 = Annotated[list[Number], Field(min_length=3, max_length=3)]
Matrix4 = Annotated[list[Row4], Field(min_length=3, max_length=4, description="3 or 4 rows of 4 numbers.")]
Matrix3 = Annotated[list[Row3], Field(min_length=3, max_length=3, description="3 rows of 3 numbers, pixels.")]
Point = Annotated[list[Number], Field(min_length=3, max_length=3)]
Focal = Annotated[FiniteFloat, Field(gt=0, le=1e6)]
Centre = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
Side = Annotated[int, Field(ge=1, le=16_384)]
Angle = Annotated[FiniteFloat, Field(gt=0, lt=math.pi)]
SceneId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", examples=["demo"])]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]

MAX_FRAMES = 10_000
"""Largest number of cameras in a request; the engine limits how many of them are rendered."""

SIZE = r"^[1-9][0-9]{0,4}[xX][1-9][0-9]{0,4}$"

PathName = Literal[
    "interpolate",
    "spiral-through",
    "orbit",
    "spiral",
    "lemniscate",
    "zoom-in",
    "zoom-out",
    "dolly-zoom-in",
    "dolly-zoom-out",
    "move-forward",
    "move-backward",
    "move-up",
    "move-down",
    "move-left",
    "move-right",
    "roll",
]
"""The names in `geometry.paths`, with dashes for spaces."""

assert set(PathName.__args__) == {name.replace(" ", "-") for name in PATH_NAMES}  # type: ignore[attr-defined]


class Strict(BaseModel):
    """A body that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Intrinsics(Strict):
    """Intrinsics in pixels of an image of size `w` x `h`; without any, those of the scene's first photo."""

    w: Side | None = Field(default=None, description="Width of the image that the intrinsics are for, pixels.")
    h: Side | None = Field(default=None, description="Height of the image that the intrinsics are for, pixels.")
    fl_x: Focal | None = Field(default=None, description="Focal length, pixels.")
    fl_y: Focal | None = Field(default=None, description="Focal length, pixels; `fl_x` by default.")
    cx: Centre | None = Field(
        default=None, description="Principal point, pixels from the left edge; the centre by default."
    )
    cy: Centre | None = Field(
        default=None, description="Principal point, pixels from the top edge; the centre by default."
    )
    camera_angle_x: Angle | None = Field(
        default=None, description="Horizontal field of view, radians, in place of `fl_x`."
    )


class CameraFrame(Intrinsics):
    """One target camera: its pose, and intrinsics where they differ from those of the list."""

    model_config = ConfigDict(extra="allow")

    c2w: Matrix4 | None = Field(default=None, description="Camera to world, OpenCV axes, world units of the scene.")
    transform_matrix: Matrix4 | None = Field(default=None, description="Camera to world, OpenGL axes (nerfstudio).")
    K: Matrix3 | None = Field(default=None, description="Intrinsics matrix in place of `fl_x` etc.")
    file_path: str | None = Field(None, max_length=1024, description="Ignored, so that a transforms.json can be sent.")

    @model_validator(mode="after")
    def _one_pose(self) -> CameraFrame:
        if (self.c2w is None) == (self.transform_matrix is None):
            raise ValueError("give either c2w (OpenCV axes) or transform_matrix (OpenGL axes)")
        return self


class CameraSet(Intrinsics):
    """Target cameras: `frames` of a transforms.json, nerfstudio's `camera_path`, or `cameras` of our camera file.

    Coordinates are those of the scene's own file. Fields that are not used are listed in the job's `warnings`.
    """

    model_config = ConfigDict(extra="allow")

    camera_model: Annotated[str, Field(max_length=64)] = Field(
        default="PINHOLE", description="Of nerfstudio or COLMAP; distortion is left out of frames."
    )
    frames: Annotated[list[CameraFrame], Field(min_length=1, max_length=MAX_FRAMES)] | None = Field(
        default=None, description="As in a transforms.json."
    )
    camera_path: Annotated[list[JSONObject], Field(min_length=1, max_length=MAX_FRAMES)] | None = Field(
        default=None, description="As nerfstudio's viewer saves it, with `render_height` and `render_width`."
    )
    cameras: Annotated[list[JSONObject], Field(min_length=1, max_length=MAX_FRAMES)] | None = Field(
        default=None, description="As in our camera file, with `format`, `version`, `height` and `width`."
    )
    applied_transform: Matrix4 | None = Field(default=None, description="By which poses were turned, as in nerfstudio.")
    applied_scale: Annotated[FiniteFloat, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="By which centres were scaled, as in nerfstudio."
    )
    dataparser_transforms: JSONObject | None = Field(
        default=None, description="nerfstudio's training frame that `camera_path` is in: `transform` and `scale`."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> CameraSet:
        if sum(value is not None for value in (self.frames, self.camera_path, self.cameras)) != 1:
            raise ValueError("give one of frames, camera_path, cameras")
        return self

    @model_validator(mode="after")
    def _whole_size(self) -> CameraSet:
        if self.frames is None:
            return self
        if (self.w is None) != (self.h is None):
            raise ValueError("give both w and h, or none")
        if self.w is None and any(value is not None for value in (self.fl_x, self.fl_y, self.cx, self.cy)):
            raise ValueError("intrinsics in pixels need w and h")
        return self


class CameraPath(Strict):
    """A named camera path, as in `sphinx-nvs render --targets`."""

    name: PathName = Field("interpolate", description="`interpolate` passes through the photos' cameras.")
    median_depth: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        default=None,
        description="Distance to the scene in world units, which scales movements; estimated by default.",
    )
    look_at: Point | None = Field(
        default=None, description="World point that the camera looks at; straight ahead by default."
    )
    zoom_factor: Annotated[FiniteFloat, Field(gt=0, le=100)] | None = Field(
        default=None, description="Ratio of the last field of view to the first, for zooms."
    )
    spiral_radii: Point | None = Field(
        default=None, description="Radii of `spiral`: right, down, forward, in tenths of the distance."
    )

    @model_validator(mode="after")
    def _fitting(self) -> CameraPath:
        if self.name in ("interpolate", "spiral-through") and self.look_at is not None:
            raise ValueError(f"{self.name} takes no look_at")
        if self.zoom_factor is not None and "zoom" not in self.name:
            raise ValueError(f"{self.name} takes no zoom_factor")
        if self.spiral_radii is not None and self.name != "spiral":
            raise ValueError(f"{self.name} takes no spiral_radii")
        return self


class Size(Strict):
    """Size of the frames in pixels: any, from `size_multiple` of `GET /v1/models` on."""

    width: Side
    height: Side


class JobRequest(Strict):
    """A job: the target cameras in a stored scene, and the requested quality or deadline."""

    scene: SceneId = Field(description="Id of an uploaded scene, or `demo`.")
    cameras: CameraSet | None = Field(default=None, description="Target cameras, in place of `path`.")
    path: CameraPath | PathName | None = Field(default=None, description="A named path; `interpolate` by default.")
    num_frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = Field(
        default=None, description="Length of a path, 24 by default; or how many of `cameras` to use, evenly spread."
    )
    size: Size | Annotated[str, Field(pattern=SIZE)] | None = Field(
        default=None,
        description="Size of the frames; by default the photos' aspect ratio at the preset's size.",
        examples=["384x256"],
    )
    quality: Share | None = Field(default=None, description="Requested share of full diffusion's quality.")
    deadline_s: Annotated[FiniteFloat, Field(gt=0, le=1e7)] | None = Field(
        default=None, description="Seconds from now by which all frames must be ready; quality is chosen to meet it."
    )
    min_quality: Share = Field(
        default=0.0, description="Quality is never planned below this, whatever the load or deadline."
    )
    fps: Annotated[FiniteFloat, Field(ge=1, le=240)] = Field(default=24.0, description="Frame rate of the video.")
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(default=0, description="Seed of the noise.")
    priority: Annotated[int, Field(ge=-10, le=10)] = Field(
        default=0, description="Larger goes first among jobs with equal slack."
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"scene": "demo", "path": "interpolate", "num_frames": 8, "quality": 0.9, "size": "256x256"},
                {
                    "scene": "demo",
                    "cameras": {"frames": [{"c2w": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}]},
                    "deadline_s": 20,
                    "min_quality": 0.6,
                },
            ]
        },
    )

    @model_validator(mode="after")
    def _one_way(self) -> JobRequest:
        if self.cameras is not None and self.path is not None:
            raise ValueError("give cameras or path, not both")
        if self.quality is not None and self.quality < self.min_quality:
            raise ValueError("quality must not be below min_quality")
        return self


class VideoRequest(BaseModel):
    """A video as the OpenAI API requests it; fields of `POST /v1/jobs` stand beside its own, or in `extra_body`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"model": "embedded", "prompt": "", "size": "256x256", "seconds": "1", "scene": "demo"}]
        },
    )

    prompt: str = Field(default="", max_length=32_000, description="Ignored: scenes are not described in words here.")
    model: str | None = Field(None, max_length=200, description="Ignored: the server runs one preset.")
    size: Annotated[str, Field(pattern=SIZE)] | None = Field(default=None, description="WIDTHxHEIGHT, pixels.")
    seconds: str | float | int | None = Field(default=None, description="Length; with `fps`, the number of frames.")
    extra_body: JSONObject | str | None = Field(
        default=None,
        description="Fields of `POST /v1/jobs`, as an object or as its JSON: scene, path, cameras, quality ...",
    )
    extra_params: JSONObject | str | None = Field(default=None, description="As `extra_body`.")
    metadata: JSONObject | str | None = Field(
        default=None, description="As `extra_body`, except that unknown entries are ignored."
    )

"""Path, query and header parameters that routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query
from fastapi import Path as PathParam

_ID = r"^[A-Za-z0-9_-]{1,64}$"

JobId = Annotated[str, PathParam(pattern=_ID, description="Id of the job.")]
VideoId = Annotated[str, PathParam(pattern=_ID, description="Id of the video, which is its job's id.")]
SceneId = Annotated[str, PathParam(pattern=_ID, description="Id of the scene.", examples=["demo"])]
After = Annotated[str | None, Query(pattern=_ID, description="Id of the last item of the previous page.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Largest number of items on a page.")]
FrameNumber = Annotated[int, Query(ge=0, le=100_000, description="Frame that the image shows, from 0.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,128}$",
        description="Any text; requests with the same key return the same job, however often they are sent.",
    ),
]

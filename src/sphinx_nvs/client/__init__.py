"""A Python client of the server, sync and async; docs/reference/python-client.md starts with an example.

Needs the extra `client` (httpx) and no other part of this package; torch is not imported.
"""

from sphinx_nvs.client.async_client import AsyncClient
from sphinx_nvs.client.exceptions import ApiError, JobEndedError, Place, SceneFailedError, UnreachableError
from sphinx_nvs.client.job_options import JobOptions
from sphinx_nvs.client.retrying import Retrying
from sphinx_nvs.client.sync_client import Client
from sphinx_nvs.client.values import (
    Capacity,
    Device,
    Event,
    Health,
    Job,
    Model,
    Network,
    PhotoAdvice,
    Plan,
    Posing,
    Quote,
    Scene,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "Capacity",
    "Client",
    "Device",
    "Event",
    "Health",
    "Job",
    "JobEndedError",
    "JobOptions",
    "Model",
    "Network",
    "PhotoAdvice",
    "Place",
    "Plan",
    "Posing",
    "Quote",
    "Retrying",
    "Scene",
    "SceneFailedError",
    "UnreachableError",
]

"""A client of the server in Python, sync and async; docs/client.md begins with an example.

Needs the extra `client` (httpx) and nothing else of this package: no torch is imported.
"""

from sphinx_nvs.client.aio import AsyncClient
from sphinx_nvs.client.blocking import Client
from sphinx_nvs.client.problems import ApiError, Place, UnreachableError, ViewEndedError
from sphinx_nvs.client.retrying import Retrying
from sphinx_nvs.client.values import Capacity, Device, Event, Health, Model, Network, Plan, Quote, Scene, View

__all__ = [
    "ApiError",
    "AsyncClient",
    "Capacity",
    "Client",
    "Device",
    "Event",
    "Health",
    "Model",
    "Network",
    "Place",
    "Plan",
    "Quote",
    "Retrying",
    "Scene",
    "UnreachableError",
    "View",
    "ViewEndedError",
]

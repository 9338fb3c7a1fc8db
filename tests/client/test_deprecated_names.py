"""Names of version 1 of the API, where a job was called a view: they work, and warn."""

import inspect

import pytest

from sphinx_nvs.client import AsyncClient, Client
from sphinx_nvs.client.deprecated import DeprecatedNames

OPTIONS = {"path": "move-forward", "num_frames": 2, "size": (64, 64)}


def test_old_methods_do_what_the_new_ones_do(served, client, engine):
    with pytest.warns(DeprecationWarning, match="create_view is deprecated; use create_job"):
        job = client.create_view("demo", idempotency_key="k", **OPTIONS)
    served.do(engine.preview, job.id)
    served.do(engine.finish, job.id)
    with pytest.warns(DeprecationWarning, match="use job"):
        assert client.view(job.id) == client.job(job.id)
    with pytest.warns(DeprecationWarning, match="use jobs"):
        assert [each.id for each in client.views()] == [job.id]
    with pytest.warns(DeprecationWarning, match="use plan_image"):
        assert client.plan_picture(job, 1) == client.plan_image(job, 1)
    with pytest.warns(DeprecationWarning, match="use delete_job"):
        client.delete_view(job)
    assert list(client.jobs()) == []


def test_both_clients_have_every_old_name():
    names = [name for name, _ in inspect.getmembers(DeprecatedNames, inspect.isfunction) if not name.startswith("_")]
    assert names == ["create_view", "delete_view", "plan_picture", "view", "views"]
    assert all(hasattr(kind, name) for kind in (Client, AsyncClient) for name in names)

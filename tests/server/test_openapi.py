"""The OpenAPI document: pinned by a snapshot, complete, and correct.

Renew it after a change that is meant:  SPHINX_RENEW=1 scripts/test tests/server/test_openapi.py
"""

import json
import os
from pathlib import Path

import pytest

from sphinx_nvs.server.api.problems import MEDIA_TYPE

SNAPSHOT = Path(__file__).with_name("openapi.json")


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def operations(document):
    return [(method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def test_the_document_equals_the_snapshot(document):
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if os.environ.get("SPHINX_RENEW"):
        SNAPSHOT.write_text(text)
    renew = "the API has changed; if it should, renew the snapshot as this file's first lines say"
    assert text == SNAPSHOT.read_text(), renew


def test_every_operation_is_named_described_and_lists_its_problems(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names) >= 20
    for method, path, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"], path
        assert operation["tags"], path
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (path, parameter["name"])
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == [MEDIA_TYPE], (method, path, status)


def test_routes_that_need_a_key_say_so(document):
    for _, path, operation in operations(document):
        is_open = path in ("/healthz", "/readyz", "/metrics")
        assert ("security" in operation) != is_open, path


def test_every_reference_resolves(document):
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    wanted = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert wanted <= set(schemas)
    assert "HTTPValidationError" not in wanted


def test_examples_are_valid_requests(client, document):
    for example in document["components"]["schemas"]["JobRequest"]["examples"]:
        assert client.post("/v1/jobs", json=example).status_code == 202
    for example in document["components"]["schemas"]["VideoRequest"]["examples"]:
        assert client.post("/v1/videos", json=example).status_code == 200

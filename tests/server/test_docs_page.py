"""The page at /docs: the whole OpenAPI document, without external resources."""

import base64
import hashlib
import re
from html.parser import HTMLParser

from markupsafe import escape

from sphinx_nvs.server.api.docs_page import page, type_of


class Page(HTMLParser):
    """Parses a page: tags, ids, links, and unclosed elements."""

    VOID = ("meta", "br", "td", "tr")

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_has_no_external_resources_and_no_script(client):
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    found = Page(answer.text)
    assert found.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert all(link == "/openapi.json" or link.startswith("#") for link in found.links)
    assert not re.search(r"\s(style|on\w+)=", answer.text), "no style or script in an attribute"


def test_the_content_security_policy_allows_only_the_pages_own_style(client):
    answer = client.get("/docs")
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy


def test_every_operation_and_every_schema_is_listed(client):
    document, text = client.get("/openapi.json").json(), client.get("/docs").text
    found = Page(text)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert f"<b>{method.upper()}</b><code>{path}</code> {escape(operation['summary'])}" in text
    assert set(document["components"]["schemas"]) == set(found.ids)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "<td><code>scene</code> *<td>string" in text


def test_the_frameworks_own_pages_are_disabled(client):
    for address in ("/redoc", "/docs/oauth2-redirect"):
        assert client.get(address).status_code == 404


def test_text_of_the_document_is_escaped():
    evil = "<script>x</script>"
    operation = {"summary": evil, "description": evil, "tags": ["t"], "responses": {"200": {"description": evil}}}
    parameter = {"name": evil, "in": "query", "schema": {"type": evil, "default": evil}, "description": evil}
    document = {
        "info": {"title": evil, "version": evil, "description": evil},
        "tags": [{"name": "t", "description": evil}],
        "paths": {f"/{evil}": {"get": {**operation, "parameters": [parameter]}}},
        "components": {"schemas": {evil: {"description": evil, "properties": {evil: {"enum": [evil]}}}}},
    }
    assert "<script" not in page(document)


def test_types_with_ranges_and_defaults():
    number = {"type": "number", "exclusiveMinimum": 0, "maximum": 1e7}
    assert type_of(number) == "number &gt; 0, ≤ 1e+07"
    assert type_of({"anyOf": [number, {"type": "null"}]}) == type_of(number)
    assert type_of({"type": "array", "items": {"$ref": "#/components/schemas/Size"}}) == (
        'list of <a href="#Size">Size</a>'
    )
    assert type_of({"enum": ["a", "b"], "default": "a"}) == "a | b, default a"
    assert type_of({}) == "anything"

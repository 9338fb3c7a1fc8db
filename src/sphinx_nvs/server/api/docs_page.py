"""`/docs`: the OpenAPI document as a page to read. One file of HTML: no script, nothing from elsewhere, works offline.

operations by tag ─► a fold each: what it does, its parameters, its body, its answers
schemas           ─► a table each: field, kind, meaning
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
:root { color-scheme: light dark; }
summary { cursor: pointer; padding: .3rem 0; }
summary b { display: inline-block; width: 4.5rem; }
details > :not(summary) { margin-left: 1.2rem; }
code, pre { font: 13px/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8886; }
table { border-collapse: collapse; }
td { border-top: 1px solid #8886; padding: .2rem .8rem .2rem 0; vertical-align: top; overflow-wrap: anywhere; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS = {"Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"}
"""Nothing but the page's own style is allowed to the page."""


def page(document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        document: the OpenAPI document.
    """
    info, schemas = document["info"], document["components"]["schemas"]
    operations = [
        (method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    parts = [f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>", _text(info["description"])]
    parts.append('<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p>')
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2>{_text(tag['description'])}")
        parts += [_operation(*each) for each in operations if tag["name"] in each[2]["tags"]]
    parts += ["<h2>Objects</h2>", *(_schema(name, schema) for name, schema in schemas.items())]
    head = f"<meta charset=utf-8><title>{escape(info['title'])}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """One address and method."""
    parts = [_text(operation["description"])]
    parameters = [
        (f"{each['name']} ({each['in']})", kind_of(each["schema"]), each["description"], each.get("required", False))
        for each in operation.get("parameters", ())
    ]
    parts.append(_table(parameters))
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body, <code>{escape(media_type)}</code>: {kind_of(body['schema'])}</p>")
        parts.append(_table(_fields(body["schema"])))
    parts += ["<p>Answers</p>", _table(_answers(operation["responses"]))]
    title = f"<b>{method.upper()}</b><code>{escape(path)}</code> {escape(operation['summary'])}"
    return f"<details><summary>{title}</summary>{''.join(parts)}</details>"


def _answers(responses: Mapping[str, Any]) -> Iterable[tuple[str, str, str, bool]]:
    """Rows of what may come back."""
    for status, answer in responses.items():
        kinds = [f"<code>{escape(name)}</code> {kind_of(each['schema'])}" for name, each in _content(answer)]
        yield status, "<br>".join(kinds), answer["description"], False


def _content(answer: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Forms of an answer."""
    return answer.get("content", {}).items()


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    """One object, with an example if there is one."""
    examples = [f"<pre>{escape(json.dumps(example))}</pre>" for example in schema.get("examples", ())]
    inner = _text(schema.get("description", "")) + _table(_fields(schema)) + "".join(examples)
    return f'<h3 id="{escape(name)}">{escape(name)}</h3>{inner or kind_of(schema)}'


def _fields(schema: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Rows of an object's fields."""
    required = schema.get("required", ())
    return [
        (name, kind_of(field), field.get("description", ""), name in required)
        for name, field in schema.get("properties", {}).items()
    ]


def _table(rows: Iterable[tuple[str, str, str, bool]]) -> str:
    """Name, kind (HTML), meaning, whether it must be given."""
    cells = [
        f"<tr><td><code>{escape(name)}</code>{' *' if needed else ''}<td>{kind}<td>{_inline(about)}</tr>"
        for name, kind, about, needed in rows
    ]
    return f"<table>{''.join(cells)}</table>" if cells else ""


def kind_of(schema: Mapping[str, Any]) -> str:
    """What a value is, as HTML: its type or a link to it, its range, its default."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        kinds = [kind_of(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(kinds) + _default(schema)
    if "enum" in schema or "const" in schema:
        return " | ".join(escape(str(value)) for value in schema.get("enum", [schema.get("const")])) + _default(schema)
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    return escape(schema.get("type", "anything")) + _range(schema) + _default(schema)


def _range(schema: Mapping[str, Any]) -> str:
    """Between which numbers a value lies."""
    signs = {"minimum": "≥", "exclusiveMinimum": "&gt;", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f" {', '.join(bounds)}" if bounds else ""


def _default(schema: Mapping[str, Any]) -> str:
    """What holds if nothing is given."""
    return "" if schema.get("default") is None else f", else {escape(str(schema['default']))}"


def _text(words: str) -> str:
    """Paragraphs."""
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in words.strip().split("\n\n") if paragraph)


def _inline(words: str) -> str:
    """A line of text, with `code` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))

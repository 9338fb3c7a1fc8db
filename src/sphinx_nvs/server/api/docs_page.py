"""`/docs`: the OpenAPI document as one HTML page without scripts or external resources, so that it works offline.

operations by tag ─► one section each: description, parameters, body, responses
schemas           ─► one table each: field, type, description
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from html import escape

from sphinx_nvs.json_types import JSONMapping

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
"""Allows the page its own style and nothing else."""


def page(document: JSONMapping) -> str:
    """Renders the page.

    Args:
        document: the OpenAPI document.

    Returns:
        HTML.
    """
    info, schemas = document["info"], document["components"]["schemas"]
    operations = [
        (method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    parts = [f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>", _text(info["description"])]
    parts.append('<p>For programs: <a href="/openapi.json">/openapi.json</a></p>')
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2>{_text(tag['description'])}")
        parts += [_operation(*each) for each in operations if tag["name"] in each[2]["tags"]]
    parts += ["<h2>Objects</h2>", *(_schema(name, schema) for name, schema in schemas.items())]
    head = f"<meta charset=utf-8><title>{escape(info['title'])}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"


def _operation(method: str, path: str, operation: JSONMapping) -> str:
    """Renders one operation."""
    parts = [_text(operation["description"])]
    parameters = [
        (f"{each['name']} ({each['in']})", type_of(each["schema"]), each["description"], each.get("required", False))
        for each in operation.get("parameters", ())
    ]
    parts.append(_table(parameters))
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body, <code>{escape(media_type)}</code>: {type_of(body['schema'])}</p>")
        parts.append(_table(_fields(body["schema"])))
    parts += ["<p>Responses</p>", _table(_responses(operation["responses"]))]
    title = f"<b>{method.upper()}</b><code>{escape(path)}</code> {escape(operation['summary'])}"
    return f"<details><summary>{title}</summary>{''.join(parts)}</details>"


def _responses(responses: JSONMapping) -> Iterable[tuple[str, str, str, bool]]:
    """Yields one table row per response."""
    for status, response in responses.items():
        content = response.get("content", {}).items()
        types = [f"<code>{escape(name)}</code> {type_of(each['schema'])}" for name, each in content]
        yield status, "<br>".join(types), response["description"], False


def _schema(name: str, schema: JSONMapping) -> str:
    """Renders one schema, with its examples."""
    examples = [f"<pre>{escape(json.dumps(example))}</pre>" for example in schema.get("examples", ())]
    inner = _text(schema.get("description", "")) + _table(_fields(schema)) + "".join(examples)
    return f'<h3 id="{escape(name)}">{escape(name)}</h3>{inner or type_of(schema)}'


def _fields(schema: JSONMapping) -> list[tuple[str, str, str, bool]]:
    """Returns one table row per field."""
    required = schema.get("required", ())
    return [
        (name, type_of(field), field.get("description", ""), name in required)
        for name, field in schema.get("properties", {}).items()
    ]


def _table(rows: Iterable[tuple[str, str, str, bool]]) -> str:
    """Renders rows of name, type (HTML), description, and whether it is required."""
    cells = [
        f"<tr><td><code>{escape(name)}</code>{' *' if is_required else ''}<td>{kind}<td>{_inline(description)}</tr>"
        for name, kind, description, is_required in rows
    ]
    return f"<table>{''.join(cells)}</table>" if cells else ""


def type_of(schema: JSONMapping) -> str:
    """Renders a type, or a link to it, with its range and default."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        kinds = [type_of(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(kinds) + _default(schema)
    if "enum" in schema or "const" in schema:
        return " | ".join(escape(str(value)) for value in schema.get("enum", [schema.get("const")])) + _default(schema)
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return escape(schema.get("type", "anything")) + _range(schema) + _default(schema)


def _range(schema: JSONMapping) -> str:
    """Renders a number's bounds."""
    signs = {"minimum": "≥", "exclusiveMinimum": "&gt;", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f" {', '.join(bounds)}" if bounds else ""


def _default(schema: JSONMapping) -> str:
    """Renders a default."""
    return "" if schema.get("default") is None else f", default {escape(str(schema['default']))}"


def _text(text: str) -> str:
    """Renders paragraphs."""
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.strip().split("\n\n") if paragraph)


def _inline(text: str) -> str:
    """Renders a line of text, with `code` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))

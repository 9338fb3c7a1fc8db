"""`/docs`: the OpenAPI document as one HTML page without scripts or external resources, so that it works offline.

operations by tag ─► one section each: description, parameters, body, responses
schemas           ─► one table each: field, type, description

The page is `templates/docs.html`; this module renders types and `code`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from sphinx_nvs.json_types import JSONMapping

_TEMPLATES = Environment(
    loader=PackageLoader("sphinx_nvs.server"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_STYLE = _TEMPLATES.get_template("docs.css").render()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {"Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"}
"""Allows the page its own style and nothing else."""


def page(document: JSONMapping) -> str:
    """Renders the page.

    Args:
        document: the OpenAPI document.

    Returns:
        HTML.
    """
    return _TEMPLATES.get_template("docs.html").render(document, style=Markup(_STYLE))


def type_of(schema: JSONMapping) -> Markup:
    """Renders a type, or a link to it, with its range and default."""
    if "$ref" in schema:
        return Markup('<a href="#{name}">{name}</a>').format(name=schema["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in schema:
        kinds = [type_of(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return Markup(" or ").join(kinds) + _default(schema)
    if "enum" in schema or "const" in schema:
        return Markup(" | ").join(map(str, schema.get("enum", [schema.get("const")]))) + _default(schema)
    if schema.get("type") == "array":
        return Markup("list of ") + type_of(schema.get("items", {}))
    return escape(schema.get("type", "anything")) + _range(schema) + _default(schema)


def _range(schema: JSONMapping) -> str:
    """Renders a number's bounds."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f" {', '.join(bounds)}" if bounds else ""


def _default(schema: JSONMapping) -> str:
    """Renders a default."""
    return "" if schema.get("default") is None else f", default {schema['default']}"


def _inline(text: str) -> Markup:
    """Renders a line of text, with `code` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


_TEMPLATES.filters |= {"type": type_of, "inline": _inline, "json": json.dumps}

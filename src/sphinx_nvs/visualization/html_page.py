"""Reports as HTML: one file each, with style sheet, script and figures inside.

The templates are in `templates/`. Values are escaped where they are inserted, unless they are `Markup`.
"""

from __future__ import annotations

import io

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

_TEMPLATES = Environment(
    loader=PackageLoader("sphinx_nvs.visualization"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    # A name that a template misspells is an error, not an empty cell.
    undefined=StrictUndefined,
)


def html_page(template: str, **values: object) -> str:
    """Renders a report.

    Args:
        template: file name in `templates/`.
        **values: the template's variables.
    """
    return _TEMPLATES.get_template(template).render(values)


def inline_svg(figure: Figure) -> Markup:
    """The figure as SVG that a template can insert, with text as text."""
    data = io.StringIO()
    # Without a fixed salt and with a date, equal inputs would not give an equal report.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sphinx-nvs"}):
        figure.savefig(data, format="svg", metadata={"Date": None})
    text = data.getvalue()
    return Markup(text[text.index("<svg") :])

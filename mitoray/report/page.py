"""The report as one HTML file: templates in, a page out that asks nobody for anything and trusts no text.

Everything untrusted (slide_ids, URIs, errors, cards) is escaped by jinja2, or travels as JSON whose text the script
only ever sets as text. The policy in the page's head forbids all else: scripts and styles but its own, and every
request. So neither a slide_id nor a slide that is a picture of code can run or call anything.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_AS_JSON: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end or begin an element, or a line of script, written so that JSON means the same."""


def page(parts: Mapping[str, Any], panels: Sequence[Mapping[str, Any]]) -> str:
    """The page. parts: what `report.html` and what it includes name. panels: by the slides' order."""
    style, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_source(style)}'; script-src '{_source(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("report.html")
        .render(
            **parts,
            policy=Markup(policy),  # nosec B704 # made above
            style=Markup(style),  # nosec B704 # a file of the package
            script=Markup(script),  # nosec B704 # a file of the package
            panels=[Markup(as_json(panel)) for panel in panels],  # nosec B704 # escaped by as_json
        )
    )


def as_json(content: Any) -> str:
    """JSON that may stand inside a `<script>` element whatever its strings say."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character, escaped in _AS_JSON.items():
        text = text.replace(character, escaped)
    return text


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mitoray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=False,
    )


@cache
def _asset(name: str) -> str:
    return (files("mitoray.report") / "templates" / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The text as a policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

"""One self-contained HTML page from an audit: what was found, the pictures, the tables behind, what it does not show.

Everything an audit holds may be text from a stranger (prompts, answers, token texts, names). Templates escape it, data
blocks escape it again for scripts, and the page's own content policy lets nothing run but its two scripts and nothing
load at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from probes.figures.style import fraction
from refusalkit.audit.numbers import interval, number, seconds
from refusalkit.audit.panels import SECTIONS, Section

_TEMPLATES = Path(__file__).parent / "templates"
_CLIP = 320


def render_report(audit: Mapping[str, Any], sections: tuple[Section, ...] = SECTIONS) -> str:
    """The report of an audit as one HTML file that opens offline.

    Args:
        audit: What `audit.json` holds (schema `refusalkit/audit/1`). NaN is read as null.
        sections: The sections, in order. One whose data is missing is left out; one whose data is null says so in a
            line, or is left out too when it has no such line.
    """
    from plotly.offline import get_plotlyjs

    audit = _finite(audit)
    environment = _environment()
    figures: dict[str, Any] = {}
    shown: list[dict[str, Any]] = []
    for section in sections:
        data = audit["sections"].get(section.name)
        if data is None:
            if section.name in audit["sections"] and section.absent:
                shown.append({"name": section.name, "title": section.title, "absent": section.absent})
            continue
        own = {f"{section.name}-{key}": figure for key, figure in section.figures(data).items()}
        figures |= own
        heights = {key: int(figure.layout.height or 320) for key, figure in own.items()}
        body = environment.get_template(section.template).render(
            data=data, audit=audit, section=section.name, heights=heights
        )
        shown.append({"name": section.name, "title": section.title, "body": Markup(body)})
    scripts = [get_plotlyjs(), _source("report.js")] if figures else []
    return environment.get_template("report.html.jinja").render(
        audit=audit,
        sections=shown,
        style=Markup(_source("report.css")),
        scripts=[Markup(s) for s in scripts],
        policy=" ".join(f"'sha256-{_digest(s)}'" for s in scripts) or "'none'",
        figures=Markup(_embedded({key: _drawn(figure) for key, figure in figures.items()})),
        embedded=Markup(_embedded(audit)),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined, auto_reload=False,
    )  # fmt: skip
    helpers: dict[str, Any] = {
        "number": number, "fraction": fraction, "interval": interval, "emphasise": emphasise, "clip": clip,
        "seconds": seconds, "flat": flat,
    }  # fmt: skip
    environment.filters.update(helpers)
    return environment


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as `(path, value)` pairs, for tables of settings."""
    if not isinstance(value, Mapping):
        text = ", ".join(str(v) for v in value) if isinstance(value, list) else value
        return [(prefix, "–" if text is None else text)]
    return [pair for key, inner in value.items() for pair in flat(inner, f"{prefix} · {key}" if prefix else str(key))]


def emphasise(text: str, phrase: str | None) -> Markup:
    """Text with the first occurrence of a phrase marked; everything escaped."""
    at = text.lower().find(phrase.lower()) if phrase else -1
    if at < 0 or not phrase or len(text) != len(text.lower()):
        return Markup("{}").format(text)
    end = at + len(phrase)
    return Markup("{}<mark>{}</mark>{}").format(text[:at], text[at:end], text[end:])


def clip(text: str | None, phrase: str | None = None, size: int = _CLIP) -> Markup:
    """A text that shows its beginning and opens on demand; the phrase marked."""
    if not text or not text.strip():
        return Markup('<span class="none">(empty)</span>')
    if len(text) <= size * 1.25:
        return emphasise(text, phrase)
    cut = text.rfind(" ", size - 60, size)
    cut = cut if cut > 0 else size
    return Markup('{}<details class="more"><summary>more ({} characters)</summary>{}</details>').format(
        emphasise(text[:cut], phrase), len(text) - cut, text[cut:]
    )


def _finite(value: Any) -> Any:
    """The same JSON with null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drawn(figure: Any) -> Any:
    return json.loads(figure.to_json())


def _embedded(value: Any) -> str:
    """JSON that no HTML parser can mistake for markup."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return text.translate(str.maketrans(escapes))


@cache
def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")

"""One self-contained HTML page from an audit: what was found, the pictures, the tables behind, what it does not show.

Everything an audit holds may be text from a stranger; `refusalkit.html` says how it is kept from running.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from refusalkit.audit.panels import SECTIONS, Section
from refusalkit.html import dressed, embedded, environment


def render_report(audit: Mapping[str, Any], sections: tuple[Section, ...] = SECTIONS) -> str:
    """The report of an audit as one HTML file that opens offline.

    Args:
        audit: What `audit.json` holds (schema `refusalkit/audit/1`). NaN is read as null.
        sections: The sections, in order. One whose data is missing is left out; one whose data is null says so in a
            line, or is left out too when it has no such line.
    """
    audit = _finite(audit)
    templates = environment()
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
        body = templates.get_template(section.template).render(
            data=data, audit=audit, section=section.name, heights=heights, **section.extras(data)
        )
        shown.append({"name": section.name, "title": section.title, "body": Markup(body)})
    return templates.get_template("report.html.jinja").render(
        audit=audit, sections=shown, embedded=embedded(audit), **dressed(figures)
    )


def _finite(value: Any) -> Any:
    """The same JSON with null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""One trace as a page to read: every token on the colour of its score, light or dark as the reader's system is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from interp.errors import PromptError
from interp.text.encoded import as_prompt
from interp.tracing.scores import REGIONS, TraceScores
from probes.figures.style import FONT, SCALES

_TITLES = {"prompt": "Prompt", "thinking": "Thought", "think_close": "End of the thought", "answer": "Answer"}
_STEPS = 21
_TOKENS = """
.k{border-radius:3px;padding:.1em 0;white-space:pre-wrap;overflow-wrap:anywhere}
.tokens{border-left:3px solid var(--line);padding-left:.9rem}
.ends{display:flex;flex-wrap:wrap;gap:.4rem}.ends span.k{padding:.1em .5em;font-family:ui-monospace,monospace}
.ends small{display:block;color:inherit;opacity:.8;font-size:.72rem}
.key{display:flex;align-items:center;gap:.6rem;margin-top:.9rem;color:var(--faint);font-size:.85rem}
.key i{flex:0 1 16rem;height:.7rem;border-radius:3px}
.mark{opacity:.6}
.region{font-size:.78rem;letter-spacing:.05em;text-transform:uppercase;color:var(--faint);margin:1.2rem 0 .35rem;
font-weight:600}
"""
_CSS = """
:root{color-scheme:light dark;--ink:#33373d;--faint:#6b717a;--paper:#fff;--line:rgba(40,48,60,.16)}
@media(prefers-color-scheme:dark){:root{--ink:#d5d9de;--faint:#969da7;--paper:#181b20;--line:rgba(215,222,232,.18)}}
body{margin:0 auto;max-width:46rem;padding:2rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.75 %s}
h1{font-size:1.15rem;line-height:1.4;margin:0 0 .3rem}p{margin:0}.about{color:var(--faint);font-size:.9rem}
"""


def trace_page(
    scores: TraceScores,
    index: int,
    layer: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> str:
    """One trace as a self-contained HTML page; nothing in it is loaded or run.

    Args:
        scores: From `interp.trace`.
        index: Which trace.
        layer: May be left out where one layer was scored.
        path: Where to write it, too.
        low: Score of the cold end of the colours; by default 0 for probabilities, else the negative of the high end.
        high: Score of the warm end; by default 1 for probabilities, else the largest size in this trace.

    Raises:
        PromptError: For a trace that is not there.
    """
    values = scores.of(index, scores.layers[scores.row(layer)])
    index %= len(scores)
    probability = scores.unit == "probability"
    top = float(high if high is not None else 1.0 if probability else (np.abs(values).max() or 1.0))
    bottom = float(low if low is not None else 0.0 if probability else -top)
    if not bottom < top:
        raise PromptError(f"low={bottom} must be below high={top}")
    body = trace_tokens(scores.tokens[index], scores.regions(index), values.tolist(), bottom, top)
    trace = scores.traces[index]
    prompt = as_prompt(trace)
    layer_name = "" if scores.space == "logits" else f", layer {scores.layers[scores.row(layer)]}"
    about = f"{scores.unit or scores.name}{layer_name}; {prompt.label or 'unlabelled'} prompt"
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(prompt.text[:80])}</title><style>{_CSS % FONT}{trace_style()}</style></head><body>"
        f"<h1>{escape(prompt.text)}</h1><p class='about'>{escape(about)}</p>"
        f"<div class='key'><span>{bottom:.3g}</span><i></i><span>{top:.3g}</span></div>"
        f"{body}</body></html>\n"
    )
    if path is not None:
        target = Path(path)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, target)
    return page


def trace_tokens(
    tokens: Sequence[str], regions: Sequence[str], values: Sequence[float], low: float, high: float
) -> str:
    """The tokens as HTML, region by region, each on the colour of its score; escaped. `trace_style` has the colours.

    Args:
        tokens: Texts.
        regions: The region of each.
        values: The score of each.
        low: Score of the cold end of the colours.
        high: Score of the warm end.
    """
    parts: list[str] = []
    for region in REGIONS:
        places = [i for i, r in enumerate(regions) if r == region]
        if not places:
            continue
        single = region == "think_close"
        marks = "".join(_token(tokens[i], float(values[i]), low, high, single) for i in places)
        parts.append(
            f"<p class='region'>{_TITLES[region]}</p><div class='{'ends' if single else 'tokens'}'>{marks}</div>"
        )
    return "".join(parts)


def _token(text: str, value: float, low: float, high: float, single: bool) -> str:
    shade = round(min(max((value - low) / (high - low), 0.0), 1.0) * (_STEPS - 1))
    if single:
        seen = escape(text.replace("\n", "↵").replace(" ", "␣")) or "·"
        return f"<span class='k s{shade}' title='{value:.3g}'>{seen}<small>{value:.2f}</small></span>"
    seen = escape(text).replace("\n", "<span class='mark'>↵</span>\n")
    return f"<span class='k s{shade}' title='{value:.3g}'>{seen}</span>"


def trace_style() -> str:
    """The style sheet of `trace_tokens`: colours on light and on dark pages."""
    css = _TOKENS
    for name, colours in _themes().items():
        rules = "".join(f".s{i}{{background:{c};color:{_ink(c)}}}" for i, c in enumerate(colours))
        rules += f".key i{{background:linear-gradient(to right,{','.join(colours)})}}"
        css += f"@media(prefers-color-scheme:dark){{{rules}}}" if name == "dark" else rules
    return css


def _themes() -> dict[str, list[str]]:
    scale = SCALES["diverging"]
    return {name: [_mix(scale[name], i / (_STEPS - 1)) for i in range(_STEPS)] for name in ("light", "dark")}


def _mix(scale: tuple[tuple[float, str], ...], at: float) -> str:
    for (a, one), (b, other) in zip(scale, scale[1:], strict=False):
        if at <= b:
            share = (at - a) / (b - a)
            parts = [
                round(int(one[i : i + 2], 16) * (1 - share) + int(other[i : i + 2], 16) * share) for i in (1, 3, 5)
            ]
            return "#" + "".join(f"{p:02x}" for p in parts)
    return scale[-1][1]


def _ink(colour: str) -> str:
    """Black or white, whichever contrasts more (relative luminance, WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#fff"

"""What a calibration leaves: vector, table, summary, and a page of the curve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from interp.model.model import Model
from interp.provenance import write_json, write_text
from steering import Calibration
from steering.kept_doses import vector_digest
from steering.repeats import REPETITIVE

COLUMNS = {
    "arm": "arm", "strength": "strength", "refused_harmful": "harmful refused", "refused_harmless": "harmless refused",
    "partial_harmful": "harmful partial", "partial_harmless": "harmless partial", "kl": "KL, nats per token",
    "kl_high": "KL, upper end", "perplexity": "perplexity, times plain", "repetition": "repeated 4-grams",
    "repetitive": "repetitive answers", "refusals_repetitive": "of refusals, repetitive",
    "norm_share": "length, times the stream's",
}  # fmt: skip
LIMITS = (
    "The strength was chosen on these prompts: what it does on others is measured on held-out ones "
    "(Calibration.measure, refusalkit steer --prompts).",
    "A refusal here is what a judge of words takes for one. Answers that repeat themselves are counted, other babble "
    "is not: read some (answers/).",
    "KL is measured along the plain model's answers to harmless prompts; the steered model's own may leave them.",
)


def write(result: Calibration, model: Model, out: Path) -> list[str]:
    """Write `calibration.json`, `.csv`, `.html` and, where a strength was found, `vector.safetensors`.

    Returns:
        What to say.
    """
    from refusalkit.page import Panel, provenance, write_page

    out.mkdir(parents=True, exist_ok=True)
    table = result.to_frame()
    said = [result.reason, *result.gains, *([result.caution] if result.caution else [])]
    about: dict[str, Any] = {
        "strength": result.strength, "reason": result.reason, "findings": said, "target": dict(result.target),
        "norm_share": result.norm_share, "stream_norms": dict(result.norms), "provenance": dict(result.provenance),
    }  # fmt: skip
    write_json(out / "calibration.json", about)
    write_text(out / "calibration.csv", table.to_csv(index=False))
    rows = [
        {name: _cell(row[column]) for column, name in COLUMNS.items() if column in row}
        for row in table.to_dict("records")
    ]
    given = result.given
    vector = {"digest": vector_digest(given), "site": given.site, "layers": list(given.layers), "phase": given.phase,
              "positions": list(given.positions), "provenance": dict(given.provenance)}  # fmt: skip
    asked: dict[str, Any] = result.provenance["prompts"]
    note = (
        f"{model.name}, {asked['n']} prompts of {asked['name']} (validation part, where they are split). Dotted and "
        "pale: random vectors of the same norms. Dashed: the chosen strength, and the target. Intervals are 95 %."
    )
    below = (
        "Refused, partial, repeated and repetitive are shares. An answer is repetitive when more than "
        f"{REPETITIVE:g} of its 4-grams came before in it."
    )
    panels = [
        Panel("Dose and response", note, result.plot()),
        Panel("Every strength", below, rows=rows),
        Panel("What this does not show", " ".join(LIMITS)),
        provenance({"vector": vector, **result.provenance}),
    ]
    write_page(out / "calibration.html", "refusalkit vector calibrate", f"How strong: {model.name}", said, panels)
    if result.strength is not None:
        result.vector.save(out / "vector.safetensors")
    return said


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if math.isfinite(value) else "–"

"""Selection and difference in means on the artefacts that Arditi et al. published."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import steering
from probes import select_direction

DATA = Path(os.environ.get("REFUSALKIT_PUBLISHED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
RUNS = DATA / "refusal_direction" / "runs"
MODELS = {"gemma-2b-it": (18, -2, 10), "meta-llama-3-8b-instruct": (32, -5, 12)}
NAMES = {"refusal_score": "bypass", "steering_score": "induce", "kl_div_score": "kl"}

pytestmark = pytest.mark.skipif(
    not RUNS.is_dir(),
    reason=f"the published runs are not at {RUNS}; set REFUSALKIT_PUBLISHED_DATA to the folder that has them",
)


def table(model: str) -> pd.DataFrame:
    rows = json.loads((RUNS / model / "select_direction" / "direction_evaluations.json").read_text())
    return pd.DataFrame(rows).rename(columns=NAMES)


@pytest.mark.parametrize("model", MODELS)
def test_the_published_candidate_is_chosen(model: str) -> None:
    n_layers, position, layer = MODELS[model]
    published = json.loads((RUNS / model / "direction_metadata.json").read_text())
    assert (published["pos"], published["layer"]) == (position, layer)
    found = select_direction(table(model), n_layers)
    assert found.chosen is not None
    assert (found.chosen["position"], found.chosen["layer"]) == (position, layer)


@pytest.mark.parametrize("model", MODELS)
def test_row_order_does_not_matter_to_the_choice(model: str) -> None:
    n_layers, position, layer = MODELS[model]
    shuffled = table(model).sample(frac=1, random_state=3)
    found = select_direction(shuffled, n_layers)
    assert found.chosen is not None
    assert (found.chosen["position"], found.chosen["layer"]) == (position, layer)


@pytest.mark.parametrize("model", MODELS)
def test_the_same_candidates_pass_as_in_the_authors_filtered_table(model: str) -> None:
    kept: list[dict[str, Any]] = json.loads(
        (RUNS / model / "select_direction" / "direction_evaluations_filtered.json").read_text()
    )
    n_layers = MODELS[model][0]
    found = select_direction(table(model), n_layers).table
    ours = {(r.position, r.layer) for r in found[found["passed"]].itertuples()}
    # Their code drops layers from int(0.8 L) on; their text, which we follow, those from 0.8 L on.
    ours = {(position, layer) for position, layer in ours if layer < int(0.8 * n_layers)}
    assert ours == {(r["position"], r["layer"]) for r in kept}


def test_the_published_direction_is_the_difference_in_means_at_the_chosen_place() -> None:
    folder = RUNS / "gemma-2b-it"
    means = torch.load(folder / "generate_directions" / "mean_diffs.pt", weights_only=True, map_location="cpu")
    direction = torch.load(folder / "direction.pt", weights_only=True, map_location="cpu")
    found = select_direction(table("gemma-2b-it"), 18)
    assert found.chosen is not None
    assert means.shape == (5, 18, 2048)
    torch.testing.assert_close(means[found.chosen["position"], found.chosen["layer"]], direction, rtol=0, atol=0)


def test_the_published_direction_is_imported_as_their_own_reader_reads_it() -> None:
    folder = RUNS / "gemma-2b-it"
    found = steering.import_vector(folder)
    theirs = torch.load(folder / "direction.pt", weights_only=True, map_location="cpu")
    assert (found.site, found.layers, found.provenance["position"]) == ("resid_pre", (10,), -2)
    assert torch.equal(found.vectors[10], theirs.float())
    means = steering.import_vector(folder / "generate_directions" / "mean_diffs.pt")
    assert torch.equal(means.vectors[10], found.vectors[10])

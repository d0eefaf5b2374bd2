"""Figures of what `probes` finds, each with its control in it. Pure functions: a result in, a plotly figure out."""

from probes.figures.bars import causal_bars, effect_bars
from probes.figures.beliefs import belief_scatter, cosine_lines, jailbreak_shifts
from probes.figures.dissociation import dissociation_bars, reading_bars
from probes.figures.evaluation import evaluation_bars
from probes.figures.guard import (
    flag_bars,
    held_out_strip,
    learning_curves,
    reliability_curves,
    roc_curves,
    score_strip,
    token_scores,
)
from probes.figures.guard_forms import form_strips
from probes.figures.heads import attention_picture, head_map, suppression_curve
from probes.figures.lines import separation_lines
from probes.figures.maps import candidate_maps
from probes.figures.matrices import angle_bars, cosine_maps, transfer_map
from probes.figures.plan_grid import plan_grid
from probes.figures.planning import plan_along, plan_dose, plan_layers, plan_scaling, plan_transfer_map
from probes.figures.proofs import proof_strip
from probes.figures.repair import loss_curve, misalignment_plane, repair_bars, repair_lines
from probes.figures.sweep import sweep_lines, sweep_map
from probes.figures.trace import trace_curve, trace_map
from probes.figures.trace_page import trace_page

__all__ = [
    "angle_bars",
    "attention_picture",
    "belief_scatter",
    "candidate_maps",
    "causal_bars",
    "cosine_lines",
    "cosine_maps",
    "dissociation_bars",
    "effect_bars",
    "evaluation_bars",
    "flag_bars",
    "form_strips",
    "head_map",
    "held_out_strip",
    "jailbreak_shifts",
    "learning_curves",
    "loss_curve",
    "misalignment_plane",
    "plan_along",
    "plan_dose",
    "plan_grid",
    "plan_layers",
    "plan_scaling",
    "plan_transfer_map",
    "proof_strip",
    "reading_bars",
    "reliability_curves",
    "repair_bars",
    "repair_lines",
    "roc_curves",
    "score_strip",
    "separation_lines",
    "suppression_curve",
    "sweep_lines",
    "sweep_map",
    "token_scores",
    "trace_curve",
    "trace_map",
    "trace_page",
    "transfer_map",
]

"""Learn from activations: behaviour, the refusal direction, its selection and its causal check."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.answers import Behaviour, behaviour
    from probes.candidate_scores import Candidates, candidates, score_candidates
    from probes.categories import CategoryDirections, category_directions
    from probes.causal import CausalCheck, causal_check
    from probes.causal_evidence import CausalEvidence
    from probes.cliff import RefusalCliff, refusal_cliff
    from probes.cliff_finding import find_cliff
    from probes.cliff_judge import CliffJudge, Picks, cliff_as_judge
    from probes.decided import decisions
    from probes.directions import Angles, Cosines, Subspace, cosines, principal_angles, random_cosine, subspace
    from probes.estimators import (
        LinearProbe,
        LogisticProbe,
        MeanDifference,
        MLPProbe,
        NearestCentroid,
        Place,
        Probe,
        RidgeProbe,
        WhitenedMeanDifference,
        fit_logistic,
        load_probe,
    )
    from probes.evaluation import evaluate
    from probes.evaluation_result import Evaluation
    from probes.guard.baselines import AnswerBaseline, LearningCurve, TextBaseline, learning_curve, own_refusals
    from probes.guard.guard import LatentGuard
    from probes.guard.metrics import paired_auroc
    from probes.guard.others import ClassifierGuard, GenerativeGuard
    from probes.guard.report import GuardReport
    from probes.guard.scores import GuardScores
    from probes.guard.stream import StreamRule, Watched
    from probes.inversion import Question, ReplyInversion, reply_inversion
    from probes.jailbroken import Jailbreaks, jailbreaks
    from probes.planning.attributes import Answer, Attribute, Found, attribute
    from probes.planning.dosing import PlanCausal, plan_causal
    from probes.planning.elsewhere import answered_by
    from probes.planning.examples import PlanExamples, Segment
    from probes.planning.families import PlanModels, plan_models
    from probes.planning.fitted import PlanFit
    from probes.planning.fitting import fit_plan
    from probes.planning.planned import Plan, plan
    from probes.planning.transfers import PlanTransfer, plan_transfer
    from probes.planning.weights import PlanProbe
    from probes.plateau import drops
    from probes.price import Price
    from probes.prober import RefusalProber, refusal_prober
    from probes.readout import Separation, separation
    from probes.refusal import RefusalDirection, refusal_direction
    from probes.selection import Selection, select_direction
    from probes.splits import grouped_folds, grouped_split
    from probes.suppression import SuppressionHeads, suppression_heads
    from probes.sweep_controls import Control
    from probes.sweeps import Sweep, sweep
    from probes.transfer import Domain, Transfer, domain, transfer_matrix
    from probes.two_causal import Dissociation, dissociation
    from probes.two_directions import HarmAndRefusal, harm_and_refusal

_WHERE = {
    "Angles": "probes.directions",
    "Answer": "probes.planning.attributes",
    "AnswerBaseline": "probes.guard.baselines",
    "Attribute": "probes.planning.attributes",
    "Behaviour": "probes.answers",
    "Candidates": "probes.candidate_scores",
    "CategoryDirections": "probes.categories",
    "CausalCheck": "probes.causal",
    "CausalEvidence": "probes.causal_evidence",
    "ClassifierGuard": "probes.guard.others",
    "CliffJudge": "probes.cliff_judge",
    "Control": "probes.sweep_controls",
    "Cosines": "probes.directions",
    "Dissociation": "probes.two_causal",
    "Domain": "probes.transfer",
    "Evaluation": "probes.evaluation_result",
    "Found": "probes.planning.attributes",
    "GenerativeGuard": "probes.guard.others",
    "GuardReport": "probes.guard.report",
    "GuardScores": "probes.guard.scores",
    "HarmAndRefusal": "probes.two_directions",
    "Jailbreaks": "probes.jailbroken",
    "LatentGuard": "probes.guard.guard",
    "LearningCurve": "probes.guard.baselines",
    "LinearProbe": "probes.estimators",
    "LogisticProbe": "probes.estimators",
    "MLPProbe": "probes.estimators",
    "MeanDifference": "probes.estimators",
    "NearestCentroid": "probes.estimators",
    "Picks": "probes.cliff_judge",
    "Place": "probes.estimators",
    "Plan": "probes.planning.planned",
    "PlanCausal": "probes.planning.dosing",
    "PlanExamples": "probes.planning.examples",
    "PlanFit": "probes.planning.fitted",
    "PlanModels": "probes.planning.families",
    "PlanProbe": "probes.planning.weights",
    "PlanTransfer": "probes.planning.transfers",
    "Price": "probes.price",
    "Probe": "probes.estimators",
    "Question": "probes.inversion",
    "RefusalCliff": "probes.cliff",
    "RefusalDirection": "probes.refusal",
    "RefusalProber": "probes.prober",
    "ReplyInversion": "probes.inversion",
    "RidgeProbe": "probes.estimators",
    "Segment": "probes.planning.examples",
    "Selection": "probes.selection",
    "Separation": "probes.readout",
    "StreamRule": "probes.guard.stream",
    "Subspace": "probes.directions",
    "SuppressionHeads": "probes.suppression",
    "Sweep": "probes.sweeps",
    "TextBaseline": "probes.guard.baselines",
    "Transfer": "probes.transfer",
    "Watched": "probes.guard.stream",
    "WhitenedMeanDifference": "probes.estimators",
    "answered_by": "probes.planning.elsewhere",
    "attribute": "probes.planning.attributes",
    "behaviour": "probes.answers",
    "candidates": "probes.candidate_scores",
    "category_directions": "probes.categories",
    "causal_check": "probes.causal",
    "cliff_as_judge": "probes.cliff_judge",
    "cosines": "probes.directions",
    "decisions": "probes.decided",
    "dissociation": "probes.two_causal",
    "domain": "probes.transfer",
    "drops": "probes.plateau",
    "evaluate": "probes.evaluation",
    "find_cliff": "probes.cliff_finding",
    "fit_logistic": "probes.estimators",
    "fit_plan": "probes.planning.fitting",
    "grouped_folds": "probes.splits",
    "grouped_split": "probes.splits",
    "harm_and_refusal": "probes.two_directions",
    "jailbreaks": "probes.jailbroken",
    "learning_curve": "probes.guard.baselines",
    "load_probe": "probes.estimators",
    "own_refusals": "probes.guard.baselines",
    "paired_auroc": "probes.guard.metrics",
    "plan": "probes.planning.planned",
    "plan_causal": "probes.planning.dosing",
    "plan_models": "probes.planning.families",
    "plan_transfer": "probes.planning.transfers",
    "principal_angles": "probes.directions",
    "random_cosine": "probes.directions",
    "refusal_cliff": "probes.cliff",
    "refusal_direction": "probes.refusal",
    "refusal_prober": "probes.prober",
    "reply_inversion": "probes.inversion",
    "score_candidates": "probes.candidate_scores",
    "select_direction": "probes.selection",
    "separation": "probes.readout",
    "subspace": "probes.directions",
    "suppression_heads": "probes.suppression",
    "sweep": "probes.sweeps",
    "transfer_matrix": "probes.transfer",
}

__all__ = [
    "Angles",
    "Answer",
    "AnswerBaseline",
    "Attribute",
    "Behaviour",
    "Candidates",
    "CategoryDirections",
    "CausalCheck",
    "CausalEvidence",
    "ClassifierGuard",
    "CliffJudge",
    "Control",
    "Cosines",
    "Dissociation",
    "Domain",
    "Evaluation",
    "Found",
    "GenerativeGuard",
    "GuardReport",
    "GuardScores",
    "HarmAndRefusal",
    "Jailbreaks",
    "LatentGuard",
    "LearningCurve",
    "LinearProbe",
    "LogisticProbe",
    "MLPProbe",
    "MeanDifference",
    "NearestCentroid",
    "Picks",
    "Place",
    "Plan",
    "PlanCausal",
    "PlanExamples",
    "PlanFit",
    "PlanModels",
    "PlanProbe",
    "PlanTransfer",
    "Price",
    "Probe",
    "Question",
    "RefusalCliff",
    "RefusalDirection",
    "RefusalProber",
    "ReplyInversion",
    "RidgeProbe",
    "Segment",
    "Selection",
    "Separation",
    "StreamRule",
    "Subspace",
    "SuppressionHeads",
    "Sweep",
    "TextBaseline",
    "Transfer",
    "Watched",
    "WhitenedMeanDifference",
    "answered_by",
    "attribute",
    "behaviour",
    "candidates",
    "category_directions",
    "causal_check",
    "cliff_as_judge",
    "cosines",
    "decisions",
    "dissociation",
    "domain",
    "drops",
    "evaluate",
    "find_cliff",
    "fit_logistic",
    "fit_plan",
    "grouped_folds",
    "grouped_split",
    "harm_and_refusal",
    "jailbreaks",
    "learning_curve",
    "load_probe",
    "own_refusals",
    "paired_auroc",
    "plan",
    "plan_causal",
    "plan_models",
    "plan_transfer",
    "principal_angles",
    "random_cosine",
    "refusal_cliff",
    "refusal_direction",
    "refusal_prober",
    "reply_inversion",
    "score_candidates",
    "select_direction",
    "separation",
    "subspace",
    "suppression_heads",
    "sweep",
    "transfer_matrix",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

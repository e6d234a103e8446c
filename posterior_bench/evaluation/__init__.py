"""Scores of a posterior against the truth, what an exact one would score, and which of two is better.

``evaluate(posterior, truth)`` gives every score; ``rank`` orders methods; ``paired_difference`` compares two.
"""

from .calibration import Calibration, confidences, randomised_ranks
from .controls import Scaled, Shifted
from .intervals import Interval, mean_interval, paired_difference
from .landmarks import StrayDraws
from .leakage import Leakage
from .log_score import LogScore
from .map_estimate import MAPEstimate
from .mmd import PosteriorMMD, unbiased_mmd
from .ranking import Entry, Ranked, rank
from .resimulation import Resimulation
from .scoring import draws_of, evaluate, metrics_shipped
from .skill import Skill

__all__ = [
    "Calibration",
    "Entry",
    "Interval",
    "Leakage",
    "LogScore",
    "MAPEstimate",
    "PosteriorMMD",
    "Ranked",
    "Resimulation",
    "Scaled",
    "Shifted",
    "Skill",
    "StrayDraws",
    "confidences",
    "draws_of",
    "evaluate",
    "mean_interval",
    "metrics_shipped",
    "paired_difference",
    "randomised_ranks",
    "rank",
    "unbiased_mmd",
]

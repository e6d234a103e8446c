"""Scores of a posterior against the truth, what an exact one would score, and which of two is better.

``evaluate(posterior, truth)`` gives every score; ``rank`` orders methods; ``paired_difference`` compares two.
"""

from .c2st import ForestTwoSample, NetworkTwoSample
from .calibration import Calibration, confidences, randomised_ranks
from .calibration_by_measurement import CalibrationByMeasurement
from .coverage_regions import BallCoverage, HighestDensityCoverage
from .distances import SlicedWasserstein
from .information import Information
from .interval_coverage import IntervalCoverage
from .intervals import Interval, mean_interval, paired_difference
from .landmarks import StrayDraws
from .leakage import Leakage
from .local_tests import LocalTwoSample
from .log_score import LogScore
from .map_estimate import MAPEstimate
from .mmd import PosteriorMMD, unbiased_mmd
from .parameter_error import ParameterError
from .posterior_predictive import PosteriorPredictive
from .rank_statistics import RankStatistics
from .ranking import Entry, Ranked, rank
from .resimulation import Resimulation
from .scoring import draws_of, evaluate, metrics_shipped
from .signals import Signals
from .skill import Skill

__all__ = [
    "BallCoverage",
    "Calibration",
    "CalibrationByMeasurement",
    "Entry",
    "ForestTwoSample",
    "HighestDensityCoverage",
    "Information",
    "Interval",
    "IntervalCoverage",
    "Leakage",
    "LocalTwoSample",
    "LogScore",
    "MAPEstimate",
    "NetworkTwoSample",
    "ParameterError",
    "PosteriorMMD",
    "PosteriorPredictive",
    "RankStatistics",
    "Ranked",
    "Resimulation",
    "Signals",
    "Skill",
    "SlicedWasserstein",
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

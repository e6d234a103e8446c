"""Scoring a fitted posterior from Python, in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..contracts import HasLogProb, HasSignals, Metric, Posterior
from ..records import Draws, Score, Truth
from ..runtime import scope, seed_for
from .c2st import ForestTwoSample, NetworkTwoSample
from .calibration import Calibration
from .calibration_by_measurement import CalibrationByMeasurement
from .coverage_regions import BallCoverage, HighestDensityCoverage
from .distances import SlicedWasserstein
from .information import Information
from .interval_coverage import IntervalCoverage
from .landmarks import StrayDraws
from .leakage import Leakage
from .local_tests import LocalTwoSample
from .log_score import LogScore
from .map_estimate import MAPEstimate
from .mmd import PosteriorMMD
from .parameter_error import ParameterError
from .posterior_predictive import PosteriorPredictive
from .rank_statistics import RankStatistics
from .resimulation import Resimulation
from .signals import Signals
from .skill import Skill


def metrics_shipped() -> tuple[Metric, ...]:
    """One of each metric that ships."""
    return (
        Leakage(),
        Calibration(),
        CalibrationByMeasurement(),
        RankStatistics(),
        HighestDensityCoverage(),
        BallCoverage(),
        LocalTwoSample(),
        Skill(),
        ParameterError(),
        IntervalCoverage(),
        LogScore(),
        Information(),
        MAPEstimate(),
        Resimulation(),
        PosteriorPredictive(),
        PosteriorMMD(),
        StrayDraws(),
        Signals(),
        SlicedWasserstein(),
        NetworkTwoSample(),
        ForestTwoSample(),
    )


MEASUREMENTS_AT_A_TIME = 100
"""Measurements for which ``sample`` is called at once, so that no method needs memory for a whole test set."""


def draws_of(posterior: Posterior, y: Tensor, n: int) -> Draws:
    """``n`` draws for each measurement y (T, *y_shape), with the density where the posterior has one.

    Raises:
        ValueError: where ``sample`` breaks its contract (n, T, D).
    """
    parts = []
    for some in y.split(MEASUREMENTS_AT_A_TIME):
        with torch.no_grad():
            part = posterior.sample(some, n)
        if part.ndim != 3 or part.shape[:2] != (n, len(some)):
            raise ValueError(
                f"{type(posterior).__name__}.sample returned shape {tuple(part.shape)} for {n} draws of {len(some)} "
                f"measurements; expected ({n}, {len(some)}, D): draws lead, then measurements"
            )
        parts.append(part)
    theta = torch.cat(parts, dim=1)
    signals = posterior if isinstance(posterior, HasSignals) else None
    if not isinstance(posterior, HasLogProb):
        return Draws(theta, signals=signals)
    density = posterior.log_prob
    # a metric may ask for the first measurements alone, see ``Draws``
    return Draws(theta, log_density=lambda at: density(at, y[: at.shape[1]]), signals=signals)


def evaluate(
    posterior: Posterior | Draws,
    truth: Truth,
    metrics: Sequence[Metric] | None = None,
    n: int = 500,
    seed: int = 0,
) -> list[Score]:
    """All scores of a posterior on a test set.

    Args:
        posterior: a fitted posterior, or draws of one.
        truth: the test set.
        metrics: those to compute; all that ship where ``None``. What does not apply gives no score.
        n: draws a measurement, where a posterior is given.
        seed: of the draws and of each metric; the caller's generators are left as they were.
    """
    device, dtype, threads = truth.theta.device, truth.theta.dtype, torch.get_num_threads()
    if isinstance(posterior, Draws):
        draws = posterior
    else:
        with scope(seed_for("draw", seed), device, dtype, threads):
            draws = draws_of(posterior, truth.y, n)
    scores: list[Score] = []
    for metric in metrics_shipped() if metrics is None else metrics:
        with scope(seed_for("score", seed, metric.name), device, dtype, threads):
            scores.extend(metric.score(draws, truth))
    return scores

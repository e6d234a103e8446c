"""Uncertainty of a score, by where it comes from: the fit (over repetitions) and the test set (over measurements).

A score s_rt of repetition r and measurement t is taken as mu + a_r + b_t + e_rt with independent a, b, e: the two-way
random effects of one observation a cell. The variance of the mean is var_a / R + var_b / T + var_e / (R T), each
estimated from the mean squares (Searle, Casella & McCulloch 1992, Variance Components, ch. 4), and the interval is
Student's with Satterthwaite's degrees of freedom (1946, Biometrics Bull. 2:110). Closed form: nothing is resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Args:
        mean: over repetitions and measurements.
        low, high: the interval.
        sd_fit: standard deviation that the choice of fit gives the mean of one; ``None`` where there is one fit.
        sd_test: standard error of the mean that the choice of test set gives.
        repetitions: R.
        measurements: T.
    """

    mean: float
    low: float
    high: float
    sd_fit: float | None
    sd_test: float
    repetitions: int
    measurements: int

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies within ``margin`` of zero: for a difference, equivalence."""
        return -margin <= self.low and self.high <= margin

    def beyond(self, margin: float) -> bool:
        """Whether the whole interval lies on one side of zero and farther out than ``margin``."""
        return self.low > margin or self.high < -margin

    @property
    def text(self) -> str:
        """In words, saying how many fits it speaks of."""
        fits = "one fit: it says nothing of another" if self.repetitions == 1 else f"{self.repetitions} fits"
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}] over {self.measurements} measurements, {fits}"


def mean_interval(scores: Tensor) -> Interval:
    """Mean of the scores (R, T) of each measurement, with its interval.

    With R = 1 the interval is that of the test set alone and speaks of this one fit.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"found scores of shape {tuple(scores.shape)}; expected (repetitions, measurements >= 2)")
    if not torch.isfinite(scores).all():
        raise ValueError("scores of single measurements are not finite; an interval needs one for every measurement")
    scores = scores.double()
    repetitions, measurements = scores.shape
    mean = scores.mean()
    by_fit, by_measurement = scores.mean(1), scores.mean(0)
    if repetitions == 1:
        variance = float(by_measurement.var()) / measurements
        degrees = float(measurements - 1)
        sd_fit, sd_test = None, math.sqrt(variance)
    else:
        rest = scores - by_fit[:, None] - by_measurement + mean
        degrees_of = (repetitions - 1, measurements - 1, (repetitions - 1) * (measurements - 1))
        cell = float((rest**2).sum()) / degrees_of[2]
        # a mean square below that of the cells says that its variance component is zero
        fit = max(cell, measurements * float(by_fit.var()))
        test = max(cell, repetitions * float(by_measurement.var()))
        sd_fit = math.sqrt((fit - cell) / measurements)
        sd_test = math.sqrt((test - cell) / repetitions / measurements + cell / (repetitions * measurements))
        total = fit + test - cell
        variance = total / (repetitions * measurements)
        parts = zip((fit, test, cell), degrees_of, strict=True)
        degrees = total**2 / sum(square**2 / count for square, count in parts) if total > 0 else math.inf
    half = float(stdtrit(degrees, 0.975)) * math.sqrt(variance) if variance > 0 else 0.0
    value = float(mean)
    return Interval(value, value - half, value + half, sd_fit, sd_test, repetitions, measurements)


def paired_difference(a: Tensor, b: Tensor) -> Interval:
    """Mean of a - b over measurements that both were scored on, with its interval.

    Args:
        a: (R, T), scores of each repetition and measurement.
        b: (R, T), or (1, T): what does not depend on the fit is compared with every one.

    Raises:
        ValueError: where the two have other test sets, or other numbers of repetitions (and none is 1).
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise ValueError(
            f"scores of shape {tuple(a.shape)} and {tuple(b.shape)} cannot be paired; expected (R, T) on one test set, "
            "with as many repetitions on both sides, or one"
        )
    return mean_interval(a.double() - b.double())

"""What an exact posterior would score at this T and n: the null band beside a value.

Where the truth comes from the posterior itself, it is one more draw. A *pseudo-truth* is therefore one of the n draws
of a measurement, scored against the other n - 1; doing so for every measurement gives one replicate of the null. The
replicates are independent between measurements and keep the dependence between parameters. A mean over measurements
needs no replicates: its null mean and variance follow from the first two moments of the pseudo-scores of each
measurement, and its central 95 % from the normal distribution.

The band says what *these* draws would score were they exact. A draw shared by several measurements (rejection from one
bank of simulations) is chosen anew for each of them here, while it moves their scores together: the band of such a
method is too narrow by what its measurements share, and no band of one fit can show it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..records import Score

NORMAL_95 = 1.959964
"""Half width of the central 95 % of a standard normal."""

PSEUDO_TRUTHS = 32
"""Pseudo-truths a measurement where each costs a pass over the prior or a density: adds 1/32 to the null variance."""


def some_rows(n: int, count: int, device: torch.device) -> Tensor:
    """Indices (min(count, n),) of draws taken at random: methods may return their draws in any order."""
    return torch.randperm(n, device=device)[:count]


def mean_band(mean: Tensor, variance: Tensor, rows: int) -> tuple[float, float]:
    """Central 95 % of a mean over T measurements, from the pseudo-scores' moments.

    Args:
        mean: (T,), mean pseudo-score of each measurement.
        variance: (T,), its variance over pseudo-truths, unbiased.
        rows: pseudo-truths a measurement; the centre is itself uncertain by 1/rows of the variance.
    """
    centre = float(mean.double().mean())
    half = NORMAL_95 * math.sqrt(float(variance.double().sum()) * (1 + 1 / rows)) / len(mean)
    return centre - half, centre + half


def ratio_band(numerator: Tensor, denominator: Tensor) -> tuple[float, float]:
    """Central 95 % of 1 - mean(numerator) / mean(denominator), both (rows, T), by the delta method.

    With rho the ratio, the deviation is that of mean(numerator - rho denominator) / mean(denominator).
    """
    scale = float(denominator.double().mean())
    rho = float(numerator.double().mean()) / scale
    residual = (numerator.double() - rho * denominator.double()) / scale
    low, high = mean_band(residual.mean(0), residual.var(0), len(residual))
    return 1 - rho + low, 1 - rho + high


def simultaneous_edge(tests: int, level: float = 0.99) -> float:
    """Half width, in standard deviations, that ``tests`` normal scores all keep to with probability >= ``level``.

    Each is tested at level^(1/tests) (Šidák 1967, JASA 62:626), which holds for any correlation between normal scores.

    >>> round(simultaneous_edge(1, 0.95), 3), round(simultaneous_edge(13), 2)
    (1.96, 3.36)
    """
    single = level ** (1 / tests)
    return float(torch.special.ndtri(torch.tensor((1 + single) / 2, dtype=torch.float64)))


def null_distance(value: float, low: float, high: float) -> float:
    """How far a value lies from the middle of its null band, in half widths of the band; beyond +-1 it is outside.

    Where the band has no width, infinite outside of it and 0 on it.

    >>> null_distance(-0.05, -0.02, 0.02), null_distance(0.0, 0.0, 0.0)
    (-2.5, 0.0)
    """
    half = (high - low) / 2
    offset = value - (low + high) / 2
    if half > 0:
        return offset / half
    return math.copysign(math.inf, offset) if offset else 0.0


def power(value: float, low: float, high: float, std_error: float | None = None) -> float:
    """Probability that a fresh test set of the same size gives a score outside of its null band.

    P(outside) = Phi((low - v) / s) + 1 - Phi((high - v) / s): the score of a fresh test set is taken to be normal about
    the value v that was found, with the standard deviation s that was estimated, and the band to be the same.

    Args:
        value: v.
        low, high: the null band.
        std_error: s; where it is ``None``, that of a band of 95 %, (high - low) / (2 * 1.96). An exact posterior then
            comes out at 5 % at least.

    >>> round(power(0.0, -1.96, 1.96), 3), round(power(1.96, -1.96, 1.96, 1.0), 3)
    (0.05, 0.5)
    """
    spread = (high - low) / (2 * NORMAL_95) if std_error is None else std_error
    if spread <= 0:
        return float(not low <= value <= high)
    below, above = ((edge - value) / spread for edge in (low, high))
    return (math.erfc(-below / math.sqrt(2)) + math.erfc(above / math.sqrt(2))) / 2


def standard_error(per_measurement: Tensor) -> float | None:
    """Standard error of the mean of (T,) over the test set; ``None`` for a single measurement."""
    if len(per_measurement) < 2:
        return None
    return float(per_measurement.double().std()) / math.sqrt(len(per_measurement))


def root_mean(metric: str, squares: Tensor, null: tuple[float, float] | None = None) -> Score:
    """A root mean square as a score; ``squares`` (T,) may hold NaN where a measurement is left out.

    The standard error is that of the mean of squares by the delta method; ``null`` is the band of that mean.
    """
    kept = squares[~squares.isnan()].double()
    value = float(kept.mean().sqrt())
    error = standard_error(kept)
    low, high = (None, None) if null is None else (math.sqrt(max(0.0, edge)) for edge in null)
    return Score(
        metric,
        value,
        std_error=error / (2 * value) if error is not None and value > 0 else None,
        null_low=low,
        null_high=high,
        per_measurement=squares,
    )

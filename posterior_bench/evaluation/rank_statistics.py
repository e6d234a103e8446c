"""Simulation-based calibration: are the ranks u of the truth uniform? sup over z of |F(z) - z| and simultaneous bands.

Talts et al. 2018 (arXiv 1804.06788). The bands are those of Säilynoja, Bürkner & Vehtari 2022 (Stat. Comput. 32:32,
arXiv 2103.10522): T F(z) of uniform ranks is binomial at each z, and the pointwise tail probability gamma is set so
that the whole curve stays inside with 95 %. Ranks of the parameters cannot tell the posterior from the prior; the rank
of the log-likelihood can (Modrák et al. 2023, arXiv 2211.02383).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy.special import bdtr, bdtrc
from torch import Tensor

from ..contracts import Metric
from ..priors import log_density_in_support
from ..records import Draws, Score, Truth
from .calibration import randomised_ranks
from .inputs import check, names
from .nulls import NORMAL_95, some_rows, standard_error

POINTS = 100
"""Points z = i / 100, i = 1..99, at which a curve is looked at."""

SIMULATIONS = 2000
"""Sets of uniform ranks behind a band: its 95 % are then uncertain by 0.5 %."""


def excess(u: Tensor) -> Tensor:
    """F(z) - z at z = i / 100, (99,), float64, for ranks u (T,) in [0, 1)."""
    counts = torch.bincount((u.double() * POINTS).long().clamp(0, POINTS - 1), minlength=POINTS)
    grid = torch.arange(1, POINTS, dtype=torch.float64, device=u.device) / POINTS
    return counts.cumsum(0)[:-1].double() / len(u) - grid


def two_sided(counts: np.ndarray, total: int, z: np.ndarray | float) -> np.ndarray:
    """Probability, doubled and at most 1, of a binomial count as far out as each of ``counts``, on its own side."""
    at_least = np.where(counts > 0, bdtrc(np.maximum(counts - 1, 0), total, z), 1.0)
    return np.minimum(1.0, 2 * np.minimum(bdtr(counts, total, z), at_least))


def tail(counts: np.ndarray, total: int) -> np.ndarray:
    """Smallest two-sided binomial tail probability (...,) along a curve of counts T F(z), (..., 99)."""
    return two_sided(counts, total, np.arange(1, POINTS) / POINTS).min(-1)


@dataclass(frozen=True, eq=False)
class UniformRanks:
    """What T uniform ranks would show.

    Args:
        largest: (simulations,), sorted, of sup |F(z) - z|.
        tails: (simulations,), sorted, of the smallest tail probability along the curve.
        low, high: (99,), the simultaneous 95 % band of F(z) - z.
    """

    largest: Tensor
    tails: np.ndarray
    low: Tensor
    high: Tensor

    def probability(self, found: float) -> float:
        """How often uniform ranks have a tail probability as small as ``found``; at least 1 / (simulations + 1)."""
        return float(np.searchsorted(self.tails, found, side="right") + 1) / (len(self.tails) + 1)


@lru_cache(maxsize=16)
def uniform_ranks(total: int) -> UniformRanks:
    """Simulated once for each T, with numbers of its own: the band is the same for every method and parameter."""
    # no global generator: what is kept for later calls must not depend on who called first
    generator = np.random.default_rng(total)
    counts = generator.multinomial(total, [1 / POINTS] * POINTS, size=SIMULATIONS).cumsum(1)[:, :-1]
    grid = np.arange(1, POINTS) / POINTS
    tails = np.sort(tail(counts, total))
    gamma = tails[int(0.05 * SIMULATIONS)]
    low, high = np.empty(POINTS - 1), np.empty(POINTS - 1)
    for k, z in enumerate(grid):
        reach = 5 + 8 * (total * z * (1 - z)) ** 0.5  # gamma is never as small as eight standard deviations out
        near = np.arange(max(0, int(total * z - reach)), min(total, int(total * z + reach)) + 1)
        inside = near[two_sided(near, total, float(z)) >= gamma]
        low[k], high[k] = inside[0] / total - z, inside[-1] / total - z
    largest = np.sort(np.abs(counts / total - grid).max(1))
    return UniformRanks(torch.from_numpy(largest), tails, torch.from_numpy(low), torch.from_numpy(high))


def uniformity(metric: str, u: Tensor, suffix: str = "") -> Iterator[Score]:
    """``<metric>_deviation`` and ``<metric>_p_value`` of ranks u (T,) in [0, 1) that should be uniform.

    The first is sup |F(z) - z| with its central 95 %, and the curve with its simultaneous band. The second is the
    probability that uniform ranks stray as far from the diagonal anywhere, each place judged by its own binomial; its
    band is one-sided: 0.05 to 1.
    """
    null = uniform_ranks(len(u))
    difference = excess(u).cpu()
    edges = null.largest[[int(0.025 * SIMULATIONS), int(0.975 * SIMULATIONS)]]
    yield Score(
        f"{metric}_deviation{suffix}",
        float(difference.abs().max()),
        null_low=float(edges[0]),
        null_high=float(edges[1]),
        artefacts={"curve": difference, "curve_low": null.low, "curve_high": null.high},
    )
    counts = np.rint((difference.numpy() + np.arange(1, POINTS) / POINTS) * len(u)).astype(np.int64)
    p_value = null.probability(float(tail(counts[None], len(u))[0]))
    yield Score(f"{metric}_p_value{suffix}", p_value, null_low=0.05, null_high=1.0)


def centred_mean(metric: str, each: Tensor) -> Score:
    """Mean of (T,) numbers that are uniform with mean 0 and width 1 under an exact posterior, as a signed score."""
    half = NORMAL_95 / math.sqrt(12 * len(each))
    return Score(metric, float(each.mean()), standard_error(each), -half, half, per_measurement=each)


def likelihood_ranks(theta: Tensor, truth: Truth) -> Tensor:
    """Randomised rank (R,) of log p(y | theta*) among that of the draws theta (k, R, D), for the first R measurements.

    A draw outside the prior's support counts as one of likelihood zero.

    Raises:
        ValueError: where a likelihood is NaN or +inf.
    """
    if truth.log_likelihood is None:
        raise ValueError("the truth has no log_likelihood; give Truth(log_likelihood=...) of the simulator")
    k, count, dim = theta.shape
    star, y = truth.theta[:count], truth.y[:count]
    flat = torch.cat([star[None], theta]).reshape(-1, dim)
    repeated = y.expand(k + 1, *y.shape).reshape(-1, *y.shape[1:])
    log_likelihood = truth.log_likelihood
    with torch.no_grad():
        found = log_density_in_support(truth.prior, flat, star[0], lambda at: log_likelihood(at, repeated))
    if (found.isnan() | (found == torch.inf)).any():
        raise ValueError("the log-likelihood at the draws is NaN or +inf; expected a number of nats, or -inf")
    found = found.view(k + 1, count, 1)
    return randomised_ranks(found[1:], found[0])[:, 0]


@dataclass(frozen=True)
class RankStatistics(Metric):
    """Whether ranks are uniform anywhere along their curve, where ``calibration_error`` looks at central intervals.

    - ``sbc_deviation/<p>``: sup over z of |F(z) - z| of the ranks u of parameter p; its null value is not zero.
    - ``sbc_p_value/<p>``: the probability of ranks as far from uniform, by simultaneous bands; **below 0.05 is wrong
      with 95 %**, for each parameter alone.
    - ``sbc_deviation/log_likelihood``, ``sbc_p_value/log_likelihood``: the same of the log-likelihood, where the
      simulator has one. The prior in place of the posterior passes all the others and fails here.
    - ``sbc_bias/log_likelihood``: mean of u - 1/2 of the log-likelihood. Positive where draws explain the measurement
      worse than the truth does: too wide, or the prior. Negative where they explain it better: too narrow.

    Nothing where T < 3.

    The likelihood is computed (L + 1) T times, with L of the draws, taken at random, and the first T measurements. The
    null bands are those of this T, and hold for any L. What a wrong posterior does to the mean of u is L / (L + 1) of
    what it would with all draws, to its spread L (L - 1) / (L + 1)^2, while the bands narrow by sqrt(T): for a given
    number of calls, few draws of many measurements tell most. The defaults, 6,000 calls, keep 0.92 and 0.76.

    Args:
        draws: L, of each measurement, whose likelihood is computed.
        measurements: T, the first ones, whose likelihood is computed.
    """

    name: ClassVar[str] = "sbc_deviation"
    version: ClassVar[int] = 2
    draws: int = 11
    measurements: int = 500

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores; the deviations have ``curve``, ``curve_low`` and ``curve_high`` (99,) as artefacts."""
        check(draws, truth)
        if len(truth.theta) < 3:
            return
        u = randomised_ranks(draws.theta, truth.theta)
        for k, name in enumerate(names(truth)):
            yield from uniformity("sbc", u[:, k], f"/{name}")
        if truth.log_likelihood is None:
            return
        rows = some_rows(len(draws.theta), self.draws, draws.theta.device)
        ranks = likelihood_ranks(draws.theta[rows][:, : self.measurements], truth)
        yield from uniformity("sbc", ranks, "/log_likelihood")
        yield centred_mean("sbc_bias/log_likelihood", ranks - 0.5)

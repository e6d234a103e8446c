"""Information gained about each parameter: E[log q_j(theta*_j | y) - log p_j(theta*_j)], in nats.

Its expectation for an exact posterior is the mutual information of the parameter and the measurement (Lindley 1956,
Ann. Math. Stat. 27:986), and no posterior has a larger one: it is a proper score. q_j is a kernel density of the
draws, after the map z = Phi^-1(F_j(theta_j)) by the prior's distribution function F_j: the prior becomes a standard
normal, and there are no bounds left at which a kernel density is biased.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..contracts import Metric
from ..priors import in_support, known_marginals
from ..records import Draws, Score, Truth
from ..training import ThetaMap
from .arithmetic import chunks
from .inputs import check, names, whole_numbers
from .nulls import NORMAL_95, mean_band, some_rows, standard_error

WIDTHS = (1.0, 0.55, 0.3, 0.17, 0.09, 0.05, 0.028)
"""Bandwidths tried, in units of that which suits a normal distribution: several modes ask for a narrower one."""

TRIED = 100
"""Measurements on which they are tried."""

KNOTS = 64
"""Pieces of equal probability by which the prior's distribution function is known where it is known by draws alone."""

FAR = 1e9
"""Place of what lies at infinity."""

PSEUDO = 8
"""Draws of a measurement that stand in for the truth, for the bandwidth and for the null."""


def normal_scores(theta: Tensor, truth: Truth) -> Tensor:
    """z = Phi^-1(F(theta)) for theta (..., D); infinite where theta lies outside the prior's support.

    F are the prior's marginals where they are known, else piecewise linear through 64 quantiles of its draws.
    """
    inside = in_support(truth.prior, theta).unsqueeze(-1)
    safe = torch.where(inside, theta, truth.theta[0])
    if known_marginals(truth.prior) is not None:
        z = ThetaMap(truth.prior)(safe)
    else:
        levels = torch.linspace(0, 1, KNOTS + 1, dtype=torch.float64, device=theta.device)
        edge = 0.5 / len(truth.prior_draws)
        columns = []
        for draws, values in zip(truth.prior_draws.double().unbind(-1), safe.double().unbind(-1), strict=True):
            knots = draws.quantile(levels)
            after = torch.searchsorted(knots, values.contiguous()).clamp(1, KNOTS)
            low, high = knots[after - 1], knots[after]
            part = ((values - low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
            columns.append(torch.special.ndtri(((after - 1 + part) / KNOTS).clamp(edge, 1 - edge)))
        z = torch.stack(columns, dim=-1).to(theta.dtype)
    return torch.where(inside, z, torch.inf)


def log_kernel_density(z: Tensor, at: Tensor, width: Tensor, own: bool = False) -> Tensor:
    """Log of the kernel density of draws z (T, n) at points (T, m), normal kernels of width (T,): (T, m).

    With ``own``, the points are draws themselves, each judged by the n - 1 others. A draw at infinity takes its share
    of the probability away.
    """
    found = torch.empty_like(at)
    n, points = z.shape[1], at.shape[1]
    factor = (math.sqrt(0.5) / width).unsqueeze(1)
    # what lies at infinity is moved to where no kernel reaches, points and draws to different ends
    scaled, scaled_at = torch.where(z.isfinite(), z * factor, FAR), torch.where(at.isfinite(), at * factor, -FAR)
    for part in chunks(len(at), n * points):
        distance = scaled_at[part, :, None] - scaled[part, None, :]
        # beyond e^-80 numbers are denormal, and slow; the prior's share of the density is far above that
        sums = distance.square_().clamp_max_(80).neg_().exp_().sum(-1)
        if own:
            sums = (sums - at[part].isfinite().to(sums.dtype)).clamp_min(0)
        found[part] = sums.log() - (width[part] * math.sqrt(2 * math.pi) * (n - own)).log().unsqueeze(1)
    return found


def gained(log_density: Tensor, at: Tensor, n: int) -> Tensor:
    """log q - log p of log kernel densities at normal scores ``at`` (both of one shape), from n draws.

    One draw of the prior is added to the n: q is nowhere below p / (n + 1), and no truth costs more than log(n + 1).
    """
    log_prior = -0.5 * at.square() - 0.5 * math.log(2 * math.pi)
    ratio = torch.where(at.isfinite(), log_density - log_prior, -torch.inf) + math.log(n)
    return torch.logaddexp(ratio, torch.zeros_like(ratio)) - math.log(n + 1)


def continuous_gains(z: Tensor, star: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Information gained (T,) at the truths' scores (T,), and at the draws ``rows`` (m,) of z (T, n): (m, T).

    The bandwidth is that of a normal distribution, 1.06 sd n^(-1/5) (Silverman 1986), times the one of ``WIDTHS`` under
    which left-out draws of all measurements are likeliest: the truths have no say in it.
    """
    n = z.shape[1]
    finite = z.isfinite()
    count = finite.sum(1).clamp(min=2)
    filled = torch.where(finite, z, 0.0)
    mean = (filled.sum(1) / count).unsqueeze(1)
    sd = (torch.where(finite, z - mean, 0.0).square().sum(1) / (count - 1)).sqrt().clamp_min(1e-6)
    width = 1.06 * sd * n**-0.2
    left_out, some = z[:, rows], slice(0, TRIED)
    trials = [
        float(gained(log_kernel_density(z[some], left_out[some], width[some] * c, own=True), left_out[some], n).mean())
        for c in WIDTHS
    ]
    width = width * WIDTHS[trials.index(max(trials))]
    at_truth = gained(log_kernel_density(z, star[:, None], width), star[:, None], n)[:, 0]
    return at_truth, gained(log_kernel_density(z, left_out, width, own=True), left_out, n - 1).T


def discrete_gains(draws: Tensor, star: Tensor, rows: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """The same for whole numbers: log of frequencies among draws (n, T) and among draws (P,) of the prior."""
    points = torch.cat([star[None], draws[rows]])
    n = len(draws)
    found = torch.stack([(draws == point).sum(0) for point in points]).double()
    ordered = prior.sort().values
    known = torch.searchsorted(ordered, points, right=True) - torch.searchsorted(ordered, points)
    share = (known.double() + 1) / (len(prior) + 1)
    found[1:] -= 1  # a draw is judged by the others
    size = torch.full_like(found, n)
    size[1:] -= 1
    gains = (((found + share) / (size + 1)) / share).log()
    return gains[0], gains[1:]


def gains(draws: Tensor, truth: Truth, measurements: int) -> tuple[Tensor, Tensor]:
    """Information gained (R, D) at the first R truths, and at draws in their place (m, R, D), for draws (n, T, D)."""
    theta, star = draws[:, :measurements], truth.theta[:measurements]
    rows = some_rows(len(theta), PSEUDO, theta.device)
    discrete = whole_numbers(truth.prior_draws)
    z, z_star = normal_scores(theta, truth), normal_scores(star, truth)
    found = []
    for k in range(theta.shape[-1]):
        if discrete[k]:
            found.append(discrete_gains(theta[..., k], star[:, k], rows, truth.prior_draws[:, k]))
        else:
            found.append(continuous_gains(z[..., k].T.contiguous(), z_star[:, k].contiguous(), rows))
    at_truth, pseudo = zip(*found, strict=True)
    return torch.stack(at_truth, dim=-1).double(), torch.stack(pseudo, dim=-1).double()


@dataclass(frozen=True)
class Information(Metric):
    """What the draws know of each parameter beyond the prior, in nats; higher is better, 0 is the prior.

    - ``information_gain/<p>``: mean of log q_j(theta*_j | y) - log p_j(theta*_j). The band is what the draws claim, by
      draws in place of the truth: below it they are over-confident or wrong, above it they know more than they say
      (draws wider than the prior claim much by their tails, and lie below it). A kernel density of n draws knows a
      little less than the posterior behind them.
    - ``information_lost/<p>``: what exact draws gain less what these gain, by as many draws of both, on the reference
      measurements; 0 for an exact posterior. The band is the difference of two halves of the exact draws.
    - ``information_ceiling/<p>``: what the exact draws gain there.

    Args:
        size: draws of each measurement that are used.
        measurements: the first ones that are used.
        exact: the first ones of those that have exact draws, likewise.
    """

    name: ClassVar[str] = "information_gain"
    version: ClassVar[int] = 1
    size: int = 500
    measurements: int = 1000
    exact: int = 200

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores, with ``per_measurement`` (R,)."""
        check(draws, truth)
        some = some_rows(len(draws.theta), self.size, draws.theta.device)
        found, pseudo = gains(draws.theta[some][:, : self.measurements], truth, self.measurements)
        for k, name in enumerate(names(truth)):
            each = found[:, k]
            low, high = mean_band(pseudo[..., k].mean(0), pseudo[..., k].var(0), len(pseudo))
            yield Score(
                f"{self.name}/{name}", float(each.mean()), standard_error(each), low, high, per_measurement=each
            )
        if truth.reference is not None:
            yield from self._lost(draws, truth, truth.reference)

    def _lost(self, draws: Draws, truth: Truth, reference: Tensor) -> Iterator[Score]:
        count = min(reference.shape[1], self.exact)
        n = min(self.size, len(draws.theta), len(reference) // 2)
        if n < 3 or count < 2:
            return
        own = draws.theta[some_rows(len(draws.theta), n, reference.device)]
        halves = reference[some_rows(len(reference), 2 * n, reference.device)]
        reached, ceiling, other = (gains(part[:, :count], truth, count)[0] for part in (own, halves[:n], halves[n:]))
        for k, name in enumerate(names(truth)):
            lost, null = ceiling[:, k] - reached[:, k], ceiling[:, k] - other[:, k]
            half = NORMAL_95 * float(null.std()) / math.sqrt(count)
            yield Score(
                f"information_lost/{name}", float(lost.mean()), standard_error(lost), -half, half, per_measurement=lost
            )
            at_most = ceiling[:, k]
            yield Score(
                f"information_ceiling/{name}",
                float(at_most.mean()),
                standard_error(at_most),
                per_measurement=at_most,
            )

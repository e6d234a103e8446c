"""Calibration: does a central interval of confidence c hold the truth with frequency c?

Calibration error as in Ardizzone et al. 2019 (arXiv 1808.04730), by the randomised rank of the truth among the draws
(Talts et al. 2018, arXiv 1804.06788), which is exactly uniform for an exact posterior, ties and small n included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks, sort
from .inputs import check, names
from .nulls import NORMAL_95, simultaneous_edge

LEVELS = 100
"""Confidences c = i / 101, i = 1..100, as in the code released with the paper."""

REPLICATES = 400
"""Replicates of the null: the 2.5 % and 97.5 % quantiles are then uncertain by 0.8 % in probability."""


def confidences() -> Tensor:
    """The confidences c of the curve, (100,), float64."""
    return torch.arange(1, LEVELS + 1, dtype=torch.float64) / (LEVELS + 1)


def randomised_ranks(draws: Tensor, theta: Tensor) -> Tensor:
    """Randomised rank of each true parameter among its draws, (T, D), float64, in [0, 1).

    u = (less + V (ties + 1)) / (n + 1) with V ~ U(0, 1): uniform where truth and draws come from one distribution,
    discrete ones included.

    Args:
        draws: (n, T, D).
        theta: (T, D).
    """
    less, ties = torch.zeros_like(theta, dtype=torch.float64), torch.zeros_like(theta, dtype=torch.float64)
    for part in chunks(len(theta), draws[:, 0].numel()):
        less[part] = (draws[:, part] < theta[part]).sum(0).double()
        ties[part] = (draws[:, part] == theta[part]).sum(0).double()
    return (less + torch.rand_like(less) * (ties + 1)) / (len(draws) + 1)


def curve(ranks: Tensor) -> Tensor:
    """Signed calibration curve e(c) = f(c) - c of ranks u (T, ...), (..., 100): negative where over-confident.

    f(c) is the fraction of truths in the central interval of confidence c, |2u - 1| < c.
    """
    flat = _bins(ranks).flatten(1)
    offset = torch.arange(flat.shape[1], device=flat.device) * (LEVELS + 1)
    counts = torch.bincount((flat + offset).flatten(), minlength=flat.shape[1] * (LEVELS + 1))
    return _from_counts(counts.view(*ranks.shape[1:], LEVELS + 1), len(ranks))


def calibration_error(curves: Tensor) -> Tensor:
    """Median over c of |e(c)| of curves (..., 100): (...). The mean of the two middle values, as NumPy has it."""
    ordered = curves.abs().sort(-1).values
    return ordered[..., LEVELS // 2 - 1 : LEVELS // 2 + 1].mean(-1)


def calibration_score(curves: Tensor, measurements: int) -> Tensor:
    """Mean over c of e^2 - f(1 - f) / (T - 1) of curves (..., 100): zero in expectation for an exact posterior.

    f(1 - f) / (T - 1) is the unbiased estimate of the variance of f over T measurements.
    """
    held = curves + confidences().to(curves.device)
    return (curves**2 - held * (1 - held) / (measurements - 1)).mean(-1)


def score_of_each(ranks: Tensor, curves: Tensor) -> Tensor:
    """Jackknife pseudo-values (T, D) of the calibration score; their mean is the score, for any T.

    The score is the U-statistic of pairs mean_c h_j h_k with h_j(c) = 1[|2u_j - 1| < c] - c. Its pseudo-value is
    (2 (T - 1) psi_j - T U) / (T - 2), psi_j the mean over the partners k of j (Arvesen 1969, Ann. Math. Stat. 40:2076).
    """
    total = len(ranks)
    index = torch.arange(LEVELS + 1, device=ranks.device)
    # h_j depends on the bin alone: one row a bin, 101 x 100
    h = (index[:, None] < index[1:]).double() - confidences().to(ranks.device)
    own = (h**2).mean(-1)[:, None]
    partners = (total * (h @ curves.T) / LEVELS - own) / (total - 1)  # (101, D)
    psi = partners.gather(0, _bins(ranks))
    score = calibration_score(curves, total)
    return (2 * (total - 1) * psi - total * score) / (total - 2)


def null_curves(draws: Tensor, replicates: int = REPLICATES) -> Tensor:
    """Curves (replicates, D, 100) of pseudo-truths: one draw of each measurement, ranked among its other n - 1."""
    n, total, dim = draws.shape
    counts = torch.zeros(replicates * dim * (LEVELS + 1), dtype=torch.long, device=draws.device)
    offset = torch.arange(replicates * dim, device=draws.device).view(replicates, dim).T * (LEVELS + 1)
    for part in chunks(total, dim * max(n, replicates)):
        values = draws[:, part].permute(1, 2, 0).contiguous()  # (C, D, n)
        ordered = sort(values)
        picks = torch.randint(n, (len(values), 1, replicates), device=draws.device)
        chosen = values.gather(-1, picks.expand(-1, dim, -1))
        less = torch.searchsorted(ordered, chosen)
        tied = bool((ordered[..., 1:] == ordered[..., :-1]).any())
        same = torch.searchsorted(ordered, chosen, right=True) - less if tied else 1
        u = (less + torch.rand_like(chosen) * same) / n  # of n - 1 others; ``same`` counts the pick itself
        counts += torch.bincount((_bins(u) + offset).flatten(), minlength=len(counts))
    return _from_counts(counts.view(replicates, dim, LEVELS + 1), total)


def _bins(u: Tensor) -> Tensor:
    """The smallest i for which a central interval of confidence (i + 1) / 101 holds u: 0..100."""
    return ((2 * u.double() - 1).abs() * (LEVELS + 1)).long().clamp(max=LEVELS)


def _from_counts(counts: Tensor, total: int) -> Tensor:
    held = counts.cumsum(-1)[..., :LEVELS].double() / total
    return held - confidences().to(counts.device)


def _band(replicates: Tensor) -> tuple[float, float]:
    """Central 95 % of replicates (R,), by the order statistics at p (R + 1): exact on average for any R."""
    ordered = replicates.sort().values
    place = 0.025 * (len(ordered) + 1) - 1
    below, rest = int(place), place - int(place)
    edges = [torch.lerp(o[below], o[below + 1], rest) for o in (ordered, ordered.flip(0))]
    return float(edges[0]), float(edges[1])


class Calibration(Metric):
    """Calibration of each parameter's marginal, and of all.

    - ``calibration_error/<p>``: median over c of |e(c)|, a fraction; with the curve and its pointwise null band. The
      null value is not zero.
    - ``calibration_score/<p>``: mean over c of e^2 - f(1 - f) / (T - 1): null mean zero, so it may be averaged.
    - ``coverage_bias/<p>``: mean over c of e(c), nearly 1/2 - mean |2u - 1|. Negative is over-confident. **The gate**:
      its null edges hold for all D parameters at once with 99 %, not for one with 95 %.
    - ``rank_bias/<p>``: mean u - 1/2; positive where the draws lie too low. Edges as for ``coverage_bias``.
    - ``calibration_error``, ``calibration_score``: means over the parameters, which hide failures of single ones.

    Bands of error and score are quantiles of pseudo-truths; those of coverage and rank bias, and of the curve, are
    known: |2u - 1| is uniform and independent between measurements. Nothing where T < 3.
    """

    name = "calibration_error"
    version = 1

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores; artefacts are ``curve``, ``curve_low``, ``curve_high`` (100,) and ``ranks`` (T, D), 0..n."""
        check(draws, truth)
        total, dim = truth.theta.shape
        if total < 3:
            return
        u = randomised_ranks(draws.theta, truth.theta)
        curves = curve(u)
        null = null_curves(draws.theta)
        yield from self._errors(draws, truth, u, curves, null)
        yield from self._scores(truth, u, curves, null)
        edge = simultaneous_edge(dim)
        # g = mean over c of 1[|2u - 1| < c] - c = 1/2 - bin / 100, the bin uniform on 0..100
        each = 0.5 - _bins(u).double() / LEVELS
        spread = math.sqrt(((LEVELS + 1) ** 2 - 1) / 12) / LEVELS / math.sqrt(total)
        yield from _signed("coverage_bias", truth, each, edge * spread)
        yield from _signed("rank_bias", truth, u - 0.5, edge / math.sqrt(12 * total))

    def _errors(self, draws: Draws, truth: Truth, u: Tensor, curves: Tensor, null: Tensor) -> Iterator[Score]:
        errors, null_errors = calibration_error(curves), calibration_error(null)
        level = confidences()
        half = NORMAL_95 * (level * (1 - level) / len(u)).sqrt()
        for k, name in enumerate(names(truth)):
            low, high = _band(null_errors[:, k])
            artefacts = {"curve": curves[k], "curve_low": -half, "curve_high": half}
            yield Score(
                f"calibration_error/{name}", float(errors[k]), null_low=low, null_high=high, artefacts=artefacts
            )
        n = len(draws.theta)
        integers = (u * (n + 1)).long().clamp(max=n)
        ranks = integers.to(torch.uint16 if n < 2**16 else torch.int32)
        low, high = _band(null_errors.mean(1))
        value = float(errors.mean())
        yield Score("calibration_error", value, null_low=low, null_high=high, artefacts={"ranks": ranks})

    def _scores(self, truth: Truth, u: Tensor, curves: Tensor, null: Tensor) -> Iterator[Score]:
        scores, null_scores = calibration_score(curves, len(u)), calibration_score(null, len(u))
        each = score_of_each(u, curves)
        columns = [(f"/{name}", scores[k], null_scores[:, k], each[:, k]) for k, name in enumerate(names(truth))]
        for suffix, value, replicates, pseudo in [*columns, ("", scores.mean(), null_scores.mean(1), each.mean(1))]:
            low, high = _band(replicates)
            yield Score(
                f"calibration_score{suffix}",
                float(value),
                std_error=float(pseudo.std()) / math.sqrt(len(u)),
                null_low=low,
                null_high=high,
                per_measurement=pseudo,
            )


def _signed(metric: str, truth: Truth, each: Tensor, edge: float) -> Iterator[Score]:
    """A mean over the test set of (T, D), whose null is symmetric about zero."""
    errors = each.std(0) / math.sqrt(len(each))
    for k, name in enumerate(names(truth)):
        yield Score(f"{metric}/{name}", float(each[:, k].mean()), float(errors[k]), null_low=-edge, null_high=edge)

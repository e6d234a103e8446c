"""Log score: E[log q(theta* | y*)], the posterior's density at the truth, and its regret against the exact one.

The logarithmic score (Good 1952, JRSS B 14:107) is proper: its expectation is largest for the exact posterior, and the
regret E[log p(theta* | y*) - log q(theta* | y*)] is then the mean over y of the Kullback-Leibler divergence KL(p || q).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .inputs import check
from .nulls import PSEUDO_TRUTHS, mean_band, standard_error

REFERENCE_ERROR = 0.02
"""Nats by which the log density of an accepted reference may be off: two routes to its normalising constant that share
no proposal must agree to this."""


def densities(draws: Draws, truth: Truth) -> tuple[Tensor, Tensor]:
    """Log q at the truths, (T,), and at 32 draws of each measurement, (32, T), in nats; kept in ``draws.cache``.

    Which draws depends on no seed, so that scores do not depend on which metric asks first.

    Raises:
        ValueError: where there is no density, or one that is NaN or +inf.
    """
    if draws.log_density is None:
        raise ValueError("the draws come without a density; expected Draws(log_density=...)")
    if "log_density_at_truth" not in draws.cache:
        generator = torch.Generator(device="cpu").manual_seed(0)
        rows = torch.randperm(len(draws.theta), generator=generator, device="cpu")[:PSEUDO_TRUTHS]
        with torch.no_grad():
            at_truth = _checked(draws.log_density(truth.theta.unsqueeze(0)), "the true parameters")[0]
            own = draws.log_density(draws.theta[rows.to(draws.theta.device)])
            at_draws = _checked(own, "the posterior's own draws")
        draws.cache.update(log_density_at_truth=at_truth.double(), log_density_at_draws=at_draws.double())
    return draws.cache["log_density_at_truth"], draws.cache["log_density_at_draws"]


class LogScore(Metric):
    """Held-out log density, where the posterior has one; higher is better.

    - ``log_score``: mean of log q(theta* | y*) over the truths that q gives any density, in nats. The log score of one
      that it gives none is -inf, and so would be the mean; no table can hold that, so it is told apart:
    - ``log_score_zero_density``: fraction of truths to which q gives none. **Above 0, the true log score is -inf** and
      ``log_score`` flatters; ``per_measurement`` keeps the -inf.
    - ``regret_nats``: mean of log p(theta* | y*) - log q(theta* | y*) over the first R measurements, those with
      an exact density, less the truths that q gives none; lower is better. An exact posterior scores 0 for every
      measurement; the band is what the reference itself may be off by, 0.02 nats on either side.

    The null band of ``log_score`` comes from draws in place of the truth: what q claims to score. A value below it is
    over-confidence.
    """

    name = "log_score"
    version = 2
    single = True

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores, with ``per_measurement`` (T,); that of the regret is (R,).

        Raises:
            ValueError: where a density is NaN or +inf, or the reference's is not finite or not (R,) with R <= T.
        """
        if draws.log_density is None:
            return
        check(draws, truth)
        each, pseudo = densities(draws, truth)
        finite = torch.isfinite(each)
        zero = (~finite).double()
        yield Score("log_score_zero_density", float(zero.mean()), standard_error(zero), 0.0, 0.0, per_measurement=zero)
        if not finite.any():
            return
        low, high = None, None
        if torch.isfinite(pseudo).all():
            low, high = mean_band(pseudo.mean(0), pseudo.var(0), len(pseudo))
        kept = each[finite]
        yield Score("log_score", float(kept.mean()), standard_error(kept), low, high, per_measurement=each)
        if truth.reference_log_prob is not None:
            yield from _regret(each, truth.reference_log_prob.double())


def _regret(each: Tensor, exact: Tensor) -> Iterator[Score]:
    """The regret of log scores (T,) against exact ones (R,)."""
    if exact.ndim != 1 or len(exact) > len(each) or not torch.isfinite(exact).all():
        raise ValueError(
            f"the reference's log density at the truth has shape {tuple(exact.shape)} and "
            f"{int((~torch.isfinite(exact)).sum())} numbers that are not finite; expected (R,) finite ones for the "
            f"first R of {len(each)} measurements: no regret can be measured by it"
        )
    regret = exact - each[: len(exact)]
    kept = regret[torch.isfinite(regret)]
    if len(kept):
        yield Score(
            "regret_nats",
            float(kept.mean()),
            standard_error(kept),
            -REFERENCE_ERROR,
            REFERENCE_ERROR,
            per_measurement=regret,
        )


def _checked(density: Tensor, where: str) -> Tensor:
    broken = density.isnan() | (density == torch.inf)
    if broken.any():
        raise ValueError(
            f"the log density at {where} is NaN or +inf in {int(broken.sum())} of {broken.numel()} places; expected a "
            "number or -inf. Likely cure: compute it in log space, and give -inf outside the support"
        )
    return density

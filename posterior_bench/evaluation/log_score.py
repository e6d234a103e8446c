"""Log score: the posterior's density at the truth, in nats."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .inputs import check
from .nulls import PSEUDO_TRUTHS, mean_band, some_rows, standard_error


class LogScore(Metric):
    """Held-out log density, where the posterior has one; higher is better.

    - ``log_score``: mean of log q(theta* | y*) over the truths that q gives any density, in nats. The log score of one
      that it gives none is -inf, and so would be the mean; no table can hold that, so it is told apart:
    - ``log_score_zero_density``: fraction of truths to which q gives none. **Above 0, the true log score is -inf** and
      ``log_score`` flatters; ``per_measurement`` keeps the -inf.
    - ``regret_nats``: mean of log p(theta* | y*) - log q(theta* | y*) over the same truths, where the exact density is
      given. An exact posterior scores 0 for every measurement, so there is no band.

    The null band of ``log_score`` comes from draws in place of the truth: what q claims to score. A value below it is
    over-confidence.
    """

    name = "log_score"
    version = 1

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores, with ``per_measurement`` (T,).

        Raises:
            ValueError: where a density is NaN or +inf, or the reference's is not finite.
        """
        if draws.log_density is None:
            return
        check(draws, truth)
        with torch.no_grad():
            each = _checked(draws.log_density(truth.theta.unsqueeze(0)), "the true parameters")[0].double()
            rows = some_rows(len(draws.theta), PSEUDO_TRUTHS, draws.theta.device)
            pseudo = _checked(draws.log_density(draws.theta[rows]), "the posterior's own draws").double()
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
            exact = truth.reference_log_prob.double()
            if not torch.isfinite(exact).all():
                raise ValueError(
                    "the reference's log density at the truth is not finite; no regret can be measured by it"
                )
            regret = exact - each
            kept = regret[finite]
            yield Score("regret_nats", float(kept.mean()), standard_error(kept), per_measurement=regret)


def _checked(density: Tensor, where: str) -> Tensor:
    broken = density.isnan() | (density == torch.inf)
    if broken.any():
        raise ValueError(
            f"the log density at {where} is NaN or +inf in {int(broken.sum())} of {broken.numel()} places; expected a "
            "number or -inf. Likely cure: compute it in log space, and give -inf outside the support"
        )
    return density

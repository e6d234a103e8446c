"""Error of the posterior mean m of each parameter, in its own unit: mean |m - theta*|, and mean (m - theta*).

The absolute error over that of the prior mean m_0, mean |m - theta*| / mean |m_0 - theta*|, is what Takeishi & Kalousis
2021 (arXiv 2102.13156) and its successors compare; it says nothing of whether a method knows its error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .inputs import check, multiplicities, names
from .nulls import PSEUDO_TRUTHS, mean_band, ratio_band, some_rows, standard_error


def pseudo_errors(draws: Tensor, mean: Tensor, rows: Tensor) -> Tensor:
    """Errors (m, T, D) of the mean of all other draws, were draw ``rows`` (m,) the truth.

    Without the k copies of draw x the mean is (n mean - k x) / (n - k), which is off by n / (n - k) (mean - x).

    Args:
        draws: (n, T, D).
        mean: (T, D), their mean.
        rows: (m,), indices of draws.
    """
    n, copies = len(draws), multiplicities(draws)[rows].double()
    return (n / (n - copies).clamp(min=1)).unsqueeze(-1) * (mean - draws[rows].double())


class ParameterError(Metric):
    """Errors of the posterior mean of each parameter.

    - ``mean_error/<p>``: mean absolute error over the test set, in the parameter's unit; ``per_measurement`` (T,).
    - ``relative_error/<p>``: the same over the error of the prior mean on the same test set: 1 for the prior, 0 for the
      truth itself.
    - ``bias/<p>``: mean of (posterior mean - truth), in the parameter's unit: positive where it is too large.

    A null band is what these draws claim: the error were the truth one of them, for the bias centred at 0. An
    over-confident posterior errs by more than it claims. That the mean is of n draws adds 1 / n of the posterior's
    variance to its squared error, on both sides.
    """

    name = "mean_error"
    version = 1

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """Three scores a parameter."""
        check(draws, truth)
        mean, star = draws.theta.mean(0, dtype=torch.float64), truth.theta.double()
        error = mean - star
        rows = some_rows(len(draws.theta), PSEUDO_TRUTHS, draws.theta.device)
        null = pseudo_errors(draws.theta, mean, rows)
        prior_mean = truth.prior_draws.mean(0, dtype=torch.float64)
        of_prior, null_prior = (star - prior_mean).abs(), (draws.theta[rows].double() - prior_mean).abs()
        for k, name in enumerate(names(truth)):
            own, null_own = error[:, k].abs(), null[..., k].abs()
            low, high = mean_band(null_own.mean(0), null_own.var(0), len(rows))
            value = float(own.mean())
            yield Score(f"mean_error/{name}", value, standard_error(own), low, high, per_measurement=own)
            yield from _relative(f"relative_error/{name}", own, of_prior[:, k], null_own, null_prior[..., k])
            low, high = mean_band(torch.zeros_like(own), null[..., k].var(0), len(rows))
            yield Score(f"bias/{name}", float(error[:, k].mean()), standard_error(error[:, k]), low, high)


def _relative(metric: str, own: Tensor, prior: Tensor, null: Tensor, null_prior: Tensor) -> Iterator[Score]:
    """mean(own) / mean(prior), both (T,), with the band of pseudo-truths (m, T); nothing where the prior errs by 0."""
    scale = float(prior.mean())
    if scale == 0:
        return
    ratio = float(own.mean()) / scale
    low, high = (1 - edge for edge in reversed(ratio_band(null, null_prior)))
    known = math.isfinite(low) and math.isfinite(high)  # not where all draws are the prior's mean
    yield Score(
        metric,
        ratio,
        std_error=standard_error((own - ratio * prior) / scale),  # the ratio's delta method
        null_low=low if known else None,
        null_high=high if known else None,
    )

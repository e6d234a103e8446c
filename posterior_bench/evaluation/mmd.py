"""Err_post: distance between draws and exact draws, by the maximum mean discrepancy.

Kruse et al. 2021 (arXiv 2101.10763) average MMD^2 between draws and reference over measurements. Here with the unbiased
estimator of Gretton et al. 2012 (JMLR 13:723): mean over pairs of *different* draws, so that it may be negative. The
biased one adds some 0.006 at 1,000 draws, which is the size of the differences between methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks, squared_distances
from .inputs import check, fingerprints
from .nulls import NORMAL_95, some_rows, standard_error

BANDWIDTHS = (0.05, 0.2, 0.9)
"""h of the inverse multiquadratic kernels that are summed, as in the authors' public notebook."""

LARGEST = 500
"""Draws used of each side: time grows with the square, and the noise of 200 measurements is small by then."""


def kernel(squared: Tensor) -> Tensor:
    """k = sum over h of 1 / (1 + d^2 / h^2) for squared distances d^2; between 0 and 3."""
    total = torch.zeros_like(squared)
    for h in BANDWIDTHS:
        total.add_((squared + h**2).reciprocal_(), alpha=h**2)  # h^2 / (h^2 + d^2)
    return total


def unbiased_mmd(draws: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased MMD^2 of each measurement, and the variance that it has where both are draws of one distribution.

    A draw that appears again is one draw, not two: importance sampling repeats those of large weight, and two methods
    may draw from one bank. Pairs of equal draws are therefore left out of the means, on either side and between them,
    unless all parameters are whole numbers; sizes in the variance are effective ones then.

    Under the null MMD^2 is a degenerate U-statistic, of variance
    E[k~(a, b)^2] (2 / n(n-1) + 2 / m(m-1) + 4 / nm), where k~ is the kernel centred under the distribution. The
    expectation is estimated without bias from the reference by U-centring (Székely & Rizzo 2014, Ann. Stat. 42:2382).

    Args:
        draws: (n, R, D), n >= 2.
        reference: (m, R, D), m >= 4.

    Returns:
        (R,) and (R,).
    """
    n, m = len(draws), len(reference)
    count = draws.shape[1]
    found, variance, factor = (draws.new_empty(count) for _ in range(3))
    marks = fingerprints(draws), fingerprints(reference, n)
    for part in chunks(count, max(n, m) ** 2):
        exact = reference[:, part].transpose(0, 1)
        centre = exact.mean(1, keepdim=True)
        exact = exact - centre
        points = draws[:, part].transpose(0, 1) - centre
        own, theirs = (mark[:, part].T for mark in marks)
        within, m_distinct = _distinct(kernel(squared_distances(exact, exact)), theirs, theirs)
        among, n_distinct = _distinct(kernel(squared_distances(points, points)), own, own)
        within, among = _without_diagonal(within), _without_diagonal(among)
        between, _ = _distinct(kernel(squared_distances(points, exact)), own, theirs)
        rows = within.sum(-1)
        means = rows.sum(-1) / (m * (m - 1)), among.sum((1, 2)) / (n * (n - 1)), between.mean((1, 2))
        found[part] = means[0] + means[1] - 2 * means[2]
        shift = (rows.sum(-1) / (2 * (m - 1) * (m - 2)))[:, None] - rows / (m - 2)
        centred = _without_diagonal(within + shift[:, :, None] + shift[:, None, :])
        variance[part] = (centred**2).sum((1, 2)) / (m * (m - 3))
        n_distinct, m_distinct = n_distinct.clamp(min=2), m_distinct.clamp(min=2)
        factor[part] = 2 / (n_distinct * (n_distinct - 1)) + 2 / (m_distinct * (m_distinct - 1))
        factor[part] += 4 / (n_distinct * m_distinct)
    return found, variance * factor


def _distinct(kernel: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel (B, n, m) whose pairs of equal draws have the mean of the others, and the effective number of rows (B,).

    n^2 over the number of equal ordered pairs, each row with itself among them, is n without repetitions.
    """
    n, square = rows.shape[1], rows is columns
    equal = rows[:, :, None] == columns[:, None, :]
    again = equal.sum((1, 2)) - (n if square else 0)
    effective = n**2 / (again + n).to(kernel.dtype)
    if not again.any():
        return kernel, effective
    if square:
        _without_diagonal(kernel)
    others = (n * columns.shape[1] - equal.sum((1, 2))).to(kernel.dtype)
    mean = torch.where(others > 0, kernel.masked_fill(equal, 0).sum((1, 2)) / others, float(len(BANDWIDTHS)))
    return torch.where(equal, mean[:, None, None], kernel), effective


def _without_diagonal(square: Tensor) -> Tensor:
    square.diagonal(dim1=1, dim2=2).zero_()
    return square


class PosteriorMMD(Metric):
    """``err_post`` in units of the prior's sd and ``err_post_raw`` in raw units, means over R reference measurements.

    Nothing where there is no reference. The null band is 0 plus and minus what the reference's own spread implies for
    two exact samples of these sizes. Where method and reference draw from one bank of simulations, their dependence
    makes the value smaller than that of independent draws.
    """

    name = "err_post"
    version = 2
    single = True

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """Two scores, with ``per_measurement`` (R,)."""
        if truth.reference is None:
            return
        check(draws, truth)
        reference = truth.reference
        if reference.ndim != 3 or reference.shape[1] > len(truth.theta) or len(reference) < 4:
            raise ValueError(
                f"found a reference of shape {tuple(truth.reference.shape)}; expected (n, R, D) with n >= 4 draws for "
                f"the first R of {len(truth.theta)} measurements"
            )
        if not torch.isfinite(reference).all():
            raise ValueError("the reference holds draws that are not finite; see sample_reference of the simulator")
        reference = reference[some_rows(len(reference), LARGEST, reference.device)]
        some = some_rows(len(draws.theta), LARGEST, truth.theta.device)
        theta = draws.theta[some, : reference.shape[1]]
        for metric, scale in (("err_post", truth.prior_sd), ("err_post_raw", torch.ones_like(truth.prior_sd))):
            each, variance = unbiased_mmd(theta / scale, reference / scale)
            half = NORMAL_95 * math.sqrt(float(variance.double().clamp(min=0).sum())) / len(each)
            value = float(each.double().mean())
            yield Score(metric, value, standard_error(each), -half, half, per_measurement=each)

"""Importance weights: log Z = log mean w, their effective size (sum w)^2 / sum w^2, their tail, and resampling.

All functions take logarithms of weights, (N, B): N draws for each of B measurements, -inf for a weight of zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_TAIL = 5
"""Positive weights that a tail needs at least, as in Vehtari et al. (arXiv:1507.02646)."""


def log_mean(log_weights: Tensor) -> Tensor:
    """log of the mean weight, (B,)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def effective_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, (B,), between 1 and N; 0 where all weights are zero (Kong 1992)."""
    size = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
    return size.nan_to_num(nan=0.0)


def log_mean_error(log_weights: Tensor) -> Tensor:
    """Standard error of ``log_mean``, (B,): sd(w) / (mean(w) sqrt N) = sqrt(1 / ESS - 1 / N); inf at ESS = 0."""
    return (1 / effective_size(log_weights) - 1 / len(log_weights)).clamp_min(0).sqrt()


def largest_exponent(log_weights: Tensor, size: Tensor, upper: Tensor) -> Tensor:
    """The largest e <= upper, (B,), for which the effective size of w^e is at least ``size``, by bisection.

    The effective size falls with e from the number of positive weights at e = 0.

    Args:
        log_weights: (N, B).
        size: (B,), below the number of positive weights.
        upper: (B,), positive.
    """
    # the exponent of a zero weight: 0 * inf is no number, and e is never so small that this one would count
    finite = log_weights.clamp_min(-1e30)
    low, high = torch.zeros_like(upper), upper.clone()
    enough = effective_size(high * finite) >= size
    for _ in range(50):
        middle = 0.5 * (low + high)
        fits = effective_size(middle * finite) >= size
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return torch.where(enough, upper, low)


def systematic(log_weights: Tensor, n: int) -> Tensor:
    """Indices (n, B), ascending, drawn by systematic resampling (Kitagawa 1996, J. Comput. Graph. Stat. 5:1).

    Draw i is expected n w_i / sum w times, and taken at most once where that is at most 1.
    """
    share = torch.softmax(log_weights, 0).T.contiguous().cumsum(1)
    share = share / share[:, -1:]
    start = torch.rand(len(share), 1, dtype=share.dtype, device=share.device)
    points = (torch.arange(n, dtype=share.dtype, device=share.device) + start) / n
    return torch.searchsorted(share, points, right=True).clamp(max=share.shape[1] - 1).T


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (n, B) of ``values`` (N, B) or (N, B, D), each measurement its own: (n, B) or (n, B, D)."""
    if values.dim() == 3:
        index = index[..., None].expand(*index.shape, values.shape[-1])
    return values.gather(0, index)


def pareto_k(log_weights: Tensor) -> float:
    """Shape k of the generalised Pareto distribution of the largest weights, of one measurement (N,).

    k >= 1/2 says that the weights' variance is infinite, k >= 0.7 that no affordable N makes their mean reliable. The
    tail holds the min(N / 5, 3 sqrt N) largest weights, fitted as by Zhang & Stephens 2009 (Technometrics 51:316), with
    the weak prior towards 1/2 of Vehtari et al. (arXiv:1507.02646). inf where fewer than 5 weights of the tail are
    positive; -1 where they are all but equal, since they are bounded then.
    """
    count = len(log_weights)
    length = math.ceil(min(0.2 * count, 3 * math.sqrt(count)))
    largest = log_weights.double().topk(min(length + 1, count)).values
    tail, cutoff = largest[:-1], largest[-1]
    tail = tail[torch.isfinite(tail)]
    if len(tail) < LEAST_TAIL:
        return math.inf
    excess = ((tail - tail[0]).exp() - (cutoff - tail[0]).exp()).sort().values
    if float(excess[-1]) < 1e-9:
        return -1.0
    return _generalised_pareto(excess.clamp_min(1e-12))


def _generalised_pareto(excess: Tensor) -> float:
    """k of p(x) = (1 + k x / s)^(-1 / k - 1) / s from its ascending draws (M,): a mean over the likelihood's profile.

    With b = -k / s the likelihood is largest, at given b, for k(b) = mean log(1 - b x), where its logarithm is
    M (log(-b / k) - k - 1). b is averaged under a prior on a grid.
    """
    count = len(excess)
    points = 30 + int(math.sqrt(count))
    place = torch.arange(1, points + 1, dtype=excess.dtype, device=excess.device) - 0.5
    quartile = excess[int(count / 4 + 0.5) - 1]
    b = 1 / excess[-1] + (1 - (points / place).sqrt()) / (3 * quartile)
    b = torch.where(b.abs() < 1e-12, 1e-12, b)
    k = torch.log1p(-b[:, None] * excess).mean(1)
    profile = count * ((-b / k).log() - k - 1)
    mean = (torch.softmax(profile.nan_to_num(nan=-math.inf), 0) * b).sum()
    found = float(torch.log1p(-mean * excess).mean())
    return (found * count + 0.5 * 10) / (count + 10)

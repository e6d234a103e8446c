"""Tests of distributions that checks rely on, with false alarms so rare that a failure means something."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

ALPHA = 1e-5
"""Probability of a false alarm of one test. A check runs a handful."""

CENTRES, PROPOSALS = 500, 4000
"""Points of a kernel density, and draws of it."""

WIDTHS = (0.02, 0.06, 0.2, 0.5, 1.0)
"""Of its kernels, in sd of the sample; the best is taken."""


def distance_between(first: Tensor, second: Tensor) -> float:
    """Kolmogorov-Smirnov distance of two samples (n,) and (m,): the largest gap of their distribution functions."""
    values = torch.cat([first, second]).sort().values
    below = [torch.searchsorted(s.sort().values, values, right=True) / len(s) for s in (first, second)]
    return float((below[0] - below[1]).abs().max())


def largest_excess(first: Tensor, second: Tensor) -> float:
    """How far the samples (n, M) and (m, M) differ in the worst column, in units of what chance allows.

    Chance allows sqrt(log(2 M / ALPHA) (n + m) / (2 n m)), by the inequality of Dvoretzky, Kiefer, Wolfowitz and
    Massart for two samples (Wei & Dudley 2012, Statistics & Probability Letters 82). Columns with ties are compared
    conservatively. A value above 1 says that the distributions differ.
    """
    n, m, columns = len(first), len(second), first.shape[1]
    allowed = math.sqrt(math.log(2 * columns / ALPHA) * (n + m) / (2 * n * m))
    return max(distance_between(first[:, i], second[:, i]) for i in range(columns)) / allowed


def ranks(truth: Tensor, draws: Tensor) -> Tensor:
    """Randomised ranks (T,) in (0, 1) of truth (T,) among draws (n, T): uniform where they are exchangeable.

    u = (less + V (ties + 1)) / (n + 1) with V ~ U(0, 1).
    """
    less, ties = (draws < truth).sum(0), (draws == truth).sum(0)
    return (less + torch.rand(len(truth)) * (ties + 1)) / (len(draws) + 1)


def departure_from_uniform(u: Tensor) -> str:
    """What is wrong with ranks u (T,) that should be uniform, or ``""``.

    Three tests: of the mean, var(u) = 1/12; of |2u - 1|, variance 1/12 too, which is large where the truth lies outside
    the draws too often; and of the largest gap to the uniform distribution function.
    """
    count = len(u)
    limit = math.sqrt(2) * float(torch.special.erfinv(torch.tensor(1 - ALPHA, dtype=torch.double)))
    bias = float((u.mean() - 0.5) * math.sqrt(12 * count))
    spread = float(((2 * u - 1).abs().mean() - 0.5) * math.sqrt(12 * count))
    if abs(bias) > max(limit, abs(spread)):
        return f"draws that are too {'low' if bias > 0 else 'high'} (z = {bias:+.1f})"
    if abs(spread) > limit:
        return f"draws that are too {'narrow' if spread > 0 else 'wide'} (z = {spread:+.1f})"
    steps = torch.arange(count + 1) / count
    gap = float(torch.maximum(steps[1:] - u.sort().values, u.sort().values - steps[:-1]).max())
    if gap > math.sqrt(math.log(2 / ALPHA) / (2 * count)):
        return f"ranks whose distribution function is {gap:.2f} off the uniform one"
    return ""


def weights_off_one(log_weights: Tensor) -> float | None:
    """By how many standard errors the mean of exp(log_weights) (N,) differs from 1; ``None`` where it cannot be told.

    It cannot where the effective sample size (sum w)^2 / sum w^2 is below 5 % of N: the mean is then ruled by a few
    weights and its standard error is not to be trusted.
    """
    weights = log_weights.double().exp()
    effective = weights.sum() ** 2 / (weights**2).sum()
    if not torch.isfinite(weights).all() or not effective > 0.05 * len(weights):
        return None
    # 1e-6: the rounding of a mean of equal weights
    return float((weights.mean() - 1) / (weights.std() / math.sqrt(len(weights)) + 1e-6))


def normalisation(sample: Tensor, log_density: Callable[[Tensor], Tensor]) -> float | None:
    """By how many standard errors a density fails E_q[g(s) / q(s)] = 1 on its own sample, or ``None`` if unknown.

    True for every normalised g that vanishes where q does. Here g is a normal narrower than the sample in the sample's
    own axes, about its mean or about one of its points; the first half of the sample chooses which, by the effective
    sample size. (Along the axes of space the weights of a strongly correlated sample have an enormous variance.)

    Args:
        sample: (N, M), draws of the distribution whose density is claimed.
        log_density: (N, M) -> (N,), the claimed log q.
    """
    half = len(sample) // 2
    claimed = log_density(sample)
    whitened, log_det, _ = _axes(sample.double(), half)
    choose, test = whitened[:half], whitened[half:]
    claimed, claimed_test = (claimed + log_det).split([half, len(sample) - half])
    best, best_size = None, 0.0
    for centre in (choose.mean(0), choose[0], choose[1], choose[2]):
        for width in (0.8, 0.4, 0.2):
            narrow = Independent(Normal(centre, torch.full_like(centre, width)), 1)
            weights = (narrow.log_prob(choose) - claimed).double()
            weights = (weights - weights.max()).exp()
            size = float(weights.sum() ** 2 / (weights**2).sum())
            if size > best_size:
                best, best_size = narrow, size
    return None if best is None else weights_off_one(best.log_prob(test) - claimed_test)


def mass_and_moments(sample: Tensor, log_density: Callable[[Tensor], Tensor]) -> tuple[float | None, float | None]:
    """How a density q fails E_h[q / h] = 1 and the means of a sample that should come from it, in standard errors.

    h is a kernel density of the first half of the sample, so that it is wide where the sample is: unlike in
    ``normalisation``, q may vanish or nearly vanish close to the sample, as on a thin arc. The moments are first and
    second ones of the second half in its own axes, against those of q by weights q / h; the worst is returned.

    Args:
        sample: (N, M).
        log_density: (K, M) -> (K,), the claimed log q.

    Returns:
        Both; ``None`` each where the effective sample size is too small to tell.
    """
    half = len(sample) // 2
    whitened, log_det, factor = _axes(sample.double(), half)
    centres, test = whitened[: min(half, CENTRES)], whitened[half:]
    mean = sample[:half].double().mean(0)

    def weighted(width: float, count: int) -> tuple[Tensor, Tensor]:
        # half of the kernels are wide: a narrow one alone misses mass where points are far apart
        widths = torch.tensor([width, WIDTHS[-1]], dtype=centres.dtype)
        place = centres[torch.randint(len(centres), (count,))]
        noise = torch.randn(count, sample.shape[1], dtype=place.dtype)
        place = place + widths[torch.randint(2, (count,))][:, None] * noise
        distance = torch.cdist(place, centres)
        kernels = [-0.5 * (distance / scale).square() - sample.shape[1] * scale.log() for scale in widths]
        log_h = torch.cat(kernels, dim=1).logsumexp(1) - math.log(2 * len(centres))
        log_h = log_h - 0.5 * sample.shape[1] * math.log(2 * math.pi)
        claimed = log_density((mean + place @ factor.T).to(sample.dtype)).double()
        return place, claimed + log_det - log_h

    def effective(width: float) -> float:
        weights = (log := weighted(width, 500)[1]).sub(log.max()).exp()
        return float(weights.sum() ** 2 / weights.square().sum())

    place, log_weights = weighted(max(WIDTHS, key=effective), PROPOSALS)
    off = weights_off_one(log_weights)
    if off is None:
        return None, None
    weights = log_weights.exp()[:, None]
    share = weights / weights.sum()
    worst = 0.0
    for power in (1, 2):
        expected = (share * place**power).sum(0)
        error = (share.square() * (place**power - expected).square()).sum(0) + (test**power).var(0) / len(test)
        worst = max(worst, float((((test**power).mean(0) - expected).abs() / error.sqrt()).max()))
    return off, worst


def _axes(sample: Tensor, half: int) -> tuple[Tensor, Tensor, Tensor]:
    """The sample (N, M) in the axes of its first half, log|det| of the way back, and its matrix (M, M)."""
    centred = sample - sample[:half].mean(0)
    factor, failed = torch.linalg.cholesky_ex(torch.cov(centred[:half].T).reshape(sample.shape[1], -1))
    if failed:  # fewer points than dimensions, or a dimension that hardly varies
        factor = torch.diag(centred[:half].std(0).clamp_min(1e-12))
    white = torch.linalg.solve_triangular(factor, centred.T, upper=False).T
    return white, factor.diagonal().log().sum(), factor

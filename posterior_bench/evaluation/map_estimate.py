"""MAP estimate: the mode of the posterior, by one estimator for every method, and its error.

Mean shift (Comaniciu & Meer 2002, IEEE TPAMI 24:603) climbs a Gaussian kernel density of the draws, whitened by their
covariance. The bandwidth n^(-1/(D+6)) has the rate that is best for the density's gradient (Chacón, Duong & Wand 2011,
Stat. Sinica 21:807). With many parameters that is narrow and the estimate noisy: for a Gaussian of 13 parameters and
500 draws it lies 0.6 sd a parameter from the mode. The exact posterior's MAP error, with the same noise, is the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks, squared_distances
from .inputs import check, first_of_equals, names, whole_numbers
from .nulls import mean_band, root_mean, some_rows

MEASUREMENTS = 2000
"""The modes of so many measurements are sought, the first of the test set: a root mean square error is then known to
1.6 % (1 / sqrt(2 T)), and the search costs more than any other score."""

STARTS = 5
STEPS = 30
RIDGE = 1e-8
"""Added to the diagonal of the correlation matrix: draws of less than full rank can be whitened too."""

CANDIDATES = 200
"""Draws whose density is computed in search of the best one to polish."""


def bandwidth(draws: Tensor, dim: int) -> Tensor:
    """Bandwidth n^(-1/(D+6)) of the kernel for numbers of draws n (...), in standard deviations of whitened draws."""
    return draws ** (-1 / (dim + 6))


def map_estimate(draws: Draws) -> Tensor:
    """The mode of the draws of each of the first measurements, (min(T, 2000), D); kept in ``draws.cache["map"]``.

    Mean shift from the 5 draws of highest kernel density, 30 steps, and of these modes the one of highest density. A
    draw that came again, as from importance sampling or a small bank, counts once: in many dimensions its copies would
    outweigh all the rest of the density, and the estimate would be that draw. So the weights behind copies are lost. A
    parameter whose draws are all whole numbers is rounded to one. The mode depends on the parametrisation, and where
    the posterior is flat it is anywhere.
    """
    if "map" not in draws.cache:
        theta = draws.theta[:, :MEASUREMENTS]
        n, total, dim = theta.shape
        found = torch.empty_like(theta[0])
        for part in chunks(total, STARTS * n + n * dim):
            points, mean, factor = _whitened(theta[:, part])
            mode = _mean_shift(points, first_of_equals(theta[:, part]).T).to(mean.dtype)
            found[part] = (mean + (factor @ mode.unsqueeze(-1)).squeeze(-1)).to(found.dtype)
        found = torch.where(whole_numbers(theta), found.round(), found)
        draws.cache["map"] = found
    return draws.cache["map"]


def _whitened(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whitened draws (C, n, D) of theta (n, C, D), with mean (C, D) and factor (C, D, D): theta = mean + factor w."""
    points = theta.transpose(0, 1).double()
    mean = points.mean(1)
    points = points - mean.unsqueeze(1)
    sd = points.std(1).unsqueeze(1)
    sd = torch.where(sd > 0, sd, torch.ones_like(sd))  # a parameter that does not vary stays where it is
    points = points / sd
    covariance = points.mT @ points / (points.shape[1] - 1)
    identity = torch.eye(theta.shape[-1], dtype=points.dtype, device=points.device)
    factor, failed = torch.linalg.cholesky_ex(covariance + RIDGE * identity)
    factor = torch.where((failed > 0)[:, None, None], identity, factor)
    white = torch.linalg.solve_triangular(factor, points.mT, upper=False).mT
    return white.to(theta.dtype).contiguous(), mean, sd.mT * factor


def _mean_shift(points: Tensor, counted: Tensor) -> Tensor:
    """Mode (C, D) of the kernel density of those points (C, n, D) that are counted (C, n)."""
    count, n, dim = points.shape
    scale = (-0.5 / bandwidth(counted.sum(1).to(points), dim) ** 2)[:, None, None]
    left_out = (~counted).unsqueeze(1)
    density = points.new_empty(count, n)
    for part in chunks(count, n * n):
        kernel = squared_distances(points[part], points[part]).mul_(scale[part]).exp_()
        kernel.diagonal(dim1=1, dim2=2).zero_()  # the same for all: without it, sparse draws still differ
        density[part] = (kernel @ counted[part].to(points).unsqueeze(-1)).squeeze(-1)
    density.masked_fill_(~counted, -1.0)
    starts = density.topk(min(STARTS, n), dim=1).indices.unsqueeze(-1).expand(-1, -1, dim)
    modes = points.gather(1, starts)
    for _ in range(STEPS):
        weights = squared_distances(modes, points).mul_(scale).masked_fill_(left_out, -torch.inf).softmax(-1)
        modes = weights @ points
    density = squared_distances(modes, points).mul_(scale).masked_fill_(left_out, -torch.inf).logsumexp(-1)
    best = density.argmax(1)[:, None, None].expand(-1, 1, dim)
    return modes.gather(1, best).squeeze(1)


def map_estimate_density(draws: Draws) -> Tensor:
    """The mode of the density of each of the first measurements, (min(T, 2000), D), kept in ``draws.cache``.

    The best of 200 draws, polished by 30 steps of gradient ascent in coordinates whitened by the draws. A step is taken
    where it raises the density to a finite one, and is then lengthened, else halved: the estimate stays where the
    density is, and never ends below the draw it started from. No step is longer than a standard deviation. A parameter
    whose draws are all whole numbers stays what it is in the best draw.

    Raises:
        ValueError: where the posterior has no density, or gives none to any of its own draws.
    """
    if "map_density" not in draws.cache:
        if draws.log_density is None:
            raise ValueError("this posterior has no density; use map_estimate, which needs draws alone")
        draws.cache["map_density"] = _polished(draws.theta[:, :MEASUREMENTS], draws.log_density)
    return draws.cache["map_density"]


def _polished(theta: Tensor, log_density: Callable[[Tensor], Tensor]) -> Tensor:
    n, total, dim = theta.shape
    candidates = theta[some_rows(n, CANDIDATES, theta.device)]
    with torch.no_grad():
        density = torch.cat([log_density(rows) for rows in candidates.split(max(1, 50_000 // total))])
    density = torch.where(density.isnan() | (density == torch.inf), -torch.inf, density)
    best, rows = density.max(0)
    if (best == -torch.inf).any():
        raise ValueError(
            f"the posterior gives no finite density to any of {len(candidates)} of its own draws for "
            f"{int((best == -torch.inf).sum())} measurements; expected one wherever sample() can land"
        )
    place = candidates.gather(0, rows[None, :, None].expand(1, -1, dim))[0]
    factor = torch.cat([_whitened(theta[:, part])[2] for part in chunks(total, n * dim)]).to(theta.dtype)
    factor = factor.masked_fill(whole_numbers(theta)[:, None], 0)  # between whole numbers there is no density to climb
    step = torch.ones_like(best)
    gradient = _gradient(log_density, place, factor)
    for _ in range(STEPS):
        move = step[:, None] * gradient
        move = move / move.norm(dim=1, keepdim=True).clamp(min=1)
        trial = place + (factor @ move.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            value = log_density(trial[None])[0]
        better = (value > best) & torch.isfinite(value)
        best = torch.where(better, value, best)
        place = torch.where(better[:, None], trial, place)
        step = torch.where(better, step * 1.5, step * 0.5)
        gradient = _gradient(log_density, place, factor)
    return place


def _gradient(log_density: Callable[[Tensor], Tensor], place: Tensor, factor: Tensor) -> Tensor:
    """Gradient (T, D) of the log density in whitened coordinates; zero where it is not finite."""
    leaf = place.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = log_density(leaf[None])
        if not value.requires_grad:  # a density that is flat wherever it is, as a uniform one
            return torch.zeros_like(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    gradient = (factor.mT @ gradient.unsqueeze(-1)).squeeze(-1)
    return torch.where(torch.isfinite(gradient).all(1, keepdim=True), gradient, torch.zeros_like(gradient))


class MAPEstimate(Metric):
    """Error of the MAP estimate, root mean square over the first 2,000 measurements of (theta_MAP - theta*) / sd_prior.

    ``map_error/<p>`` and, over all parameters, ``map_error``; ``map_error_density/<p>`` and ``map_error_density`` where
    the posterior has a density. ``per_measurement`` is the squared error, so that its mean is the square of the score.
    The null band is that of the error against draws in place of the truth.
    """

    name = "map_error"
    version = 3

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores, with ``per_measurement`` (min(T, 2000),)."""
        check(draws, truth)
        yield from _errors(self.name, map_estimate(draws), draws, truth)
        if draws.log_density is not None:
            yield from _errors(f"{self.name}_density", map_estimate_density(draws), draws, truth)


def _errors(metric: str, estimate: Tensor, draws: Draws, truth: Truth) -> Iterator[Score]:
    scale = truth.prior_sd
    squares = ((estimate - truth.theta[: len(estimate)]) / scale) ** 2
    labels = [f"{metric}/{name}" for name in names(truth)]
    columns = torch.cat([squares, squares.mean(1, keepdim=True)], dim=1)
    mean, variance = torch.empty_like(columns), torch.empty_like(columns)
    for part in chunks(len(columns), draws.theta[:, 0].numel()):
        pseudo = ((estimate[part] - draws.theta[:, part]) / scale) ** 2
        pseudo = torch.cat([pseudo, pseudo.mean(2, keepdim=True)], dim=2)
        mean[part], variance[part] = pseudo.mean(0), pseudo.var(0)
    for k, label in enumerate([*labels, metric]):
        null = mean_band(mean[:, k], variance[:, k], len(draws.theta))
        yield root_mean(label, columns[:, k], null)

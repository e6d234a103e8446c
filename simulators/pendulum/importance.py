"""The posterior of the pendulum's parameters and nuisances, by importance sampling about the modes.

p(u | y) ~ exp(-chi^2(u) / 2),    chi^2(u) = sum over t of (y_t - angle_t(u))^2 / sd^2,    u in the unit cube
"""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Gamma

if TYPE_CHECKING:
    from .model import Pendulum


class Importance:
    """Importance sampling of (w, angle_0, friction, force, frequency) for measurements y (B, M).

    Coordinates u are those parameters that vary, each over its range scaled to [0, 1], so that the posterior density of
    u is exp(-chi^2(u) / 2) inside the unit cube and zero outside.

    1. Of ``POOL`` uniform points, the ``STARTS`` nearest to y start Levenberg-Marquardt searches for the modes. In the
       force's frequency the density has a lobe every 1 / (M dt) = 0.4 Hz, so that the best point found starts
       ``RESTARTS`` more, from frequencies 0.26 Hz apart. The ``STARTS`` best points of all are kept.
    2. A mode with Jacobian J / sd has the covariance (J'J / sd^2 + 12 I)^-1: 1/12, the variance of the uniform, where
       the data say nothing. A mixture of Student distributions there, weighted by their Laplace evidence, proposes.
    3. A first round of weights, cut at sqrt(size) times their mean (Ionides 2008, J. Comput. Graph. Stat. 17), gives
       mean and covariance of one more Student distribution, for what is skewed or flat. The second round, proposed by
       the old mixture and the new one in equal parts, is the result; its weights are exact.

    Where the effective sample size is below ``ENOUGH`` times the size, or the best chi^2 is 6 sd above what noise
    gives, a search has failed (about 1 measurement in 75), and another is made, ``ATTEMPTS`` in all. The attempt of
    more evidence, the mean weight, is kept.
    """

    POOL = 4000
    STARTS = 6
    RESTARTS = 12
    ITERATIONS = 8
    FORCE_FREQUENCY = 4
    FIRST_ROUND = 400
    ATTEMPTS = 4
    ENOUGH = 0.05
    FREEDOM = 5.0
    WIDER = 1.2  # a little too wide costs less than a little too narrow
    DIFFERENCE = 1e-5

    def __init__(self, simulator: Pendulum, y: Tensor) -> None:
        self.simulator, self.y = simulator, y
        low, high = torch.tensor(astuple(simulator.population), dtype=y.dtype, device=y.device).T
        self.low, self.width = low, high - low
        self.free = (high > low).nonzero()[:, 0]
        self.dim = len(self.free)

    def parameters(self, u: Tensor) -> Tensor:
        """All five parameters (..., 5) at coordinates u (..., dim)."""
        everything = torch.zeros(*u.shape[:-1], len(self.low), dtype=u.dtype, device=u.device)
        everything[..., self.free] = u
        return self.low + self.width * everything

    def angles(self, u: Tensor) -> Tensor:
        """Angles (..., M) without noise at coordinates u (..., dim)."""
        flat = self.parameters(u.reshape(-1, self.dim))
        # in pieces that stay in the processor's cache
        parts = [self.simulator.trajectory(p[:, :1], p[:, 1:], self.simulator.steps) for p in flat.split(4096)]
        return torch.cat(parts).reshape(*u.shape[:-1], -1)

    def residuals(self, u: Tensor) -> Tensor:
        """(y - angles) / sd, (..., B, M), at u (..., B, dim)."""
        return (self.y - self.angles(u)) / self.simulator.noise_sd

    def log_density(self, u: Tensor) -> Tensor:
        """-chi^2 / 2, (..., B), at u (..., B, dim), and -inf outside the unit cube."""
        inside = ((u >= 0) & (u <= 1)).all(-1)
        value = -0.5 * (self.residuals(u.clamp(0, 1)) ** 2).sum(-1)
        return torch.where(inside, value, -math.inf)

    def modes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Modes (STARTS, B, dim), their precision J'J / sd^2 + 12 I and log density (STARTS, B)."""
        pool = torch.rand(self.POOL, self.dim, dtype=self.y.dtype, device=self.y.device)
        nearest = torch.cdist(self.y, self.angles(pool)).topk(self.STARTS, largest=False).indices
        u, value = self._climb(pool[nearest.T])
        if self.FORCE_FREQUENCY in self.free:
            again = u[value.argmax(0), torch.arange(len(self.y), device=u.device)].repeat(self.RESTARTS, 1, 1)
            again[..., -1] = ((torch.arange(self.RESTARTS, device=u.device) + 0.5) / self.RESTARTS)[:, None]
            u, value = (torch.cat(pair) for pair in zip((u, value), self._climb(again), strict=True))
            value, best = value.topk(self.STARTS, dim=0)
            u = u.gather(0, best[..., None].expand(-1, -1, self.dim))
        jacobian = self._linearise(u)[1]
        return u, jacobian.mT @ jacobian + 12 * self._eye, value

    @property
    def _eye(self) -> Tensor:
        return torch.eye(self.dim, dtype=self.y.dtype, device=self.y.device)

    def _climb(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Levenberg-Marquardt from u (K, B, dim): where it ends, and the log density there (K, B)."""
        value = self.log_density(u)
        damping = torch.full_like(value, 0.1)
        for _ in range(self.ITERATIONS):
            residual, jacobian = self._linearise(u)
            normal = jacobian.mT @ jacobian + 12 * self._eye
            slope = (jacobian.mT @ residual.unsqueeze(-1)).squeeze(-1)
            lifted = normal + damping[..., None, None] * torch.diag_embed(normal.diagonal(dim1=-2, dim2=-1))
            trial = (u + torch.linalg.solve(lifted, slope)).clamp(0, 1)
            found = self.log_density(trial)
            better = found > value
            u, value = torch.where(better[..., None], trial, u), torch.where(better, found, value)
            damping = torch.where(better, damping / 5, damping * 4)
        return u, value

    def _linearise(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals (..., M) and the angles' Jacobian / sd (..., M, dim) at u (..., dim)."""
        offsets = self._eye * self.DIFFERENCE
        offsets = torch.cat([torch.zeros_like(offsets[:1]), offsets])
        residuals = self.residuals(u + offsets.reshape(-1, *(1,) * (u.dim() - 1), self.dim))
        return residuals[0], ((residuals[0] - residuals[1:]) / self.DIFFERENCE).movedim(0, -1)

    def sample(self, size: int) -> tuple[Tensor, Tensor]:
        """Parameters (size, B, 5) and log weights (size, B)."""
        drawn, log_weights, value = self._attempt(size)
        for _ in range(self.ATTEMPTS - 1):
            effective = 1 / (log_weights.softmax(0) ** 2).sum(0)
            steps = self.y.shape[1]
            poor = ~((effective > self.ENOUGH * size) & (value > -0.5 * (steps + 6 * math.sqrt(2 * steps))))
            if not poor.any():
                break
            other, other_weights, other_value = Importance(self.simulator, self.y[poor])._attempt(size)
            # what misses a mode, or has few weights, underestimates the evidence
            better = other_weights.logsumexp(0) > log_weights[:, poor].logsumexp(0)
            chosen = poor.nonzero()[better, 0]
            drawn[:, chosen], log_weights[:, chosen] = other[:, better], other_weights[:, better]
            value[chosen] = other_value[better]
        return self.parameters(drawn.clamp(0, 1)), log_weights

    def _attempt(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates (size, B, dim), log weights (size, B), and the highest log density of a mode (B,)."""
        u, precision, value = self.modes()
        cholesky = torch.linalg.cholesky(torch.linalg.inv(precision)) * self.WIDER
        evidence = value + cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        share = 0.95 * evidence.softmax(0) + 0.05 / self.STARTS
        first, log_weights = self._round(self.FIRST_ROUND, u, cholesky, share)
        weights = log_weights.softmax(0)
        weights = weights.clamp_max(self.FIRST_ROUND**-0.5)
        weights = (weights / weights.sum(0)).unsqueeze(-1)
        mean = (weights * first).sum(0)
        deviation = first - mean
        covariance = torch.einsum("nbi,nbj->bij", weights * deviation, deviation)
        best = cholesky.gather(0, value.argmax(0).reshape(1, -1, 1, 1).expand(1, *cholesky.shape[1:]))[0]
        covariance = covariance + 0.05 * best @ best.mT  # never singular, however few the weights
        u, cholesky = torch.cat([u, mean[None]]), torch.cat([cholesky, torch.linalg.cholesky(covariance)[None]])
        share = torch.cat([0.5 * share, torch.full_like(share[:1], 0.5)])
        drawn, log_weights = self._round(size, u, cholesky, share)
        return drawn, log_weights, value.amax(0)

    def _round(self, size: int, means: Tensor, cholesky: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Points (size, B, dim) and log weights (size, B) of a mixture whose K components lead its arguments."""
        count = len(self.y)
        which = torch.multinomial(share.T, size, replacement=True).T
        rows = torch.arange(count, device=self.y.device)
        normal = torch.randn(size, count, self.dim, 1, dtype=self.y.dtype, device=self.y.device)
        half = torch.tensor(self.FREEDOM / 2, dtype=self.y.dtype, device=self.y.device)
        gamma = Gamma(half, half).sample((size, count, 1))
        u = means[which, rows] + (cholesky[which, rows] @ normal).squeeze(-1) / gamma.sqrt()
        log_proposal = torch.stack(
            [share[k].log() + _log_student(u - means[k], cholesky[k], self.FREEDOM) for k in range(len(means))]
        ).logsumexp(0)
        return u, self.log_density(u) - log_proposal


def _log_student(deviation: Tensor, cholesky: Tensor, freedom: float) -> Tensor:
    """Log density (n, B) of Student's distribution at deviations (n, B, d) from its mean, up to a constant of d."""
    scaled = torch.linalg.solve_triangular(cholesky, deviation.movedim(0, -1), upper=False)  # (B, d, n)
    square = (scaled**2).sum(1).T
    dim = deviation.shape[-1]
    return -0.5 * (freedom + dim) * torch.log1p(square / freedom) - cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)

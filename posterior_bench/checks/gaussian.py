"""A simulator whose posterior is known in closed form: what the checks fit methods to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from ..contracts import Differentiable, HasLikelihood, HasNoise, HasReferenceDensity, Simulator
from ..records import Parameter, Spec

PRIOR_SD = (1.0, 2.0)
NOISE_SD = 0.3


@dataclass(frozen=True)
class LinearGaussian(Simulator, HasLikelihood, HasNoise, HasReferenceDensity, Differentiable):
    """y = A theta + 0.3 noise with theta ~ N(0, diag(1, 2)^2), so that p(theta | y) is a normal.

    Args:
        shape: shape of a measurement. Row i of A is (cos i, sin i / 2).
    """

    shape: tuple[int, ...] = (4,)

    @property
    def spec(self) -> Spec:
        """Two parameters without a unit."""
        return Spec("linear_gaussian", 1, "", (Parameter("first"), Parameter("second")), self.shape)

    def prior(self) -> Distribution:
        """N(0, diag(1, 2)^2)."""
        return Independent(Normal(torch.zeros(2), torch.tensor(PRIOR_SD)), 1)

    @property
    def noise_dim(self) -> int:
        """One noise variable a number of the measurement."""
        return math.prod(self.shape)

    def _matrix(self, like: Tensor) -> Tensor:
        angle = torch.arange(self.noise_dim, dtype=like.dtype, device=like.device)
        return torch.stack([angle.cos(), 0.5 * angle.sin()], dim=1)

    def simulate(self, theta: Tensor) -> Tensor:
        """(N, 2) -> (N, *shape)."""
        return self.simulate_from(
            theta, torch.randn(len(theta), self.noise_dim, dtype=theta.dtype, device=theta.device)
        )

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """(N, 2), (N, noise_dim) -> (N, *shape)."""
        return (theta @ self._matrix(theta).T + NOISE_SD * noise).reshape(-1, *self.shape)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """(N, 2), (N, *shape) -> (N,)."""
        return Normal(theta @ self._matrix(theta).T, NOISE_SD).log_prob(y.flatten(1)).sum(1)

    def posterior(self, y: Tensor) -> MultivariateNormal:
        """p(theta | y) for y (B, *shape): batch shape (B,), event shape (2,)."""
        matrix = self._matrix(y)
        prior_precision = torch.diag(torch.tensor(PRIOR_SD, dtype=y.dtype, device=y.device) ** -2)
        precision = prior_precision + matrix.T @ matrix / NOISE_SD**2
        covariance = torch.linalg.inv(precision)
        mean = y.flatten(1) @ matrix / NOISE_SD**2 @ covariance
        return MultivariateNormal(mean, covariance_matrix=covariance)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, 2)."""
        return self.posterior(y).sample((n,))

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """(n, B, 2), (B, *shape) -> (n, B)."""
        return self.posterior(y).log_prob(theta)

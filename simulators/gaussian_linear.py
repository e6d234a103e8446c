"""Ten numbers measured with Gaussian noise: which mean lies behind them, under a normal and under a uniform prior?

    y = theta + sqrt(0.1) e,  e ~ N(0, I), in ten dimensions

    gaussian_linear           theta ~ N(0, 0.1 I)      p(theta | y) = N(theta; y / 2, 0.05 I)
    gaussian_linear_uniform   theta ~ U(-1, 1)^10      p(theta | y) = prod_i N(theta_i; y_i, 0.1) truncated to [-1, 1]

Both densities are normalised in closed form: the first is conjugate (Gelman et al. 2013, Bayesian Data Analysis,
ch. 2.5), the second divides by the mass prod_i (Phi((1 - y_i) / s) - Phi((-1 - y_i) / s)) inside, s = sqrt(0.1).

0.1 is a variance in prior and noise alike. The text of the benchmark's public code calls it a standard deviation, but
it enters the covariance.

The problems are those of Lueckmann et al. 2021 (arXiv:2101.04964), appendix T.1 and T.2; constants as in their public
code (https://github.com/sbi-benchmark/sbibm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, Uniform

from posterior_bench import Differentiable, HasLikelihood, HasNoise, HasReferenceDensity, Parameter, Simulator, Spec
from posterior_bench.priors import TruncatedNormal

DIM = 10
VARIANCE = 0.1
"""Of the noise, and of the normal prior."""

BOUND = 1.0
"""Of the uniform prior, on either side."""

FARTHEST = 3.0
"""Farther measurements, which this process makes with probability 1e-11, have posteriors finer than doubles resolve."""

REFERENCE = "Lueckmann et al. 2021, arXiv:2101.04964"
PARAMETERS = tuple(Parameter(f"mean_{i}", symbol=rf"\theta_{{{i}}}") for i in range(1, DIM + 1))
Y_NAMES = tuple(f"measured_{i}" for i in range(1, DIM + 1))


class _Linear(Simulator, HasLikelihood, HasNoise, HasReferenceDensity, Differentiable):
    """The process that both priors share."""

    @property
    def noise_dim(self) -> int:
        """10: one for each number."""
        return DIM

    def simulate(self, theta: Tensor) -> Tensor:
        """Measurements (N, 10) for means theta (N, 10)."""
        return self.simulate_from(theta, torch.randn_like(theta))

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Measurements (N, 10) for means theta (N, 10) and noise (N, 10). A row whose theta is not finite fails."""
        y = theta + math.sqrt(VARIANCE) * noise
        return torch.where(torch.isfinite(theta).all(1, keepdim=True), y, torch.nan)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, 10) and y (N, 10), in nats."""
        squares = (y.double() - theta.double()).square().sum(1)
        return (-0.5 * squares / VARIANCE - 0.5 * DIM * math.log(2 * math.pi * VARIANCE)).to(theta.dtype)


@dataclass(frozen=True)
class GaussianLinear(_Linear):
    """The mean of ten numbers under a normal prior; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Ten parameters without a unit, ten numbers a measurement."""
        return Spec(
            name="gaussian_linear",
            version=1,
            reference=REFERENCE,
            parameters=PARAMETERS,
            y_shape=(DIM,),
            y_names=Y_NAMES,
            description="Ten means with a normal prior, each measured once with Gaussian noise of the prior's variance",
        )

    def prior(self) -> Distribution:
        """Independent normals of mean 0 and variance 0.1."""
        return Independent(Normal(torch.zeros(DIM), math.sqrt(VARIANCE)), 1)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Exact draws (n, B, 10) for measurements y (B, 10): the product of two normals of equal variance."""
        noise = torch.randn(n, *y.shape, dtype=y.dtype, device=y.device)
        return y / 2 + math.sqrt(VARIANCE / 2) * noise

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(theta | y), (n, B), for theta (n, B, 10) and y (B, 10), in nats."""
        squares = (theta.double() - y.double() / 2).square().sum(-1)
        return (-squares / VARIANCE - 0.5 * DIM * math.log(math.pi * VARIANCE)).to(theta.dtype)


@dataclass(frozen=True)
class GaussianLinearUniform(_Linear):
    """The mean of ten numbers under a uniform prior; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Ten parameters without a unit, ten numbers a measurement."""
        return Spec(
            name="gaussian_linear_uniform",
            version=1,
            reference=REFERENCE,
            parameters=PARAMETERS,
            y_shape=(DIM,),
            y_names=Y_NAMES,
            description="Ten means with a uniform prior, each measured once with Gaussian noise",
        )

    def prior(self) -> Distribution:
        """Independent uniforms on [-1, 1]."""
        return Independent(Uniform(torch.full((DIM,), -BOUND), torch.full((DIM,), BOUND)), 1)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Exact draws (n, B, 10) for measurements y (B, 10), by inversion of each truncated normal.

        Raises:
            ValueError: where a number is too far from the prior for its posterior to be told in double precision.
        """
        return _truncated(y).sample(torch.Size([n])).to(y.dtype)

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(theta | y), (n, B), for theta (n, B, 10) and y (B, 10), in nats; -inf outside the prior.

        Raises:
            ValueError: where a number is too far from the prior for its posterior to be told in double precision.
        """
        return _truncated(y).log_prob(theta.double()).sum(-1).to(theta.dtype)


def _truncated(y: Tensor) -> TruncatedNormal:
    """The posterior of each mean under the uniform prior, batch shape (B, 10), for measurements y (B, 10)."""
    centre = y.double()
    far = ~(centre.abs() <= FARTHEST).all(1)
    if far.any():
        first = int(far.nonzero()[0, 0])
        raise ValueError(
            f"measurement {first} is {y[first].tolist()}; expected numbers between -{FARTHEST} and {FARTHEST}. It "
            "does not come from this simulator"
        )
    return TruncatedNormal(centre, torch.full_like(centre, math.sqrt(VARIANCE)), -BOUND, BOUND)

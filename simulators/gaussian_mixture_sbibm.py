"""A mean seen through a mixture of a wide and a narrow Gaussian: where in the square does it lie?

    p(y | theta) = 1/2 N(y; theta, I) + 1/2 N(y; theta, 0.1^2 I),  theta ~ U(-10, 10)^2

Since the likelihood is symmetric in theta and y, the posterior is that mixture about y, cut off at the square:

    p(theta | y) = sum_k w_k N(theta; y, s_k^2 I) 1[theta in the square],  w_k in proportion to
    m_k = prod_i (Phi((10 - y_i) / s_k) - Phi((-10 - y_i) / s_k)), the mass of component k inside.

The problem is that of Lueckmann et al. 2021 (arXiv:2101.04964), appendix T.7; constants as in their public code
(https://github.com/sbi-benchmark/sbibm). As first released, that code drew one component for a whole batch of
simulations. Here each row draws its own, as the definition has it: the scores first published are those of another
process, those of the code's version 1.1.0 are not. It is another problem than ``gaussian_mixture``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform
from torch.special import log_ndtr

from posterior_bench import Differentiable, HasLikelihood, HasNoise, HasReferenceDensity, Parameter, Simulator, Spec
from posterior_bench.priors import TruncatedNormal

BOUND = 10.0
SDS = (1.0, 0.1)
"""Of the two components, which are equally likely."""

FARTHEST = 16.5
"""Farther measurements, which this process makes with probability 1e-12, have posteriors finer than doubles resolve."""


@dataclass(frozen=True)
class GaussianMixtureSbibm(Simulator, HasLikelihood, HasNoise, HasReferenceDensity, Differentiable):
    """A mean under a mixture of two noises; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Two parameters without a unit, two numbers a measurement."""
        return Spec(
            name="gaussian_mixture_sbibm",
            version=1,
            reference="Lueckmann et al. 2021, arXiv:2101.04964",
            parameters=(Parameter("first", symbol=r"\theta_1"), Parameter("second", symbol=r"\theta_2")),
            y_shape=(2,),
            y_names=("measured_1", "measured_2"),
            description="A mean in the plane, measured once with Gaussian noise that is wide or narrow",
        )

    def prior(self) -> Distribution:
        """Independent uniforms on [-10, 10]."""
        return Independent(Uniform(torch.full((2,), -BOUND), torch.full((2,), BOUND)), 1)

    @property
    def noise_dim(self) -> int:
        """3: what picks the component, and two for its noise."""
        return 3

    def simulate(self, theta: Tensor) -> Tensor:
        """Measurements (N, 2) for means theta (N, 2)."""
        return self.simulate_from(theta, torch.randn(len(theta), 3, dtype=theta.dtype, device=theta.device))

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Measurements (N, 2) for theta (N, 2) and noise (N, 3); the sign of the first picks the component of the row.

        A row whose theta is not finite fails.
        """
        wide, narrow = SDS
        y = theta + torch.where(noise[:, :1] < 0, wide, narrow) * noise[:, 1:]
        return torch.where(torch.isfinite(theta).all(1, keepdim=True), y, torch.nan)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, 2) and y (N, 2), in nats."""
        squares = (y.double() - theta.double()).square().sum(1)
        parts = [-0.5 * squares / sd**2 - math.log(2 * math.pi * sd**2) for sd in SDS]
        return (torch.stack(parts).logsumexp(0) - math.log(2)).to(theta.dtype)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Exact draws (n, B, 2) for measurements y (B, 2): a component by its mass in the square, then a point of it.

        Raises:
            ValueError: where a measurement is too far from the square for its posterior to be told in double precision.
        """
        centre = _near(y)
        picks_narrow = torch.multinomial(_log_masses(centre).softmax(1), n, replacement=True).T[..., None] == 1
        wide, narrow = (
            TruncatedNormal(centre, torch.full_like(centre, sd), -BOUND, BOUND).sample(torch.Size([n])) for sd in SDS
        )
        return torch.where(picks_narrow, narrow, wide).to(y.dtype)

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(theta | y), (n, B), for theta (n, B, 2) and y (B, 2), in nats; -inf outside the square.

        Raises:
            ValueError: where a measurement is too far from the square for its posterior to be told in double precision.
        """
        centre = _near(y)
        squares = (theta.double() - centre).square().sum(-1)
        parts = [-0.5 * squares / sd**2 - math.log(2 * math.pi * sd**2) for sd in SDS]
        density = torch.stack(parts).logsumexp(0) - _log_masses(centre).logsumexp(1)
        return torch.where((theta.abs() <= BOUND).all(-1), density, -math.inf).to(theta.dtype)


def _near(y: Tensor) -> Tensor:
    """Measurements (B, 2) in double precision, checked."""
    centre = y.double()
    far = ~(centre.abs() <= FARTHEST).all(1)
    if far.any():
        first = int(far.nonzero()[0, 0])
        raise ValueError(
            f"measurement {first} is {y[first].tolist()}; expected numbers between -{FARTHEST} and {FARTHEST}. It "
            "does not come from this simulator"
        )
    return centre


def _log_masses(centre: Tensor) -> Tensor:
    """log m_k, the masses of both components in the square, (B, 2), for centres (B, 2)."""
    masses = []
    for sd in SDS:
        high, low = log_ndtr((BOUND - centre) / sd), log_ndtr((-BOUND - centre) / sd)
        masses.append((high + torch.log1p(-(low - high).exp())).sum(1))
    return torch.stack(masses, dim=1)

"""Simple likelihood, complex posterior: which mean and covariance lie behind four points of the plane?

    y_j ~ N(m, S), j = 1..4,   m = (theta1, theta2),   s1 = theta3^2,  s2 = theta4^2,  rho = tanh theta5
    S = [[s1^2, rho s1 s2], [rho s1 s2, s2^2]] + 1e-6 I,   theta ~ U(-3, 3)^5

The signs of theta3 and theta4 leave no trace, so the posterior has four modes. The 1e-6 keeps S regular where theta3 or
theta4 is near 0; it is part of the benchmark's code, though not of the paper.

``slcp_distractors`` hides the eight numbers among 92 that know nothing of theta: one draw of a mixture of 20 equally
likely multivariate t of 2 degrees of freedom, l_k + L_k x / sqrt(w), x ~ N(0, I), 2 w ~ chi^2(2), hence w ~ Exp(1).
l_k is 15 times standard normal numbers; L_k is 3 times the lower triangle of a matrix of such, with exponentials of
further ones added on its diagonal. The hundred numbers are permuted. Centres, matrices and permutation are fixed by
numpy's legacy generator, seed 42, in this order.

The L_k are singular to the precision of doubles (smallest over largest singular value: 1e-16 to 1e-19), so the density
of the distractors, up to hundreds of orders of magnitude, is that of rounding errors. It does not depend on theta, and
cancels from posteriors and ratios. The likelihood of ``slcp_distractors`` is therefore that of the eight numbers alone.

Exact posteriors: see ``posterior``.

The problem is that of Papamakarios et al. 2019 (arXiv:1805.07226), with priors and distractors as in Lueckmann et al.
2021 (arXiv:2101.04964), appendix T.3 and T.4, and their public code (https://github.com/sbi-benchmark/sbibm).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform
from torch.special import log_ndtr, ndtr

from posterior_bench import Differentiable, HasLikelihood, HasNoise, HasReferenceDensity, Parameter, Simulator, Spec

from .covariance import BOUND, POINTS, cholesky
from .posterior import log_evidence, sample_posterior

INFORMATIVE = 2 * POINTS
DISTRACTORS = 92
COMPONENTS = 20
SEED = 42

REFERENCE = "Lueckmann et al. 2021, arXiv:2101.04964; Papamakarios et al. 2019, arXiv:1805.07226"
PARAMETERS = (
    Parameter("mean_1", symbol=r"\theta_1"),
    Parameter("mean_2", symbol=r"\theta_2"),
    Parameter("root_sd_1", symbol=r"\theta_3"),
    Parameter("root_sd_2", symbol=r"\theta_4"),
    Parameter("artanh_correlation", symbol=r"\theta_5"),
)


class _FourPoints(Simulator, HasLikelihood, HasNoise, HasReferenceDensity, Differentiable):
    """What both tasks share."""

    @abstractmethod
    def points(self, y: Tensor) -> Tensor:
        """The four points (N, 8), float64, in measurements (N, *y_shape)."""

    def prior(self) -> Distribution:
        """Independent uniforms on [-3, 3]."""
        return Independent(Uniform(torch.full((5,), -BOUND), torch.full((5,), BOUND)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        """Measurements (N, 8), or (N, 100) with distractors, for theta (N, 5)."""
        return self.simulate_from(
            theta, torch.randn(len(theta), self.noise_dim, dtype=theta.dtype, device=theta.device)
        )

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(the four points in y | theta), (N,), for theta (N, 5) and y (N, *y_shape), in nats.

        The density of distractors, the same for every theta, is left out: doubles cannot tell it.
        """
        return _log_density(theta.double(), self.points(y)).to(theta.dtype)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Exact draws (n, B, 5) for measurements y (B, *y_shape), by rejection.

        Raises:
            ValueError: where a measurement is out of reach of the prior.
        """
        return sample_posterior(self.points(y), n).to(y.dtype)

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(theta | y), (n, B), for theta (n, B, 5) and y (B, *y_shape), in nats; -inf outside the prior's cube."""
        points, at = self.points(y), theta.double()
        likelihood = _log_density(at.flatten(0, 1), points.repeat(len(at), 1)).view(at.shape[:2])
        inside = (at.abs() <= BOUND).all(-1)
        density = likelihood - 5 * math.log(2 * BOUND) - log_evidence(points)
        return torch.where(inside, density, -math.inf).to(theta.dtype)


@dataclass(frozen=True)
class SLCP(_FourPoints):
    """Four points of an unknown normal distribution; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Five parameters without a unit, eight numbers a measurement, point by point."""
        return Spec(
            name="slcp",
            version=1,
            reference=REFERENCE,
            parameters=PARAMETERS,
            y_shape=(INFORMATIVE,),
            y_names=tuple(f"point_{j}_axis_{i}" for j in range(1, POINTS + 1) for i in (1, 2)),
            description="Mean, spread and correlation of a plane normal distribution of which four points are seen",
        )

    @property
    def noise_dim(self) -> int:
        """8: two for each point."""
        return INFORMATIVE

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Measurements (N, 8) for theta (N, 5) and noise (N, 8). A row whose theta is not finite fails."""
        return _finished(theta, _points(theta.double(), noise.double()))

    def points(self, y: Tensor) -> Tensor:
        """All of it."""
        return y.double()


@dataclass(frozen=True)
class SLCPDistractors(_FourPoints):
    """The same among 92 numbers that know nothing; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Five parameters without a unit, a hundred numbers a measurement."""
        return Spec(
            name="slcp_distractors",
            version=1,
            reference=REFERENCE,
            parameters=PARAMETERS,
            y_shape=(INFORMATIVE + DISTRACTORS,),
            description="Mean, spread and correlation of four points, hidden among 92 uninformative numbers",
        )

    @property
    def noise_dim(self) -> int:
        """102: two for each point, one for the component, one for its radius, 92 for its directions."""
        return INFORMATIVE + 2 + DISTRACTORS

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Measurements (N, 100) for theta (N, 5) and noise (N, 102). A row whose theta is not finite fails."""
        noise = noise.double()
        points, hidden = _points(theta.double(), noise[:, :INFORMATIVE]), _distractors(noise[:, INFORMATIVE:])
        order = distractor_mixture()[2].to(theta.device)
        return _finished(theta, torch.cat([points, hidden], dim=1)[:, order])

    def points(self, y: Tensor) -> Tensor:
        """Eight of the hundred numbers."""
        return y[:, distractor_mixture()[2].argsort()[:INFORMATIVE].to(y.device)].double()


@cache
def distractor_mixture() -> tuple[Tensor, Tensor, Tensor]:
    """Centres l_k (20, 92), matrices L_k (20, 92, 92) and the permutation (100,), on the CPU.

    Number i of a measurement is number permutation[i] of the eight and the 92.
    """
    generator = np.random.RandomState(SEED)  # the benchmark's own; its stream is frozen
    centres = 15 * generator.normal(size=(COMPONENTS, DISTRACTORS))
    matrices = np.empty((COMPONENTS, DISTRACTORS, DISTRACTORS))
    for k in range(COMPONENTS):
        lower = np.tril(generator.normal(size=(DISTRACTORS, DISTRACTORS)))
        matrices[k] = 3 * (lower + np.diag(np.exp(generator.normal(size=DISTRACTORS))))
    order = generator.permutation(INFORMATIVE + DISTRACTORS)
    return torch.from_numpy(centres), torch.from_numpy(matrices), torch.from_numpy(order)


def _finished(theta: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isfinite(theta).all(1, keepdim=True), y.to(theta.dtype), torch.nan)


def _root(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries (1, 1), (2, 1) and (2, 2) of the lower triangular root of S, each (N, 1), for theta (N, 5)."""
    return cholesky(*theta[:, 2:].T.unsqueeze(-1))


def _points(theta: Tensor, noise: Tensor) -> Tensor:
    """The four points (N, 8) for theta (N, 5) and noise (N, 8)."""
    corner, below, last = _root(theta)
    first = theta[:, 0:1] + corner * noise[:, 0::2]
    second = theta[:, 1:2] + below * noise[:, 0::2] + last * noise[:, 1::2]
    return torch.stack([first, second], dim=2).flatten(1)


def _log_density(theta: Tensor, points: Tensor) -> Tensor:
    """Log density (N,) of four points (N, 8) for theta (N, 5)."""
    corner, below, last = _root(theta)
    first = (points[:, 0::2] - theta[:, 0:1]) / corner
    second = (points[:, 1::2] - theta[:, 1:2] - below * first) / last
    squares = (first.square() + second.square()).sum(1)
    return -0.5 * squares - POINTS * (corner.log() + last.log())[:, 0] - POINTS * math.log(2 * math.pi)


def _distractors(noise: Tensor) -> Tensor:
    """Draws (N, 92) of the mixture for noise (N, 94): component, radius, directions."""
    centres, matrices, _ = distractor_mixture()
    component = (COMPONENTS * ndtr(noise[:, 0])).long().clamp(max=COMPONENTS - 1)
    shape = noise[:, 2:] / (-log_ndtr(noise[:, 1:2])).sqrt()  # -log of a uniform number is Exp(1)
    result = torch.empty_like(shape)
    for k in component.unique().tolist():
        rows = component == k
        result[rows] = centres[k].to(shape.device) + shape[rows] @ matrices[k].to(shape.device).T
    return result

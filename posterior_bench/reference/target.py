"""The posterior without its constant, in parameters mapped to the reals: p(r) p(y | theta(r)), for many measurements.

The map is that of ``training.ThetaMap``. Where the prior is a product of known marginals, p(r) = N(r; 0, I) exactly,
for whole-number parameters too; else p(r) = p(theta) / |d r / d theta|. log Z = log p(y) does not depend on the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ..contracts import HasLikelihood, Simulator
from ..priors import in_support
from ..training import ThetaMap
from .surrogate import Surrogate

ROWS = 2**16
"""Likelihoods computed at a time: a few MB of parameters and measurements each."""

SCALE_DRAWS = 10_000
"""Draws of the prior from which the map takes its scales, where it needs any."""


@dataclass(frozen=True, eq=False)
class Target:
    """Densities at mapped parameters (n, B, D) for measurements ``y`` (B, *y_shape), all in float64.

    Args:
        simulator: with a likelihood.
        theta_map: of its prior to the reals.
        y: (B, *y_shape), float64.
        surrogate: what stands for the likelihood at mapped parameters, if anything does.
    """

    simulator: Simulator
    theta_map: ThetaMap
    y: Tensor
    surrogate: Surrogate | None = None

    @classmethod
    def of(cls, simulator: Simulator, y: Tensor) -> Target:
        """The target for measurements (B, *y_shape).

        Raises:
            TypeError: where the simulator has no likelihood.
        """
        if not isinstance(simulator, HasLikelihood):
            raise TypeError(
                f"simulator {simulator.spec.name!r} has no likelihood; expected one that derives from HasLikelihood"
            )
        prior = simulator.prior()
        return cls(simulator, ThetaMap.of(prior, prior.sample(torch.Size([SCALE_DRAWS]))).to(y.device), y.double())

    @property
    def dim(self) -> int:
        """D."""
        return self.theta_map.prior.event_shape[0]

    def select(self, index: Tensor) -> Target:
        """The same for the measurements ``index`` (b,) alone."""
        return replace(self, y=self.y[index])

    def repeat(self, times: int) -> Target:
        """The same with all measurements ``times`` times, one block after the other."""
        return replace(self, y=self.y.repeat(times, *(1,) * (self.y.dim() - 1)))

    def draw_prior(self, n: int) -> Tensor:
        """Mapped draws (n, B, D) of the prior."""
        count = len(self.y)
        if self.theta_map.marginals is not None:
            return torch.randn(n, count, self.dim, dtype=torch.float64, device=self.y.device)
        return self.theta_map(self.theta_map.prior.sample(torch.Size([n, count]))).double()

    def theta(self, real: Tensor) -> Tensor:
        """Parameters (n, B, D) in their own units."""
        return self.theta_map.inverse(real)

    def log_prior(self, real: Tensor) -> Tensor:
        """log p(r), (n, B)."""
        if self.theta_map.marginals is not None:
            return -0.5 * real.square().sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)
        theta = self.theta(real)
        return self.theta_map.prior.log_prob(theta) - self.theta_map.log_abs_det(theta)

    def log_likelihood(self, real: Tensor) -> Tensor:
        """log p(y | theta(r)), (n, B), in nats, without gradients; the surrogate's where there is one.

        Raises:
            ValueError: where it is NaN or +inf.
        """
        parts = real.split(max(1, ROWS // len(self.y)))
        if self.surrogate is not None:
            return torch.cat([self.surrogate.log_likelihood(part, self.y) for part in parts])
        return torch.cat([self.log_likelihood_of(self.theta(part)) for part in parts])

    def log_joint_of(self, theta: Tensor) -> Tensor:
        """log p(theta) + log p(y | theta), (n, B), at parameters (n, B, D) in their own units; -inf outside."""
        prior = self.theta_map.prior
        anchor = self.theta(theta.new_zeros(theta.shape[-1]))
        found = []
        for part in theta.split(max(1, ROWS // len(self.y))):
            inside = in_support(prior, part)
            safe = torch.where(inside[..., None], part, anchor)
            found.append(torch.where(inside, prior.log_prob(safe) + self.log_likelihood_of(safe), -torch.inf))
        return torch.cat(found)

    def log_likelihood_of(self, theta: Tensor) -> Tensor:
        """log p(y | theta), (n, B), at parameters (n, B, D) in their own units, in one call.

        Raises:
            ValueError: where it is NaN or +inf.
        """
        simulator = cast(HasLikelihood, self.simulator)  # ``of`` has seen to it
        y = self.y.expand(len(theta), *self.y.shape).flatten(0, 1)
        with torch.no_grad():
            values = simulator.log_likelihood(theta.flatten(0, 1), y).double().view(theta.shape[:2])
        if (values.isnan() | (values == torch.inf)).any():
            raise ValueError(
                f"log_likelihood of {self.simulator.spec.name!r} is NaN or +inf at some theta inside the prior's "
                "support; expected a number of nats, or -inf where y is impossible"
            )
        return values

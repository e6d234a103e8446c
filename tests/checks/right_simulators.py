"""Simulators that are right, beside that of the checks themselves, and what checks find of one that is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, Uniform

from posterior_bench import HasLikelihood, Parameter, Simulator, Spec
from posterior_bench.checks import check_simulator


def failures(simulator: object) -> dict[str, str]:
    """The messages of the checks that a simulator fails, by name."""
    return {f.name: f.message for f in check_simulator(simulator) if not f.ok}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scale(Simulator, HasLikelihood):
    """y ~ N(0, exp(theta)^2), three times: the likelihood's constant depends on theta."""

    @property
    def spec(self) -> Spec:
        return Spec("scale", 1, "", (Parameter("log_scale"),), (3,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(1), 0.5), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta.exp() * torch.randn(len(theta), 3, dtype=theta.dtype)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(0.0, theta.exp()).log_prob(y).sum(1)


@dataclass(frozen=True)
class Counts(Simulator, HasLikelihood):
    """Poisson counts of a rate between 1 and 9, with some failures."""

    @property
    def spec(self) -> Spec:
        return Spec("counts", 1, "", (Parameter("rate"),), (2,))

    def prior(self) -> Distribution:
        return Independent(Uniform(torch.ones(1), 9 * torch.ones(1)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        y = torch.poisson(theta.expand(-1, 2))
        return y.masked_fill((y > 15).any(1, keepdim=True), torch.nan)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return torch.distributions.Poisson(theta).log_prob(y).sum(1)


@dataclass(frozen=True)
class Numpy(Simulator):
    """Draws from numpy's global generator."""

    @property
    def spec(self) -> Spec:
        return Spec("numpy", 1, "", (Parameter("mean"),), (1,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(1), 1.0), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta + torch.as_tensor(np.random.randn(len(theta), 1), dtype=theta.dtype)  # noqa: NPY002

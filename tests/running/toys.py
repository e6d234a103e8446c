"""Small plug-ins that the runner is tested with, loaded as a user's file is: one good simulator, several broken."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from posterior_bench import (
    HasReference,
    Method,
    MethodSpec,
    Need,
    Parameter,
    Posterior,
    Problem,
    Progress,
    Simulations,
    Simulator,
    Spec,
)


class _Base(Simulator):
    @property
    def spec(self) -> Spec:
        return Spec(type(self).__name__.lower(), 1, "a toy", (Parameter("a", "m"), Parameter("b")), (2,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)


@dataclass(frozen=True)
class Gaussian(_Base, HasReference):
    """theta ~ N(0, I), y = theta + N(0, sd^2): the posterior is N(y / (1 + sd^2), sd^2 / (1 + sd^2))."""

    sd: float = 0.5

    def simulate(self, theta: Tensor) -> Tensor:
        return theta + self.sd * torch.randn_like(theta)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        variance = self.sd**2 / (1 + self.sd**2)
        return y / (1 + self.sd**2) + variance**0.5 * torch.randn(n, *y.shape)


@dataclass(frozen=True)
class SometimesFails(Gaussian):
    """One simulation in ten is a row of NaN."""

    def simulate(self, theta: Tensor) -> Tensor:
        y = super().simulate(theta)
        y[torch.rand(len(y)) < 0.1] = torch.nan
        return y


@dataclass(frozen=True)
class Raises(_Base):
    """A simulator with a bug."""

    def simulate(self, theta: Tensor) -> Tensor:
        raise ZeroDivisionError("the pump stands still")


@dataclass(frozen=True)
class AllNaN(_Base):
    """A simulator that never works."""

    def simulate(self, theta: Tensor) -> Tensor:
        return torch.full((len(theta), 2), torch.nan)


@dataclass(frozen=True)
class WrongShape(_Base):
    """A simulator that forgets its batch axis."""

    def simulate(self, theta: Tensor) -> Tensor:
        return theta[0]


@dataclass(frozen=True)
class Hangs(_Base):
    """A simulator that does not come back."""

    def simulate(self, theta: Tensor) -> Tensor:
        time.sleep(3600)
        return theta


class Linear(Posterior):
    """q(theta | y) = N(slope * y, sd^2), a column at a time."""

    def __init__(self, slope: Tensor, sd: Tensor) -> None:
        self.slope, self.sd = slope, sd

    def sample(self, y: Tensor, n: int) -> Tensor:
        return self.slope * y + self.sd * torch.randn(n, *y.shape)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"slope": self.slope, "sd": self.sd}, {}


@dataclass(frozen=True)
class Regression(Method):
    """Least squares of theta on y: exact for the toy, up to the number of simulations."""

    delay: float = 0.0
    spec: ClassVar[MethodSpec] = MethodSpec("regression", 1, "Gauss 1809", label="Regression")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        time.sleep(self.delay)
        progress.update(1, 1, "fitted")
        pairs = simulations.only_valid()
        slope = (pairs.theta * pairs.y).mean(0) / (pairs.y**2).mean(0)
        return Linear(slope, (pairs.theta - slope * pairs.y).std(0))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return Linear(tensors["slope"], tensors["sd"])


@dataclass(frozen=True)
class Noisy(Regression):
    """A method whose fit draws random numbers."""

    spec: ClassVar[MethodSpec] = MethodSpec("noisy", 1, "nowhere")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        fitted = super().fit(simulations, problem, progress)
        return Linear(fitted.slope + 0.01 * torch.randn(2), fitted.sd)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class NeedsLikelihood(Regression):
    """A method that asks for what the toy does not offer."""

    spec: ClassVar[MethodSpec] = MethodSpec("needs_likelihood", 1, "nowhere", frozenset({Need.LOG_LIKELIHOOD}))


@dataclass(frozen=True)
class Crashes(Regression):
    """A method that takes its process with it."""

    spec: ClassVar[MethodSpec] = MethodSpec("crashes", 1, "nowhere")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        os._exit(9)


@dataclass(frozen=True)
class DrawsNaN(Regression):
    """A method whose draws are not numbers."""

    spec: ClassVar[MethodSpec] = MethodSpec("draws_nan", 1, "nowhere")

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return Linear(tensors["slope"], torch.full((2,), torch.nan))

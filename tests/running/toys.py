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
    HasLikelihood,
    HasLogProb,
    HasReference,
    HasReferenceDensity,
    HasTrajectory,
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
class Population(Gaussian):
    """The Gaussian whose parameters are drawn about another place: theta ~ N(place, 0.3^2)."""

    place: float = 0.0

    def prior(self) -> Distribution:
        return Independent(Normal(torch.full((2,), self.place), 0.3), 1)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        precision = 1 / 0.3**2 + 1 / self.sd**2
        mean = (self.place / 0.3**2 + y / self.sd**2) / precision
        return mean + precision**-0.5 * torch.randn(n, *y.shape)


@dataclass(frozen=True)
class Ramp(_Base, HasTrajectory):
    """y_t = (a + nuisance) + b t + N(0, sd^2) at t = 0, 1; rows with a nuisance above 1.5 fail."""

    sd: float = 0.5

    @property
    def noise_dim(self) -> int:
        return 3

    def simulate(self, theta: Tensor) -> Tensor:
        return self.simulate_from(theta, torch.randn(len(theta), 3))

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        y = self.signal(theta, noise, 2) + self.sd * noise[:, 1:]
        return y.masked_fill(noise[:, :1] > 1.5, torch.nan)

    def signal(self, theta: Tensor, noise: Tensor, steps: int) -> Tensor:
        return theta[:, :1] + noise[:, :1] + theta[:, 1:] * torch.arange(float(steps))


@dataclass(frozen=True)
class Known(_Base, HasLikelihood, HasReferenceDensity):
    """The same with sd 0.5, its likelihood and its posterior's density."""

    def simulate(self, theta: Tensor) -> Tensor:
        return Gaussian().simulate(theta)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(theta, 0.5).log_prob(y).sum(-1)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return Gaussian().sample_reference(y, n)

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(0.8 * y, 0.2**0.5).log_prob(theta).sum(-1)


@dataclass(frozen=True)
class OnlyLikelihood(_Base, HasLikelihood):
    """The same without a sampler of its posterior."""

    def simulate(self, theta: Tensor) -> Tensor:
        return Gaussian().simulate(theta)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(theta, 0.5).log_prob(y).sum(-1)


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


class Rescaled(Posterior):
    """Draws of another posterior, their distance from their mean multiplied by a factor (2,)."""

    def __init__(self, base: Posterior, factor: Tensor) -> None:
        self.base, self.factor = base, factor

    def sample(self, y: Tensor, n: int) -> Tensor:
        draws = self.base.sample(y, max(n, 100))
        mean = draws.mean(0)
        return mean + self.factor * (draws[:n] - mean)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"factor": self.factor}, {}


@dataclass(frozen=True)
class Rescales(Method):
    """The posterior of another method with the sd that labelled measurements show."""

    labels: int = 50
    spec: ClassVar[MethodSpec] = MethodSpec("rescales", 1, "a toy", frozenset({Need.POSTERIOR, Need.LABELLED}))

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        theta, y = problem.labelled.theta[: self.labels], problem.labelled.y[: self.labels]
        draws = problem.posterior.sample(y, 200)
        return Rescaled(problem.posterior, (theta - draws.mean(0)).std(0) / draws.std(0).mean(0))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return Rescaled(problem.posterior, tensors["factor"])


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


class OfOne(Posterior, HasLogProb):
    """q(theta | y) = N(mean, sd^2) for the one y that it was fitted for."""

    def __init__(self, y: Tensor, mean: Tensor, sd: Tensor) -> None:
        self.y, self.mean, self.sd = y, mean, sd

    def _check(self, y: Tensor) -> None:
        if y.shape != (1, 2) or not torch.equal(y[0], self.y):
            raise ValueError(f"found measurements {y.tolist()}; expected the one of the fit, {self.y.tolist()}")

    def sample(self, y: Tensor, n: int) -> Tensor:
        self._check(y)
        return self.mean + self.sd * torch.randn(n, *y.shape)

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        self._check(y)
        return Normal(self.mean, self.sd).log_prob(theta).sum(-1)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"y": self.y, "mean": self.mean, "sd": self.sd}, {}


@dataclass(frozen=True)
class Sequential(Method):
    """Two rounds of simulations: half of the budget from the prior, half from about the first estimate.

    Args:
        fails_above: the fit raises where the first number of its measurement is larger.
    """

    fails_above: float = 1e9
    spec: ClassVar[MethodSpec] = MethodSpec(
        "sequential", 1, "a toy", frozenset({Need.SIMULATE, Need.OBSERVATION}), label="Sequential"
    )

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        y = problem.observation
        if len(simulations):
            raise ValueError("a sequential method is given no simulations")
        if y[0] > self.fails_above:
            raise ArithmeticError("the second round diverged")
        half = problem.budget // 2
        theta = problem.prior.sample((half,))
        seen = problem.simulate(theta)
        slope = (theta * seen).mean(0) / seen.square().mean(0)
        sd = (theta - slope * seen).std(0)
        problem.simulate(slope * y + sd * torch.randn(problem.budget - half, 2))
        return OfOne(y, slope * y, sd)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        if not torch.equal(problem.observation, tensors["y"]):
            raise ValueError("another measurement")
        return OfOne(tensors["y"], tensors["mean"], tensors["sd"])


@dataclass(frozen=True)
class NeedsNoise(Sequential):
    """A sequential method that asks for what the toy does not offer."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        "needs_noise", 1, "nowhere", frozenset({Need.SIMULATE, Need.OBSERVATION, Need.NOISE})
    )


@dataclass(frozen=True)
class SequentialInFour(Sequential):
    """The same for the checks' problem, with four numbers a measurement, by regression on all of them."""

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        theta = problem.prior.sample((problem.budget,))
        seen = problem.simulate(theta)
        slope = torch.linalg.lstsq(seen, theta).solution
        return OfFour(problem.observation, problem.observation @ slope, (theta - seen @ slope).std(0))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return OfFour(tensors["y"], tensors["mean"], tensors["sd"])


class OfFour(Posterior):
    """q(theta | y) = N(mean, sd^2) for the one y that it was fitted for."""

    def __init__(self, y: Tensor, mean: Tensor, sd: Tensor) -> None:
        self.y, self.mean, self.sd = y, mean, sd

    def sample(self, y: Tensor, n: int) -> Tensor:
        if y.shape != (1, 4) or not torch.equal(y[0], self.y):
            raise ValueError("another measurement")
        return self.mean + self.sd * torch.randn(n, 1, 2)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"y": self.y, "mean": self.mean, "sd": self.sd}, {}

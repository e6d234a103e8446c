"""What a method is tried on: a problem whose posterior is a normal, with what else it may need."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ..contracts import HasLogProb, Method, Posterior
from ..problem import Problem
from ..records import Need, Simulations, Task
from ..runtime import scope
from .gaussian import LinearGaussian

LINEAR = LinearGaussian()
"""The problem of every check but the one of matrix-shaped measurements."""

LABELS = 500
"""Labelled measurements for a method that asks for such."""

NARROW = 0.5
"""The sd of ``OverConfident`` in units of the exact one: there is something to recalibrate."""


class Silent:
    """Where nobody looks on."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Say nothing."""


def task_of(simulator: LinearGaussian) -> Task:
    """The task of the checks on a simulator, with labelled measurements of it."""
    return Task("check", simulator, labels=LABELS)


class OverConfident(Posterior, HasLogProb):
    """The exact posterior of the linear problem with half of its sd: what a recalibration is given to start from."""

    def __init__(self, simulator: LinearGaussian) -> None:
        self.simulator = simulator

    def _normal(self, y: Tensor) -> MultivariateNormal:
        exact = self.simulator.posterior(y)
        return MultivariateNormal(exact.loc, scale_tril=NARROW * exact.scale_tril)

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, 2)."""
        return self._normal(y).sample((n,))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """(n, B, 2), (B, *shape) -> (n, B)."""
        return self._normal(y).log_prob(theta)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The shape of a measurement."""
        return {}, {"shape": list(self.simulator.shape)}


class Trial:
    """A method with its quick settings on the closed-form problem, and its posterior, fitted once."""

    def __init__(self, method: Method, simulations: int) -> None:
        self.method = dataclasses.replace(method, **method.quick)  # type: ignore[type-var] # checked to be a dataclass
        self.size = simulations

    def problem(
        self, simulator: LinearGaussian, observation: Tensor | None = None, budget: int | None = None
    ) -> Problem:
        """What the method may see of a task on this simulator, with as much labelled and to start from as it needs."""
        needs = self.method.spec.needs
        labelled = posterior = None
        if Need.LABELLED in needs:
            with scope(5):
                theta = simulator.prior().sample((LABELS,))
                labelled = Simulations(theta, simulator.simulate(theta))
        if Need.POSTERIOR in needs:
            posterior = OverConfident(simulator)
        budget = self.size if budget is None else budget
        return Problem(task_of(simulator), needs, budget, observation, labelled=labelled, posterior=posterior)

    def simulations(self, simulator: LinearGaussian) -> Simulations:
        """Simulations, the same at every call; with their noise where the method needs it."""
        with scope(1):
            theta = simulator.prior().sample((self.size,))
            noise = torch.randn(self.size, simulator.noise_dim)
            y = simulator.simulate_from(theta, noise)
        return Simulations(theta, y, noise if Need.NOISE in self.method.spec.needs else None)

    def fit(self, simulations: Simulations | None = None, simulator: LinearGaussian = LINEAR) -> Posterior:
        """The posterior for given simulations, or for those of the simulator, always under one seed."""
        with scope(2):
            simulations = simulations or self.simulations(simulator)
            return self.method.fit(simulations, self.problem(simulator), Silent())

    @property
    def posterior(self) -> Posterior:
        """The posterior for the linear problem, fitted on first use."""
        if not hasattr(self, "_posterior"):
            self._posterior = self.fit()
        return self._posterior

    @property
    def y(self) -> Tensor:
        """(4, 4): measurements whose posteriors are far apart."""
        theta = torch.tensor([[-1.0, -2.0], [1.0, 2.0], [-1.0, 2.0], [1.0, -2.0]])
        return LINEAR.simulate_from(theta, torch.zeros(4, 4))

"""What a method is tried on: a problem whose posterior is a normal."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..contracts import Method, Posterior
from ..problem import Problem
from ..records import Need, Simulations, Task
from ..runtime import scope
from .gaussian import LinearGaussian

LINEAR = LinearGaussian()
"""The problem of every check but the one of matrix-shaped measurements."""


class Silent:
    """Where nobody looks on."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Say nothing."""


class Trial:
    """A method with its quick settings on the closed-form problem, and its posterior, fitted once."""

    def __init__(self, method: Method, simulations: int) -> None:
        self.method = dataclasses.replace(method, **method.quick)  # type: ignore[type-var] # checked to be a dataclass
        self.size = simulations

    def problem(self, simulator: LinearGaussian) -> Problem:
        """What the method may see of a task on this simulator."""
        return Problem(Task("check", simulator), granted=self.method.spec.needs, budget=self.size)

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

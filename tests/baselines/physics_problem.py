"""A pendulum of which gravity alone is known, and physics VAEs of it, for the tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from baselines.physics_vae import PhysicsVAE, PhysicsVAEPosterior, PhysicsVAEProper
from baselines.physics_vae.model import Branches, PhysicsVAEModel
from posterior_bench import Simulations
from posterior_bench.runtime import scope
from simulators.advection_diffusion import AdvectionDiffusion
from simulators.pendulum import Pendulum

SHORT = {"steps": 10, "time_step": 0.15, "substeps": 1}
WIDE, REAL = Pendulum("wide", **SHORT), Pendulum("full", **SHORT)
QUICK = dict(PhysicsVAE.quick)


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


@dataclass(frozen=True)
class Incomplete:
    """A problem whose physics is known in part: what the method asks of one."""

    dynamics: Pendulum | AdvectionDiffusion
    unlabelled: Tensor

    @property
    def prior(self) -> Distribution:
        return self.dynamics.prior()

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.dynamics.spec.y_shape


def measured(simulator: Pendulum | AdvectionDiffusion, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    with scope(seed):
        theta = simulator.prior().sample((count,))
        return theta, simulator.simulate(theta)


def problem(
    dynamics: Pendulum | AdvectionDiffusion = WIDE, reality: Pendulum | AdvectionDiffusion = REAL
) -> Incomplete:
    return Incomplete(dynamics, measured(reality, 200)[1])


def untrained(method: PhysicsVAE | PhysicsVAEProper, given: Incomplete | None = None) -> PhysicsVAEModel:
    given = given or problem()
    with scope(1):
        return method._model(given, given.prior.sample((1000,)))


def fitted(method: PhysicsVAE | PhysicsVAEProper, given: Incomplete) -> PhysicsVAEPosterior:
    none = Simulations(torch.zeros(0, 1), torch.zeros(0, *given.y_shape))
    with scope(2):
        return method.fit(none, given, Silent())


def branches(model: PhysicsVAEModel, count: int = 6) -> tuple[Branches, Tensor]:
    theta, y = measured(WIDE, count, seed=3)
    with scope(4):
        return model.branches(y, theta), y

"""What a method may see of a task: the prior, and those capabilities of the simulator that it declared it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .contracts import Differentiable, HasDynamics, HasLikelihood, HasNoise, HasReference, Posterior, Simulator
from .records import Need, Parameter, Simulations, Task

CAPABILITY: Mapping[Need, type] = {
    Need.LOG_LIKELIHOOD: HasLikelihood,
    Need.NOISE: HasNoise,
    Need.DIFFERENTIABLE: Differentiable,
    Need.DYNAMICS: HasDynamics,
}
"""The class a simulator must derive from to meet a need."""

MET_BY_ALL = frozenset({Need.SIMULATE, Need.OBSERVATION, Need.POSTERIOR})
"""Needs that every task meets: a posterior to start from is no matter of the task, whoever runs the method names it."""


class BudgetExceeded(RuntimeError):
    """A method asked for more simulations than the budget of its job."""


class Ungranted(PermissionError):
    """A method used a capability that it did not declare in its ``MethodSpec.needs``."""


def unmet(needs: frozenset[Need], task: Task) -> list[str]:
    """The words of those needs that the task cannot meet, sorted; empty where the method can run."""
    met = set(MET_BY_ALL) | {need for need, capability in CAPABILITY.items() if isinstance(task.simulator, capability)}
    if isinstance(task.process, HasReference):
        met.add(Need.REFERENCE)
    if task.unlabelled:
        met.add(Need.UNLABELLED)
    if task.labels:
        met.add(Need.LABELLED)
    return sorted(need.value for need in needs - met)


def check_simulated(y: Tensor, theta: Tensor, simulator: Simulator) -> Tensor:
    """Return ``y`` with infinite rows made NaN, or raise ``ValueError`` where its shape breaks the contract."""
    spec = simulator.spec
    expected = (len(theta), *spec.y_shape)
    if not isinstance(y, Tensor) or tuple(y.shape) != expected:
        found = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise ValueError(
            f"simulator {spec.name!r} returned {found} for {len(theta)} parameter vectors; expected a tensor of shape "
            f"{expected}: one row a simulation, also for one. Check y_shape in its spec and the end of simulate()"
        )
    broken = ~torch.isfinite(y.flatten(1)).all(1)
    if broken.any():
        y = y.clone()
        y[broken] = torch.nan
    return y


class Problem:
    """The method's view of a task.

    Args:
        task: what is inferred from what.
        granted: the needs of the method; any other capability raises ``Ungranted``.
        budget: simulations that ``simulate`` may spend in all.
        observation: (*y_shape), the one measurement that the method is fitted for, where it is fitted for one.
        unlabelled: (N, *y_shape), measurements of the process behind the test set, where the task gives such.
        labelled: the same with the parameters behind them.
        posterior: of another method, fitted, that the method starts from.
    """

    def __init__(
        self,
        task: Task,
        granted: frozenset[Need] = frozenset(),
        budget: int = 0,
        observation: Tensor | None = None,
        unlabelled: Tensor | None = None,
        labelled: Simulations | None = None,
        posterior: Posterior | None = None,
    ) -> None:
        self._simulator, self._process = task.simulator, task.process
        self._unlabelled, self._labelled, self._posterior = unlabelled, labelled, posterior
        self._granted = granted
        self._budget = budget
        self._observation = observation
        self.calls = 0
        self.invalid = 0

    @property
    def prior(self) -> Distribution:
        """p(theta), with batch_shape () and event_shape (D,)."""
        return self._simulator.prior()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """One record a column of theta."""
        return self._simulator.spec.parameters

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of one measurement."""
        return self._simulator.spec.y_shape

    @property
    def noise_dim(self) -> int:
        """Number of noise variables of one simulation. Needs NOISE."""
        return self._capable(Need.NOISE, HasNoise).noise_dim

    @property
    def budget(self) -> int:
        """Simulations that ``simulate`` may spend in all; a method fitted for one measurement is given no others."""
        return self._budget

    @property
    def observation(self) -> Tensor:
        """(*y_shape), the one measurement whose posterior is asked for, and no other. Needs OBSERVATION."""
        self._require(Need.OBSERVATION)
        if self._observation is None:
            raise ValueError("this problem has no measurement of its own; it is given by Problem(observation=...)")
        return self._observation

    @property
    def dynamics(self) -> HasDynamics:
        """The known physics as a differential equation. Needs DYNAMICS."""
        return self._capable(Need.DYNAMICS, HasDynamics)

    @property
    def unlabelled(self) -> Tensor:
        """(N, *y_shape), measurements of the process behind the test set, apart from it. Needs UNLABELLED."""
        self._require(Need.UNLABELLED)
        if self._unlabelled is None:
            raise ValueError("this problem has no unlabelled measurements; they are given by Problem(unlabelled=...)")
        return self._unlabelled

    @property
    def labelled(self) -> Simulations:
        """Parameters and measurements of the process behind the test set, apart from it. Needs LABELLED."""
        self._require(Need.LABELLED)
        if self._labelled is None:
            raise ValueError("this problem has no labelled measurements; they are given by Problem(labelled=...)")
        return self._labelled

    @property
    def posterior(self) -> Posterior:
        """The fitted posterior of another method, to start from; in ``restore`` too. Needs POSTERIOR."""
        self._require(Need.POSTERIOR)
        if self._posterior is None:
            raise ValueError("this problem has no posterior to start from; it is given by Problem(posterior=...)")
        return self._posterior

    def simulate(self, theta: Tensor) -> Tensor:
        """Measurements (N, *y_shape) for theta (N, D), counted against the budget. Needs SIMULATE.

        Raises:
            BudgetExceeded: where the budget does not cover N more simulations; none is run then.
        """
        self._require(Need.SIMULATE)
        if self.calls + len(theta) > self._budget:
            raise BudgetExceeded(
                f"{self.calls} of {self._budget} simulations are spent and {len(theta)} more were asked for"
            )
        self.calls += len(theta)
        y = check_simulated(self._simulator.simulate(theta), theta, self._simulator)
        self.invalid += int((~torch.isfinite(y.flatten(1)).all(1)).sum())
        return y

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Measurements as a deterministic function of theta (N, D) and noise (N, noise_dim). Needs NOISE."""
        return self._capable(Need.NOISE, HasNoise).simulate_from(theta, noise)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, D) and y (N, *y_shape). Needs LOG_LIKELIHOOD."""
        return self._capable(Need.LOG_LIKELIHOOD, HasLikelihood).log_likelihood(theta, y)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Exact draws (n, B, D). Needs REFERENCE, which no method that competes may declare."""
        self._require(Need.REFERENCE)
        if not isinstance(self._process, HasReference):
            raise Ungranted(f"simulator {self._process.spec.name!r} does not offer {Need.REFERENCE.value!r}")
        return self._process.sample_reference(y, n)

    def _require(self, need: Need) -> None:
        if need not in self._granted:
            raise Ungranted(f"the method used {need.value!r} and does not declare Need.{need.name} in its spec.needs")

    def _capable(self, need: Need, capability: type) -> Any:
        """The simulator, known to have the capability."""
        self._require(need)
        if not isinstance(self._simulator, capability):
            raise Ungranted(f"simulator {self._simulator.spec.name!r} does not offer {need.value!r}")
        return self._simulator

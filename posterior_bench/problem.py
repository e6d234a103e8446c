"""What a method may see of a task: the prior, and those capabilities of the simulator that it declared it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .contracts import Differentiable, HasLikelihood, HasNoise, HasReference, Simulator
from .records import Need, Parameter, Task

CAPABILITY: Mapping[Need, type] = {
    Need.LOG_LIKELIHOOD: HasLikelihood,
    Need.NOISE: HasNoise,
    Need.DIFFERENTIABLE: Differentiable,
    Need.REFERENCE: HasReference,
}
"""The class a simulator must derive from to meet a need; SIMULATE is met by every simulator."""


class BudgetExceeded(RuntimeError):
    """A method asked for more simulations than the budget of its job."""


class Ungranted(PermissionError):
    """A method used a capability that it did not declare in its ``MethodSpec.needs``."""


def unmet(needs: frozenset[Need], simulator: Simulator) -> list[str]:
    """The words of those needs that the simulator cannot meet, sorted; empty where the method can run."""
    missing = []
    for need in needs:
        if need is Need.SIMULATE:
            continue
        capability = CAPABILITY.get(need)
        if capability is None or not isinstance(simulator, capability):
            missing.append(need.value)
    return sorted(missing)


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
    """

    def __init__(self, task: Task, granted: frozenset[Need] = frozenset(), budget: int = 0) -> None:
        self._simulator = task.simulator
        self._granted = granted
        self._budget = budget
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
        return self._capable(Need.REFERENCE, HasReference).sample_reference(y, n)

    def _require(self, need: Need) -> None:
        if need not in self._granted:
            raise Ungranted(f"the method used {need.value!r} and does not declare Need.{need.name} in its spec.needs")

    def _capable(self, need: Need, capability: type) -> Any:
        """The simulator, known to have the capability."""
        self._require(need)
        if not isinstance(self._simulator, capability):
            raise Ungranted(f"simulator {self._simulator.spec.name!r} does not offer {need.value!r}")
        return self._simulator

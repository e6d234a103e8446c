"""The two anchors of every comparison: what is known without the measurement, and all that can be known with it.

    prior:      q(theta | y) = p(theta)      the worst honest answer: calibrated, and of no skill
    reference:  q(theta | y) = p(theta | y)  the best answer, for simulators whose posterior can be sampled exactly

An exact posterior with a defect is no anchor: it is a control, see ``controls.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from posterior_bench import HasLogProb, Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.priors import in_support


class PriorPosterior(Posterior, HasLogProb):
    """p(theta), whatever the measurement."""

    def __init__(self, prior: Distribution) -> None:
        self.prior = prior
        self._inside = prior.sample()

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Independent draws (n, B, D) of the prior for measurements y (B, *y_shape)."""
        return self.prior.sample((n, len(y)))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(theta), (n, B), in nats, for theta (n, B, D); -inf outside the support, where the truth may lie."""
        inside = in_support(self.prior, theta)
        safe = torch.where(inside.unsqueeze(-1), theta, self._inside.to(theta))
        return torch.where(inside, self.prior.log_prob(safe), -math.inf)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Nothing: the problem holds the prior."""
        return {}, {}


@dataclass(frozen=True)
class Prior(Method):
    """Ignores simulations and measurements alike."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="prior", version=1, reference="", space="native", trains=False, label="Prior"
    )

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> PriorPosterior:
        """The prior of the problem."""
        return PriorPosterior(problem.prior)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> PriorPosterior:
        """The prior of the problem."""
        return PriorPosterior(problem.prior)


class ReferencePosterior(Posterior):
    """Exact draws of the problem.

    Args:
        problem: a problem that grants REFERENCE.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        return self.problem.sample_reference(y, n)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Nothing: the problem holds the draws."""
        return {}, {}


@dataclass(frozen=True)
class Reference(Method):
    """The exact posterior of the simulator."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="reference",
        version=1,
        reference="",
        needs=frozenset({Need.REFERENCE}),
        space="native",
        trains=False,
        label="Exact reference",
    )

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> ReferencePosterior:
        """The exact posterior of the problem."""
        return ReferencePosterior(problem)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> ReferencePosterior:
        """The exact posterior of the problem."""
        return ReferencePosterior(problem)

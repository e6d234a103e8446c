"""The two anchors of every comparison: what is known without the measurement, and all that can be known with it.

    prior:      q(theta | y) = p(theta)      the worst honest answer: calibrated, and of no skill
    reference:  q(theta | y) = p(theta | y)  the best answer, for simulators whose posterior can be sampled exactly

A scaled or shifted reference is no method: it is a control, which a score must catch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution

from posterior_bench import HasLogProb, Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations

PRIOR_DRAWS = 20_000
"""Draws that give the prior's standard deviation to 0.5 % (its relative standard error is 1 / sqrt(2 n))."""

MEAN_DRAWS = 200
"""Draws of a measurement whose mean a control is scaled about; it is off by 7 % of their standard deviation."""


class PriorPosterior(Posterior, HasLogProb):
    """p(theta), whatever the measurement."""

    def __init__(self, prior: Distribution) -> None:
        self.prior = prior

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Independent draws (n, B, D) of the prior for measurements y (B, *y_shape)."""
        return self.prior.sample((n, len(y)))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(theta), (n, B), in nats, for theta (n, B, D)."""
        return self.prior.log_prob(theta)

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
    """Exact draws of the problem, each scaled about the mean of its measurement's draws and shifted.

    Args:
        problem: a problem that grants REFERENCE.
        scale: 1 leaves the spread as it is.
        shift: (D,), added to every draw, in the parameters' units.
    """

    def __init__(self, problem: Problem, scale: float, shift: Tensor) -> None:
        self.problem = problem
        self.scale = scale
        self.shift = shift

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape). The mean is that of at least ``MEAN_DRAWS`` draws."""
        if self.scale == 1.0:
            draws = self.problem.sample_reference(y, n)
        else:
            draws = self.problem.sample_reference(y, max(n, MEAN_DRAWS))
            mean = draws.mean(0, keepdim=True)
            draws = (mean + self.scale * (draws - mean))[:n]
        return draws + self.shift.to(draws) if self.shift.any() else draws

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The shift as a tensor, the scale as a setting; the problem holds the draws."""
        return {"shift": self.shift}, {"scale": self.scale}


@dataclass(frozen=True)
class Reference(Method):
    """The exact posterior of the simulator, or a deliberately wrong one.

    Args:
        scale: factor on the spread: below 1 over-confident, above 1 under-confident.
        shift: bias of every parameter, in standard deviations of the prior.
    """

    scale: float = 1.0
    shift: float = 0.0

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
        """The exact posterior; draws of the prior give the unit of the shift."""
        draws = problem.prior.sample((PRIOR_DRAWS,))
        return ReferencePosterior(problem, self.scale, self.shift * draws.std(0))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> ReferencePosterior:
        """The exact posterior, scaled and shifted as before."""
        return ReferencePosterior(problem, settings["scale"], tensors["shift"])

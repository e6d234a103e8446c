"""Controls: exact posteriors made wrong on purpose and by a known amount, which a score ought to catch.

    shrunk, widened:  theta -> m + s (theta - m)    s < 1 is over-confident, s > 1 under-confident
    shifted:          theta -> theta + s sd         biased by the share s of the posterior's standard deviation
    permuted:         theta ~ p(theta | y'),        y' the measurement before it in the batch

m and sd (B, D) are mean and standard deviation of the exact draws of each measurement and parameter. A control is no
method and competes with none: a report shows by it which score flags which defect. None has a density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution

from posterior_bench import Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations

MOMENT_DRAWS = 200
"""Draws of a measurement, at least, for its mean and standard deviation: these are off by 7 % and 5 % of the latter."""

STRENGTHS = MappingProxyType({"shrunk": 0.8, "widened": 1.25, "shifted": 0.25, "permuted": 1.0})
"""The kinds of controls and their default strengths: a fifth too narrow or too wide, a quarter of a standard
deviation. A permuted one has no strength; 1 says that all of it is permuted."""

Sampler = Callable[[Tensor, int], Tensor]
"""Draws (n, B, D) for measurements y (B, *y_shape) and n: the ``sample`` of a posterior."""


@dataclass(frozen=True, eq=False)
class Scaled(Posterior):
    """Draws shrunk (factor < 1) or widened (factor > 1) about their mean for each measurement and parameter.

    Args:
        draw: the ``sample`` of the posterior that is scaled.
        factor: on the spread.
    """

    draw: Sampler
    factor: float

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        draws = self.draw(y, max(n, MOMENT_DRAWS))
        centre = draws.mean(0)
        return centre + self.factor * (draws[:n] - centre)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The kind and the factor; the problem holds the draws."""
        return {}, {"kind": "shrunk" if self.factor < 1 else "widened", "strength": self.factor}


@dataclass(frozen=True, eq=False)
class Shifted(Posterior):
    """Draws moved up by a share of their standard deviation for each measurement and parameter.

    Args:
        draw: the ``sample`` of the posterior that is shifted.
        share: of the standard deviation; a negative one moves them down.
    """

    draw: Sampler
    share: float

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        draws = self.draw(y, max(n, MOMENT_DRAWS))
        return draws[:n] + self.share * draws.std(0)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The kind and the share; the problem holds the draws."""
        return {}, {"kind": "shifted", "strength": self.share}


@dataclass(frozen=True, eq=False)
class Permuted(Posterior):
    """Draws for the measurement before it in the batch, cyclically: each is answered with another's posterior.

    A measurement alone has no other beside it. It is answered with the prior, which is the mean of the posteriors of
    all other measurements: the integral of p(theta | y') p(y') over y'.

    Args:
        draw: the ``sample`` of the posterior that is permuted.
        prior: p(theta).
    """

    draw: Sampler
    prior: Distribution

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        return self.prior.sample((n, 1)) if len(y) == 1 else self.draw(y.roll(1, 0), n)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The kind; the problem holds draws and prior."""
        return {}, {"kind": "permuted", "strength": 1.0}


@dataclass(frozen=True)
class Control(Method):
    """The exact posterior of the simulator with a defect.

    Args:
        kind: ``"shrunk"``, ``"widened"``, ``"shifted"`` or ``"permuted"``.
        strength: how much: the factor on the spread, or the share of the posterior's standard deviation by which draws
            are moved up. By default 0.8, 1.25 and 0.25; a permuted control has none.

    Raises:
        ValueError: where the kind is unknown, or the strength is none of it.
    """

    kind: str = "shrunk"
    strength: float | None = None

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="control",
        version=1,
        reference="",
        needs=frozenset({Need.REFERENCE}),
        space="native",
        trains=False,
        label="Control",
    )

    def __post_init__(self) -> None:
        if self.kind not in STRENGTHS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {', '.join(STRENGTHS)}")
        given = STRENGTHS[self.kind] if self.strength is None else self.strength
        allowed = {"shrunk": 0 < given < 1, "widened": given > 1, "shifted": given != 0, "permuted": given == 1}
        if not (allowed[self.kind] and math.isfinite(given)):
            expected = {"shrunk": "between 0 and 1", "widened": "above 1", "shifted": "other than 0"}
            raise ValueError(
                f"strength is {given} for kind {self.kind!r}; expected {expected.get(self.kind, 'none at all')}"
            )

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """The exact posterior of the problem with the defect; nothing is learned."""
        return _made(problem, self.kind, STRENGTHS[self.kind] if self.strength is None else self.strength)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The exact posterior of the problem with the same defect."""
        return _made(problem, settings["kind"], settings["strength"])


def _made(problem: Problem, kind: str, strength: float) -> Posterior:
    if kind == "permuted":
        return Permuted(problem.sample_reference, problem.prior)
    return (Shifted if kind == "shifted" else Scaled)(problem.sample_reference, strength)

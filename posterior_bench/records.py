"""The nouns of the package as frozen records. They hold data and check it; they do nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

if TYPE_CHECKING:
    from .contracts import HasSignals, Simulator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What a name may look like: names become parts of paths, so nothing else is let in."""

SCHEMA = 1
"""Version of the layout of a row. Raise it when a field is added, removed or changes its meaning."""


def check_name(name: str, what: str) -> str:
    """Return ``name``, or raise ``ValueError`` where it could not safely be part of a path."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r} has characters a name cannot have; "
            "expected letters, digits, '_', '-' and '.', beginning with a letter or digit"
        )
    return name


@dataclass(frozen=True)
class Parameter:
    """One parameter of a simulator: its name, its unit as printed, and a LaTeX symbol for plots."""

    name: str
    unit: str = ""
    symbol: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "parameter")

    @property
    def label(self) -> str:
        """The axis label: symbol (or name) and unit."""
        head = f"${self.symbol}$" if self.symbol else self.name
        return f"{head} [{self.unit}]" if self.unit else head


@dataclass(frozen=True)
class Spec:
    """What a simulator is: identity, parameters and the shape of a measurement."""

    name: str
    version: int
    reference: str
    parameters: tuple[Parameter, ...]
    y_shape: tuple[int, ...]
    y_names: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "simulator")
        if len({p.name for p in self.parameters}) != len(self.parameters):
            raise ValueError(f"simulator {self.name!r} names a parameter twice: {self.names}")
        size = torch.Size(self.y_shape).numel()
        if self.y_names and len(self.y_names) != size:
            raise ValueError(
                f"simulator {self.name!r} has {size} numbers in a measurement (y_shape {self.y_shape}) "
                f"and {len(self.y_names)} y_names; give one name a number, or none"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in the order of theta's columns."""
        return tuple(p.name for p in self.parameters)


class Need(Enum):
    """What a method asks of a problem beyond a prior and simulations."""

    LOG_LIKELIHOOD = "log_likelihood"
    NOISE = "noise"
    DIFFERENTIABLE = "differentiable"
    SIMULATE = "simulate"
    OBSERVATION = "observation"
    UNLABELLED = "unlabelled"
    LABELLED = "labelled"
    DYNAMICS = "dynamics"
    POSTERIOR = "posterior"  # the fitted posterior of another method, which a suite's entry names
    REFERENCE = "reference"  # exact draws: for the anchor of a suite alone, never for a method that competes


@dataclass(frozen=True)
class MethodSpec:
    """What a method is.

    Args:
        name: id, as written in suites and rows.
        version: raised whenever the same settings could give other numbers.
        reference: where the method was published.
        needs: what it asks of a problem.
        space: ``"unbounded"`` where it works on theta mapped to the reals, ``"native"`` where it is left alone.
        trains: whether the outcome depends on simulations; an anchor that does not is one job a task.
        label: the name printed in tables and legends.
    """

    name: str
    version: int
    reference: str
    needs: frozenset[Need] = frozenset()
    space: Literal["native", "unbounded"] = "unbounded"
    trains: bool = True
    label: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "method")


@dataclass(frozen=True)
class Task:
    """What is inferred from what: the simulator to train on and where the measurements come from.

    ``reality`` is the process behind the test measurements; ``None`` means the simulator itself. ``unlabelled``
    measurements of it are given to methods that learn from such, and ``labels`` pairs with their parameters.
    """

    name: str
    simulator: Simulator
    reality: Simulator | None = None
    version: int = 1
    unlabelled: int = 0
    labels: int = 0

    def __post_init__(self) -> None:
        check_name(self.name, "task")

    @property
    def process(self) -> Simulator:
        """The process that makes the measurements."""
        return self.simulator if self.reality is None else self.reality


@dataclass(frozen=True)
class Simulations:
    """Pairs (theta, y) to learn from. A failed row is all NaN in ``y`` and False in ``valid``.

    Args:
        theta: (N, D).
        y: (N, *y_shape).
        noise: (N, noise_dim) where the simulator has explicit noise and the method needs it, else ``None``.
    """

    theta: Tensor
    y: Tensor
    noise: Tensor | None = None
    valid: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if len(self.theta) != len(self.y):
            raise ValueError(f"theta has {len(self.theta)} rows and y has {len(self.y)}; expected the same number")
        object.__setattr__(self, "valid", torch.isfinite(self.y.flatten(1)).all(1))

    def __len__(self) -> int:
        return len(self.theta)

    @property
    def invalid(self) -> int:
        """Number of failed simulations."""
        return int((~self.valid).sum())

    def only_valid(self) -> Simulations:
        """The simulations without the failed ones."""
        if self.invalid == 0:
            return self
        noise = None if self.noise is None else self.noise[self.valid]
        return Simulations(self.theta[self.valid], self.y[self.valid], noise)


@dataclass(frozen=True, eq=False)
class Draws:
    """Posterior draws ``theta`` (n, T, D) for T measurements, and what metrics share about them.

    Where the posterior has a density, ``log_density`` gives log q(theta | y_j), (k, R), at theta (k, R, D) for the
    first R <= T measurements; gradients flow through it. ``cache`` keeps what several metrics need once computed
    (ranks, MAP estimates). ``dense`` (m, S, D) are many more draws for the first S measurements, for scores that ask
    for thousands. ``signals`` is the posterior itself where it says what would be measured.
    """

    theta: Tensor
    log_density: Callable[[Tensor], Tensor] | None = None
    cache: dict[str, Tensor] = field(default_factory=dict, repr=False)
    dense: Tensor | None = None
    signals: HasSignals | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What the draws are scored against.

    Args:
        theta: (T, D), the parameters behind each measurement.
        y: (T, *y_shape), the measurements.
        prior: p(theta).
        prior_draws: (P, D), draws of the prior, the same for every method.
        parameters: one record a column of theta.
        simulate: (N, D) -> (N, *y_shape), the process behind the measurements.
        reference: (n, R, D), exact draws for the first R measurements, or ``None``.
        reference_log_prob: (R,), log p(theta* | y*) of the first R measurements, in nats, or ``None``.
        dense_reference: (m, S, D), many more exact draws for the first S measurements, or ``None``.
        log_likelihood: (N, D), (N, *y_shape) -> (N,), log p(y | theta) in nats, where the simulator has one.
        landmarks: (L, D), points of parameter space that the simulator names, such as modes, or ``None``.
        y_sd: (*y_shape), standard deviation of the measurements over the whole test set, where ``y`` is a part of it;
            else ``None``.
        signal: (T, D), steps -> (T, *y_shape with ``steps`` times last), the signals without noise of the process
            behind the measurements had their parameters been these, nuisances and initial states being their own; or
            ``None``.
    """

    theta: Tensor
    y: Tensor
    prior: Distribution
    prior_draws: Tensor
    parameters: tuple[Parameter, ...]
    simulate: Callable[[Tensor], Tensor]
    reference: Tensor | None = None
    reference_log_prob: Tensor | None = None
    dense_reference: Tensor | None = None
    log_likelihood: Callable[[Tensor, Tensor], Tensor] | None = None
    landmarks: Tensor | None = None
    y_sd: Tensor | None = None
    signal: Callable[[Tensor, int], Tensor] | None = None

    @property
    def prior_sd(self) -> Tensor:
        """(D,), standard deviation of the prior, estimated from ``prior_draws``."""
        return self.prior_draws.std(0)


@dataclass(frozen=True, eq=False)
class Score:
    """One number of a metric.

    Args:
        metric: its id; a per-parameter score is ``metric/parameter``.
        value: the number.
        std_error: standard error over the test set, or ``None``.
        null_low, null_high: the central 95 % of what an exact posterior would score here (the metric's docstring says
            where the band is another), or ``None`` where there is no such band.
        observation: index of the measurement, or ``None`` for a score over the whole test set.
        per_measurement: (T,), the score of each measurement, kept for paired comparisons. Their mean is the value, or
            its square where the score is a root mean square.
        artefacts: further tensors that figures need.
    """

    metric: str
    value: float
    std_error: float | None = None
    null_low: float | None = None
    null_high: float | None = None
    observation: int | None = None
    per_measurement: Tensor | None = None
    artefacts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One number of a report with all it takes to place it. Written as one JSON line."""

    job: str
    task: str
    simulator: str
    simulator_version: int
    method: str
    method_version: int
    options: Mapping[str, object]
    budget: int
    repetition: int
    test_set: str
    n_labels: int | None
    observation: int | None
    metric: str | None
    metric_version: int | None
    value: float | None
    std_error: float | None
    null_low: float | None
    null_high: float | None
    status: Literal["ok", "skipped", "failed"]
    reason: str
    calls: int
    invalid: int
    schema: int = SCHEMA

"""The outcome of a suite in memory: all that a report is made of, and nothing that must be computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..records import Parameter, Row

KEPT_MEASUREMENTS = 8
"""Measurements whose draws an artefact keeps."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """The tensors that a job leaves for figures and paired statistics.

    Args:
        draws: (n, 8, D), posterior draws of the first measurements of the test set.
        truth: (8, D), the parameters behind them.
        y: (8, *y_shape), the measurements.
        prior: (P, D), draws of the prior.
        per_measurement: metric id -> (T,), for paired comparisons.
        extra: ``metric id/name`` -> tensor, such as ``calibration_error/sO2/curve``.
        history: name -> curve of the training, see ``posterior_bench.training.train``.
    """

    draws: Tensor
    truth: Tensor
    y: Tensor
    prior: Tensor
    per_measurement: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    history: Mapping[str, Tensor] = field(default_factory=dict)


LATENT_VERSION = 1
"""Version of what ``Latent`` holds: raised, the records of all jobs are made again by the next run."""


@dataclass(frozen=True, eq=False)
class Latent:
    """What the latent vector z (K,) of a posterior does to the parameters; see ``latent.py`` for the formulas.

    Args:
        places: (P,), places of the measurements of ``planes`` among those of the artefact.
        coordinates: (2,), the latent coordinates that span the planes, counted from 0; empty where K = 1.
        planes: (P, S, S, D), theta in its own units on a grid over [-3, 3]^2, all other coordinates 0. The second
            coordinate rises along axis 1, the first along axis 2. Empty where K = 1.
        effect: (K, D), root mean square change of theta_d when z_k alone is drawn anew, in sd of the prior.
        spread: (D,), root mean square over measurements of the sd of theta_d, in sd of the prior.
    """

    places: Tensor
    coordinates: Tensor
    planes: Tensor
    effect: Tensor
    spread: Tensor

    @property
    def total_effect(self) -> Tensor:
        """The total-effect indices (K, D), effect^2 / (2 spread^2); NaN for a parameter that does not vary."""
        return self.effect.square() / (2 * self.spread.square())

    @property
    def order(self) -> Tensor:
        """The latent coordinates (K,) by their mean total-effect index, the largest first."""
        return self.total_effect.nan_to_num(0.0).mean(1).argsort(descending=True, stable=True)


@dataclass(frozen=True, eq=False)
class Cost:
    """What a job took. It stands beside the rows, which must not change when a job is repeated."""

    fit_seconds: float | None = None
    draws_per_second: float | None = None
    score_seconds: float | None = None
    peak_memory_mb: float | None = None
    parameters: int | None = None
    device: str = "cpu"
    threads: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class JobResult:
    """A job's rows, and its artefact and cost where it succeeded. All rows of a job share their identity fields.

    ``method`` is the key of ``Results.labels``: the method's id, or the name that the suite gave this entry.
    ``latent`` is there where the posterior has a latent vector, ``latent_problem`` says why it is missing all the same.
    ``measurements`` is the number that was scored, ``None`` where it is not told; it may be less than the suite's.
    Where ``one_fit_each``, each of them had a fit of its own, and the rows hold means over them.
    """

    job: str
    rows: tuple[Row, ...]
    command: str
    artefact: Artefact | None = None
    cost: Cost | None = None
    method: str = ""
    latent: Latent | None = None
    latent_problem: str = ""
    measurements: int | None = None
    one_fit_each: bool = False

    def __post_init__(self) -> None:
        if not self.method:
            object.__setattr__(self, "method", self.rows[0].method)

    @property
    def status(self) -> str:
        """``ok``, ``skipped`` or ``failed``."""
        return self.rows[0].status


@dataclass(frozen=True)
class Undone:
    """A cell of the suite that was not run, or not to its end: its task, the label of its method, its budget."""

    task: str
    label: str
    budget: int


@dataclass(frozen=True, eq=False)
class TaskInfo:
    """What a report prints of a task.

    ``simulator`` is the reference by which the registry builds it. ``engine`` is the record of the reference engine,
    see ``posterior_bench.reference``, empty where the exact draws are the simulator's own: whether they are
    ``accepted``, and ``how`` they were found. ``reality`` names the process behind
    the measurements where it is another one, with its options; ``test_set`` the file that they were given as, where
    they are not simulated. ``measurements`` is T, 0 where it is that of the ``Results``.
    """

    name: str
    version: int
    simulator: str
    options: Mapping[str, object]
    description: str
    reference: str
    parameters: tuple[Parameter, ...]
    y_names: tuple[str, ...]
    invalid_fraction: float = 0.0
    engine: Mapping[str, object] = field(default_factory=dict)
    reality: str = ""
    test_set: str = ""
    measurements: int = 0


@dataclass(frozen=True)
class PublishedTable:
    """A table from the literature that a report prints beside its own.

    Args:
        task: whose results stand beside it.
        title: what it shows.
        source: citation.
        note: what can be compared and what cannot.
        columns: heading of each column.
        metrics: our metric of each column, ``None`` where there is none.
        rows: (label as published, our method's key in ``Results.labels`` or ``None``, the cells as published).
        budget: whose results it is compared with; ``None`` for each of the task's.
    """

    task: str
    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    metrics: tuple[str | None, ...]
    rows: tuple[tuple[str, str | None, tuple[str, ...]], ...]
    budget: int | None = None


@dataclass(frozen=True, eq=False)
class Results:
    """Everything of one suite.

    Args:
        suite: its name.
        title, description: as its file says.
        measurements: T.
        draws: n.
        tasks: one record a task, in the suite's order.
        labels: ``JobResult.method`` -> name to print, in the suite's order.
        jobs: one a cell, also the skipped and failed ones, in the suite's order.
        command: the command that makes all of it.
        environment: name -> version of what it ran on.
        published: tables from the literature.
        remarks: what the authors of the suite say of its outcome, Markdown paragraphs.
        undone: cells of the suite that were not run.
    """

    suite: str
    title: str
    description: str
    measurements: int
    draws: int
    tasks: tuple[TaskInfo, ...]
    labels: Mapping[str, str]
    jobs: tuple[JobResult, ...]
    command: str
    environment: Mapping[str, str] = field(default_factory=dict)
    published: tuple[PublishedTable, ...] = ()
    remarks: str = ""
    undone: tuple[Undone, ...] = ()

"""A job: one cell of a suite, or one measurement of it, with all that determines its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import registry
from ..contracts import Method, Simulator
from ..records import Task
from .given import GivenTestSet

CHUNK = 2500
"""Simulations a file. Part of their address: chunk i of a larger budget is chunk i of a smaller one."""


@dataclass(frozen=True)
class Job:
    """One cell of a suite. Plain data, so that it can travel to another process.

    ``fit`` is the address of the fitted state, ``id`` that of the rows; both are hashes of all that determines them:
    names, versions, options, the source of the plug-ins, budget, repetition; and, for the rows, T, n and the metrics.
    Jobs that differ only by their observation share the ``group`` that their ids begin with; else it is the id.

    ``measurements`` is the size of the test set as it is stored, ``first`` how many of it are scored, where not all;
    ``engine`` the version of what finds the reference, by ``recipe``, empty where the simulator has its own. ``given``
    is the file of the test set, where it is not simulated.

    ``fitted_as`` is the job of another task whose fit this one scores, where the fit is not of its own task; ``base``
    the job whose posterior its method starts from. ``labels_at_most`` is the method's own limit on ``labels``.
    """

    id: str
    fit: str
    suite: str
    task: str
    task_version: int
    source: str
    source_options: Mapping[str, Any]
    reality: tuple[str, Mapping[str, Any]] | None
    simulator: str
    simulator_version: int
    method_source: str
    method: str
    method_version: int
    options: Mapping[str, Any]
    label: str
    budget: int
    repetition: int
    measurements: int
    draws: int
    reference_measurements: int
    reference_draws: int
    simulations: str
    test_set: str
    has_reference: bool
    missing: tuple[str, ...]
    timeout_seconds: float
    seconds: float | None
    milliseconds: float | None
    first: int | None = None
    dense_measurements: int = 0
    dense_draws: int = 0
    observation: int | None = None
    sequential: bool = False
    engine: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    given: GivenTestSet | None = None
    unlabelled: int = 0
    labels: int = 0
    labelled: bool = False
    labels_at_most: int | None = None
    fitted_as: Job | None = None
    base: Job | None = None

    @property
    def learner(self) -> Job:
        """The job by which its posterior is fitted: itself, or that of another task."""
        return self if self.fitted_as is None else self.fitted_as

    @property
    def stream(self) -> int:
        """The repetition whose simulations it learns from: a method that starts from another's posterior, as that."""
        return self.repetition if self.base is None else self.base.stream

    @property
    def n_labels(self) -> int | None:
        """Number of labelled measurements that the method learns from, ``None`` where it asks for none."""
        if not self.labelled:
            return None
        return self.labels if self.labels_at_most is None else min(self.labels_at_most, self.labels)

    @property
    def cell(self) -> str:
        """How a person names it."""
        rest = f" budget {self.budget:,}" if self.budget else ""
        rest += f" repetition {self.repetition}" if self.repetition else ""
        rest += f" measurement {self.observation}" if self.observation is not None else ""
        return f"{self.task}/{self.label}{rest}"

    @property
    def group(self) -> str:
        """The id without the observation."""
        return self.id if self.observation is None else self.id.rpartition("-")[0]

    @property
    def chunks(self) -> int:
        """Number of files that hold the simulations it is given: a sequential method makes its own."""
        return 0 if self.sequential else -(-self.budget // CHUNK)

    @property
    def scored(self) -> slice:
        """The measurements of the test set that are scored."""
        if self.observation is not None:
            return slice(self.observation, self.observation + 1)
        return slice(0, self.measurements if self.first is None else self.first)

    @property
    def size(self) -> int:
        """T, the number of measurements that are scored."""
        return self.scored.stop - self.scored.start

    @property
    def reference_address(self) -> str:
        """Where the exact draws of its test set are stored, as many as the suite asks for; empty where there are none.

        Methods that are scored on fewer measurements share the file.
        """
        if not self.has_reference:
            return ""
        return self._reference(f"{self.reference_measurements}-{self.reference_draws}")

    @property
    def dense_address(self) -> str:
        """The same for the many exact draws of the first measurements."""
        if not self.has_reference or not self.dense_measurements:
            return ""
        return self._reference(f"dense-{self.dense_measurements}-{self.dense_draws}")

    def _reference(self, size: str) -> str:
        return f"{self.test_set}-{size}" + (f"-engine-{self.engine}" if self.engine else "")

    def build_task(self) -> Task:
        """The task, with its simulators built anew."""
        simulator: Simulator = registry.build("simulators", self.source, self.source_options)
        reality = None if self.reality is None else registry.build("simulators", *self.reality)
        return Task(self.task, simulator, reality, self.task_version, self.unlabelled, self.labels)

    def build_method(self) -> Method:
        """The method with its options."""
        method: Method = registry.build("methods", self.method_source, self.options)
        return method

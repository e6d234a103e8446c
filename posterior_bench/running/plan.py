"""What a suite comes to: its jobs, and the simulations, test sets and references that they need."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import registry
from ..contracts import HasReference, Method, Metric, Simulator
from ..problem import unmet
from ..records import SCHEMA, Task
from ..runtime import digest
from .suite import MethodEntry, Suite, SuiteError, TaskEntry

CHUNK = 2500
"""Simulations a file. Part of their address: chunk i of a larger budget is chunk i of a smaller one."""


@dataclass(frozen=True)
class Job:
    """One cell of a suite. Plain data, so that it can travel to another process.

    ``fit`` is the address of the fitted state, ``id`` that of the rows; both are hashes of all that determines them:
    names, versions, options, the source of the plug-ins, budget, repetition; and, for the rows, T, n and the metrics.
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

    @property
    def cell(self) -> str:
        """How a person names it."""
        rest = f" budget {self.budget:,}" if self.budget else ""
        return f"{self.task}/{self.label}{rest}" + (f" repetition {self.repetition}" if self.repetition else "")

    @property
    def chunks(self) -> int:
        """Number of files that hold its simulations."""
        return -(-self.budget // CHUNK)

    def build_task(self) -> Task:
        """The task, with its simulators built anew."""
        simulator: Simulator = registry.build("simulators", self.source, self.source_options)
        reality = None if self.reality is None else registry.build("simulators", *self.reality)
        return Task(self.task, simulator, reality, self.task_version)

    def build_method(self) -> Method:
        """The method with its options."""
        method: Method = registry.build("methods", self.method_source, self.options)
        return method


def plan(suite: Suite, only: Sequence[str] = ()) -> tuple[Job, ...]:
    """The jobs of a suite in its order: task, method, budget, repetition.

    Args:
        suite: what to run.
        only: patterns of ``task/method``, ``task``, ``method`` or a job's id; empty for all.

    Raises:
        SuiteError: where a plug-in is unknown or refuses its options, two entries share a name, or ``only`` fits none.
    """
    tasks = _named(suite.tasks, [_build("simulators", entry.simulator, entry.options) for entry in suite.tasks])
    methods = _named(suite.methods, [_build("methods", entry.method, entry.options) for entry in suite.methods])
    scored_by = digest(metrics())
    known = [name for name, _, _ in tasks]
    for label, entry, _ in methods:
        for name in [*(entry.tasks or ()), *entry.seconds]:
            if name not in known:
                raise SuiteError(f"methods: {label}: {registry.unknown('task', name, known)}")
    for table in suite.published:
        if table.task not in known:
            raise SuiteError(f"published: {registry.unknown('task', table.task, known)}")
    jobs = []
    for task_name, task_entry, simulator in tasks:
        for label, method_entry, method in methods:
            if method_entry.tasks is not None and task_name not in method_entry.tasks:
                continue
            trains = method.spec.trains
            for place, (budget, repetitions) in enumerate(suite.cells(task_entry) if trains else ((0, 1),)):
                seconds = method_entry.seconds_at(task_name, place)
                for repetition in range(min(repetitions, method_entry.repetitions or repetitions)):
                    jobs.append(
                        _job(
                            suite,
                            scored_by,
                            task_name,
                            task_entry,
                            simulator,
                            label,
                            method_entry,
                            method,
                            budget,
                            repetition,
                            seconds,
                        )
                    )
    chosen = tuple(job for job in jobs if not only or any(_fits(job, pattern) for pattern in only))
    if not chosen:
        cells = sorted({f"{job.task}/{job.label}" for job in jobs})
        raise SuiteError(f"no job fits {' '.join(only)}; the suite holds {', '.join(cells)}")
    return chosen


def address(plugin: Simulator | Method, source: str, options: Mapping[str, Any]) -> list[object]:
    """What identifies a plug-in with its options and its code; a JSON-like list."""
    name = source.rpartition(":")[2] if ".py:" in source else source
    full = dataclasses.asdict(plugin) if dataclasses.is_dataclass(plugin) else dict(options)
    return [name, plugin.spec.name, plugin.spec.version, full, registry.source_hash(type(plugin))]


def metrics() -> list[list[object]]:
    """The registered metrics with their versions and code: a new one is scored from the fits that are there."""
    found = []
    for name in sorted(registry.names("metrics")):
        cls: type[Metric] = registry.load("metrics", name)
        found.append([name, cls.version, registry.source_hash(cls)])
    return found


def _job(
    suite: Suite,
    scored_by: str,
    task_name: str,
    task: TaskEntry,
    simulator: Simulator,
    label: str,
    entry: MethodEntry,
    method: Method,
    budget: int,
    repetition: int,
    seconds: float | None,
) -> Job:
    where = address(simulator, task.simulator, task.options)
    process: Simulator = simulator
    reality = None
    if task.reality is not None:
        reality = (task.reality.simulator, task.reality.options)
        process = _build("simulators", *reality)
    task_version = Task.version
    simulations = digest("simulations", task_name, task_version, where, CHUNK)[:16]
    made_by = where if reality is None else address(process, *reality)
    test_set = digest("test", task_name, task_version, made_by, suite.measurements)[:16]
    how = address(method, entry.method, entry.options)
    fit = digest("fit", SCHEMA, task_name, task_version, where, how, budget, repetition)[:16]
    size = suite.measurements, suite.draws, suite.reference_measurements, suite.reference_draws
    return Job(
        id=digest("job", fit, test_set, scored_by, task.reference, *size)[:16],
        fit=fit,
        suite=suite.name,
        task=task_name,
        task_version=task_version,
        source=task.simulator,
        source_options=task.options,
        reality=reality,
        simulator=simulator.spec.name,
        simulator_version=simulator.spec.version,
        method_source=entry.method,
        method=method.spec.name,
        method_version=method.spec.version,
        options=entry.options,
        label=label,
        budget=budget,
        repetition=repetition,
        measurements=suite.measurements,
        draws=suite.draws,
        reference_measurements=min(suite.reference_measurements, suite.measurements),
        reference_draws=suite.reference_draws,
        simulations=simulations,
        test_set=test_set,
        # exact draws of the simulator's posterior say nothing about measurements of another process
        has_reference=task.reference and isinstance(process, HasReference) and reality is None,
        missing=tuple(unmet(method.spec.needs, simulator)),
        timeout_seconds=60 * suite.timeout_minutes,
        seconds=seconds,
        milliseconds=task.milliseconds,
    )


def _build(group: registry.Group, source: str, options: Mapping[str, Any]) -> Any:
    try:
        return registry.build(group, source, options)
    except registry.PluginError as error:
        raise SuiteError(f"{'tasks' if group == 'simulators' else group}: {error}") from error


def _named(entries: Iterable[Any], built: Iterable[Any]) -> list[tuple[str, Any, Any]]:
    """(name, entry, plug-in) of each entry, names being unique."""
    named = [(entry.name or plugin.spec.name, entry, plugin) for entry, plugin in zip(entries, built, strict=True)]
    seen: set[str] = set()
    for name, _, _ in named:
        if name in seen:
            raise SuiteError(f"two entries are called {name!r}; give one of them a name of its own")
        seen.add(name)
    return named


def _fits(job: Job, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for text in (f"{job.task}/{job.label}", job.task, job.label, job.id))

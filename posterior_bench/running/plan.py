"""What a suite comes to: its jobs, and the simulations, test sets and references that they need."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .. import registry
from ..contracts import HasLikelihood, HasReference, Method, Metric, Simulator
from ..problem import unmet
from ..records import SCHEMA, Need, Task
from ..runtime import digest
from .job import CHUNK, Job
from .suite import MethodEntry, Suite, SuiteError, TaskEntry

__all__ = ["CHUNK", "Job", "address", "metrics", "plan"]

OBSERVATIONS = 10
"""Measurements for which a method that is fitted for one of them is fitted, where its entry does not say: as many as
the published benchmark has (Lueckmann et al. 2021, arXiv:2101.04964)."""


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
            observations = _observations(method_entry, method, label)
            for place, (budget, repetitions) in enumerate(suite.cells(task_entry) if trains else ((0, 1),)):
                seconds = method_entry.seconds_at(task_name, place)
                for repetition in range(min(repetitions, method_entry.repetitions or repetitions)):
                    jobs += [
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
                            observation,
                        )
                        for observation in observations
                    ]
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
    observation: int | None,
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
    built = Task(task_name, simulator, process, task_version, task.unlabelled, task.labels)
    fit = digest("fit", SCHEMA, task_name, task_version, where, how, budget, repetition, *_data(built, method, made_by))
    fit = fit[:16]
    size = suite.measurements, suite.draws, suite.reference_measurements, suite.reference_draws
    more = entry.measurements, suite.dense_measurements, suite.dense_draws
    engine = _engine(task, process) if task.reference == "engine" else ""
    job = digest("job", fit, test_set, scored_by, task.reference, engine, *size, *more)[:16]
    if observation is not None:
        fit = f"{digest('fit for one measurement', fit, test_set)[:16]}-{observation:04d}"
        job = f"{job}-{observation:04d}"
    return Job(
        id=job,
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
        has_reference=bool(engine) or (bool(task.reference) and isinstance(process, HasReference)),
        missing=tuple(unmet(method.spec.needs, built)),
        timeout_seconds=60 * suite.timeout_minutes,
        seconds=seconds,
        milliseconds=task.milliseconds,
        first=entry.measurements,
        dense_measurements=suite.dense_measurements,
        dense_draws=suite.dense_draws,
        observation=observation,
        sequential=observation is not None and Need.SIMULATE in method.spec.needs,
        engine=engine,
        unlabelled=task.unlabelled,
        labels=task.labels,
        labelled=Need.LABELLED in method.spec.needs,
    )


def _data(task: Task, method: Method, made_by: list[object]) -> Iterator[object]:
    """What a fit depends on beside its simulations: the measurements of the reality that the method learns from."""
    if Need.UNLABELLED in method.spec.needs:
        yield ["unlabelled", made_by, task.unlabelled]
    if Need.LABELLED in method.spec.needs:
        yield ["labelled", made_by, task.labels]


def _observations(entry: MethodEntry, method: Method, label: str) -> Sequence[int | None]:
    """The measurements that get a job of their own; ``(None,)`` for one job on all of them."""
    one_each = Need.OBSERVATION in method.spec.needs
    wrong, right = ("measurements", "observations") if one_each else ("observations", "measurements")
    if getattr(entry, wrong) is not None:
        fitted = "for each measurement anew" if one_each else "once for all measurements"
        raise SuiteError(f"methods: {label}: {wrong} was given and the method is fitted {fitted}; give {right} instead")
    return range(entry.observations or OBSERVATIONS) if one_each else (None,)


def _engine(task: TaskEntry, process: Simulator) -> str:
    """The version of the reference engine: a hash of its source, as of a plug-in's.

    Raises:
        SuiteError: where the engine cannot work.
    """
    if task.reality is not None or not isinstance(process, HasLikelihood):
        found = f"reality {task.reality.simulator!r}" if task.reality else f"{process.spec.name!r} has no likelihood"
        raise SuiteError(
            f'tasks: {task.name or task.simulator}: reference = "engine" and {found}; expected measurements of a '
            "simulator with a log_likelihood"
        )
    folder = Path(str(files("posterior_bench"))) / "reference"
    return digest([(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))])[:8]


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
    texts = f"{job.task}/{job.label}", job.task, job.label, job.id, job.group
    return any(fnmatch.fnmatchcase(text, pattern) for text in texts)

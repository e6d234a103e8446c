"""What a suite comes to: its jobs, and the simulations, test sets and references that they need."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from .. import registry
from ..contracts import Metric
from ..problem import unmet
from ..records import SCHEMA, Need
from ..runtime import digest
from .entries import PlannedMethod, PlannedTask, address, methods_of, tasks_of
from .job import CHUNK, Job
from .suite import Suite, SuiteError

__all__ = ["CHUNK", "Job", "address", "metrics", "plan"]


def plan(suite: Suite, only: Sequence[str] = ()) -> tuple[Job, ...]:
    """The jobs of a suite in its order: task, method, budget, repetition.

    Args:
        suite: what to run.
        only: patterns of ``task/method``, ``task``, ``method`` or a job's id; empty for all.

    Raises:
        SuiteError: where a plug-in is unknown or refuses its options, two entries share a name, an entry names another
            that does not fit, or ``only`` fits none.
    """
    tasks, methods = tasks_of(suite), methods_of(suite)
    _check_names(suite, tasks, methods)
    jobs = []
    planner = _Planner(suite)
    for task in tasks:
        for method in methods:
            if not method.runs_on(task):
                continue
            for place, (_, repetitions) in enumerate(method.cells(suite, task.entry)):
                for repetition in range(repetitions):
                    cell = task, method, place, repetition
                    jobs += [planner.job(*cell, observation) for observation in planner.observations(task, method)]
    chosen = tuple(job for job in jobs if not only or any(_fits(job, pattern) for pattern in only))
    if not chosen:
        cells = sorted({f"{job.task}/{job.label}" for job in jobs})
        raise SuiteError(f"no job fits {' '.join(only)}; the suite holds {', '.join(cells)}")
    return chosen


def metrics() -> list[list[object]]:
    """The registered metrics with their versions and code: a new one is scored from the fits that are there."""
    found = []
    for name in sorted(registry.names("metrics")):
        cls: type[Metric] = registry.load("metrics", name)
        found.append([name, cls.version, registry.source_hash(cls)])
    return found


class _Planner:
    """Makes the jobs of a suite."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.scored_by = digest(metrics())

    def observations(self, task: PlannedTask, method: PlannedMethod) -> list[int | None]:
        """The measurements that get a job of their own, of those that there are; ``[None]`` for one job on all."""
        size = task.at_most(self.suite.measurements)
        return [place for place in method.observations if place is None or place < size]

    def job(
        self, task: PlannedTask, method: PlannedMethod, place: int, repetition: int, observation: int | None = None
    ) -> Job:
        """The job of one repetition at budget number ``place``, of one measurement where one is given."""
        suite, entry, spec = self.suite, task.entry, method.method.spec
        budget, _ = method.cells(suite, entry)[place]
        fitted_as = base = None
        if task.fit_of is not None and method.trains:
            fitted_as = self.job(task.fit_of, method, place, repetition)
        elif method.base is not None:
            _, repetitions = method.base.cells(suite, entry)[place]
            base = self.job(task, method.base, place, repetition % repetitions)
        size, first = task.at_most(suite.measurements), method.entry.measurements
        content = () if task.given is None else (task.given.content,)
        test_set = digest("test", task.name, task.task.version, task.made_by, size, *content)[:16]
        fit = fitted_as.fit if fitted_as is not None else _fit(task, method, budget, repetition, base)
        job = self._scored(task, method, fit, test_set)
        if observation is not None:
            fit = f"{digest('fit for one measurement', fit, test_set)[:16]}-{observation:04d}"
            job = f"{job}-{observation:04d}"
        reality = None if entry.reality is None else (entry.reality.simulator, entry.reality.options)
        simulator = task.task.simulator.spec
        return Job(
            id=job,
            fit=fit,
            suite=suite.name,
            task=task.name,
            task_version=task.task.version,
            source=entry.simulator,
            source_options=entry.options,
            reality=reality,
            simulator=simulator.name,
            simulator_version=simulator.version,
            method_source=method.entry.method,
            method=spec.name,
            method_version=spec.version,
            options=method.entry.options,
            label=method.label,
            budget=budget,
            repetition=repetition,
            measurements=size,
            draws=suite.draws,
            reference_measurements=min(suite.reference_measurements, size),
            reference_draws=suite.reference_draws,
            simulations=_simulations(task) if fitted_as is None else fitted_as.simulations,
            test_set=test_set,
            has_reference=task.has_reference,
            missing=_missing(task, method, fitted_as, base),
            timeout_seconds=60 * suite.timeout_minutes,
            seconds=_seconds(task, method, place),
            milliseconds=entry.milliseconds,
            first=None if first is None else task.at_most(first),
            dense_measurements=self._dense(task),
            dense_draws=suite.dense_draws,
            observation=observation,
            sequential=observation is not None and Need.SIMULATE in method.needs,
            engine=task.engine,
            recipe=entry.recipe,
            given=task.given,
            unlabelled=entry.unlabelled,
            labels=entry.labels,
            labelled=Need.LABELLED in method.needs,
            labels_at_most=method.labels_at_most,
            fitted_as=fitted_as,
            base=base,
        )

    def _dense(self, task: PlannedTask) -> int:
        """The number of measurements that get many draws."""
        own = task.entry.dense_measurements
        return task.at_most(self.suite.dense_measurements if own is None else own)

    def _scored(self, task: PlannedTask, method: PlannedMethod, fit: str, test_set: str) -> str:
        """The address of the rows: all that determines them beside the fit and the test set."""
        suite = self.suite
        asked = task.at_most(suite.measurements), task.at_most(suite.reference_measurements)
        size = asked[0], suite.draws, asked[1], suite.reference_draws
        more = method.entry.measurements, self._dense(task), suite.dense_draws
        found = digest("job", fit, test_set, self.scored_by, task.entry.reference, task.engine, *size, *more)
        return found[:16]


def _fit(task: PlannedTask, method: PlannedMethod, budget: int, repetition: int, base: Job | None) -> str:
    """The address of a fit: all that determines the fitted state."""
    what = task.name, task.task.version, task.where, method.how, budget, repetition
    return digest("fit", SCHEMA, *what, *_data(task, method, base))[:16]


def _data(task: PlannedTask, method: PlannedMethod, base: Job | None) -> Iterator[object]:
    """What a fit depends on beside its simulations: the measurements and the posterior that the method learns from."""
    if Need.UNLABELLED in method.needs:
        yield ["unlabelled", task.made_by, task.entry.unlabelled]
    if Need.LABELLED in method.needs:
        yield ["labelled", task.made_by, task.entry.labels]
    if base is not None:
        yield ["posterior", base.fit]


def _simulations(task: PlannedTask) -> str:
    """The address of the simulations of a task."""
    return digest("simulations", task.name, task.task.version, task.where, CHUNK)[:16]


def _missing(task: PlannedTask, method: PlannedMethod, fitted_as: Job | None, base: Job | None) -> tuple[str, ...]:
    """The words of what the method needs, or what it starts from, and the task cannot give."""
    if fitted_as is not None:
        return fitted_as.missing
    return tuple(sorted({*unmet(method.needs, task.task), *(base.missing if base is not None else ())}))


def _seconds(task: PlannedTask, method: PlannedMethod, place: int) -> float | None:
    """Seconds of a job as far as the suite's file tells; those of the task whose fits it takes, where not its own."""
    found = method.entry.seconds_at(task.name, place)
    if found is None and task.fit_of is not None:
        return method.entry.seconds_at(task.fit_of.name, place)
    return found


def _check_names(suite: Suite, tasks: Sequence[PlannedTask], methods: Sequence[PlannedMethod]) -> None:
    """Raise ``SuiteError`` where an entry names a task that there is not."""
    known = [task.name for task in tasks]
    for method in methods:
        for name in [*(method.entry.tasks or ()), *method.entry.seconds]:
            if name not in known:
                raise SuiteError(f"methods: {method.label}: {registry.unknown('task', name, known)}")
    for table in suite.published:
        if table.task not in known:
            raise SuiteError(f"published: {registry.unknown('task', table.task, known)}")


def _fits(job: Job, pattern: str) -> bool:
    texts = f"{job.task}/{job.label}", job.task, job.label, job.id, job.group
    return any(fnmatch.fnmatchcase(text, pattern) for text in texts)

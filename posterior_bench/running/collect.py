"""From a suite and a store to the ``Results`` that a report is made of, and to the time that a run will take."""

from __future__ import annotations

import dataclasses
import json
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import registry
from ..contracts import Simulator
from .job import CHUNK, Job
from .observations import joined
from .plan import plan
from .results import JobResult, PublishedTable, Results, TaskInfo, Undone
from .store import Store
from .suite import PublishedEntry, Suite
from .work import environment


@dataclass(frozen=True)
class Estimate:
    """How long a job will take on one core: seconds, ``None`` where nothing tells, and what tells it."""

    seconds: float | None
    source: str


def estimate(job: Job, store: Store) -> Estimate:
    """From jobs of the same task, method, budget and options in the store; else as the suite's file says."""
    known = []
    for path in store.rows(job).parent.glob("*.cost.json"):
        rows = path.with_name(path.name.replace(".cost.json", ".jsonl"))
        cost = store.read_cost_file(path)
        if rows.exists() and cost.fit_seconds is not None and _alike(job, json.loads(_first_line(rows))):
            known.append(cost.fit_seconds + (cost.score_seconds or 0.0))
    if known:
        return Estimate(statistics.median(known), "earlier jobs")
    return Estimate(job.seconds, "the suite's file" if job.seconds is not None else "unknown")


def time_left(jobs: Sequence[Job], store: Store, workers: int) -> tuple[float, int]:
    """Seconds that a run will take, and the number of parts of which nothing tells how long they take."""
    total, unknown = 0.0, 0
    missing: dict[Path, Job] = {}
    planned = {job.fit for job in jobs}
    for job in (*jobs, *_bases(jobs, planned, store)):
        if store.read_rows(job) is not None or job.missing:
            continue
        seconds = estimate(job, store).seconds
        total, unknown = total + (seconds or 0.0), unknown + (seconds is None)
        missing[store.test_set(job.test_set)] = job
        if not store.fit(job).exists():
            learner = job.learner
            missing |= {store.chunk(job.simulations, learner.stream, index): job for index in range(job.chunks)}
    for path, job in missing.items():
        in_a_file = path.parent.name == "tests" and job.given is not None
        if not path.exists() and not in_a_file:
            rows = job.measurements if path.parent.name == "tests" else CHUNK
            total, unknown = total + rows * (job.milliseconds or 0.0) / 1000, unknown + (job.milliseconds is None)
    return total / max(1, workers), unknown


def _bases(jobs: Sequence[Job], planned: set[str], store: Store) -> list[Job]:
    """The jobs, not of the plan, whose posteriors others of the plan start from and that are not fitted yet."""
    undone = [job for job in jobs if store.read_rows(job) is None and not job.missing]
    bases = {job.learner.base.fit: job.learner.base for job in undone if job.learner.base is not None}
    return [base for fit, base in bases.items() if fit not in planned and not store.fit(base).exists()]


def collect(suite: Suite, store: Store, reference: str, only: Sequence[str] = ()) -> Results:
    """What the store holds of a suite.

    Args:
        suite: the suite.
        store: where its jobs were done.
        reference: by what the suite was named on the command line.
        only: as for ``plan``.
    """
    command = f"posterior-bench run {shlex.quote(reference)}"
    jobs = plan(suite, only)
    results, undone, tasks, labels, environments = [], [], {}, {}, []
    simulated: dict[str, tuple[int, int]] = {}
    for cell in _cells(jobs):
        job = cell[0]
        found = [_result(one, store, command) for one in cell]
        together = f"{command} --only {shlex.quote(job.group)}"
        result = found[0] if job.observation is None or not any(found) else joined(cell, found, together)
        if result is None:
            undone.append(Undone(job.task, _label(job), job.budget))
            continue
        results.append(result)
        if result.cost is not None:
            environments.append(result.cost.versions)
        labels[job.label] = _label(job)
        if result.status == "ok":
            spent, lost = simulated.get(job.task, (0, 0))
            simulated[job.task] = spent + result.rows[0].calls, lost + result.rows[0].invalid
        if job.task not in tasks:
            tasks[job.task] = _task(job, store)
    return Results(
        suite=suite.name,
        title=suite.title or suite.name,
        description=suite.description,
        measurements=max(job.measurements for job in jobs),
        draws=suite.draws,
        tasks=tuple(
            dataclasses.replace(task, invalid_fraction=lost / spent if spent else 0.0)
            for task, (spent, lost) in ((t, simulated.get(t.name, (0, 0))) for t in tasks.values())
        ),
        labels=labels,
        jobs=tuple(results),
        command=command,
        environment=environments[0] if environments else environment(),
        published=tuple(_published(entry) for entry in suite.published if entry.task in tasks),
        remarks=suite.remarks,
        undone=tuple(undone),
    )


def _cells(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs, those together that differ by their measurement alone."""
    cells: dict[str, list[Job]] = {}
    for job in jobs:
        cells.setdefault(job.group, []).append(job)
    return list(cells.values())


def _result(job: Job, store: Store, command: str) -> JobResult | None:
    """The outcome of a job, or ``None`` where it is not done."""
    rows = store.read_rows(job)
    if rows is None:
        return None
    done = rows[0].status == "ok"
    return JobResult(
        job.id,
        rows,
        f"{command} --only {shlex.quote(job.id)}",
        store.read_artefact(job) if done else None,
        store.read_cost(job) if done else None,
        job.label,
        *(store.read_latent(job) if done else (None, "")),
        measurements=job.size,
    )


def _label(job: Job) -> str:
    """The name to print: the method's own, and the entry's name where the suite gave it another."""
    spec = job.build_method().spec
    label = spec.label or spec.name
    return label if job.label == spec.name else f"{label} ({job.label})"


def _published(entry: PublishedEntry) -> PublishedTable:
    return PublishedTable(
        task=entry.task,
        title=entry.title,
        source=entry.source,
        note=entry.note,
        columns=entry.columns,
        metrics=tuple(metric or None for metric in entry.metrics),
        rows=tuple((row.label, row.method, row.values) for row in entry.rows),
        budget=entry.budget,
    )


def _task(job: Job, store: Store) -> TaskInfo:
    simulator: Simulator = registry.build("simulators", job.source, job.source_options)
    spec = simulator.spec
    return TaskInfo(
        name=job.task,
        version=job.task_version,
        simulator=job.source,
        options=job.source_options,
        description=spec.description,
        reference=spec.reference,
        parameters=spec.parameters,
        y_names=spec.y_names,
        engine=store.read_engine_record(job),
        test_set="" if job.given is None else job.given.file,
        measurements=job.measurements,
        reality="" if job.reality is None else f"{job.reality[0]} {json.dumps(dict(job.reality[1]), sort_keys=True)}",
    )


def _alike(job: Job, row: dict) -> bool:
    """Whether a row is of a job with the same budget, options and number of measurements."""
    size = f"-{job.size}"
    return bool(row["budget"] == job.budget and row["options"] == dict(job.options) and row["test_set"].endswith(size))


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return str(file.readline())

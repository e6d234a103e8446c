"""Results without a run: posteriors of a linear Gaussian problem, exact and wrong by a known amount, truly scored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from posterior_bench import Draws, Metric, Parameter, Row, Score, Truth
from posterior_bench.evaluation import Calibration, MAPEstimate, PosteriorMMD, Resimulation, Skill, evaluate
from posterior_bench.running.results import Artefact, Cost, JobResult, Results, TaskInfo

NOISE = (0.3, 0.8, 30.0)
"""Noise of y = theta + noise for theta ~ N(0, 1): two parameters are informed, the third is not."""

PARAMETERS = (Parameter("depth", "mm", "d"), Parameter("slope", "rad"), Parameter("hidden"))

WIDTH = {"exact_twin": 1.0, "too_narrow": 0.7}
"""Methods and the factor on the width of their posteriors; `prior` and `reference` come on top."""

LABELS = {"exact_twin": "Exact twin", "too_narrow": "Too narrow", "broken": "Broken", "prior": "Prior"}
LABELS |= {"reference": "Exact reference"}


def posterior(y: Tensor, n: int, width: float = 1.0) -> Tensor:
    """Draws (n, T, 3) of N(y / (1 + s^2), s^2 / (1 + s^2)), their spread scaled by ``width``."""
    variance = torch.tensor(NOISE) ** 2
    return y / (1 + variance) + width * (variance / (1 + variance)).sqrt() * torch.randn(n, *y.shape)


def make_truth(measurements: int, draws: int, sd: Tensor) -> Truth:
    theta = sd * torch.randn(measurements, 3)
    y = theta / sd + torch.tensor(NOISE) * torch.randn(measurements, 3)

    def simulate(theta: Tensor) -> Tensor:
        return theta / sd + torch.tensor(NOISE) * torch.randn_like(theta)

    prior = Independent(Normal(torch.zeros(3), sd), 1)
    reference = sd * posterior(y[:50], draws)
    return Truth(theta, y, prior, prior.sample((2000,)), PARAMETERS, simulate, reference)


def make_job(
    task: str,
    method: str,
    scores: list[Score] | None,
    artefact: Artefact | None = None,
    *,
    budget: int = 1000,
    repetition: int = 0,
    reason: str = "",
    status: str = "ok",
) -> JobResult:
    job = f"{task[:4]}{method[:4]}{repetition}".encode().hex()[:16]
    calls = budget if status == "ok" else 0
    base = Row(
        job=job, task=task, simulator="gauss", simulator_version=1, method=method, method_version=1, options={},
        budget=budget, repetition=repetition, test_set="0", n_labels=None, observation=None, metric=None,
        metric_version=None, value=None, std_error=None, null_low=None, null_high=None, status=status, reason=reason,
        calls=calls, invalid=0,
    )  # fmt: skip
    rows = (base,) if scores is None else tuple(
        replace(
            base, metric=s.metric, metric_version=1, value=s.value, std_error=s.std_error, null_low=s.null_low,
            null_high=s.null_high,
        )
        for s in scores
    )  # fmt: skip
    cost = None
    if status == "ok":
        cost = Cost(2.0 + repetition, 1e5, 1.0, 300.0, 1234, versions={"torch": "2"})
    return JobResult(job, rows, f"posterior-bench run demo --only {job}", artefact, cost)


ALL_METRICS = (Calibration(), Skill(), MAPEstimate(), Resimulation(), PosteriorMMD())


def scored(
    task: str, method: str, truth: Truth, theta: Tensor, metrics: Sequence[Metric] = ALL_METRICS, **identity: int
) -> JobResult:
    scores = evaluate(Draws(theta), truth, metrics)
    per = {s.metric: s.per_measurement for s in scores if s.per_measurement is not None}
    extra = {f"{s.metric}/{name}": value for s in scores for name, value in s.artefacts.items()}
    history = {}
    if identity["budget"]:
        step = torch.arange(1, 21) * 100
        history = {"step": step, "fit": 5 / step, "latent": 0.5 / step.sqrt(), "held_out": 6 / step + 0.01}
    kept = slice(0, 8)
    artefact = Artefact(theta[:, kept], truth.theta[kept], truth.y[kept], truth.prior_draws, per, extra, history)
    return make_job(task, method, scores, artefact, **identity)


def make_results(measurements: int = 200, draws: int = 100, repetitions: int = 1) -> Results:
    """Two tasks, five methods; ``broken`` fails on the first task and is skipped on the second."""
    torch.manual_seed(0)
    jobs, tasks = [], []
    for task, sd in (("linear", torch.ones(3)), ("scaled", torch.tensor([10.0, 0.1, 1.0]))):
        truth = make_truth(measurements, draws, sd)
        for method in ("prior", "reference"):
            prior = truth.prior.sample((draws, measurements))
            theta = prior if method == "prior" else sd * posterior(truth.y, draws)
            jobs.append(scored(task, method, truth, theta, budget=0))
        for method, width in WIDTH.items():
            for repetition in range(repetitions):
                theta = sd * posterior(truth.y, draws, width)
                jobs.append(scored(task, method, truth, theta, budget=1000, repetition=repetition))
        status, reason = (
            ("failed", "ValueError: no luck") if task == "linear" else ("skipped", "gauss does not offer luck")
        )
        jobs.append(make_job(task, "broken", None, status=status, reason=reason))
        tasks.append(TaskInfo(task, 1, "gauss", {}, f"the {task} problem", "Gauss 1809", PARAMETERS, ("u", "v", "w")))
    return Results(
        suite="demo",
        title="A demonstration",
        description="Linear Gaussian problems.",
        measurements=measurements,
        draws=draws,
        tasks=tuple(tasks),
        labels=LABELS,
        jobs=tuple(jobs),
        command="posterior-bench run demo",
        environment={"torch": "2", "python": "3"},
    )


CONTROLS = ("shrunk", "widened", "shifted", "permuted")


def make_controls(measurements: int = 800, draws: int = 100) -> Results:
    """One task with a method, the anchors, the four controls, and a score ``plain`` that has no null band."""
    torch.manual_seed(0)
    truth = make_truth(measurements, draws, torch.ones(3))
    exact = posterior(truth.y, draws)
    centre, sd = exact.mean(0), exact.std(0)
    theta = {
        "prior": truth.prior.sample((draws, measurements)),
        "reference": exact,
        "exact_twin": posterior(truth.y, draws),
        "shrunk": centre + 0.8 * (exact - centre),
        "widened": centre + 1.25 * (exact - centre),
        "shifted": exact + 0.25 * sd,
        "permuted": exact.roll(1, 1),
    }
    jobs = []
    for name, values in theta.items():
        metrics = (Calibration(), Skill(), PosteriorMMD())
        job = scored("linear", name, truth, values, metrics, budget=1000 if name == "exact_twin" else 0)
        rows = (
            *job.rows,
            replace(job.rows[0], metric="plain", value=1.5, std_error=None, null_low=None, null_high=None),
        )
        if name in CONTROLS:
            rows = tuple(replace(row, method="control", options={"kind": name}) for row in rows)
            job = replace(job, job=name.encode().hex()[:16], method=f"control_{name}")
        jobs.append(replace(job, rows=rows))
    labels = {key: LABELS[key] for key in ("prior", "reference", "exact_twin")}
    labels |= {f"control_{name}": f"Control (control_{name})" for name in CONTROLS}
    task = TaskInfo("linear", 1, "gauss", {}, "the linear problem", "Gauss 1809", PARAMETERS, ("u", "v", "w"))
    return Results(
        suite="controls", title="Controls", description="", measurements=measurements, draws=draws, tasks=(task,),
        labels=labels, jobs=tuple(jobs), command="posterior-bench run controls", environment={"torch": "2"},
    )  # fmt: skip


def on_many_tasks(results: Results, count: int) -> Results:
    """The first task again and again under other names, with nothing to draw."""
    jobs, tasks = [], []
    first = results.tasks[0].name
    for i in range(count):
        for job in (job for job in results.jobs if job.rows[0].task == first):
            artefact = job.artefact
            if artefact is not None:
                artefact = replace(artefact, draws=artefact.draws[:, :0], extra={}, history={})
            rows = tuple(replace(row, task=f"task{i}") for row in job.rows)
            jobs.append(replace(job, job=f"{job.job}{i}", rows=rows, artefact=artefact))
        tasks.append(replace(results.tasks[0], name=f"task{i}"))
    return replace(results, jobs=tuple(jobs), tasks=tuple(tasks))


def on_fewer_measurements(results: Results, key: str, count: int) -> Results:
    """Another method, ``few``, whose scores are those of ``key`` on the first measurements of the first task."""
    job = next(job for job in results.jobs if job.method == key)
    if job.artefact is None:
        raise ValueError(f"{key!r} has no artefact")
    per = {metric: each[:count] for metric, each in job.artefact.per_measurement.items()}
    rows = tuple(replace(row, method="few") for row in job.rows)
    few = replace(job, job="few", method="few", rows=rows, artefact=replace(job.artefact, per_measurement=per))
    return replace(results, jobs=(*results.jobs, few), labels={**results.labels, "few": "Few"})


def without_tensors(results: Results, **changes: object) -> Results:
    """The same rows without artefacts: tables alone, at no cost."""
    jobs = tuple(replace(job, artefact=None) for job in results.jobs)
    return replace(results, jobs=jobs, **changes)


def main() -> None:
    """Write the report of ``make_results`` from a fresh process: ``python gaussian_results.py FOLDER``."""
    from posterior_bench.reporting import write_report

    torch.set_num_threads(1)
    write_report(make_results(), Path(sys.argv[1]))


if __name__ == "__main__":
    main()

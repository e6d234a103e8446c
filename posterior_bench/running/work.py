"""What a worker process does: simulate a chunk, a test set or a reference, fit, or carry one job from fit to rows.

Every unit is a function of a job and a store; it writes its file last and whole, so that it may die at any moment.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from .. import registry
from ..contracts import HasLatent, Metric, Posterior
from ..evaluation import draws_of
from ..records import Draws, Row, Score, Truth
from ..runtime import cache_in, save_tensors, scope, seed_for
from .fitting import fitted
from .job import CHUNK, Job
from .latent import latent_of
from .memory import peak_memory_mb, reset_peak_memory
from .results import KEPT_MEASUREMENTS, Artefact, Cost
from .store import Store
from .truth import draws_in_parts, measurements_of, simulated, truth_of


class NonFiniteDraws(ArithmeticError):
    """A posterior returned draws that are not numbers."""


def guarded(function: Callable[..., str | None], *arguments: object) -> tuple[str, str]:
    """Run a unit: its status and, where it failed, one line that says how and where.

    The exception itself does not travel: its class may live in a file that the other process never imported.
    """
    try:
        return function(*arguments) or "ok", ""
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        return "failed", f"{type(error).__name__}: {error}{place}"[:2000]


def simulate_chunk(job: Job, store: Store, index: int, device: str) -> None:
    """Draw one chunk of simulations of the job's task and stream."""
    path = store.chunk(job.simulations, job.stream, index)
    if path.exists():
        return
    task = job.build_task()
    seed = seed_for("simulations", job.task, job.task_version, job.stream, index)
    with cache_in(store.cache), scope(seed, device):
        save_tensors(path, simulated(task.simulator, CHUNK))


def fit_job(job: Job, store: Store, key: str, device: str) -> None:
    """Fit the posterior of a job that several jobs wait for, its own among them or not."""
    reset_peak_memory()
    with cache_in(store.cache):
        fitted(job, store, device, key)


def run_job(job: Job, store: Store, device: str) -> str:
    """Carry a job from fit to rows; return its status. An exception is left to the caller, which writes it down."""
    if job.missing:
        reason = f"{job.simulator} does not offer {', '.join(job.missing)}"
        store.write_rows(job, [row(job, "skipped", reason)])
        return "skipped"
    reset_peak_memory()
    task = job.build_task()
    with cache_in(store.cache):
        posterior, history, fit_cost = fitted(job, store, device, job.id)
        truth = truth_of(job, task, store, device)
        start = time.perf_counter()
        with scope(seed_for("draw", job.id), device):
            draws = draws_of(posterior, truth.y, job.draws)
        draw_seconds = time.perf_counter() - start
        if job.dense_measurements:
            draws = dataclasses.replace(draws, dense=_dense(job, posterior, truth, device))
        require_finite(draws)
        start = time.perf_counter()
        scores = _score(job, draws, truth, device)
    artefact = _artefact(draws.theta, truth, scores, history)
    store.write_artefact(job, artefact)
    cost = Cost(
        fit_seconds=fit_cost["seconds"],
        draws_per_second=job.draws * job.size / draw_seconds,
        score_seconds=time.perf_counter() - start,
        peak_memory_mb=max(peak_memory_mb(), fit_cost["peak_memory_mb"]),
        parameters=fit_cost["parameters"],
        device=device,
        threads=1,
        versions=environment(),
    )
    store.write_cost(job, cost)
    with cache_in(store.cache):
        _describe(job, store, posterior, truth.y, artefact, device)
    counts = {"calls": fit_cost["calls"], "invalid": fit_cost["invalid"]}
    store.write_rows(job, [row(job, "ok", "", score, metric, **counts) for metric, score in scores])
    return "ok"


def describe_latent(job: Job, store: Store, device: str) -> None:
    """Write what the latent vector of a job's posterior does, for a job that was done without; nothing is scored."""
    artefact = store.read_artefact(job)
    if store.latent(job).exists() and not store.read_latent(job)[1]:
        return
    if artefact is None or not store.fit(job).exists():
        raise FileNotFoundError(
            f"job {job.id} has no {'artefact' if artefact is None else 'fitted state'} in {store.root} any more; "
            "remove its rows, and it is done again"
        )
    y = measurements_of(job, store, device)
    with cache_in(store.cache):
        posterior, _, _ = fitted(job, store, device, job.id)
        _describe(job, store, posterior, y, artefact, device)


def require_finite(draws: Draws) -> None:
    """Raise ``NonFiniteDraws`` where some draws are not finite."""
    for theta in (draws.theta, draws.dense):
        broken = 0 if theta is None else int((~torch.isfinite(theta)).any(-1).sum())
        if theta is not None and broken:
            n, total, _ = theta.shape
            raise NonFiniteDraws(f"{broken} of {n * total} posterior draws are not finite")


def row(
    job: Job,
    status: str,
    reason: str,
    score: Score | None = None,
    metric: Metric | None = None,
    calls: int = 0,
    invalid: int = 0,
) -> Row:
    """A row of a job: of one score, or of its failure."""
    return Row(
        job=job.id,
        task=job.task,
        simulator=job.simulator,
        simulator_version=job.simulator_version,
        method=job.method,
        method_version=job.method_version,
        options=dict(job.options),
        budget=job.budget,
        repetition=job.repetition,
        test_set=f"{job.test_set}-{job.size}",
        n_labels=job.n_labels,
        observation=job.observation if score is None or job.observation is not None else score.observation,
        metric=None if score is None else score.metric,
        metric_version=None if metric is None else metric.version,
        value=None if score is None else score.value,
        std_error=None if score is None else score.std_error,
        null_low=None if score is None else score.null_low,
        null_high=None if score is None else score.null_high,
        status=status,  # type: ignore[arg-type]
        reason=reason,
        calls=calls,
        invalid=invalid,
    )


def environment() -> dict[str, str]:
    """Versions of what numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("posterior_bench", "torch", "numpy", "sbi", "pyro-ppl", "zuko"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _dense(job: Job, posterior: Posterior, truth: Truth, device: str) -> Tensor | None:
    """Many draws (m, S, D) for those of the first S measurements of the test set that are scored."""
    count = len(range(job.dense_measurements)[job.scored])
    if not count:
        return None
    with scope(seed_for("dense draw", job.id), device):
        return draws_in_parts(lambda y, n: draws_of(posterior, y, n).theta, truth.y[:count], job.dense_draws)


def _score(job: Job, draws: Draws, truth: Truth, device: str) -> list[tuple[Metric, Score]]:
    scores: list[tuple[Metric, Score]] = []
    for name in sorted(registry.names("metrics")):
        metric: Metric = registry.build("metrics", name)
        if job.observation is not None and not metric.single:
            continue
        with scope(seed_for("score", job.id, metric.name, metric.version), device):
            found = [(metric, score) for score in metric.score(draws, truth)]
        # of one measurement alone, not every score of a metric need be defined
        scores += [pair for pair in found if job.observation is None or math.isfinite(pair[1].value)]
    return scores


def _describe(job: Job, store: Store, posterior: Posterior, y: Tensor, artefact: Artefact, device: str) -> None:
    """Write what the latent vector does, or why that is not known: a figure less must not cost the job."""
    latent, problem = None, ""
    if isinstance(posterior, HasLatent):
        try:
            with scope(seed_for("latent", job.id), device):
                latent = latent_of(posterior, y, artefact.prior.to(device).std(0), KEPT_MEASUREMENTS)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"[:2000]
    store.write_latent(job, latent, problem)


def _artefact(
    theta: Tensor, truth: Truth, scores: list[tuple[Metric, Score]], history: Mapping[str, Tensor]
) -> Artefact:
    per: dict[str, Tensor] = {}
    extra: dict[str, Tensor] = {}
    for _, score in scores:
        if score.per_measurement is not None:
            per[score.metric] = score.per_measurement.float()
        extra |= {f"{score.metric}/{name}": tensor for name, tensor in score.artefacts.items()}
    kept = slice(0, KEPT_MEASUREMENTS)
    return Artefact(theta[:, kept], truth.theta[kept], truth.y[kept], truth.prior_draws[:2000], per, extra, history)

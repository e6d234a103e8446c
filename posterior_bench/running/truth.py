"""What draws are scored against: test set and exact posterior, made once and shared by all jobs of a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contracts import (
    HasLandmarks,
    HasLikelihood,
    HasNoise,
    HasReference,
    HasReferenceDensity,
    HasTrajectory,
    Simulator,
)
from ..problem import check_simulated
from ..records import Simulations, Task, Truth
from ..runtime import cache_in, load_tensors, save_tensors, scope, seed_for, write_text
from .given import NEEDED
from .job import CHUNK, Job
from .store import Store

PRIOR_DRAWS = 10_000
"""Draws that stand for the prior in scores: its sd is then known to 0.7 %."""

AT_A_TIME, ROWS = 100, 50_000
"""Measurements, and draws of all of them together, for which a posterior is asked in one call."""


def simulated(simulator: Simulator, n: int) -> dict[str, Tensor]:
    """n draws of the prior and their simulations; with explicit noise where the simulator has it."""
    theta = simulator.prior().sample((n,))
    if isinstance(simulator, HasNoise):
        noise = torch.randn(n, simulator.noise_dim)
        y = simulator.simulate_from(theta, noise)
        return {"theta": theta, "y": check_simulated(y, theta, simulator), "noise": noise}
    return {"theta": theta, "y": check_simulated(simulator.simulate(theta), theta, simulator)}


def make_test_set(job: Job, store: Store, device: str) -> None:
    """Draw T valid measurements and the parameters behind them; with explicit noise where the process has it.

    Where a file gives the test set, its first T are taken.
    """
    path = store.test_set(job.test_set)
    if path.exists():
        return
    if job.given is not None:
        tensors = job.given.tensors(device)
        save_tensors(path, {name: tensors[name][: job.measurements] for name in NEEDED})
        return
    task = job.build_task()
    found: list[dict[str, Tensor]] = []
    valid = tried = 0
    with cache_in(store.cache), scope(seed_for("test set", job.task, job.task_version), device):
        while valid < job.measurements:
            if tried >= 20 * job.measurements + CHUNK:
                raise ValueError(
                    f"only {valid} of {tried} simulations for the test set are valid; expected at least one in twenty: "
                    "narrow the prior to where the simulator works"
                )
            drawn = simulated(task.process, min(CHUNK, job.measurements))
            pairs = Simulations(drawn["theta"], drawn["y"])
            tried, valid = tried + len(pairs), valid + len(pairs) - pairs.invalid
            found.append({what: tensor[pairs.valid] for what, tensor in drawn.items()})
    save_tensors(path, {what: torch.cat([part[what] for part in found])[: job.measurements] for what in found[0]})


def measured(job: Job, task: Task, name: str, count: int, device: str) -> Simulations | None:
    """Pairs of the process behind the test set, apart from it, that a method may learn from; ``name`` is their stream.

    Others for each repetition; ``None`` where ``count`` is 0.
    """
    if not count:
        return None
    with scope(seed_for(name, job.task, job.task_version, job.repetition), device):
        drawn = simulated(task.process, count)
    return Simulations(drawn["theta"], drawn["y"])


def draw_reference(job: Job, store: Store, device: str) -> None:
    """Draw the exact posterior of the first measurements of the test set, with its density at the truth if known."""
    _draw_exact(job, store, device, dense=False)


def draw_dense_reference(job: Job, store: Store, device: str) -> None:
    """Draw the exact posterior of the very first measurements of the test set many times."""
    _draw_exact(job, store, device, dense=True)


def _draw_exact(job: Job, store: Store, device: str, dense: bool) -> None:
    address = job.dense_address if dense else job.reference_address
    path = store.reference(address)
    if path.exists():
        return
    count, n = job.reference_measurements, job.reference_draws
    if dense:
        count, n = job.dense_measurements, job.dense_draws
    if job.given is not None and job.given.draws:
        exact = job.given.tensors(device)["reference"]
        save_tensors(path, {"theta": exact[:count, :n].transpose(0, 1)})
        return
    # of the process behind the measurements: the posterior of another says nothing about them
    simulator = job.build_task().process
    tests, _ = load_tensors(store.test_set(job.test_set), device)
    theta, y = tests["theta"][:count], tests["y"][:count]
    stream = "dense reference" if dense else "reference"
    with cache_in(store.cache), scope(seed_for(stream, job.task, job.task_version), device):
        if job.engine:
            tensors = _by_engine(simulator, theta, y, n, job.recipe, store.engine_record(address))
        elif isinstance(simulator, HasReference):
            sample = simulator.sample_reference
            tensors = {"theta": draws_in_parts(sample, y, n) if dense else sample(y, n)}
            if isinstance(simulator, HasReferenceDensity):
                tensors["log_prob"] = simulator.log_reference(theta[None], y)[0]
        else:
            raise TypeError(f"simulator {job.simulator!r} has no reference")
    save_tensors(path, tensors)


def _by_engine(
    simulator: Simulator, theta: Tensor, y: Tensor, n: int, recipe: Mapping[str, Any], record: Path
) -> dict[str, Tensor]:
    """Exact draws from the likelihood alone; how they were found, and whether to trust them, is written to ``record``.

    By Bayes' rule log p(theta | y) = log p(theta) + log p(y | theta) - log p(y).
    """
    from ..reference import build_reference, log_posterior, settings_of  # on first use: most suites need no engine

    found = build_reference(simulator, y, n, settings_of(recipe), truth=theta)
    write_text(record, json.dumps(found.record, indent=1, sort_keys=True, default=str) + "\n")
    density = log_posterior(simulator, theta[None], y, found.log_evidence)[0]
    return {"theta": found.theta, "log_prob": density, "log_evidence": found.log_evidence}


def draws_in_parts(sample: Callable[[Tensor, int], Tensor], y: Tensor, n: int) -> Tensor:
    """Draws (n, B, D) for y (B, *y_shape), by several calls of ``sample`` where they are many: memory stays bounded.

    Each call is for as many measurements as there are, up to ``AT_A_TIME``: a posterior may make use of the batch.
    """
    columns = []
    for some in y.split(AT_A_TIME):
        step = max(1, ROWS // len(some))
        parts = [sample(some, min(step, n - begun)) for begun in range(0, n, step)]
        columns.append(torch.cat(parts))
    return torch.cat(columns, dim=1)


def measurements_of(job: Job, store: Store, device: str) -> Tensor:
    """The measurements (T, *y_shape) that a job is scored on."""
    return load_tensors(store.test_set(job.test_set), device)[0]["y"][job.scored]


def truth_of(job: Job, task: Task, store: Store, device: str) -> Truth:
    """What a job is scored against, cut to the measurements that it is scored on.

    The target is p(theta | y) under the process behind the measurements, so that the prior is that process's own.
    """
    tests, _ = load_tensors(store.test_set(job.test_set), device)
    exact = _cut(store, job.reference_address, job, device)
    dense = _cut(store, job.dense_address, job, device)
    process = task.process

    def simulate(theta: Tensor) -> Tensor:
        return check_simulated(process.simulate(theta), theta, process)

    with scope(seed_for("prior draws", job.task, job.task_version), device):
        prior = process.prior()
        prior_draws = prior.sample((PRIOR_DRAWS,))
    return Truth(
        tests["theta"][job.scored],
        tests["y"][job.scored],
        prior,
        prior_draws,
        task.simulator.spec.parameters,
        simulate,
        exact.get("theta"),
        exact.get("log_prob"),
        dense.get("theta"),
        log_likelihood=process.log_likelihood if isinstance(process, HasLikelihood) else None,
        landmarks=task.simulator.landmarks.to(device) if isinstance(task.simulator, HasLandmarks) else None,
        y_sd=tests["y"].std(0) if job.size < job.measurements else None,
        signal=_signal(process, tests["noise"][job.scored] if "noise" in tests else None),
    )


def _signal(process: Simulator, noise: Tensor | None) -> Callable[[Tensor, int], Tensor] | None:
    """``Truth.signal`` for the noise (T, noise_dim) behind the measurements, ``None`` where it was not kept.

    A test set written by an earlier version of the package holds no noise.
    """
    if noise is None or not isinstance(process, HasTrajectory):
        return None

    def signal(theta: Tensor, steps: int) -> Tensor:
        if len(theta) != len(noise):
            raise ValueError(f"found {len(theta)} parameter vectors; expected one a measurement, {len(noise)}")
        return process.signal(theta, noise, steps)

    return signal


def _cut(store: Store, address: str, job: Job, device: str) -> dict[str, Tensor]:
    """Exact draws and their density for the measurements that are scored; empty where there are none."""
    if not address:
        return {}
    tensors, _ = load_tensors(store.reference(address), device)
    theta = tensors["theta"][:, job.scored]
    if not theta.shape[1]:
        return {}
    density = {"log_prob": tensors["log_prob"][job.scored]} if "log_prob" in tensors else {}
    return {"theta": theta, **density}

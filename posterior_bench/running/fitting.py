"""The fitted posterior of a job: found in the store or made, and rebuilt from its file in either case."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..contracts import Method, Posterior
from ..problem import Problem
from ..records import Need, Simulations, Task
from ..runtime import load_tensors, save_tensors, scope, seed_for, write_text
from .job import Job
from .memory import peak_memory_mb
from .store import Store
from .truth import measured, measurements_of


class ProgressFile:
    """Tells how far a unit has come, through a small file that the main process reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """Write at most twice a second."""
        now = time.monotonic()
        if now - self.last > 0.5:
            self.last = now
            write_text(self.path, json.dumps({"done": done, "total": total, "message": message}))


class Fitted(NamedTuple):
    """A posterior, the curves of its training, and what the fit took."""

    posterior: Posterior
    history: Mapping[str, Tensor]
    cost: Mapping[str, Any]


def fitted(job: Job, store: Store, device: str, key: str) -> Fitted:
    """The posterior that a job scores, always rebuilt from its file: a resumed job continues from the same bits.

    Where it starts from another's posterior, that one is rebuilt first, or fitted where its file is missing.

    Args:
        job: whose learner is fitted where that is not done.
        store: where fits are kept.
        device: of the posterior.
        key: of the unit that is told of the progress.
    """
    job = job.learner
    task, method = job.build_task(), job.build_method()
    base = None if job.base is None else fitted(job.base, store, device, key).posterior
    path = store.fit(job)
    if not path.exists():
        _fit(job, task, method, base, store, device, key)
    named, header = load_tensors(path, device)
    state = {k.removeprefix("state:"): v for k, v in named.items() if k.startswith("state:")}
    history = {k.removeprefix("history:"): v for k, v in named.items() if k.startswith("history:")}
    problem = Problem(task, method.spec.needs, observation=_observation(job, store, device), posterior=base)
    with scope(seed_for("restore", job.fit), device):
        posterior = method.restore(state, header["settings"], problem)
    return Fitted(posterior, history, header["cost"])


def _fit(
    job: Job,
    task: Task,
    method: Method,
    base: Posterior | None,
    store: Store,
    device: str,
    key: str,
) -> None:
    """Fit the method of a job, which starts from ``base`` if at all, and write the state of its posterior."""
    needs = method.spec.needs
    observation = _observation(job, store, device)
    paths = [store.chunk(job.simulations, job.stream, index) for index in range(job.chunks)]
    simulations = _simulations(task, store.first_rows(paths, job.budget) if paths else {}, needs, device)
    unlabelled = measured(job, task, "unlabelled", task.unlabelled, device) if Need.UNLABELLED in needs else None
    labelled = measured(job, task, "labelled", task.labels, device) if Need.LABELLED in needs else None
    y = None if unlabelled is None else unlabelled.y
    problem = Problem(task, needs, job.budget, observation, y, labelled, base)
    start = time.perf_counter()
    with scope(seed_for("fit", job.fit), device):
        posterior = method.fit(simulations, problem, ProgressFile(store.running(key)))
    seconds = time.perf_counter() - start
    tensors, settings = posterior.state()
    cost = {
        "seconds": seconds,
        "parameters": _count(posterior),
        "peak_memory_mb": peak_memory_mb(),
        "calls": problem.calls or len(simulations),
        "invalid": problem.invalid or simulations.invalid,
    }
    named = {f"state:{k}": v for k, v in tensors.items()} | {f"history:{k}": v for k, v in posterior.history.items()}
    save_tensors(store.fit(job), named, {"settings": settings, "cost": cost})


def _observation(job: Job, store: Store, device: str) -> Tensor | None:
    """The one measurement that a job is for, where it is for one."""
    return None if job.observation is None else measurements_of(job, store, device)[0]


def _simulations(task: Task, rows: dict[str, Tensor], needs: frozenset[Need], device: str) -> Simulations:
    if not rows:
        dim, shape = len(task.simulator.spec.parameters), task.simulator.spec.y_shape
        return Simulations(torch.empty(0, dim, device=device), torch.empty(0, *shape, device=device))
    noise = rows["noise"].to(device) if Need.NOISE in needs and "noise" in rows else None
    return Simulations(rows["theta"].to(device), rows["y"].to(device), noise)


def _count(posterior: Posterior) -> int | None:
    """Trained numbers of a posterior whose networks are torch modules."""
    modules = [v for v in vars(posterior).values() if isinstance(v, torch.nn.Module)]
    return sum(p.numel() for module in modules for p in module.parameters()) or None

"""The units of work that jobs come to, each after those that it needs."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from . import truth, work
from .job import Job
from .store import Store


@dataclass(eq=False)
class Unit:
    """One piece of work: a job, or something that jobs need."""

    key: str
    title: str
    call: Callable[[], tuple[str, str]]
    job: Job | None
    needs: tuple[str, ...]
    timeout_seconds: float
    weight: float = 0.0
    turn: int = 0
    needed_by: list[str] = field(default_factory=list)


def units_of(jobs: Iterable[Job], store: Store, device: str) -> dict[str, Unit]:
    """The units that the jobs come to, by key, each after what it needs."""
    found = _Units({job.id: job for job in jobs}.values(), store, device)
    for job in found.jobs:
        found.add_job(job)
    for unit in found.units.values():
        for key in unit.needs:
            found.units[key].needed_by.append(unit.key)
    return found.units


class _Units:
    """Collects units; a method named for what it makes returns the keys of what is missing of it, having added that.

    A fit that several jobs need, one that scores it on another task or one that starts from it, is a unit of its own,
    so that no two processes make it. Any other is made by its job.
    """

    def __init__(self, jobs: Iterable[Job], store: Store, device: str) -> None:
        self.jobs, self.store, self.device = list(jobs), store, device
        self.units: dict[str, Unit] = {}
        todo = [job.learner for job in self.jobs if not job.missing]
        times = Counter(job.fit for job in todo)
        self.shared = {fit for fit, count in times.items() if count > 1}
        self.shared |= {job.base.fit for job in todo if job.base is not None}

    def add_job(self, job: Job) -> None:
        """Add the unit of a job, and those of all that it needs."""
        needs: list[str] = []
        if not job.missing:
            needs = self.test_set(job) + self.references(job)
            learner = job.learner
            if not self.store.fit(learner).exists():
                needs += self.fit(learner) if learner.fit in self.shared else self.simulations(learner)
            if learner.base is not None:
                needs += self.fit(learner.base)
        call = self._call(work.run_job, job)
        weight = job.seconds or 0.0
        self.units[job.id] = Unit(
            job.id, job.cell, call, job, tuple(needs), job.timeout_seconds, weight, job.repetition
        )

    def test_set(self, job: Job) -> list[str]:
        """The test set of a job."""
        if self.store.test_set(job.test_set).exists():
            return []
        call = self._call(truth.make_test_set, job)
        return [self._add(f"test-{job.test_set}", f"{job.task}: test set", call, job)]

    def references(self, job: Job) -> list[str]:
        """Exact draws for the test set of a job."""
        keys = []
        for address, draw, what in (
            (job.reference_address, truth.draw_reference, "exact posterior"),
            (job.dense_address, truth.draw_dense_reference, "exact posterior, many draws"),
        ):
            if address and not self.store.reference(address).exists():
                title = f"{job.task}: {what}"
                keys.append(self._add(f"reference-{address}", title, self._call(draw, job), job, self.test_set(job)))
        return keys

    def simulations(self, job: Job) -> list[str]:
        """What a job learns from."""
        keys = []
        for index in range(job.chunks):
            if not self.store.chunk(job.simulations, job.stream, index).exists():
                key = f"simulate-{job.simulations}-{job.stream}-{index}"
                title = f"{job.task}: simulations {index + 1} of {job.chunks}"
                keys.append(self._add(key, title, self._call(work.simulate_chunk, job, index), job))
        return keys

    def fit(self, job: Job) -> list[str]:
        """The fit of a job, in a unit of its own."""
        if self.store.fit(job).exists():
            return []
        needs = self.simulations(job)
        if job.observation is not None:
            needs += self.test_set(job)
        if job.base is not None:
            needs += self.fit(job.base)
        key = f"fit-{job.fit}"
        return [self._add(key, f"{job.cell}: fit", self._call(work.fit_job, job, key), job, needs)]

    def _call(self, function: Callable[..., str | None], job: Job, *more: object) -> Callable[[], tuple[str, str]]:
        return functools.partial(work.guarded, function, job, self.store, *more, self.device)

    def _add(
        self, key: str, title: str, call: Callable[[], tuple[str, str]], job: Job, needs: Sequence[str] = ()
    ) -> str:
        if key not in self.units:
            self.units[key] = Unit(key, title, call, None, tuple(needs), job.timeout_seconds, 1e9, job.repetition)
        return key

"""Running a plan: what is missing, in what order, on how many slots; failures are written down, never lost."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from loky.process_executor import BrokenProcessPool

from . import work
from .executors import InThisProcess, Slot, WorkerProcess
from .job import Job
from .store import Store
from .units import Unit, units_of

__all__ = ["Display", "Outcome", "Silent", "Unit", "run", "units_of"]


@dataclass
class Outcome:
    """How a run ended: jobs by status, with those that were done before."""

    ok: int = 0
    skipped: int = 0
    failed: int = 0
    reused: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


class Display(Protocol):
    """Who shows how a run goes."""

    def begin(self, units: Sequence[Unit], reused: int) -> None:
        """A run begins with these units to do."""

    def tick(self, running: Sequence[tuple[Unit, float, dict]]) -> None:
        """Called several times a second: running units, their seconds and what they told."""

    def end(self, unit: Unit, status: str, reason: str, seconds: float) -> None:
        """A unit ended."""


class Silent:
    """Shows nothing."""

    def begin(self, units: Sequence[Unit], reused: int) -> None:
        """Nothing."""

    def tick(self, running: Sequence[tuple[Unit, float, dict]]) -> None:
        """Nothing."""

    def end(self, unit: Unit, status: str, reason: str, seconds: float) -> None:
        """Nothing."""


def run(
    jobs: Sequence[Job],
    store: Store,
    workers: int = 2,
    device: str = "cpu",
    retry: bool = False,
    display: Display | None = None,
) -> Outcome:
    """Do those of ``jobs`` whose rows are missing; of the others describe the latent space where that is missing.

    Args:
        jobs: a plan.
        store: where everything is kept.
        workers: processes of one thread each; 0 runs in this process.
        device: of simulations, networks and draws.
        retry: do failed jobs again, and descriptions of latent spaces that failed.
        display: who shows how it goes.
    """
    display = display or Silent()
    outcome = Outcome()
    missing, undescribed = [], []
    for job in jobs:
        rows = store.read_rows(job)
        if rows is None or (retry and rows[0].status == "failed"):
            missing.append(job)
        else:
            outcome.reused += 1
            _count(outcome, job, rows[0].status, rows[0].reason)
            if rows[0].status == "ok" and _undescribed(job, store, retry):
                undescribed.append(job)
    units = units_of(missing, store, device)
    for job in undescribed:
        call = functools.partial(work.guarded, work.describe_latent, job, store, device)
        key = f"latent-{job.id}"
        units[key] = Unit(key, f"{job.cell}: latent space", call, None, (), job.timeout_seconds)
    display.begin(list(units.values()), outcome.reused)
    slots: list[Slot] = [WorkerProcess() for _ in range(workers)] if workers else [InThisProcess()]
    try:
        _Loop(units, slots, store, display, outcome).run()
    finally:
        for slot in slots:
            slot.close()
    return outcome


def _undescribed(job: Job, store: Store, retry: bool) -> bool:
    """Whether the latent space of a done job is to be described, and can be."""
    if store.latent(job).exists() and not (retry and store.read_latent(job)[1]):
        return False
    base = job.learner.base
    fits = [store.fit(job)] if base is None else [store.fit(job), store.fit(base)]
    return all(path.exists() for path in (*fits, store.artefact(job), store.test_set(job.test_set)))


class _Loop:
    """Hands units to free slots until none is left: first repetitions first, so that a run that is stopped has every
    cell before any cell twice; of these what others need, then the longest.
    """

    def __init__(
        self, units: dict[str, Unit], slots: Sequence[Slot], store: Store, display: Display, outcome: Outcome
    ) -> None:
        self.units, self.store, self.display, self.outcome = units, store, display, outcome
        self.free = list(slots)
        self.waiting = dict(units)
        self.done: set[str] = set()
        self.running: dict[str, tuple[Slot, Future, float]] = {}

    def run(self) -> None:
        while self.waiting or self.running:
            self._start()
            self.display.tick(
                [
                    (self.units[key], time.monotonic() - began, self._told(key))
                    for key, (_, _, began) in self.running.items()
                ]
            )
            ended = [key for key, (_, future, _) in self.running.items() if future.done()]
            for key in ended:
                self._end(key)
            self._end_overdue()
            if not ended and self.running:
                time.sleep(0.1)

    def _start(self) -> None:
        ready = [u for u in self.waiting.values() if all(n in self.done for n in u.needs)]
        ready.sort(key=lambda unit: (unit.turn, -unit.weight))  # stable: else in the suite's order
        for unit in ready:
            if not self.free:
                return
            if unit.key not in self.waiting:
                continue
            slot = self.free.pop()
            del self.waiting[unit.key]
            began = time.monotonic()
            try:
                self.running[unit.key] = (slot, slot.submit(unit.call), began)
            except BrokenProcessPool:  # the idle worker was killed from outside: a new one takes the unit
                slot.kill()
                self.running[unit.key] = (slot, slot.submit(unit.call), began)

    def _end(self, key: str) -> None:
        slot, future, began = self.running.pop(key)
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            slot.kill()
            reason = "the worker process died; it was killed from outside, or for lack of memory"
            self._failed(key, reason, began)
        elif error is not None:
            raise error  # units catch their own: this is a fault of ours
        elif future.result()[0] == "failed":
            self._failed(key, future.result()[1], began)
        else:
            self.done.add(key)
            unit = self.units[key]
            status = future.result()[0]
            if unit.job is not None:
                _count(self.outcome, unit.job, status, "")
            self._forget(key)
            self.display.end(unit, status, "", time.monotonic() - began)
        self.free.append(slot)

    def _end_overdue(self) -> None:
        for key, (slot, _, began) in list(self.running.items()):
            limit = self.units[key].timeout_seconds
            if time.monotonic() - began > limit:
                slot.kill()
                del self.running[key]
                self._failed(key, f"did not end within {limit:g} seconds (timeout_minutes of the suite)", began)
                self.free.append(slot)

    def _failed(self, key: str, reason: str, began: float | None) -> None:
        """Write down a failure, also for every unit that needed this one."""
        unit = self.units[key]
        self.waiting.pop(key, None)
        self._forget(key)
        if unit.job is not None:
            self.store.write_rows(unit.job, [work.row(unit.job, "failed", reason)])
            _count(self.outcome, unit.job, "failed", reason)
        self.display.end(unit, "failed", reason, 0.0 if began is None else time.monotonic() - began)
        for other in unit.needed_by:
            if other in self.waiting:
                self._failed(other, f"{unit.title}: {reason}" if unit.job is None else reason, None)

    def _told(self, key: str) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads(self.store.running(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told

    def _forget(self, key: str) -> None:
        self.store.running(key).unlink(missing_ok=True)


def _count(outcome: Outcome, job: Job, status: str, reason: str) -> None:
    setattr(outcome, status, getattr(outcome, status) + 1)
    if status == "failed":
        outcome.reasons[job.cell] = reason

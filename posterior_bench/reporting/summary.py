"""What a report says of each task: the methods' numbers, their ranking, and the parameters that the data inform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..evaluation import Entry, Ranked, mean_interval, rank
from ..records import Score
from ..running.results import Results, TaskInfo
from .contenders import INFORMED, Contender, anchor_roles, by_metric, method_key, numbers, root_mean_square

MARGIN = 0.01
"""Differences of energy skill inside this margin count as none."""


INFORMED_MAP_ERROR = "map_error/informed"
"""Id of the MAP error over the parameters that the data inform."""


@dataclass(frozen=True, eq=False)
class TaskSummary:
    """One task at one budget: what a table shows.

    Args:
        info: the task.
        budget: simulations to learn from; 0 where only anchors ran.
        budgets: how many budgets the task has in this report.
        contenders: ranked ones first, by place; then those without scores; the anchors last, the reference first.
        informed: parameters that the data inform, the best known first.
        others: the rest, in the simulator's order.
        judge: label of the method by which they were told apart, empty where there was none.
        fits: the largest number of fits of a method.
        compared: fits of each method that its comparisons pair: fewer, where some of another method are missing.
    """

    info: TaskInfo
    budget: int
    budgets: int
    contenders: tuple[Contender, ...]
    informed: tuple[str, ...]
    others: tuple[str, ...]
    judge: str
    fits: int
    compared: int = 0

    @property
    def name(self) -> str:
        """Name of the task, with the budget where a report holds several; fit for a file name."""
        return self.info.name if self.budgets == 1 else f"{self.info.name}-{self.budget}"

    @property
    def title(self) -> str:
        """The same for people."""
        return self.info.name if self.budgets == 1 else f"{self.info.name}, {self.budget:,} simulations"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, the informed ones first."""
        return (*self.informed, *self.others)

    @property
    def competitors(self) -> tuple[Contender, ...]:
        """The methods that are no anchors."""
        return tuple(c for c in self.contenders if not c.role)

    @property
    def anchors(self) -> tuple[Contender, ...]:
        """The reference, where there is one, and the other anchors."""
        return tuple(c for c in self.contenders if c.role)

    @property
    def reference(self) -> Contender | None:
        """The exact posterior, where it has scores."""
        return next((c for c in self.contenders if c.role == "reference" and c.done), None)

    @property
    def scored(self) -> tuple[Contender, ...]:
        """All contenders with at least one fit that succeeded."""
        return tuple(c for c in self.contenders if c.done)


def summarise(results: Results) -> tuple[TaskSummary, ...]:
    """What the report says of each task and budget, in the suite's order."""
    roles = anchor_roles(results)
    found = []
    for info in results.tasks:
        jobs = [job for job in results.jobs if job.rows[0].task == info.name]
        budgets = sorted({job.rows[0].budget for job in jobs if not roles[method_key(results, job)]}) or [0]
        for budget in budgets:
            contenders = []
            for position, (key, label) in enumerate(results.labels.items()):
                own = tuple(
                    job
                    for job in jobs
                    if method_key(results, job) == key and (roles[key] or job.rows[0].budget == budget)
                )
                if own:
                    scores = numbers([job for job in own if job.status == "ok"])
                    contenders.append(
                        Contender(key, label, own[0].rows[0].budget, roles[key], own, scores, position=position)
                    )
            found.append(_summary(info, budget, len(budgets), contenders))
    return tuple(found)


def _summary(info: TaskInfo, budget: int, budgets: int, contenders: list[Contender]) -> TaskSummary:
    entries = [entry for c in contenders if (entry := _entry(c, info)) is not None]
    paired = _paired(entries, {c.key: tuple(job.rows[0].repetition for job in c.done) for c in contenders})
    whole = {entry.method: entry for entry in entries}
    ranked = {r.method: _of_all_fits(r, whole[r.method]) for r in rank(paired, MARGIN)}
    placed = [replace(c, ranked=ranked.get(c.key)) for c in contenders]
    order = {key: i for i, key in enumerate(ranked)}  # by the gate, then by skill
    placed.sort(key=lambda c: (("", "reference", "anchor").index(c.role), order.get(c.key, len(order))))
    judge = _judge(placed)
    skills = {p.name: judge.score(f"crps_skill/{p.name}") if judge else None for p in info.parameters}
    known = {name: found.value for name, found in skills.items() if found is not None and found.value > INFORMED}
    informed = tuple(sorted(known, key=lambda name: -known[name]))
    return TaskSummary(
        info=info,
        budget=budget,
        budgets=budgets,
        contenders=tuple(_with_informed(c, informed) for c in placed),
        informed=informed,
        others=tuple(name for name in skills if name not in known),
        judge=judge.label if judge else "",
        fits=max((len(c.jobs) for c in placed), default=0),
        compared=max((len(entry.skill) for entry in paired), default=0),
    )


def _judge(contenders: Sequence[Contender]) -> Contender | None:
    """Who tells which parameters are informed: the reference, else the best that passes the gate."""
    for c in contenders:
        if c.role == "reference" and c.done:
            return c
    passed = [c for c in contenders if not c.role and c.ranked is not None and c.ranked.passes]
    return passed[0] if passed else None


def _entry(contender: Contender, info: TaskInfo) -> Entry | None:
    """What the ranking needs; ``None`` where a fit lacks the skill of each measurement or the edges of the gate."""
    skill = [
        job.artefact.per_measurement["energy_skill"]
        for job in contender.done
        if job.artefact is not None and "energy_skill" in job.artefact.per_measurement
    ]
    fits = [by_metric(job) for job in contender.done]

    def scores(metric: str) -> tuple[Score, ...]:
        rows = [fit[name] for p in info.parameters for fit in fits if (name := f"{metric}/{p.name}") in fit]
        return tuple(
            Score(str(row.metric), row.value, row.std_error, row.null_low, row.null_high)
            for row in rows
            if row.value is not None and row.null_low is not None and row.null_high is not None
        )

    coverage = scores("coverage_bias")
    if not fits or len(skill) < len(fits) or len(coverage) < len(fits) * len(info.parameters):
        return None
    scored = torch.stack(skill)
    if not torch.isfinite(scored).all():
        return None
    return Entry(contender.key, coverage, scored, scores("rank_bias"), bool(contender.role))


def _with_informed(contender: Contender, informed: tuple[str, ...]) -> Contender:
    """The contender with its MAP error over the informed parameters, which no row holds: who tells them is known now.

    It is the root mean square over them, prior sd: the square root of the mean of the squares of ``map_error/<p>``.
    """
    found = root_mean_square(contender, "map_error", informed)
    return contender if found is None else replace(contender, scores={**contender.scores, INFORMED_MAP_ERROR: found})


def _of_all_fits(ranked: Ranked, entry: Entry) -> Ranked:
    """The place as it was found, the skill and its interval of all fits: a comparison may have to leave some out."""
    mine = mean_interval(entry.skill)
    return replace(ranked, skill=mine.mean, low=mine.low, high=mine.high)


def _paired(entries: list[Entry], repetitions: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """The entries with the same repetitions where there are several: a comparison pairs them.

    Where fits failed, those stand for a method that all others have as well; where fewer than two are common to all,
    the first ones of each.
    """
    several = [entry for entry in entries if len(entry.skill) > 1]
    if not several:
        return entries
    common = set.intersection(*(set(repetitions[entry.method]) for entry in several))
    least = min(len(entry.skill) for entry in several)
    found = []
    for entry in entries:
        kept = list(range(min(least, len(entry.skill))))
        if len(common) > 1 and len(entry.skill) > 1:
            kept = [i for i, repetition in enumerate(repetitions[entry.method]) if repetition in common]
        found.append(replace(entry, skill=entry.skill[kept]))
    return found

"""What a report says of each task: the methods' numbers, their ranking, and the parameters that the data inform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..evaluation import Entry, Ranked, mean_interval, rank
from ..evaluation.ranking import common_measurements
from ..records import Score
from ..running.results import Results, TaskInfo
from .contenders import INFORMED, Contender, anchor_roles, method_key, numbers, root_mean_square
from .fits import by_metric, score_matrix
from .style import first_few

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
        controls: exact posteriors with a defect, which compete for nothing and stand in no figure.
        measurements: test measurements on which methods are compared; 0 where that is not known.
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
    controls: tuple[Contender, ...] = ()
    measurements: int = 0

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
    def apart(self) -> tuple[Contender, ...]:
        """Those that were scored on fewer measurements than the others: they have no place."""
        return tuple(c for c in self.contenders if c.done and (c.measurements or self.measurements) < self.measurements)

    @property
    def together(self) -> TaskSummary:
        """The same without those: for figures in which a curve or a band belongs to one number of measurements."""
        apart = {c.key for c in self.apart}
        return replace(self, contenders=tuple(c for c in self.contenders if c.key not in apart)) if apart else self

    @property
    def left_out(self) -> str:
        """What a caption says of those that stand apart, with a space before it; empty where there are none."""
        names = first_few([c.label for c in self.apart])
        return f" Not drawn, since scored on fewer measurements: {names}." if names else ""

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
            controls = tuple(c for c in contenders if c.role == "flawed")
            others = [c for c in contenders if c.role != "flawed"]
            found.append(replace(_summary(info, budget, len(budgets), others), controls=controls))
    return tuple(found)


def _summary(info: TaskInfo, budget: int, budgets: int, contenders: list[Contender]) -> TaskSummary:
    entries = [entry for c in contenders if (entry := _entry(c, info)) is not None]
    most = common_measurements(entries)
    contenders = [_with_own_size(c, most) for c in contenders]
    repetitions = {c.key: tuple(job.rows[0].repetition for job in c.done) for c in contenders}
    alike = _paired([entry for entry in entries if entry.skill.shape[1] >= most], repetitions)
    paired = alike + [entry for entry in entries if entry.skill.shape[1] < most]
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
        compared=max((len(entry.skill) for entry in alike), default=0),
        measurements=most,
    )


def _with_own_size(contender: Contender, most: int) -> Contender:
    """The contender, its label saying on how many measurements it was scored where those are fewer than ``most``."""
    own = contender.measurements
    if own is None or own >= most:
        return contender
    each = ", one fit each" if any(job.one_fit_each for job in contender.done) else ""
    return replace(contender, label=f"{contender.label} (T = {own:,}{each})")


def _judge(contenders: Sequence[Contender]) -> Contender | None:
    """Who tells which parameters are informed: the reference, else the best that passes the gate."""
    for c in contenders:
        if c.role == "reference" and c.done:
            return c
    passed = [c for c in contenders if not c.role and c.ranked is not None and c.ranked.passes and c.ranked.place]
    return passed[0] if passed else None


def _entry(contender: Contender, info: TaskInfo) -> Entry | None:
    """What the ranking needs; ``None`` where a fit lacks the skill of each measurement or the edges of the gate."""
    skill = score_matrix(contender.done)
    fits = [by_metric(job) for job in contender.done]

    def scores(metric: str) -> tuple[Score, ...]:
        rows = [fit[name] for p in info.parameters for fit in fits if (name := f"{metric}/{p.name}") in fit]
        return tuple(
            Score(str(row.metric), row.value, row.std_error, row.null_low, row.null_high)
            for row in rows
            if row.value is not None and row.null_low is not None and row.null_high is not None
        )

    coverage = scores("coverage_bias")
    if skill is None or len(coverage) < len(fits) * len(info.parameters):
        return None
    return Entry(
        contender.key, coverage, skill, scores("rank_bias"), scores("sbc_p_value"), anchor=bool(contender.role)
    )


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

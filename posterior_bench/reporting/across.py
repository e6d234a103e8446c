"""Across tasks: which method stands where on average, and which differences hold from one task to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..evaluation.across_tasks import AcrossTasks, Pair, compare_across_tasks, minimum_tasks
from .cells import Cell
from .contenders import Contender
from .style import first_few, interval, number, significant
from .summary import MARGIN, TaskSummary
from .tables import Column, Line, Table

FEWEST = 3
"""Tasks from which on a report compares methods over them."""


@dataclass(frozen=True)
class Across:
    """What the page says of all tasks together: a sentence, and tables."""

    verdict: str
    tables: tuple[Table, ...]


def across_tasks(summaries: Sequence[TaskSummary]) -> Across | None:
    """The comparison over the tasks of a report; ``None`` with fewer than three tasks, or two methods on all of them.

    One number a task and method: its mean energy skill at the task's largest budget.
    """
    last = {summary.info.name: summary for summary in summaries}  # budgets come in order
    tasks = [summary for summary in last.values() if any(c.ranked for c in summary.competitors)]
    if len(tasks) < FEWEST:
        return None
    scored = [{c.key: c for c in s.competitors if c.ranked is not None and c.ranked.place is not None} for s in tasks]
    keys = [key for key in scored[0] if all(key in own for own in scored)]
    if len(keys) < 2:
        return None
    found = compare_across_tasks({key: [_skill(own[key]) for own in scored] for key in keys}, MARGIN)
    labels = {key: scored[0][key].label for key in keys}
    everyone = {c.key: c.label for s in tasks for c in s.competitors}
    missing = [label for key, label in everyone.items() if key not in keys]
    return Across(found.verdict(labels), (_ranks(found, labels, scored, tasks, missing), _pairs(found, labels)))


def _skill(c: Contender) -> float:
    if c.ranked is None:
        raise ValueError(f"{c.key!r} is not ranked")
    return c.ranked.skill


def _ranks(
    found: AcrossTasks,
    labels: Mapping[str, str],
    scored: Sequence[Mapping[str, Contender]],
    tasks: Sequence[TaskSummary],
    missing: Sequence[str],
) -> Table:
    columns = (
        Column("Method", numeric=False),
        Column("Mean rank", unit="1 is the highest skill"),
        Column("Gate passed", unit="tasks"),
        *(Column(summary.title, "energy skill") for summary in tasks),
    )
    lines = []
    for key, rank in found.mean_ranks.items():
        own = [one[key].ranked for one in scored]
        passed = [ranked is not None and ranked.passes for ranked in own]
        cells = [
            Cell(number(ranked.skill) if ranked else "", tone="" if ok else "bad")
            for ranked, ok in zip(own, passed, strict=True)
        ]
        gate = Cell(f"{sum(passed)} of {len(passed)}", tone="" if all(passed) else "bad")
        lines.append(Line((Cell(labels[key]), Cell(number(rank, 2)), gate, *cells), method=key))
    notes = [
        "Ranks are those of the mean energy skill alone, at the largest budget of each task. A skill that is marked "
        "does not pass the gate of its task, and must not be trusted there however high it is. A mean rank names no "
        "best method: whether a difference holds is told by the pairs."
    ]
    if missing:
        notes.append(f"Left out, since without a place on some of the tasks: {first_few(missing)}.")
    return Table("across-ranks", f"Mean ranks over {found.tasks} tasks", columns, tuple(lines), tuple(notes))


def _pairs(found: AcrossTasks, labels: Mapping[str, str]) -> Table:
    columns = (
        Column("Method", numeric=False),
        Column("against", numeric=False),
        Column("Wins"),
        Column("Ties"),
        Column("Losses"),
        Column("Mean difference of skill", unit="95 % interval over tasks"),
        Column("p", unit="signed ranks"),
        Column("p after Holm"),
        Column("Decided", numeric=False),
    )
    lines = tuple(Line(_pair(pair, labels), method=pair.first) for pair in found.pairs)
    few = found.tasks < minimum_tasks()
    notes = (
        f"A win or a loss is a task on which the mean skills differ by more than {MARGIN:g}, a tie one on which they "
        "do not. Wilcoxon's signed-rank test of the differences over tasks, two-sided, with Holm's correction for all "
        f"{len(found.pairs)} pairs (Demsar 2006, JMLR 7:1). A pair is decided where the corrected p is below 0.05 "
        f"and the whole interval of the mean difference lies beyond {MARGIN:g}.",
        f"With {found.tasks} tasks no p-value can be smaller than 2/2^{found.tasks} = {found.smallest:.3g}"
        + (": no pair can reach significance, and none is given." if few else f", after correction {_least(found)}."),
    )
    return Table("across-pairs", f"Every pair of methods over {found.tasks} tasks", columns, lines, notes)


def _least(found: AcrossTasks) -> str:
    text = f"{found.smallest_adjusted:.3g}"
    return text if found.smallest_adjusted < 0.05 else f"{text}, so that no pair can reach significance"


def _pair(pair: Pair, labels: Mapping[str, str]) -> tuple[Cell, ...]:
    p_values = [
        Cell(significant(p)) if p is not None else Cell("out of reach", tone="muted")
        for p in (pair.p_value, pair.adjusted)
    ]
    ahead = Cell(f"{labels[pair.first]} ahead", tone="good") if pair.decided else Cell("no", tone="muted")
    gap = Cell(number(pair.difference.mean), interval(pair.difference.low, pair.difference.high))
    counts = (Cell(str(count)) for count in (pair.wins, pair.ties, pair.losses))
    return Cell(labels[pair.first]), Cell(labels[pair.second]), *counts, gap, *p_values, ahead

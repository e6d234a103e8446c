"""What each entry of a suite was set to, and what came of it: for a record of tuning the table that matters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from ..running.results import Results
from .cells import Cell, calibration_cell, skill_cell, verdict_cell
from .contenders import Contender, anchor_roles, method_key
from .style import number, significant
from .summary import TaskSummary
from .tables import Column, Line, Table


def settings_table(results: Results, summaries: Sequence[TaskSummary]) -> Table:
    """The options of every entry in the suite's order, and its outcome beside them; of several tasks the skill."""
    roles = anchor_roles(results)
    alone = summaries[0] if len(summaries) == 1 else None
    columns = [Column("Method", numeric=False), Column("Options", numeric=False)]
    if alone is not None:
        columns += [Column("Gate", numeric=False), Column("Energy skill", unit="95 % interval")]
        columns += [Column(f"Cal. error {name}", unit="%, null band") for name in alone.informed[:1]]
        columns += [Column("Fit", unit="s")]
    else:
        columns += [Column(summary.title, "energy skill") for summary in summaries]
    lines = []
    for key, label in results.labels.items():
        own = [next((c for c in (*s.contenders, *s.controls) if c.key == key), None) for s in summaries]
        if not any(own):
            continue
        cells = [Cell(label), Cell(_options(results, key))]
        if alone is not None:
            cells += _outcome(own[0], alone)
        else:
            cells += [_skill(c) for c in own]
        lines.append(Line(tuple(cells), bool(roles[key]), key))
    notes = () if alone is not None else ("A skill that is marked does not pass the gate of its task.",)
    caption = "The settings of every method, in the suite's order, and what came of them"
    return Table("settings", caption, tuple(columns), tuple(lines), notes)


def compares_settings(results: Results) -> bool:
    """Whether the report is about settings: most methods stand in it more than once."""
    roles = anchor_roles(results)
    methods = {method_key(results, job): job.rows[0].method for job in results.jobs}
    counts = Counter(method for key, method in methods.items() if not roles[key])
    return 2 * sum(count > 1 for count in counts.values()) > len(counts)


def _options(results: Results, key: str) -> str:
    """The options of an entry; all of them where jobs differ."""
    found = (_text(job.rows[0].options) for job in results.jobs if method_key(results, job) == key)
    return " or ".join(dict.fromkeys(found))


def _text(options: Mapping[str, object]) -> str:
    texts = (f"{name} = {json.dumps(value, default=str)}" for name, value in sorted(options.items()))
    return ", ".join(texts) or "defaults"


def _outcome(c: Contender | None, summary: TaskSummary) -> list[Cell]:
    if c is None:
        return [Cell(tone="muted")] * (3 + len(summary.informed[:1]))
    errors = [calibration_cell(c.score(f"calibration_error/{name}")) for name in summary.informed[:1]]
    seconds = Cell(significant(c.cost("fit_seconds")))
    return [verdict_cell(c, len(summary.info.parameters)), skill_cell(c), *errors, seconds]


def _skill(c: Contender | None) -> Cell:
    """The skill, marked where the gate is not passed; or what became of the method."""
    if c is None or c.ranked is None:
        return Cell(c.trouble or "not ranked" if c else "", tone="muted")
    return Cell(number(c.ranked.skill), c.trouble, "" if c.ranked.passes else "bad")

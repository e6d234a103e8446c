"""What a report lacks: jobs that failed, were skipped or were not run, and figures that are missing."""

from __future__ import annotations

from typing import Literal

from ..running.results import Results
from .cells import Cell
from .contenders import method_key
from .style import MISSING
from .tables import Column, Line, Table


def trouble_table(results: Results) -> Table:
    """Jobs that failed or were skipped, and those that lack a figure, with the reason."""
    columns = tuple(Column(h, numeric=False) for h in ("Task", "Method", "Budget", "Fit", "Status", "Reason", "Job"))
    lines = []
    for job in results.jobs:
        row, label = job.rows[0], results.labels[method_key(results, job)]
        if job.status != "ok" or job.latent_problem:
            done = job.status == "ok"
            texts = (row.task, label, f"{row.budget:,}" if row.budget else MISSING, str(row.repetition + 1))
            tone: Literal["bad", "muted"] = "bad" if job.status == "failed" else "muted"
            status = Cell("no latent figures" if done else job.status, tone=tone)
            cells = (*map(Cell, texts), status, Cell(job.latent_problem if done else row.reason), Cell(job.job))
            lines.append(Line(cells, method=job.method))
    return Table("failures", "Jobs that failed or were skipped, and figures that are missing", columns, tuple(lines))


def undone_table(results: Results) -> Table:
    """Of each task the methods that were not run, those together that lack the same budgets."""
    lines = []
    for task in dict.fromkeys(cell.task for cell in results.undone):
        budgets: dict[str, dict[int, None]] = {}
        for cell in results.undone:
            if cell.task == task:
                budgets.setdefault(cell.label, {})[cell.budget] = None
        methods: dict[tuple[int, ...], list[str]] = {}
        for label, wanted in budgets.items():
            methods.setdefault(tuple(wanted), []).append(label)
        for wanted_budgets, labels in methods.items():
            numbers = ", ".join(f"{budget:,}" for budget in wanted_budgets if budget)
            lines.append(Line((Cell(task), Cell(", ".join(labels)), Cell(numbers or MISSING))))
    columns = tuple(Column(head, numeric=False) for head in ("Task", "Methods", "Budgets"))
    done, undone = len(results.jobs), len(results.undone)
    caption = f"Not run: {undone} of {done + undone} fits and anchors"
    if undone:
        caption += "; the same command goes on with them"
    return Table("not-run", caption, columns, tuple(lines))

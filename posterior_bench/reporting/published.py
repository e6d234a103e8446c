"""Tables from the literature beside ours: where values cannot be compared, the order of the methods can."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..running.results import PublishedTable
from .cells import Cell
from .contenders import Number
from .style import MISSING, number, percent, significant
from .summary import INFORMED_MAP_ERROR, TaskSummary
from .tables import Column, Line, Table

SMALL = 0.1
"""A value below it is told by three significant digits, one above by three decimals."""

_NUMBER = re.compile(r"[-−+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def published_table(published: PublishedTable, summary: TaskSummary, index: int = 0) -> Table:
    """A published table with our value beside each, and the order of the methods in both.

    Args:
        published: the table.
        summary: of its task, at the largest budget.
        index: tells several tables of a task apart.
    """
    ours = {c.key: c for c in summary.scored}
    trouble = {c.key: c.trouble for c in summary.contenders}
    for c in summary.apart:
        trouble[c.key] = ", ".join(filter(None, (trouble[c.key], f"ours: T = {c.measurements:,}")))
    columns = [Column("Method", numeric=False)]
    cells = [[Cell(label, trouble.get(key or "", ""))] for label, key, _ in published.rows]
    foot = [Cell("Kendall's tau")]
    for place, (head, metric) in enumerate(zip(published.columns, published.metrics, strict=True)):
        printed = [row[place] for _, _, row in published.rows]
        columns.append(Column("as printed", head))
        for row, text in zip(cells, printed, strict=True):
            row.append(Cell(text))
        foot.append(Cell(""))
        if metric is None:
            continue
        found = [ours[key].score(metric) if key in ours else None for _, key, _ in published.rows]
        pairs = [
            (i, theirs, mine.value)
            for i, (text, mine) in enumerate(zip(printed, found, strict=True))
            if (theirs := first_number(text)) is not None and mine is not None
        ]
        first, second = places([theirs for _, theirs, _ in pairs]), places([mine for _, _, mine in pairs])
        order = {i: f"{a} : {b}" for (i, _, _), a, b in zip(pairs, first, second, strict=True)}
        share = metric.startswith("calibration_error")
        columns += [Column("ours", head, "%" if share else ""), Column("order", head, "printed : ours")]
        for i, (row, mine) in enumerate(zip(cells, found, strict=True)):
            row += [_ours(mine, share), Cell(order.get(i, MISSING), tone="" if i in order else "muted")]
        tau = kendall_tau([theirs for _, theirs, _ in pairs], [mine for _, _, mine in pairs])
        foot += [Cell(""), Cell(number(tau, 2), f"{len(pairs)} methods")]
    lines = [Line(tuple(row), method=key or "") for row, (_, key, _) in zip(cells, published.rows, strict=True)]
    return Table(
        f"{summary.name}-published" + (f"-{index + 1}" if index else ""),
        f"{published.title}, as printed and as we find it on {summary.title}",
        tuple(columns),
        (*lines, Line(tuple(foot), anchor=True)),
        _notes(published, summary),
    )


def _ours(found: Number | None, share: bool) -> Cell:
    """Our mean over fits with its standard deviation over fits."""
    if found is None:
        return Cell(tone="muted")
    spread = "" if found.spread is None else f"± {percent(found.spread, 2) if share else significant(found.spread)}"
    if share:
        return Cell(percent(found.value), spread)
    return Cell(significant(found.value, 3) if 0 < abs(found.value) < SMALL else number(found.value), spread)


def _notes(published: PublishedTable, summary: TaskSummary) -> tuple[str, ...]:
    notes = [published.note] if published.note else []
    if published.source:
        notes.append(f"Printed values: {published.source}.")
    fits = (
        "one fit" if summary.fits == 1 else f"mean over up to {summary.fits} fits, ± the standard deviation over them"
    )
    notes.append(
        f"Ours: {summary.budget:,} simulations, {fits}. The order counts the methods of which both sides have a value, "
        "1 is the smallest error, equal values share a place. Kendall's tau (tau-b) is 1 where the orders are the "
        "same, −1 where they are reversed; with few methods it is easily large by chance."
    )
    if INFORMED_MAP_ERROR in published.metrics:
        names = ", ".join(summary.informed) or "none"
        notes.append(
            f"Our MAP error of several parameters is over those that the data inform ({names}): the root of the mean "
            "square, each in units of its prior's standard deviation."
        )
    return tuple(notes)


def first_number(text: str) -> float | None:
    """The value of a printed cell: its first number.

    >>> first_number("0.057±0.003"), first_number("1.91 %"), first_number("-")
    (0.057, 1.91, None)
    """
    found = _NUMBER.search(text)
    return float(found.group().replace("−", "-")) if found else None


def places(values: Sequence[float]) -> list[str]:
    """The place of each value, 1 for the smallest; equal ones share a place, marked with ``=``.

    >>> places([0.3, 0.1, 0.3])
    ['2=', '1', '2=']
    """
    return [f"{1 + sum(v < value for v in values)}{'=' if values.count(value) > 1 else ''}" for value in values]


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b (Kendall 1945, Biometrika 33:239); ``None`` where one side knows no order.

    >>> kendall_tau([1, 2, 3], [1, 3, 2])
    0.3333333333333333
    """
    signs = [
        (math.copysign(1, a[i] - a[j]) if a[i] != a[j] else 0, math.copysign(1, b[i] - b[j]) if b[i] != b[j] else 0)
        for i in range(len(a))
        for j in range(i)
    ]
    untied = sum(x * x for x, _ in signs) * sum(y * y for _, y in signs)
    return sum(x * y for x, y in signs) / math.sqrt(untied) if untied else None

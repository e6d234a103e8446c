"""Whether the exact posterior that a task is judged by can be trusted: the list that its record was held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from .cells import Cell
from .style import MISSING, number
from .summary import TaskSummary
from .tables import Column, Line, Table


def reference_table(summary: TaskSummary) -> Table | None:
    """Each item of the list with its outcome; ``None`` where the reference is the simulator's own, or there is none."""
    record = summary.info.engine
    if not record:
        return None
    items = cast(Sequence[Mapping[str, Any]], record["acceptance"])
    columns = (
        Column("Item", numeric=False),
        Column("Asked for", numeric=False),
        Column("Worst found"),
        Column("Outcome", numeric=False),
    )
    verdict = "accepted" if record["accepted"] else "NOT accepted: distances to it say less than their bands claim"
    return Table(
        f"{summary.name}-reference",
        f"{summary.info.name}: the exact posterior, found from the likelihood: {verdict}",
        columns,
        tuple(Line(_cells(item)) for item in items),
        (f"{record['how']}; {record['draws']:,} draws for each of {record['measurements']:,} measurements.",),
    )


def _cells(item: Mapping[str, Any]) -> tuple[Cell, ...]:
    value, failed = item["value"], len(item["failed"])
    found = MISSING if value is None else number(value) if isinstance(value, int | float) else str(value)
    where = f"{failed} measurements" if failed else ""
    passed = item["status"] in ("passed", "not applicable")
    asked = f"{item['relation']} {number(item['threshold'])}"
    return (Cell(item["name"]), Cell(asked), Cell(found), Cell(item["status"], where, tone="" if passed else "bad"))

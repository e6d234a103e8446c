"""Whether exact posteriors can be trusted: the list that the record of each was held against, and a list of records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from ..reference import CRITERIA, Settings
from ..reference import acceptance as accept
from ..reference.storage import RECORD
from .cells import Cell
from .formats import to_markdown
from .style import MISSING, number, significant
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


HEADS = {
    accept.EFFECTIVE_SIZE: "ESS a draw",
    accept.PARETO_K: "Pareto k",
    accept.DUPLICATES: "Repeated",
    accept.R_HAT: "R-hat",
    accept.DIFFERENCE: "Two routes",
    accept.TEMPERED: "Tempering",
    accept.RANKS: "Ranks, p",
}
"""Of the columns, by the item of the list of acceptance."""


def reference_list(folder: Path) -> str:
    """Markdown that lists the references whose records lie in the folders of ``folder``, a line each."""
    paths = sorted(folder.glob(f"*/{RECORD}"))
    records = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    columns = (
        Column("Reference", numeric=False),
        Column("Draws by", numeric=False),
        Column("Measurements"),
        Column("Draws each"),
        *(Column(HEADS[criterion]) for criterion in CRITERIA),
        Column("Error of log Z", unit="nats, the largest"),
        Column("Accepted", numeric=False),
        Column("Options", numeric=False),
        Column("Recipe", numeric=False),
    )
    asked = "; ".join(f"{HEADS[c]}: {c.name}, {c.relation} {c.threshold:g}" for c in CRITERIA)
    notes = (
        f"The worst over the measurements; 'n/a' where an item has nothing to say of how the draws were made. {asked}.",
        "Options are the simulator's; the recipe is what differs from the defaults of the engine.",
        "`posterior-bench reference --record FOLDER/record.json` makes a reference again; its record holds versions, "
        "seeds and diagnostics of each measurement.",
    )
    lines = tuple(_listed(name, record) for name, record in records.items())
    table = Table("references", "Reference posteriors and the list by which each is accepted", columns, lines, notes)
    remarks = "\n".join(f"- {note}" for note in notes)
    return f"# Reference posteriors\n\n{to_markdown(table)}\n{remarks}\n"


def _listed(name: str, record: Mapping[str, Any]) -> Line:
    usual = asdict(Settings())
    changed = {key: value for key, value in record["settings"].items() if value != usual.get(key)}
    items = {item["name"]: item for item in record["acceptance"]}
    error = record["achieved_error"]["log_evidence_error"]
    return Line(
        (
            Cell(name),
            Cell(record["how"]),
            Cell(f"{record['measurements']:,}"),
            Cell(f"{record['draws']:,}"),
            *(_outcome(items.get(criterion.name)) for criterion in CRITERIA),
            Cell(MISSING if error is None else significant(error)),
            Cell("yes" if record["accepted"] else "no", tone="" if record["accepted"] else "bad"),
            Cell(json.dumps(record["options"], sort_keys=True) if record["options"] else "none"),
            Cell(json.dumps(changed, sort_keys=True) if changed else "defaults"),
        )
    )


def _outcome(item: Mapping[str, Any] | None) -> Cell:
    if item is None:
        return Cell(tone="muted")
    if item["status"] == "not applicable":
        return Cell("n/a", tone="muted")
    value, failed = item["value"], len(item["failed"])
    text = item["status"] if value is None else significant(value) if isinstance(value, int | float) else str(value)
    part = item["note"] if item["name"] == accept.DIFFERENCE.name else ""
    details = [f"{failed} fail"] * bool(failed) + [part] * bool(part)
    return Cell(text, "; ".join(details), tone="" if item["status"] == "passed" else "bad")

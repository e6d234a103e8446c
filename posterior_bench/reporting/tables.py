"""The tables of a report as plain records: what each cell says, with the null band or scale that places it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..running.results import Results
from .cells import (
    Cell,
    calibration_cell,
    distance_cell,
    error_cell,
    knowledge_cell,
    method_cell,
    place_cell,
    plain_cell,
    signed_cell,
    skill_cell,
    verdict_cell,
)
from .contenders import INFORMED, method_key, root_mean_square, worst
from .style import MISSING, number, percent, significant
from .summary import MARGIN, TaskSummary

SHOWN = 4
"""Informed parameters with a column of their own; the worst of the rest is named in the column after them."""


@dataclass(frozen=True)
class Column:
    """A column: its head, the group it stands in, its unit, and whether it holds numbers."""

    head: str
    group: str = ""
    unit: str = ""
    numeric: bool = True

    @property
    def full(self) -> str:
        """Head and unit in one line."""
        return f"{self.head} [{self.unit}]" if self.unit else self.head


@dataclass(frozen=True)
class Line:
    """A row of a table. Anchors stand apart; ``method`` is the id whose colour marks it, if any."""

    cells: tuple[Cell, ...]
    anchor: bool = False
    method: str = ""


@dataclass(frozen=True)
class Table:
    """A table: a name fit for a file, a caption, columns and rows, and notes that belong to it."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def part(self, groups: Sequence[str]) -> Table:
        """The table with the columns of some groups alone, which its caption names."""
        kept = [i for i, column in enumerate(self.columns) if column.group in groups]
        lines = tuple(Line(tuple(line.cells[i] for i in kept), line.anchor, line.method) for line in self.lines)
        columns = tuple(self.columns[i] for i in kept)
        named = dict.fromkeys(column.group for column in columns if column.group != METHOD)
        return Table(self.name, f"{self.caption}: {', '.join(named)}", columns, lines, self.notes)

    def parts(self) -> tuple[Table, ...]:
        """The table in two where it is wide: can a method be trusted, and what else is to be known of it."""
        if not any(column.group == COST for column in self.columns):
            return (self,)
        return self.part((METHOD, TRUST, CALIBRATION)), self.part((METHOD, POINT, DISTANCE, COST))


METHOD, TRUST, CALIBRATION, POINT, DISTANCE, COST = (
    "Method",
    "verdict",
    "calibration error",
    "MAP estimate",
    "against the exact posterior",
    "cost",
)


def main_table(summary: TaskSummary, results: Results) -> Table:
    """Methods by rank, anchors apart: verdict, skill, calibration, MAP, distance to the reference, cost."""
    shown = summary.informed[:SHOWN]
    hidden = tuple(p.name for p in summary.info.parameters if p.name not in shown)
    columns = [
        Column("Place", METHOD, numeric=False),
        Column("Method", METHOD, numeric=False),
        Column("Gate", TRUST, numeric=False),
        Column("Energy skill", TRUST, "95 % interval"),
        *(Column(name, CALIBRATION, "%, null band") for name in shown),
        *((Column("Worst other" if shown else "Worst", CALIBRATION, "%, null band"),) if hidden else ()),
        Column("Informed", POINT, "prior sd, null band"),
        Column("All", POINT, "prior sd, null band"),
        Column("Re-simulation", POINT, "sd of y"),
        Column("Err_post", DISTANCE, "null band"),
        Column("Err_resim", DISTANCE, "y²"),
        Column("Fit", COST, "s"),
        Column("Draws", COST, "per s"),
        Column("Memory", COST, "MB"),
        Column("Budget", COST, "simulations"),
    ]
    rivals = {c.key for c in summary.competitors}
    lines = []
    for c in summary.contenders:
        bad = worst(c, "calibration_error", hidden)
        others = Cell(tone="muted")
        if bad is not None:
            cell = calibration_cell(bad[1])
            others = Cell(f"{cell.text} {bad[0]}", cell.detail, cell.tone)
        simulation_noise = c.score("simulation_noise")
        cells = [
            place_cell(c, rivals),
            method_cell(c),
            verdict_cell(c, len(summary.info.parameters)),
            skill_cell(c),
            *(calibration_cell(c.score(f"calibration_error/{name}")) for name in shown),
            *((others,) if hidden else ()),
            error_cell(root_mean_square(c, "map_error", summary.informed)),
            error_cell(c.score("map_error")),
            plain_cell(
                c.score("map_resimulation_error"),
                f"noise {number(simulation_noise.value)}" if simulation_noise else "",
            ),
            distance_cell(c.score("err_post")),
            distance_cell(c.score("err_resim")),
            Cell(significant(c.cost("fit_seconds"))),
            Cell(significant(c.cost("draws_per_second"))),
            Cell(number(c.cost("peak_memory_mb"), 0)),
            Cell(f"{c.budget:,}" if c.budget else MISSING),
        ]
        lines.append(Line(tuple(cells), bool(c.role), c.key))
    return Table(
        name=summary.name,
        caption=f"{summary.title}, methods by gate, then by energy skill, anchors apart",
        columns=tuple(columns),
        lines=tuple(lines),
        notes=_notes(summary, results),
    )


def parameter_tables(summary: TaskSummary) -> tuple[Table, ...]:
    """One table a quantity: every parameter, the informed ones first, against every method."""
    contenders = summary.scored
    columns = (
        Column("Parameter", METHOD, numeric=False),
        Column("Informed", METHOD, numeric=False),
        *(Column(c.label, TRUST) for c in contenders),
    )
    quantities = (
        ("calibration_error", "calibration-error", "Calibration error in %, null band below", calibration_cell),
        ("coverage_bias", "signed-coverage", "Signed coverage in %, below zero is over-confident", signed_cell),
        ("rank_bias", "rank-bias", "Rank bias in %, above zero where the draws lie too low", signed_cell),
        (
            "crps_skill",
            "crps-skill",
            "CRPS skill, 0 is the prior, 1 is the truth; band of what the draws claim below",
            knowledge_cell,
        ),
        (
            "map_error",
            "map-error",
            "MAP error in prior sd, root mean square; band of what the draws claim below",
            error_cell,
        ),
    )
    units = {p.name: p for p in summary.info.parameters}
    tables = []
    for metric, name, caption, cell in quantities:
        lines = []
        for parameter in (*summary.informed, *summary.others):
            head = Cell(parameter, units[parameter].unit)
            row = [cell(c.score(f"{metric}/{parameter}")) for c in contenders]
            lines.append(Line((head, Cell("yes" if parameter in summary.informed else "no"), *row)))
        if any(c.score(f"{metric}/{p}") for c in contenders for p in units):
            full = f"{summary.title}: {caption[0].lower() if caption[1].islower() else caption[0]}{caption[1:]}"
            tables.append(Table(f"{summary.name}-{name}", full, columns, tuple(lines)))
    return tuple(tables)


def cost_table(results: Results) -> Table:
    """What each job took."""
    heads = (
        ("Task", "", False),
        ("Method", "", False),
        ("Budget", "simulations", True),
        ("Fit", "no.", True),
        ("Fitting", "s", True),
        ("Drawing", "per s", True),
        ("Scoring", "s", True),
        ("Peak memory", "MB", True),
        ("Trained numbers", "", True),
        ("Failed simulations", "", True),
        ("Device", "", False),
        ("Threads", "", True),
    )
    lines = []
    for job in results.jobs:
        row, cost, label = job.rows[0], job.cost, results.labels[method_key(results, job)]
        if cost is None:
            continue
        texts = (
            row.task,
            label,
            f"{row.budget:,}" if row.budget else MISSING,
            str(row.repetition + 1),
            significant(cost.fit_seconds),
            significant(cost.draws_per_second),
            significant(cost.score_seconds),
            number(cost.peak_memory_mb, 0),
            number(cost.parameters, 0),
            f"{row.invalid:,} of {row.calls:,}" if row.calls else MISSING,
            cost.device,
            str(cost.threads),
        )
        lines.append(Line(tuple(Cell(text) for text in texts), method=job.method))
    columns = tuple(Column(head, unit=unit, numeric=numeric) for head, unit, numeric in heads)
    return Table("cost", "What each job took", columns, tuple(lines))


def trouble_table(results: Results) -> Table:
    """Jobs that failed or were skipped, with the reason."""
    columns = tuple(Column(h, numeric=False) for h in ("Task", "Method", "Budget", "Fit", "Status", "Reason", "Job"))
    lines = []
    for job in results.jobs:
        row, label = job.rows[0], results.labels[method_key(results, job)]
        if job.status != "ok":
            texts = (row.task, label, f"{row.budget:,}" if row.budget else MISSING, str(row.repetition + 1))
            tone: Literal["bad", "muted"] = "bad" if job.status == "failed" else "muted"
            cells = (*map(Cell, texts), Cell(job.status, tone=tone), Cell(row.reason), Cell(job.job))
            lines.append(Line(cells, method=job.method))
    return Table("failures", "Jobs that failed or were skipped", columns, tuple(lines))


def _notes(summary: TaskSummary, results: Results) -> tuple[str, ...]:
    notes = [f"T = {results.measurements:,} test measurements, {results.draws:,} draws each."]
    if summary.fits <= 1:
        notes.append(
            "One fit a method: the table speaks of these fits, not of what another fit of the same method would give; "
            "intervals are those of the test set alone."
        )
    else:
        notes.append(f"Means over up to {summary.fits} fits a method; null bands are those of one fit.")
    if summary.judge:
        names = ", ".join(summary.informed) or "none"
        notes.append(f"Informed by the data (CRPS skill above {INFORMED:g} for {summary.judge}): {names}.")
    else:
        notes.append("No method could tell which parameters the data inform: no reference, and none passed the gate.")
    if len(summary.informed) > SHOWN:
        rest = ", ".join(summary.informed[SHOWN:])
        notes.append(f"Without a column of their own, though informed: {rest}; they are in the table by parameter.")
    notes.append(
        "The null band beside a value is where an exact posterior would score with 95 %; what lies outside on the bad "
        "side is marked (so is one exact posterior in forty; bands of MAP error and skill are those of what a method's "
        f"own draws claim). '=' after a place marks a tie: a paired difference of skill inside {MARGIN:g}."
    )
    troubled = [f"{c.label}: {c.trouble}" for c in summary.contenders if c.trouble]
    if troubled:
        notes.append("Means are over the fits that succeeded. " + "; ".join(troubled) + ".")
    if summary.info.invalid_fraction > 0:
        notes.append(
            f"{percent(summary.info.invalid_fraction)} % of the simulations failed: the target is p(theta | y, valid)."
        )
    return tuple(notes)

"""The tables of a report as plain records: what each cell says, with the null band or scale that places it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation import mean_interval
from ..running.results import JobResult, Results
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
from .contenders import INFORMED, Contender, Number, method_key, worst
from .fits import score_matrix
from .narrative import apart_text
from .style import MISSING, first_few, interval, number, percent, significant
from .summary import INFORMED_MAP_ERROR, MARGIN, TaskSummary

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
            error_cell(c.score(INFORMED_MAP_ERROR)),
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
    """One table a quantity: every method against every parameter, the informed ones first."""
    contenders = summary.scored
    units = {p.name: p.unit for p in summary.info.parameters}
    columns = (
        Column("Method", METHOD, numeric=False),
        *(Column(name, "informed by the data", units[name]) for name in summary.informed),
        *(Column(name, "other parameters", units[name]) for name in summary.others),
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
    tables = []
    for metric, name, caption, cell in quantities:
        lines = []
        for c in contenders:
            row = [cell(c.score(f"{metric}/{parameter}")) for parameter in summary.names]
            lines.append(Line((method_cell(c), *row), bool(c.role), c.key))
        if any(c.score(f"{metric}/{p}") for c in contenders for p in summary.names):
            full = f"{summary.title}: {caption[0].lower() if caption[1].islower() else caption[0]}{caption[1:]}"
            tables.append(Table(f"{summary.name}-{name}", full, columns, tuple(lines)))
    return tuple(tables)


def fits_table(summary: TaskSummary) -> Table | None:
    """How much of each number is the fit and how much the test set; ``None`` where every method has one fit."""
    if summary.fits <= 1:
        return None
    first = summary.informed[:1]
    metrics = [(f"calibration_error/{name}", f"calibration error of {name}", "%", 100.0) for name in first]
    metrics += [
        (INFORMED_MAP_ERROR, "MAP error, informed", "prior sd", 1.0),
        ("map_resimulation_error", "MAP re-simulation error", "sd of y", 1.0),
    ]
    columns = [
        Column("Method", METHOD, numeric=False),
        Column("Fits", METHOD, "succeeded"),
        Column("mean", "energy skill"),
        Column("sd of fit", "energy skill"),
        Column("std. error", "energy skill", "of the test set"),
        Column("95 % interval", "energy skill", "both"),
        Column("fits from", "energy skill", "to"),
    ]
    found = {metric: [c.score(metric) for c in summary.contenders] for metric, *_ in metrics}
    with_error = {metric for metric, own in found.items() if any(one and one.std_error is not None for one in own)}
    for metric, head, unit, _ in metrics:
        columns += [Column("mean", head, unit), Column("sd over fits", head, unit)]
        columns += [Column("std. error", head, "of the test set")] if metric in with_error else []
    lines = []
    for c in summary.contenders:
        cells = [Cell(c.label), Cell(f"{len(c.done)} of {len(c.jobs)}", tone="bad" if c.trouble else "")]
        cells += _skill_parts(c)
        for metric, _, _, factor in metrics:
            one = c.score(metric)
            values = [one.value, one.spread, one.std_error] if one is not None else [None] * 3
            digits = 2 if factor > 1 else 3
            texts = ["" if value is None else number(factor * value, digits) for value in values]
            cells += [Cell(text) if text else Cell(tone="muted") for text in texts[: 3 if metric in with_error else 2]]
        lines.append(Line(tuple(cells), bool(c.role), c.key))
    notes = (
        "Two sources of uncertainty, apart: the sd that the choice of a fit (its simulations and its start) gives the "
        "skill of one fit, and the standard error that the choice of test measurements gives the mean, from two-way "
        "random effects; 0 where the fits differ by no more than chance. The interval holds both. For the other "
        "scores the standard deviation over fits and, where a score has one, the standard error of a single fit's. A "
        "method with one fit that succeeded says nothing of another.",
    )
    caption = f"{summary.title}: what is due to the fit and what to the test set"
    return Table(f"{summary.name}-fits", caption, tuple(columns), tuple(lines), notes)


def _skill_parts(c: Contender) -> list[Cell]:
    """Mean, sd of the fit, sd of the test set, interval and range over fits of the energy skill."""
    scores = score_matrix(c.done)
    if scores is None:
        return [_plain(c.score("energy_skill")), *[Cell(tone="muted")] * 4]
    found = mean_interval(scores)
    ends = scores.double().mean(1).tolist()
    return [
        Cell(number(found.mean)),
        Cell(number(found.sd_fit, 4), tone="" if found.sd_fit is not None else "muted"),
        Cell(number(found.sd_test, 4)),
        Cell(interval(found.low, found.high)),
        Cell(interval(min(ends), max(ends))) if len(ends) > 1 else Cell(tone="muted"),
    ]


def _plain(found: Number | None) -> Cell:
    return Cell(tone="muted") if found is None else Cell(number(found.value))


def cost_table(results: Results) -> Table:
    """What the fits of each method took, on average."""
    heads = (
        ("Task", "", False),
        ("Method", "", False),
        ("Budget", "simulations", True),
        ("Fits", "", True),
        ("Fitting", "s", True),
        ("Drawing", "per s", True),
        ("Scoring", "s", True),
        ("Peak memory", "MB", True),
        ("Trained numbers", "", True),
        ("Failed simulations", "", True),
        ("Device", "", False),
        ("Threads", "", True),
    )
    groups: dict[tuple[str, str, int], list[JobResult]] = {}
    for job in results.jobs:
        if job.cost is not None:
            groups.setdefault((job.rows[0].task, method_key(results, job), job.rows[0].budget), []).append(job)
    lines = []
    for (task, key, budget), jobs in groups.items():
        c = Contender(key, results.labels[key], budget, "", tuple(jobs))
        costs = [job.cost for job in jobs if job.cost is not None]
        seconds = [cost.fit_seconds for cost in costs if cost.fit_seconds is not None]
        calls, invalid = sum(job.rows[0].calls for job in jobs), sum(job.rows[0].invalid for job in jobs)
        spread = f"{significant(min(seconds))} to {significant(max(seconds))}" if len(seconds) > 1 else ""
        cells = (
            Cell(task),
            Cell(c.label),
            Cell(f"{budget:,}" if budget else MISSING),
            Cell(str(len(jobs))),
            Cell(significant(c.cost("fit_seconds")), spread),
            Cell(significant(c.cost("draws_per_second"))),
            Cell(significant(c.cost("score_seconds"))),
            Cell(number(c.cost("peak_memory_mb"), 0)),
            Cell(number(c.cost("parameters"), 0)),
            Cell(f"{invalid:,} of {calls:,}" if calls else MISSING),
            Cell(", ".join(sorted({cost.device for cost in costs}))),
            Cell(", ".join(str(threads) for threads in sorted({cost.threads for cost in costs}))),
        )
        lines.append(Line(cells, method=key))
    columns = tuple(Column(head, unit=unit, numeric=numeric) for head, unit, numeric in heads)
    return Table("cost", "What the jobs took, means over fits", columns, tuple(lines))


def jobs_table(results: Results) -> Table:
    """Each job with the commands that show it and make it again."""
    columns = tuple(
        Column(h, numeric=h in ("Budget", "Fit")) for h in ("Task", "Method", "Budget", "Fit", "Status", "Show", "Run")
    )
    lines = []
    for job in results.jobs:
        row, label = job.rows[0], results.labels[method_key(results, job)]
        texts = (row.task, label, f"{row.budget:,}" if row.budget else MISSING, str(row.repetition + 1), job.status)
        commands = (f"posterior-bench show {job.job}", " ".join(job.command.split()))
        lines.append(Line(tuple(Cell(text) for text in (*texts, *commands)), method=job.method))
    return Table("jobs", "Every job, and the commands that show it and make it again", columns, tuple(lines))


def _notes(summary: TaskSummary, results: Results) -> tuple[str, ...]:
    size = summary.info.measurements or results.measurements
    source = f", those of the file {summary.info.test_set}" if summary.info.test_set else ""
    notes = [f"T = {size:,} test measurements{source}, {results.draws:,} draws each."]
    if summary.fits <= 1:
        notes.append(
            "One fit a method: the table speaks of these fits, not of what another fit of the same method would give; "
            "intervals are those of the test set alone."
        )
    else:
        notes.append(
            f"Means over up to {summary.fits} fits a method; null bands are those of one fit. Intervals of the skill "
            "hold both the fit and the test set, which the table of fits tells apart."
        )
        whole = max((len(c.done) for c in summary.competitors), default=0)
        if summary.compared < whole:
            notes.append(
                f"Places and ties compare {summary.compared} fits of each method, since others are missing; the skill "
                "printed is that of all its fits."
            )
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
        f"own draws claim). '=' after a place marks a tie: a paired difference of skill inside {MARGIN:g}; '?' that "
        f"the interval of a difference reaches across {MARGIN:g}, so that the order of the two is not decided."
    )
    notes += apart_text(summary)
    troubled = [f"{c.label}: {c.trouble}" for c in summary.contenders if c.trouble]
    if troubled:
        notes.append(f"Means are over the fits that succeeded. {first_few(troubled, '; ', '; ')}.")
    if summary.info.invalid_fraction > 0:
        notes.append(
            f"{percent(summary.info.invalid_fraction)} % of the simulations failed: the target is p(theta | y, valid)."
        )
    return tuple(notes)

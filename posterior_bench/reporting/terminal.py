"""The outcome on a terminal: one compact table a task."""

from __future__ import annotations

from dataclasses import replace

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from ..running.results import Results
from .cells import Cell, calibration_cell, error_cell, method_cell, place_cell, skill_cell, verdict_cell
from .contenders import Contender, short_labels, worst
from .style import significant
from .summary import INFORMED_MAP_ERROR, TaskSummary, summarise

_STYLE = {"bad": "red", "warn": "yellow", "good": "green", "muted": "dim", "": ""}


def terminal_tables(results: Results) -> tuple[RichTable, ...]:
    """A ``rich.table.Table`` for each task and budget, narrow enough for most terminals; the page says the rest."""
    results = short_labels(results)
    return tuple(_table(summary, results) for summary in summarise(results))


def _table(summary: TaskSummary, results: Results) -> RichTable:
    fits = "one fit a method" if summary.fits <= 1 else f"up to {summary.fits} fits a method"
    size = summary.info.measurements or results.measurements
    said = (
        f"T = {size:,}, {results.draws:,} draws, {fits}. Below a value: 95 % interval of the skill, "
        "null band of the calibration error (Cal.). MAP error in prior sd."
    )
    table = RichTable(title=Text(summary.title), caption=Text(said), title_justify="left", caption_justify="left")
    table.box, table.pad_edge, table.collapse_padding = box.SIMPLE_HEAD, False, True
    first = summary.informed[:1]
    heads = ["Method", "Gate", "Energy\nskill"]
    heads += [f"Cal. %\n{name}" for name in first] + ["Cal. %\nworst other" if first else "Cal. %\nworst"]
    heads += ["MAP\nerror", "Fit\ns"]
    for i, head in enumerate(heads):
        narrowest = {"Gate": len("under-confident"), "Energy\nskill": len("0.000–0.000")}.get(head)
        table.add_column(Text(head), justify="left" if i < 2 else "right", overflow="fold", min_width=narrowest)
    rivals = {c.key for c in summary.competitors}
    for c in summary.contenders:
        if c.role and c is summary.anchors[0]:
            table.add_section()
        table.add_row(*(_text(cell) for cell in _cells(c, summary, first, rivals)))
    return table


def _cells(c: Contender, summary: TaskSummary, first: tuple[str, ...], rivals: set[str]) -> list[Cell]:
    place, method = place_cell(c, rivals), method_cell(c)
    others = [p.name for p in summary.info.parameters if p.name not in first]
    bad = worst(c, "calibration_error", others)
    cell = calibration_cell(bad[1]) if bad else Cell(tone="muted")
    return [
        Cell(method.text if c.role else f"{place.text} {method.text}", method.detail),
        verdict_cell(c, len(summary.info.parameters)),
        skill_cell(c),
        *(calibration_cell(c.score(f"calibration_error/{name}")) for name in first),
        Cell(f"{bad[0]} {cell.text}", cell.detail, cell.tone) if bad else cell,
        replace(error_cell(c.score(INFORMED_MAP_ERROR) or c.score("map_error")), detail=""),
        Cell(significant(c.cost("fit_seconds"))),
    ]


def _text(cell: Cell) -> Text:
    text = Text(cell.text, style=_STYLE[cell.tone])
    if cell.detail:
        short = cell.detail if "−" in cell.detail else cell.detail.replace(" to ", "–")
        text.append(f"\n{short}", style="dim")
    return text

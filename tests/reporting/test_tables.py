from __future__ import annotations

import csv
import io
from dataclasses import replace

from gaussian_results import without_tensors
from rich.console import Console

from posterior_bench.reporting import terminal_tables
from posterior_bench.reporting.cells import NO_NULL, calibration_cell, distance_cell, signed_cell
from posterior_bench.reporting.contenders import Number
from posterior_bench.reporting.failures import trouble_table, undone_table
from posterior_bench.reporting.formats import escape_latex, escape_markdown, to_csv, to_latex, to_markdown
from posterior_bench.reporting.style import percent
from posterior_bench.reporting.summary import TaskSummary, summarise
from posterior_bench.reporting.tables import Cell, Column, Line, Table, main_table, parameter_tables
from posterior_bench.running.results import Results, Undone

EVIL = r"50 % of $x_1 & {#1}~^\end<b>|*"


def _line(table: Table, method: str) -> dict[str, Cell]:
    line = next(line for line in table.lines if line.method == method)
    return {column.head: cell for column, cell in zip(table.columns, line.cells, strict=True)}


def test_the_main_table_says_who_can_be_trusted(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    for summary in summaries:
        table = main_table(summary, results)
        good, bad = _line(table, "exact_twin"), _line(table, "too_narrow")
        assert (good["Place"].text, good["Gate"].text, good["Gate"].tone) == ("1", "calibrated", "good")
        assert (bad["Place"].text, bad["Gate"].text, bad["Gate"].tone) == ("2", "over-confident", "bad")
        assert bad["Gate"].detail == "all 3 parameters"
        assert bad["depth"].tone == "bad"
        assert bad["Worst other"].text.endswith(" hidden")
        assert _line(table, "prior")["Place"].text == "anchor"
        assert [line.anchor for line in table.lines] == [False, False, False, True, True]


def test_values_stand_beside_what_places_them(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    table = main_table(summaries[0], results)
    line = _line(table, "exact_twin")
    score = next(c for c in summaries[0].contenders if c.key == "exact_twin").scores["calibration_error/depth"]
    assert line["depth"].text == percent(score.value)
    assert line["depth"].detail == f"{percent(score.null_low, 2)} to {percent(score.null_high, 2)}"
    assert line["Re-simulation"].detail.startswith("noise ")
    assert line["Err_post"].detail.startswith("0 ± ")
    assert " to " in line["Energy skill"].detail
    assert any("One fit a method" in note for note in table.notes)
    assert any("depth, slope" in note for note in table.notes)


def test_failed_and_skipped_jobs_stand_in_the_tables(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    first, second = (_line(main_table(summary, results), "broken") for summary in summaries)
    assert (first["Gate"].text, first["Gate"].tone) == ("failed", "bad")
    assert (second["Gate"].text, second["Gate"].tone) == ("skipped", "muted")
    assert {cell.text for head, cell in first.items() if head in ("Energy skill", "depth", "All", "Fit")} == {"–"}
    reasons = [line.cells[5].text for line in trouble_table(results).lines]
    assert reasons == ["ValueError: no luck", "gauss does not offer luck"]


def test_methods_that_were_not_run_are_listed_by_task(results: Results) -> None:
    cells = [("wide", "NPE", 100), ("wide", "NPE", 200), ("wide", "cINN", 100), ("wide", "cINN", 200)]
    cells += [("wide", "Prior", 0), ("thin", "NPE", 200)]
    table = undone_table(replace(results, undone=tuple(Undone(*cell) for cell in cells)))
    assert [tuple(cell.text for cell in line.cells) for line in table.lines] == [
        ("wide", "NPE, cINN", "100, 200"),
        ("wide", "Prior", "–"),
        ("thin", "NPE", "200"),
    ]
    assert f"6 of {len(results.jobs) + 6}" in table.caption
    assert undone_table(results).lines == ()


def test_a_missing_null_band_is_said_to_be_missing() -> None:
    for cell in (calibration_cell, signed_cell, distance_cell):
        assert cell(Number(0.01)).detail == NO_NULL
        assert cell(Number(0.01)).tone == ""
        assert cell(None).text == "–"


def test_only_what_lies_on_the_bad_side_is_marked() -> None:
    assert calibration_cell(Number(0.01, null_low=0.02, null_high=0.03)).tone == ""
    assert calibration_cell(Number(0.04, null_low=0.02, null_high=0.03)).tone == "bad"
    assert signed_cell(Number(-0.04, null_low=-0.03, null_high=0.03)).tone == "bad"
    assert signed_cell(Number(0.04, null_low=-0.03, null_high=0.03)).tone == "bad"


def test_by_parameter_the_informed_come_first(summaries: tuple[TaskSummary, ...]) -> None:
    tables = parameter_tables(summaries[0])
    assert [t.name.removeprefix("linear-") for t in tables] == [
        "calibration-error",
        "signed-coverage",
        "rank-bias",
        "crps-skill",
        "map-error",
    ]
    for table in tables:
        assert [column.head for column in table.columns] == ["Method", "depth", "slope", "hidden"]
        assert [column.group for column in table.columns[1:]] == ["informed by the data"] * 2 + ["other parameters"]
        assert [column.unit for column in table.columns[1:]] == ["mm", "rad", ""]
        assert [line.method for line in table.lines] == ["exact_twin", "too_narrow", "reference", "prior"]
    narrow = next(line for line in tables[1].lines if line.method == "too_narrow")
    assert all(cell.text.startswith("−") and cell.tone == "bad" for cell in narrow.cells[1:])


def test_the_long_table_holds_every_number_exactly(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(results, summaries))))
    for job in results.jobs:
        for row in job.rows:
            if row.metric is None:
                continue
            found = [
                r for r in read if (r["task"], r["method"], r["metric"]) == (row.task, row.method, row.metric)
            ]  # fmt: skip
            assert len(found) == 1
            assert float(found[0]["value"]) == row.value
            assert found[0]["null_high"] == ("" if row.null_high is None else repr(row.null_high))
    broken = [r for r in read if r["method"] == "broken"]
    assert [(r["fits"], r["failed"], r["skipped"]) for r in broken] == [("0", "1", "0"), ("0", "0", "1")]


def test_latex_is_escaped() -> None:
    table = Table("t_1", EVIL, (Column(EVIL, numeric=False),), (Line((Cell(EVIL, EVIL),)),), (EVIL,))
    text = to_latex(table)
    assert text.count(escape_latex(EVIL)) == 5
    assert r"50 \% of \$x\_1 \& \{\#1\}\textasciitilde{}\textasciicircum{}\textbackslash{}end" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_latex_rows_have_as_many_cells_as_columns(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    table = main_table(summaries[0], results)
    blocks = to_latex(table).split(r"\begin{tabular}")[1:]
    assert len(blocks) == 2
    for block, part in zip(blocks, table.parts(), strict=True):
        rows = [line for line in block.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {row.replace(r"\&", "").count("&") + 1 for row in rows} == {len(part.columns)}


def test_markdown_is_escaped() -> None:
    table = Table("t", "", (Column(EVIL),), (Line((Cell(EVIL),)),))
    head, _, row = to_markdown(table).splitlines()
    for line in (head, row):
        assert "<b>" not in line
        assert line.count("|") - line.count(r"\|") == 2
    assert escape_markdown("two\nlines") == "two lines"


def test_the_terminal_takes_a_label_as_text(results: Results) -> None:
    evil = "[red]loud[/red] [/nonsense]"
    changed = without_tensors(results, labels={**results.labels, "exact_twin": evil})
    console = Console(width=250, file=io.StringIO(), force_terminal=False)
    tables = terminal_tables(changed)
    for table in tables:
        console.print(table)
    assert len(tables) == 2
    assert evil in console.file.getvalue()  # type: ignore[attr-defined]
    assert "failed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_task_on_which_nothing_worked_has_a_table(results: Results) -> None:
    jobs = tuple(job for job in results.jobs if job.method == "broken")
    only = replace(results, jobs=jobs, labels={"broken": "Broken"})
    for summary in summarise(only):
        table = main_table(summary, only)
        assert len(table.lines) == 1
        assert parameter_tables(summary) == ()

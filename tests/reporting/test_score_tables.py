from __future__ import annotations

from dataclasses import replace

from posterior_bench.reporting.contenders import Number
from posterior_bench.reporting.score_tables import score_table
from posterior_bench.reporting.summary import TaskSummary
from posterior_bench.reporting.tables import Table


def with_scores(summary: TaskSummary, key: str, scores: dict[str, Number]) -> TaskSummary:
    changed = [replace(c, scores={**c.scores, **scores}) if c.key == key else c for c in summary.contenders]
    return replace(summary, contenders=tuple(changed))


def cells(table: Table, key: str) -> dict[str, tuple[str, str]]:
    line = next(line for line in table.lines if line.method == key)
    return {column.head: (cell.text, cell.tone) for column, cell in zip(table.columns, line.cells, strict=True)}


def test_only_columns_that_a_method_has_and_marks_outside_of_the_band(summaries: tuple[TaskSummary, ...]) -> None:
    names = [p.name for p in summaries[0].info.parameters]
    scores = {
        "tarp_coverage_bias": Number(-0.2, null_low=-0.02, null_high=0.02),
        "posterior_predictive": Number(0.5, null_low=0.9, null_high=1.1),
        "stray_draws/far": Number(0.03, null_low=0.0, null_high=0.001),
        "local_c2st_rejected": Number(0.04, null_low=0.0, null_high=0.1),
        "c2st_mlp_10000": Number(0.9, null_low=0.48, null_high=0.52),
        f"coverage_worst_bin/{names[0]}": Number(-0.01, null_low=-0.05, null_high=0.05),
        f"coverage_worst_bin/{names[1]}": Number(-0.09, null_low=-0.05, null_high=0.05),
    }
    table = score_table(with_scores(summaries[0], "too_narrow", scores))
    assert table is not None
    found = cells(table, "too_narrow")
    assert found["TARP"] == ("−20.0", "bad")
    assert found["Predictive distance"][1] == "bad", "too narrow is no merit"
    assert found["Far from all"] == ("3.00", "bad")
    assert found["L-C2ST rejects"] == ("4.00", "")
    assert found["c2st_mlp_10000"][1] == "bad"
    assert found["Worst bin of y"] == (f"−9.00 {names[1]}", "bad")
    assert "Regret" not in found
    assert cells(table, "exact_twin")["TARP"][0] == "–"

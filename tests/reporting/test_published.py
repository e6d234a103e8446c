from __future__ import annotations

import pytest
from gaussian_results import without_tensors

from posterior_bench.reporting.published import kendall_tau, published_table
from posterior_bench.reporting.summary import TaskSummary, summarise
from posterior_bench.reporting.tables import main_table
from posterior_bench.running.results import PublishedTable, Results

PUBLISHED = PublishedTable(
    task="linear",
    title="A table",
    source="Somebody 2019",
    note="Only the order can be compared.",
    columns=("Cal.", "MAP", "Time"),
    metrics=("calibration_error/depth", "map_error/informed", None),
    rows=(
        ("Narrow <i>", "too_narrow", ("0.34 %", "0.5±0.1", "1 s")),
        ("Exact", "exact_twin", ("1.91 %", "0.4±0.1", "2 s")),
        ("Broken", "broken", ("3 %", "0.3", "-")),
        ("Unknown", None, ("0.1 %", "-", "-")),
    ),
)


def test_printed_and_own_values_and_orders_stand_side_by_side(summaries: tuple[TaskSummary, ...]) -> None:
    table = published_table(PUBLISHED, summaries[0])
    assert [c.head for c in table.columns] == ["Method", *["as printed", "ours", "order"] * 2, "as printed"]
    assert [c.group for c in table.columns[1:]] == ["Cal."] * 3 + ["MAP"] * 3 + ["Time"]
    narrow, exact, broken, unknown, foot = table.lines
    assert [cell.text for cell in exact.cells][:2] == ["Exact", "1.91 %"]
    assert (narrow.cells[3].text, exact.cells[3].text) == ("1 : 2", "2 : 1")
    assert [cell.text for cell in unknown.cells[:4]] == ["Unknown", "0.1 %", "–", "–"]
    assert broken.cells[0].detail == "failed"
    assert (foot.cells[3].text, foot.cells[3].detail) == ("−1.00", "2 methods")
    assert any("Only the order" in note for note in table.notes)
    assert any("depth, slope" in note for note in table.notes)


def test_our_map_error_over_informed_parameters_is_that_of_the_table(
    summaries: tuple[TaskSummary, ...], results: Results
) -> None:
    c = next(c for c in summaries[0].contenders if c.key == "exact_twin")
    parts = [c.scores[f"map_error/{name}"].value ** 2 for name in ("depth", "slope")]
    assert c.scores["map_error/informed"].value == pytest.approx((sum(parts) / 2) ** 0.5)
    printed = published_table(PUBLISHED, summaries[0]).lines[1].cells[5].text
    main = next(line for line in main_table(summaries[0], results).lines if line.method == "exact_twin")
    assert printed in {cell.text for cell in main.cells}


def test_kendalls_tau_with_ties() -> None:
    assert kendall_tau([1, 2, 3, 4], [1, 2, 3, 4]) == 1
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)
    assert kendall_tau([1, 1], [1, 2]) is None
    assert kendall_tau([], []) is None


def test_without_artefacts_it_is_the_same(results: Results, summaries: tuple[TaskSummary, ...]) -> None:
    bare = published_table(PUBLISHED, summarise(without_tensors(results))[0])
    assert bare.lines == published_table(PUBLISHED, summaries[0]).lines

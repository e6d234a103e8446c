"""Controls stand in a table of their own, which says of each score what it flags, and compete for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gaussian_results import CONTROLS, make_controls, on_many_tasks

from posterior_bench.reporting.cells import NO_NULL, Cell
from posterior_bench.reporting.contenders import anchor_roles
from posterior_bench.reporting.control_tables import AGAINST_EXACT, control_tables
from posterior_bench.reporting.formats import to_csv
from posterior_bench.reporting.narrative import verdict
from posterior_bench.reporting.page import report_looks, write_report
from posterior_bench.reporting.settings import settings_table
from posterior_bench.reporting.summary import TaskSummary, summarise
from posterior_bench.reporting.tables import Table, main_table
from posterior_bench.running.results import Results


@pytest.fixture(scope="module")
def controlled() -> Results:
    return make_controls()


@pytest.fixture(scope="module")
def summary(controlled: Results) -> TaskSummary:
    return summarise(controlled)[0]


@pytest.fixture(scope="module")
def tables(summary: TaskSummary) -> tuple[Table, ...]:
    return control_tables(summary)


def cell(table: Table, score: str, column: str) -> Cell:
    place = [c.head for c in table.columns].index(column)
    return next(line for line in table.lines if line.cells[0].text == score).cells[place]


def test_columns_are_the_anchors_and_the_controls(tables: tuple[Table, ...]) -> None:
    for table in tables:
        assert [column.head for column in table.columns] == ["Score", "Exact reference", "Prior", *CONTROLS]
        assert {len(line.cells) for line in table.lines} == {7}
        assert table.columns[3].group == "exact posterior with a defect"


@pytest.mark.parametrize(
    ("control", "score", "expected"),
    [
        ("shrunk", "coverage_bias by parameter", "3 of 3 below"),
        ("widened", "coverage_bias by parameter", "3 of 3 above"),
        ("shifted", "coverage_bias by parameter", "0 of 3"),
        ("permuted", "coverage_bias by parameter", "2 of 3 below"),  # the data tell nothing of the third
        ("shrunk", "rank_bias by parameter", "0 of 3"),
        ("shifted", "rank_bias by parameter", "3 of 3 below"),
        ("shrunk", "calibration_score", "above"),
        ("shifted", "calibration_score", "inside"),  # central intervals do not see a shift
        ("shrunk", "energy_skill", "below"),  # it knows less than it claims
        ("widened", "energy_skill", "above"),
        ("permuted", AGAINST_EXACT, "below"),
        ("Prior", AGAINST_EXACT, "below"),
        ("Prior", "calibration_score", "inside"),
        ("Prior", "coverage_bias by parameter", "0 of 3"),
        ("Prior", "err_post", "above"),
        ("Exact reference", "coverage_bias by parameter", "0 of 3"),
        ("Exact reference", "rank_bias by parameter", "0 of 3"),
        ("Exact reference", "err_post", "inside"),
    ],
)
def test_each_defect_is_flagged_by_the_score_for_it_with_its_sign(
    tables: tuple[Table, ...], control: str, score: str, expected: str
) -> None:
    found = cell(tables[0], score, control)
    assert found.text == expected
    assert (found.tone == "bad") == (expected not in ("inside", "0 of 3"))


def test_the_sign_of_skill_tells_no_over_confidence(summary: TaskSummary) -> None:
    """A shrunk posterior and an exact one have nearly the same skill, far above the prior's; coverage tells them."""
    shrunk, exact = summary.controls[0], summary.reference
    assert exact is not None
    assert shrunk.scores["energy_skill"].value > 0.9 * exact.scores["energy_skill"].value > 0.2
    assert shrunk.scores["coverage_bias/depth"].value < 2 * (exact.scores["coverage_bias/depth"].null_low or 0)


def test_a_score_without_a_band_says_so_and_has_no_power(tables: tuple[Table, ...]) -> None:
    flags, powers = tables
    assert cell(flags, "plain", "shrunk") == Cell(NO_NULL, "1.50", "muted")
    assert flags.lines[-1].cells[0].text == "plain"
    assert "plain" not in [line.cells[0].text for line in powers.lines]


def test_power_is_near_one_for_what_is_far_outside_and_small_for_the_exact(tables: tuple[Table, ...]) -> None:
    score = "coverage_bias by parameter"
    shrunk, exact = (cell(tables[1], score, name) for name in ("shrunk", "Exact reference"))
    assert float(shrunk.text.replace("−", "-")) < -2
    assert shrunk.detail.endswith("power > 0.99")
    assert abs(float(exact.text.replace("−", "-"))) < 1
    assert float(exact.detail.rpartition(" ")[2]) < 0.1
    assert "Phi((low − v) / s)" in tables[1].notes[0]
    assert "T = 800" in tables[1].caption


def test_p_values_have_no_power(controlled: Results) -> None:
    jobs = tuple(
        replace(
            job,
            rows=(*job.rows, replace(job.rows[0], metric="x_p_value/depth", value=0.01, null_low=0.05, null_high=1.0)),
        )
        for job in controlled.jobs
    )
    flags, powers = control_tables(summarise(replace(controlled, jobs=jobs))[0])
    assert cell(flags, "x_p_value by parameter", "shrunk").text == "1 of 1 below"
    assert "x_p_value by parameter" not in [line.cells[0].text for line in powers.lines]


def test_controls_compete_for_nothing(controlled: Results, summary: TaskSummary) -> None:
    roles = anchor_roles(controlled)
    assert [roles[f"control_{name}"] for name in CONTROLS] == ["flawed"] * 4
    assert (roles["reference"], roles["prior"], roles["exact_twin"]) == ("reference", "anchor", "")
    assert [c.key for c in summary.contenders] == ["exact_twin", "reference", "prior"]
    assert not {f"control_{name}" for name in CONTROLS} & set(report_looks(controlled))
    assert len(main_table(summary, controlled).lines) == 3
    assert "Control" not in verdict(summary).text


def test_controls_stand_in_settings_and_numbers(controlled: Results, summary: TaskSummary) -> None:
    settings = settings_table(controlled, [summary])
    line = next(line for line in settings.lines if line.method == "control_shrunk")
    assert (line.cells[1].text, line.cells[2].text) == ('kind = "shrunk"', "wrong on purpose")
    numbers = to_csv(controlled, [summary])
    assert "control_shrunk" in numbers
    assert ",flawed," in numbers


def test_without_controls_there_is_no_table(controlled: Results) -> None:
    jobs = tuple(job for job in controlled.jobs if not job.method.startswith("control"))
    assert control_tables(summarise(replace(controlled, jobs=jobs))[0]) == ()
    failed = tuple(
        replace(job, rows=(replace(job.rows[0], status="skipped", metric=None, value=None),), artefact=None)
        if job.method.startswith("control")
        else job
        for job in controlled.jobs
    )
    assert control_tables(summarise(replace(controlled, jobs=failed))[0]) == ()


def test_both_pages_show_the_tables_once_a_task(controlled: Results, tmp_path: Path) -> None:
    path = write_report(on_many_tasks(controlled, 1), tmp_path)
    page, readme = path.read_text(encoding="utf-8"), (tmp_path / "README.md").read_text(encoding="utf-8")
    for text in (page, readme):
        assert text.count("What each score flags") == 1
        assert "Phi((low − v) / s)" in text
    assert {p.name for p in (tmp_path / "tables").glob("*.csv")} >= {"task0-controls.csv", "task0-power.csv"}
    for figure in (tmp_path / "figures").glob("*.svg"):
        assert "Control" not in figure.read_text(encoding="utf-8")

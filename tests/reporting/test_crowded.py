"""A report of many methods: what one panel cannot hold stands side by side, and every fit is accounted for."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from crowded_results import METHODS, crowded_results
from matplotlib.figure import Figure

from posterior_bench.reporting import (
    calibration_figures,
    cost_figures,
    heat_figures,
    learning_figures,
    picture_figures,
    posterior_figures,
    trial_figures,
    write_report,
)
from posterior_bench.reporting.contenders import short_labels
from posterior_bench.reporting.drawing import CROWD, Illustration, method_groups
from posterior_bench.reporting.page import report_looks
from posterior_bench.reporting.settings import compares_settings, settings_table
from posterior_bench.reporting.style import Look
from posterior_bench.reporting.summary import TaskSummary, summarise
from posterior_bench.reporting.tables import cost_table, fits_table, jobs_table, main_table, parameter_tables
from posterior_bench.running.results import Results


@pytest.fixture(scope="module")
def crowd() -> Results:
    return crowded_results(30, 20, (3, 2), tasks_wanted=1)


@pytest.fixture(scope="module")
def both(crowd: Results) -> tuple[TaskSummary, ...]:
    return summarise(crowd)


@pytest.fixture(scope="module")
def look(crowd: Results) -> dict[str, Look]:
    return report_looks(crowd)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    found: list[Figure] = []
    for module in (calibration_figures, cost_figures, heat_figures, learning_figures, posterior_figures):
        monkeypatch.setattr(module, "finish", lambda figure, *texts: found.append(figure) or texts)
    return found


def test_families_stay_together_and_panels_hold_few(both: tuple[TaskSummary, ...]) -> None:
    groups = method_groups(both[0].contenders)
    assert [[c.key for c in group] for group in groups] == [list(METHODS)[:5], list(METHODS)[5:10], list(METHODS)[10:]]
    assert all(len(group) <= CROWD for group in groups)
    later = method_groups(both[1].contenders)  # where a method failed, the others stay where they were
    assert [len(group) for group in later] == [5, 4, 3]


def test_methods_of_a_crowd_differ_in_colour_or_dash_and_in_mark(look: dict[str, Look]) -> None:
    assert len({(one.colour, one.dash) for one in look.values()}) == len(look)
    assert len({(one.colour, one.marker) for one in look.values()}) == len(look)


def test_curves_of_many_methods_stand_in_columns(
    both: tuple[TaskSummary, ...], look: dict[str, Look], drawn: list[Figure]
) -> None:
    calibration_figures.calibration_figures(both[0], look)
    informed, others = drawn
    assert len(informed.axes) == 3 * len(both[0].informed)
    assert len(others.axes) == 3 * len(both[0].others)
    for axes in informed.axes[:3]:
        assert axes.get_legend() is not None
        curves = {line.get_color() for line in axes.lines}
        assert look["reference"].colour in curves  # the scale is in every column
    third = {line.get_color() for line in informed.axes[2].lines}
    assert look["abc_rejection"].colour in third
    assert look["inn_published"].colour not in third


def test_boards_show_the_reference_first_and_the_informed_parameters_left(
    both: tuple[TaskSummary, ...], look: dict[str, Look], drawn: list[Figure]
) -> None:
    heat_figures.skill_figure(both[0], look)
    heat_figures.coverage_figure(both[0], look)
    for figure in drawn:
        assert figure.axes[0].get_yticklabels()[0].get_text() == "Exact reference"
        assert len(figure.axes[0].get_yticklabels()) == 15
    image = drawn[0].axes[0].images[0].get_array()
    assert image is not None
    assert image[0, 0] == pytest.approx(both[0].reference.scores[f"crps_skill/{both[0].informed[0]}"].value)  # type: ignore[union-attr]


def test_learning_curves_need_two_budgets(
    both: tuple[TaskSummary, ...], look: dict[str, Look], drawn: list[Figure]
) -> None:
    assert learning_figures.learning_figure(both[:1], look) is None
    texts = learning_figures.learning_figure(both, look)
    assert texts is not None
    assert "15,000 simulations: up to 3; 100,000 simulations: up to 2" in str(texts)
    assert len(drawn[0].axes) == 9


def test_all_budgets_stand_in_one_panel_of_cost(
    both: tuple[TaskSummary, ...], look: dict[str, Look], drawn: list[Figure]
) -> None:
    cost_figures.cost_figure(both, look)
    names = [text.get_text() for text in drawn[0].axes[0].texts]
    assert len(names) == len(set(names)) == 15
    heights = sorted(text.get_position()[1] for text in drawn[0].axes[0].texts)
    low, high = drawn[0].axes[0].get_ylim()
    assert min(b - a for a, b in pairwise(heights)) > 0.03 * (high - low)


def test_fits_that_failed_are_counted_and_the_rest_is_compared(crowd: Results, both: tuple[TaskSummary, ...]) -> None:
    table = fits_table(both[1])
    assert table is not None
    counts = {line.method: line.cells[1].text for line in table.lines}
    assert (counts["inn"], counts["deep_ensemble"], counts["dropout_nn"]) == ("2 of 2", "1 of 2", "0 of 2")
    spread = {line.method: line.cells[3].text for line in table.lines}
    assert spread["deep_ensemble"] == "–"
    assert spread["inn"] != "–"
    main = main_table(both[1], crowd)
    assert "Deep ensemble: 1 of 2 failed; Dropout network: 2 of 2 failed" in " ".join(main.notes)


def test_comparisons_pair_the_repetitions_that_all_have(crowd: Results) -> None:
    gone = next(j for j in crowd.jobs if j.method == "cvae" and j.rows[0].budget == 15000 and j.rows[0].repetition == 0)
    failed = replace(gone, rows=(replace(gone.rows[0], status="failed", metric=None, value=None),), artefact=None)
    results = replace(crowd, jobs=tuple(failed if job is gone else job for job in crowd.jobs))
    summary = summarise(results)[0]
    assert summary.compared == 2
    inn = next(c for c in summary.contenders if c.key == "inn")
    values = [job.artefact.per_measurement["energy_skill"].mean() for job in inn.done if job.artefact is not None]
    assert inn.ranked is not None
    assert inn.ranked.skill == pytest.approx(float(torch.stack(values).double().mean()), abs=1e-5)
    assert any("compare 2 fits" in note for note in main_table(summary, results).notes)
    assert not any("compare" in note for note in main_table(summarise(crowd)[0], crowd).notes)


def test_tables_of_many_have_a_line_a_method(crowd: Results, both: tuple[TaskSummary, ...]) -> None:
    for table in parameter_tables(both[0]):
        assert len(table.lines) == 15
        assert len(table.columns) == 14
    assert len(jobs_table(crowd).lines) == len(crowd.jobs)
    assert len(cost_table(crowd).lines) == 2 + 13 + 12


def test_marginals_of_many_stand_in_columns(
    both: tuple[TaskSummary, ...], look: dict[str, Look], drawn: list[Figure]
) -> None:
    posterior_figures.marginal_figure(both[1], look)
    assert len(drawn[0].axes) == 2 * 4 * 3
    first = drawn[0].axes[:3]
    assert len({axes.get_xlim() for axes in first}) == len({axes.get_ylim() for axes in first}) == 1


def test_measurements_that_are_classes_are_told_from_numbers() -> None:
    assert picture_figures.different_classes(torch.eye(4)[torch.tensor([2, 2, 0, 1, 3])]) == [0, 2, 3]
    assert picture_figures.different_classes(torch.eye(4)[[1, 1]]) == [0]
    assert picture_figures.different_classes(torch.tensor([[0.5], [1.0]])) == []


@pytest.fixture(scope="module")
def tuning(crowd: Results) -> Results:
    """Seven trials of three methods, as a record of tuning holds them; they differ in their options alone."""
    chosen = {"inn": "INN", "cvae": "cVAE", "abc_rejection": "ABC rejection"}
    jobs = [job for job in crowd.jobs if job.method == "prior"]
    labels = {"prior": "Prior"}
    for method, label in chosen.items():
        base = next(job for job in crowd.jobs if job.method == method)
        for trial in range(1, 8):
            rows = tuple(replace(row, options={"steps": 100 * trial} if trial > 1 else {}) for row in base.rows)
            jobs.append(replace(base, job=f"{method}{trial}", method=f"{method}.{trial}", rows=rows))
            labels[f"{method}.{trial}"] = f"{label} ({method}.{trial})"
    return replace(crowd, jobs=tuple(jobs), labels=labels, published=())


def test_a_record_of_tuning_shows_settings_first_and_no_curves(
    tuning: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (calibration_figures, cost_figures, heat_figures, learning_figures, posterior_figures, trial_figures):
        monkeypatch.setattr(module, "finish", lambda _, *texts: Illustration(*texts, svg=b"<svg/>", png=b""))
    page = write_report(tuning, tmp_path).read_text(encoding="utf-8")
    assert page.index('<h2 id="settings">') < page.index('<h2 id="verdicts">')
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {
        "cost-skill",
        "tissue-skill",
        "tissue-coverage",
    }
    assert "INN .3" in page
    assert "(inn.3)" not in page
    assert sum(len(names) > 400 for names in re.findall(r'alt="([^"]*)"', page)) == 0


def test_settings_stand_in_the_suites_order_with_their_outcome(tuning: Results, crowd: Results) -> None:
    assert compares_settings(tuning)
    assert not compares_settings(crowd)
    table = settings_table(tuning, summarise(tuning))
    assert [line.method for line in table.lines] == list(tuning.labels)
    assert [line.cells[1].text for line in table.lines][:4] == ["defaults", "defaults", "steps = 200", "steps = 300"]
    assert len({len(line.cells) for line in table.lines} | {len(table.columns)}) == 1
    several = settings_table(crowd, summarise(crowd))
    assert [column.group for column in several.columns] == ["", "", "energy skill", "energy skill"]
    lost = next(line for line in several.lines if line.method == "dropout_nn")
    assert lost.cells[3].text == "2 of 2 failed"


def test_only_names_that_repeat_the_method_are_shortened(tuning: Results) -> None:
    labels = {**tuning.labels, "inn.2": "INN, wide", "prior": "Prior (prior)"}
    short = short_labels(replace(tuning, labels=labels)).labels
    assert (short["inn.1"], short["inn.2"], short["prior"]) == ("INN .1", "INN, wide", "Prior (prior)")


def test_trials_have_a_panel_a_method_and_a_name_each(
    tuning: Results, monkeypatch: pytest.MonkeyPatch, drawn: list[Figure]
) -> None:
    monkeypatch.setattr(trial_figures, "finish", lambda figure, *texts: drawn.append(figure) or texts)
    trial_figures.trials_figure(summarise(short_labels(tuning)), report_looks(tuning))
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["INN", "cVAE", "ABC rejection"]
    for axes in figure.axes:
        assert sorted(text.get_text() for text in axes.texts) == list("1234567")


def test_stray_draws_leave_the_pictures_of_others_large() -> None:
    all_axes = [Figure().subplots() for _ in range(4)]
    for axes, end in zip(all_axes, (1.0, 1.4, 1e7, 1.0), strict=True):
        axes.plot([0, end], [0, end])
    picture_figures._focus(all_axes, [True, False, False, False])
    assert all(axes.get_xlim() == pytest.approx((-0.07, 1.47)) for axes in all_axes)
    mine = Figure().subplots()
    mine.plot([0, 1], [0, 1])
    mine.set_xlim(-5, 5)
    picture_figures._focus([mine], [False])
    assert mine.get_xlim() == (-5, 5)

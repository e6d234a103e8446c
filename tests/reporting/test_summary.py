from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from gaussian_results import LABELS, WIDTH, make_job, on_fewer_measurements

from posterior_bench.reporting.calibration_figures import calibration_figures, rank_figure
from posterior_bench.reporting.contenders import Contender, numbers, root_mean_square, worst
from posterior_bench.reporting.heat_figures import coverage_figure
from posterior_bench.reporting.narrative import verdict
from posterior_bench.reporting.page import report_looks
from posterior_bench.reporting.posterior_figures import first_draws
from posterior_bench.reporting.summary import TaskSummary, summarise
from posterior_bench.reporting.tables import fits_table, main_table
from posterior_bench.running.results import Results


def _fail(results: Results, method: str, repetition: int) -> Results:
    """The same results, one job of them failed."""
    jobs = []
    for job in results.jobs:
        row = job.rows[0]
        if (job.method, row.repetition) == (method, repetition):
            job = make_job(
                row.task, method, None, status="failed", reason="OverflowError: too much", repetition=repetition
            )
        jobs.append(job)
    return replace(results, jobs=tuple(jobs))


def test_methods_come_by_gate_then_skill_and_anchors_last(summaries: tuple[TaskSummary, ...]) -> None:
    for summary in summaries:
        assert [c.key for c in summary.contenders] == ["exact_twin", "too_narrow", "broken", "reference", "prior"]
        assert [c.role for c in summary.contenders] == ["", "", "", "reference", "anchor"]


def test_the_reference_tells_which_parameters_are_informed(summaries: tuple[TaskSummary, ...]) -> None:
    for summary in summaries:
        assert summary.judge == LABELS["reference"]
        assert summary.informed == ("depth", "slope")
        assert summary.others == ("hidden",)


def test_without_a_reference_the_best_that_passes_the_gate_tells(results: Results) -> None:
    jobs = tuple(job for job in results.jobs if job.method != "reference")
    labels = {key: label for key, label in LABELS.items() if key != "reference"}
    summary = summarise(replace(results, jobs=jobs, labels=labels))[0]
    assert summary.judge == LABELS["exact_twin"]
    assert summary.informed == ("depth", "slope")


def test_without_anybody_to_trust_no_parameter_is_called_informed(results: Results) -> None:
    jobs = tuple(job for job in results.jobs if job.method in ("too_narrow", "prior"))
    labels = {key: LABELS[key] for key in ("too_narrow", "prior")}
    summary = summarise(replace(results, jobs=jobs, labels=labels))[0]
    assert summary.judge == ""
    assert summary.informed == ()


def test_a_reference_with_options_is_a_control_and_judges_nothing(results: Results) -> None:
    jobs = tuple(
        replace(job, rows=tuple(replace(row, options={"scale": 0.8}) for row in job.rows))
        if job.method == "reference"
        else job
        for job in results.jobs
    )
    summary = summarise(replace(results, jobs=jobs))[0]
    assert summary.reference is None
    assert [c.key for c in summary.anchors] == ["prior"]
    assert [c.key for c in summary.controls] == ["reference"]
    assert summary.judge == LABELS["exact_twin"]


def test_an_anchor_whose_plug_in_is_not_installed_is_told_by_its_skill(results: Results) -> None:
    names = {"reference": "their_exact", "prior": "their_prior"}
    jobs = tuple(
        replace(job, method="", rows=tuple(replace(row, method=names.get(row.method, row.method)) for row in job.rows))
        for job in results.jobs
    )
    jobs = tuple(replace(job, method=job.rows[0].method) for job in jobs)
    labels = {names.get(key, key): label for key, label in LABELS.items()}
    summary = summarise(replace(results, jobs=jobs, labels=labels))[0]
    assert {c.key: c.role for c in summary.anchors} == {"their_exact": "reference", "their_prior": "anchor"}


def test_failed_fits_are_counted_and_not_averaged(build: Callable[..., Results]) -> None:
    whole = build(60, 40, 2)
    results = _fail(whole, "exact_twin", 1)
    summary = summarise(results)[0]
    found = next(c for c in summary.contenders if c.key == "exact_twin")
    assert found.trouble == "1 of 2 failed"
    survivor = next(j for j in results.jobs if j.method == "exact_twin" and j.status == "ok")
    value = next(row.value for row in survivor.rows if row.metric == "calibration_error/depth")
    score = found.score("calibration_error/depth")
    assert score is not None
    assert (score.value, score.fits, score.spread) == (value, 1, None)
    table = main_table(summary, results)
    line = next(line for line in table.lines if line.method == "exact_twin")
    assert line.cells[1].detail == "1 of 2 failed"
    assert any("Exact twin: 1 of 2 failed" in note for note in table.notes)


def test_several_fits_give_mean_and_spread(build: Callable[..., Results]) -> None:
    results = build(60, 40, 2)
    summary = summarise(results)[0]
    found = next(c for c in summary.contenders if c.key == "too_narrow").score("energy_score")
    jobs = [j for j in results.jobs if j.method == "too_narrow" and j.rows[0].task == "linear"]
    values = [row.value for job in jobs for row in job.rows if row.metric == "energy_score" and row.value is not None]
    assert found is not None
    assert found.value == pytest.approx(sum(values) / 2)
    assert found.spread == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert summary.fits == 2
    assert not any("One fit" in note for note in main_table(summary, results).notes)


def test_each_budget_has_a_summary_of_its_own_with_all_anchors(results: Results) -> None:
    more = tuple(
        replace(job, job=f"{job.job}-more", rows=tuple(replace(row, budget=5000) for row in job.rows))
        for job in results.jobs
        if job.method in WIDTH
    )
    found = summarise(replace(results, jobs=results.jobs + more))
    assert [s.name for s in found] == ["linear-1000", "linear-5000", "scaled-1000", "scaled-5000"]
    assert [c.key for c in found[1].contenders] == ["exact_twin", "too_narrow", "reference", "prior"]


def test_root_mean_square_over_informed_parameters(summaries: tuple[TaskSummary, ...]) -> None:
    c = summaries[0].contenders[0]
    parts = [c.scores[f"map_error/{name}"].value for name in ("depth", "slope")]
    found = root_mean_square(c, "map_error", ("depth", "slope"))
    assert found is not None
    assert found.value == pytest.approx(math.sqrt((parts[0] ** 2 + parts[1] ** 2) / 2))
    assert found.null_low is not None
    assert found.null_high is not None
    assert found.null_low < found.value < found.null_high
    assert root_mean_square(c, "map_error", ("depth", "nothing")) is None
    assert root_mean_square(c, "map_error", ()) is None


def test_the_worst_parameter_is_named(summaries: tuple[TaskSummary, ...]) -> None:
    c = next(c for c in summaries[0].contenders if c.key == "too_narrow")
    names = ("depth", "slope", "hidden")
    found = worst(c, "calibration_error", names)
    assert found is not None
    assert found[1].value == max(c.scores[f"calibration_error/{name}"].value for name in names)
    assert worst(c, "nonsense", names) is None


def test_a_null_band_that_one_fit_lacks_is_no_band(results: Results) -> None:
    job = results.jobs[0]
    bare = replace(job, rows=tuple(replace(row, null_low=None, null_high=None) for row in job.rows))
    assert numbers([job, job])["calibration_error"].has_null
    assert not numbers([job, bare])["calibration_error"].has_null


def test_a_job_without_a_label_is_refused(results: Results) -> None:
    with pytest.raises(ValueError, match="belongs to 'prior'"):
        summarise(replace(results, labels={"reference": "Reference"}))


def test_a_method_scored_on_fewer_measurements_says_so_and_has_no_place(results: Results) -> None:
    """Its skill is that of the best on the first ten, on which nothing parts them."""
    more = on_fewer_measurements(results, "exact_twin", 10)
    summary, plain = summarise(more)[0], summarise(results)[0]
    few = next(c for c in summary.contenders if c.key == "few")
    assert few.label == "Few (T = 10)"
    assert few.ranked is not None
    assert (few.ranked.place, few.measurements, summary.measurements) == (None, 10, 200)
    assert [(c.key, c.ranked) for c in summary.contenders if c.key != "few"] == [
        (c.key, c.ranked) for c in plain.contenders
    ]
    assert [c.key for c in summary.together.contenders] == [c.key for c in plain.contenders]
    table = main_table(summary, more)
    line = next(line for line in table.lines if line.method == "few")
    assert line.cells[0].text == "–"
    note = next(note for note in table.notes if note.startswith("Few (T = 10)"))
    assert "scored on the first 10 of 200 measurements alone" in note
    assert "less that of Exact twin is 0.000 (0.000 to 0.000, paired)" in note
    text = verdict(summary)
    assert "Few" not in text.trusted
    assert "where Few (T = 10) would stand on all 200 measurements" in text.undecided


def test_curves_and_bands_leave_out_what_has_another_number_of_measurements(results: Results) -> None:
    more = on_fewer_measurements(results, "exact_twin", 10)
    summary, look = summarise(more)[0], report_looks(more)
    figures = [*calibration_figures(summary, look), rank_figure(summary, look, 100), coverage_figure(summary, look)]
    for figure in figures:
        assert figure is not None
        assert "Not drawn, since scored on fewer measurements: Few (T = 10)." in figure.caption
    assert summarise(results)[0].left_out == ""
    rows = [c.key for c in first_of(summary, "few")]
    assert rows == ["few"], "single posteriors are shown of it all the same"


def first_of(summary: TaskSummary, key: str) -> list[Contender]:
    return [c for c in summary.scored if c.key == key and key in first_draws(summary)]


def test_a_fit_for_each_measurement_is_told(results: Results) -> None:
    """It has the mean scores of its measurements, and none by which the gate could judge it."""
    whole = next(job for job in results.jobs if job.method == "exact_twin")
    assert whole.artefact is not None
    per = {"energy_score": whole.artefact.per_measurement["energy_score"][:4]}
    rows = tuple(replace(row, method="single") for row in whole.rows if row.metric == "energy_score")
    artefact = replace(whole.artefact, per_measurement=per, draws=whole.artefact.draws[:, :2])
    job = replace(whole, method="single", rows=rows, artefact=artefact, measurements=4, one_fit_each=True)
    more = replace(results, jobs=(*results.jobs, job), labels={**results.labels, "single": "Single"})
    summary = summarise(more)[0]
    single = next(c for c in summary.contenders if c.key == "single")
    assert (single.label, single.ranked) == ("Single (T = 4, one fit each)", None)
    (note,) = (note for note in main_table(summary, more).notes if note.startswith("Single (T = 4"))
    assert "less that of Exact twin is 0.000" in note
    shown = first_draws(summary)
    assert "single" not in shown, "three measurements are shown, and it has draws of two"
    assert {a.draws.shape[1] for a in shown.values()} == {8}


def test_fits_that_were_scored_on_different_numbers_are_not_ranked(build: Callable[..., Results]) -> None:
    results = build(60, 40, 2)
    jobs = []
    for job in results.jobs:
        if (job.method, job.rows[0].repetition) == ("too_narrow", 1) and job.artefact is not None:
            per = {metric: each[:7] for metric, each in job.artefact.per_measurement.items()}
            job = replace(job, artefact=replace(job.artefact, per_measurement=per))
        jobs.append(job)
    summary = summarise(replace(results, jobs=tuple(jobs)))[0]
    narrow = next(c for c in summary.contenders if c.key == "too_narrow")
    assert narrow.ranked is None
    assert narrow.label == "Too narrow (T = 7)"
    assert fits_table(summary) is not None

"""Methods over several tasks: significance where it can be had, and no winner where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from gaussian_results import on_fewer_measurements, on_many_tasks

from posterior_bench.reporting import write_report
from posterior_bench.reporting.across import Across, across_tasks
from posterior_bench.reporting.summary import summarise
from posterior_bench.running.results import JobResult, Results


def with_skill(job: JobResult, shift: float) -> JobResult:
    """The job with another skill, the same for all measurements."""
    if job.artefact is None:
        return job
    per = dict(job.artefact.per_measurement)
    per["energy_skill"] = per["energy_skill"] + shift
    return replace(job, artefact=replace(job.artefact, per_measurement=per))


def spread(results: Results, count: int, ahead: float) -> Results:
    """Many tasks, on which the exact twin is ahead by ``ahead`` and a little that differs from task to task."""
    many = on_many_tasks(results, count)
    torch.manual_seed(0)
    shifts = {f"task{i}": ahead + 0.002 * float(torch.randn(())) for i in range(count)}
    narrow = {
        job.rows[0].task: job.artefact.per_measurement["energy_skill"]
        for job in many.jobs
        if job.method == "too_narrow" and job.artefact is not None
    }
    jobs = []
    for job in many.jobs:
        if job.method == "exact_twin" and job.artefact is not None:
            task = job.rows[0].task
            mean = float(job.artefact.per_measurement["energy_skill"].mean())
            job = with_skill(job, float(narrow[task].mean()) + shifts[task] - mean)
        jobs.append(job)
    return replace(many, jobs=tuple(jobs))


def found(results: Results) -> Across:
    across = across_tasks(summarise(results))
    assert across is not None
    return across


def test_two_tasks_are_not_compared(results: Results) -> None:
    assert across_tasks(summarise(results)) is None
    one = replace(on_many_tasks(results, 4), labels=results.labels)
    jobs = tuple(job for job in one.jobs if job.method != "too_narrow")
    assert across_tasks(summarise(replace(one, jobs=jobs))) is None  # one method on all tasks has no pair


def test_with_three_tasks_the_page_says_that_nothing_can_be_significant(results: Results, tmp_path: Path) -> None:
    path = write_report(spread(results, 3, 0.2), tmp_path)
    page, readme = path.read_text(encoding="utf-8"), (tmp_path / "README.md").read_text(encoding="utf-8")
    assert '<h2 id="across">Across tasks</h2>' in page
    assert '<a href="#across">' in page
    assert "## Across tasks" in readme
    assert "No pair of methods can reach significance" in page
    assert "2/2^3 = 0.25" in page
    assert "out of reach" in page
    assert " ahead<" not in page
    assert {p.name for p in (tmp_path / "tables").glob("across*.csv")} == {"across-ranks.csv", "across-pairs.csv"}


def test_with_eight_tasks_a_clear_difference_is_decided(results: Results) -> None:
    across = found(spread(results, 8, 0.2))
    assert across.verdict == "Over 8 tasks Exact twin scores more than Too narrow, by more than 0.01."
    ranks, pairs = across.tables
    assert [line.cells[1].text for line in ranks.lines] == ["1.00", "2.00"]
    assert [line.cells[2].text for line in ranks.lines] == ["8 of 8", "0 of 8"]
    assert ranks.lines[1].cells[3].tone == "bad"  # it does not pass the gate
    texts = [cell.text for cell in pairs.lines[0].cells]
    assert texts[:5] == ["Exact twin", "Too narrow", "8", "0", "0"]
    assert texts[6:] == ["0.0078", "0.0078", "Exact twin ahead"]


def test_a_difference_inside_the_margin_names_no_winner(results: Results) -> None:
    across = found(spread(results, 8, 0.006))
    assert "no method is known to score more" in across.verdict
    texts = [cell.text for cell in across.tables[1].lines[0].cells]
    assert (texts[2:5], texts[8]) == (["0", "8", "0"], "no")
    assert float(texts[7]) < 0.05, "significant, and of no consequence"


def test_a_method_without_a_place_on_some_task_is_left_out_by_name(results: Results) -> None:
    many = on_fewer_measurements(spread(results, 3, 0.1), "exact_twin", 10)
    across = found(many)
    assert [line.method for line in across.tables[0].lines] == ["exact_twin", "too_narrow"]
    assert "Few (T = 10)" in across.tables[0].notes[1]

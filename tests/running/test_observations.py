"""Methods on a part of the test set, and methods that are fitted for one measurement each."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from posterior_bench.checks import check_plugin
from posterior_bench.running.collect import collect, time_left
from posterior_bench.running.observations import joined
from posterior_bench.running.plan import plan
from posterior_bench.running.results import JobResult
from posterior_bench.running.run import run
from posterior_bench.running.store import Store
from posterior_bench.running.suite import SuiteError

TOYS = Path(__file__).with_name("toys.py")


@pytest.fixture
def sequential(make_suite):
    return make_suite(["Known"], ["Sequential"], of_method={"observations": 4}, dense_measurements=3, dense_draws=200)


def test_a_method_may_be_scored_on_the_first_measurements_alone(make_suite, tmp_path):
    store = Store(tmp_path)
    suite = make_suite(["Known"], ["Regression"], of_method={"measurements": 10}, dense_measurements=2, dense_draws=50)
    (job,) = plan(suite)
    assert run([job], store, workers=0).ok == 1, store.read_rows(job)[0].reason
    rows = {row.metric: row for row in store.read_rows(job)}
    assert {row.test_set for row in rows.values()} == {f"{job.test_set}-10"}
    assert all(math.isfinite(row.value) for row in rows.values())
    assert {"energy_skill", "err_post", "calibration_error", "map_resimulation_error"} <= set(rows)
    artefact = store.read_artefact(job)
    assert artefact.per_measurement["energy_skill"].shape == (10,)
    (whole,) = plan(make_suite(["Known"], ["Regression"]))
    assert whole.test_set == job.test_set
    assert whole.fit == job.fit
    assert whole.id != job.id
    run([whole], store, workers=0)
    assert torch.equal(store.read_artefact(whole).y, artefact.y)
    assert len(list(tmp_path.glob("tests/*"))) == 1
    assert len(list(tmp_path.glob("references/*[!n]-20-40*"))) == 1
    (result,) = collect(suite, store, "toys.toml").jobs
    assert (result.measurements, result.one_fit_each) == (10, False)
    # the scale of y is that of the whole test set
    error = [{r.metric: r.value for r in store.read_rows(j)}["simulation_noise"] for j in (job, whole)]
    assert error[0] == pytest.approx(error[1], rel=0.5)


@pytest.mark.parametrize(
    ("of_method", "method", "message"),
    [
        ({"measurements": 61}, "Regression", "Regression: measurements is 61; expected at most"),
        ({"observations": 61}, "Sequential", "Sequential: observations is 61; expected at most"),
        ({"observations": 3}, "Regression", "fitted once for all measurements; give measurements instead"),
        ({"measurements": 3}, "Sequential", "fitted for each measurement anew; give observations instead"),
    ],
)
def test_a_wrong_number_of_measurements_is_told(make_suite, of_method, method, message):
    with pytest.raises((SuiteError, ValueError), match=message):
        plan(make_suite(["Known"], [method], of_method=of_method))


def test_a_sequential_method_is_one_job_a_measurement(sequential, make_suite):
    jobs = plan(sequential)
    assert [job.observation for job in jobs] == [0, 1, 2, 3]
    assert len({job.id for job in jobs}) == len({job.fit for job in jobs}) == 4
    assert {job.group for job in jobs} == {jobs[0].id.rpartition("-")[0]}
    assert [job.chunks for job in jobs] == [0] * 4
    assert jobs[3].cell == "known/sequential budget 300 measurement 3"
    assert plan(sequential, [jobs[0].group]) == jobs
    assert plan(sequential, [jobs[2].id]) == jobs[2:3]
    more = plan(make_suite(["Known"], ["Sequential"], measurements=70))
    assert len(more) == 10
    assert more[0].fit != jobs[0].fit, "another test set has another first measurement"


def test_a_sequential_method_is_scored_by_what_one_measurement_can_tell(sequential, tmp_path):
    store = Store(tmp_path)
    jobs = plan(sequential)
    outcome = run(jobs, store, workers=0)
    assert outcome.ok == 4, outcome.reasons
    assert not list(tmp_path.glob("simulations/*/*")), "it makes its own"
    for job in jobs:
        rows = {row.metric: row for row in store.read_rows(job)}
        assert {"err_post", "log_score", "regret_nats", "err_resim", "leakage", "map_resimulation_error"} <= set(rows)
        assert not {"calibration_error", "energy_skill", "map_error"} & set(rows)
        assert {row.observation for row in rows.values()} == {job.observation}
        assert all(row.calls == 300 and math.isfinite(row.value) for row in rows.values())
    assert run(jobs, store, workers=0).reused == 4
    first, second = (store.read_artefact(job) for job in jobs[:2])
    assert first.draws.shape == (40, 1, 2)
    assert not torch.equal(first.y, second.y)


def test_a_report_gets_one_result_of_a_cell(sequential, tmp_path):
    store = Store(tmp_path)
    jobs = plan(sequential)
    run(jobs, store, workers=0)
    results = collect(sequential, store, "toys.toml")
    (cell,) = results.jobs
    single = [{row.metric: row for row in store.read_rows(job)} for job in jobs]
    rows = {row.metric: row for row in cell.rows}
    assert (cell.job, cell.status, cell.measurements, cell.one_fit_each) == (jobs[0].group, "ok", 4, True)
    assert cell.command == f"posterior-bench run toys.toml --only {jobs[0].group}"
    assert {row.observation for row in cell.rows} == {None}
    assert {row.calls for row in cell.rows} == {1200}
    assert rows["err_post"].test_set.endswith("-4")
    values = torch.tensor([one["err_post"].value for one in single])
    assert rows["err_post"].value == pytest.approx(float(values.mean()))
    assert rows["err_post"].std_error == pytest.approx(float(values.std()) / 2)
    halves = torch.tensor([one["err_post"].null_high for one in single])
    assert rows["err_post"].null_high == pytest.approx(float(halves.square().sum().sqrt()) / 4)
    squares = torch.tensor([one["map_resimulation_error"].value for one in single]).square()
    assert rows["map_resimulation_error"].value == pytest.approx(float(squares.mean().sqrt()), rel=1e-4)
    assert cell.artefact.draws.shape == (40, 4, 2)
    assert cell.artefact.per_measurement["err_post"].shape == (4,)
    assert cell.cost.fit_seconds > 0
    assert len(store.find_rows(cell.job)) == 4
    assert time_left(jobs, store, 1) == (0.0, 0)


def test_what_failed_or_is_missing_is_said_and_never_averaged_away(make_suite, tmp_path):
    store = Store(tmp_path)
    suite = make_suite(["Known"], ["Sequential"], of_method={"observations": 8, "options": {"fails_above": 0.5}})
    jobs = plan(suite)
    outcome = run(jobs[:5], store, workers=0)
    assert 0 < outcome.failed < 5
    (cell,) = collect(suite, store, "toys.toml").jobs
    assert cell.status == "failed"
    assert len(cell.rows) == 1
    assert cell.rows[0].reason.startswith(f"{outcome.failed} of 8 measurements failed, number ")
    assert "the second round diverged" in cell.rows[0].reason
    assert cell.rows[0].reason.endswith("; 3 are not done yet")
    assert cell.artefact is None


def test_a_cell_that_is_not_whole_waits(sequential, tmp_path):
    store = Store(tmp_path)
    jobs = plan(sequential)
    nothing = collect(sequential, store, "toys.toml")
    assert nothing.jobs == ()
    assert [(cell.task, cell.budget) for cell in nothing.undone] == [(jobs[0].task, jobs[0].budget)]
    run(jobs[:3], store, workers=0)
    (cell,) = collect(sequential, store, "toys.toml").jobs
    assert cell.status == "skipped"
    assert cell.rows[0].reason.startswith("1 of 4 measurements are not done yet")


def test_a_score_that_some_measurements_lack_has_no_mean(sequential, tmp_path):
    store = Store(tmp_path)
    jobs = plan(sequential)
    run(jobs, store, workers=0)
    results = [JobResult(job.id, store.read_rows(job), "", store.read_artefact(job)) for job in jobs]

    def without(place, metric):
        kept = tuple(row for row in results[place].rows if row.metric != metric)
        return [*results[:place], dataclasses.replace(results[place], rows=kept), *results[place + 1 :]]

    def mean(found):
        return {row.metric: row for row in joined(jobs, found, "").rows}["err_resim"]

    assert mean(results).value is not None
    gap = mean(without(1, "err_resim"))
    assert gap.value is None
    assert gap.reason == "3 of 4 measurements have this score: no mean is given"
    # the first three have dense draws: a score may rest on them alone
    first = mean(without(3, "err_resim"))
    assert first.value is not None
    assert first.reason == "one fit each, the first 3 of 4 measurements"


def test_a_need_that_is_not_met_skips_the_cell_once(make_suite, tmp_path):
    store = Store(tmp_path)
    suite = make_suite(["Known"], ["NeedsNoise"], of_method={"observations": 2})
    run(plan(suite), store, workers=0)
    (cell,) = collect(suite, store, "toys.toml").jobs
    assert cell.status == "skipped"
    assert cell.rows[0].reason == "2 of 2 measurements skipped, number 0 first: known does not offer noise"


def test_the_toy_passes_the_checks_of_a_sequential_method():
    findings = check_plugin(f"{TOYS}:SequentialInFour", {})
    assert [f.message for f in findings if not f.ok] == []
    assert {"another_measurement", "restore"} <= {f.name for f in findings}

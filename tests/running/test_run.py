from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from posterior_bench.running.collect import collect, estimate, time_left
from posterior_bench.running.plan import plan
from posterior_bench.running.run import Silent, run
from posterior_bench.running.store import Store
from posterior_bench.running.suite import load_suite
from posterior_bench.runtime import load_tensors

TOYS = Path(__file__).with_name("toys.py")
METHODS = ["prior", "reference", "Regression", "Noisy"]


def rows_of(store: Store) -> dict[str, bytes]:
    return {str(p.relative_to(store.root)): p.read_bytes() for p in sorted(store.root.glob("rows/**/*.jsonl"))}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The rows of a small suite, run in this process."""
    store = Store(tmp_path_factory.mktemp("uninterrupted"))
    outcome = run(plan(_suite()), store, workers=0)
    assert (outcome.ok, outcome.failed) == (8, 0)
    return rows_of(store)


def _suite():
    return load_suite(str(TOYS.with_name("toys.toml")))


def test_every_job_leaves_rows_artefact_cost_and_fit(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Gaussian"], ["Regression"]))
    assert run(jobs, store, workers=0).ok == 1
    rows = store.read_rows(jobs[0])
    assert {row.status for row in rows} == {"ok"}
    assert {"calibration_error", "energy_skill", "map_error", "leakage"} <= {row.metric for row in rows}
    assert all(row.calls == 300 and row.budget == 300 for row in rows)
    artefact, cost = store.read_artefact(jobs[0]), store.read_cost(jobs[0])
    assert artefact.draws.shape == (40, 8, 2)
    assert artefact.truth.shape == (8, 2)
    assert artefact.per_measurement["energy_skill"].shape == (60,)
    assert cost.fit_seconds >= 0
    assert cost.draws_per_second > 0
    assert cost.peak_memory_mb > 10
    assert store.fit(jobs[0]).exists()
    assert not list(tmp_path.glob("**/.part-*"))


def test_every_cell_is_done_once_before_any_is_done_twice(make_suite, tmp_path):
    class Order(Silent):
        def __init__(self):
            self.repetitions = []

        def end(self, unit, status, reason, seconds):
            if unit.job is not None:
                self.repetitions.append(unit.job.repetition)

    order = Order()
    jobs = plan(make_suite(["Gaussian"], ["Regression", "Noisy"], budgets=[100, 200], repetitions=[3, 2]))
    run(jobs, Store(tmp_path), workers=0, display=order)
    assert order.repetitions == [0] * 4 + [1] * 4 + [2] * 2


def test_a_second_run_does_nothing(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Gaussian"], ["Regression"]))
    run(jobs, store, workers=0)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    outcome = run(jobs, store, workers=0)
    assert outcome.reused == 1
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_more_draws_use_the_fit_and_the_simulations_that_are_there(make_suite, tmp_path):
    store = Store(tmp_path)
    run(plan(make_suite(["Gaussian"], ["Regression"])), store, workers=0)
    before = {p: p.stat().st_mtime_ns for p in [*tmp_path.glob("fits/*"), *tmp_path.glob("simulations/*/*")]}
    run(plan(make_suite(["Gaussian"], ["Regression"], draws=50)), store, workers=0)
    after = {p: p.stat().st_mtime_ns for p in [*tmp_path.glob("fits/*"), *tmp_path.glob("simulations/*/*")]}
    assert before == after
    assert len(before) == 2


def test_a_larger_budget_begins_with_the_smaller_one(make_suite, tmp_path):
    store = Store(tmp_path)
    small = plan(make_suite(["Gaussian"], ["Regression"], budgets=[300]))[0]
    large = plan(make_suite(["Gaussian"], ["Regression"], budgets=[4000]))[0]
    run([small, large], store, workers=0)
    first = store.first_rows([store.chunk(small.simulations, 0, 0)], 300)
    both = store.first_rows([store.chunk(large.simulations, 0, index) for index in (0, 1)], 4000)
    assert torch.equal(first["theta"], both["theta"][:300])
    assert not torch.equal(both["theta"][:1500], both["theta"][2500:])


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_the_same_for_any_number_of_workers(uninterrupted, tmp_path, workers):
    store = Store(tmp_path)
    assert run(plan(_suite()), store, workers=workers).ok == 8
    assert rows_of(store) == uninterrupted


def test_a_killed_run_resumes_and_its_rows_are_those_of_an_uninterrupted_one(uninterrupted, tmp_path):
    store = Store(tmp_path)
    code = (
        "import sys; from posterior_bench.running.plan import plan; from posterior_bench.running.run import run; "
        "from posterior_bench.running.store import Store; from posterior_bench.running.suite import load_suite; "
        "from pathlib import Path; run(plan(load_suite(sys.argv[1])), Store(Path(sys.argv[2])), workers=2)"
    )
    program = [sys.executable, "-c", code, str(TOYS.with_name("toys.toml")), str(tmp_path)]
    kept: dict[str, bytes] = {}
    for least in (1, 4):  # kill it twice, later the second time
        process = subprocess.Popen(program, start_new_session=True)
        deadline = time.monotonic() + 120
        while len(rows_of(store)) < least and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = rows_of(store)
        assert len(now) >= least
        assert kept.items() <= now.items(), "what was done is not done again"
        kept = now
    outcome = run(plan(_suite()), store, workers=2)
    assert outcome.reused == len(kept)
    assert rows_of(store) == uninterrupted


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        ("Raises", "ZeroDivisionError: the pump stands still"),
        ("AllNaN", "0 of"),
        ("WrongShape", "expected a tensor of shape"),
    ],
)
def test_a_broken_simulator_fails_its_jobs_and_no_others(make_suite, tmp_path, simulator, message):
    store = Store(tmp_path)
    jobs = plan(make_suite([simulator, "Gaussian"], ["prior", "Regression"]))
    outcome = run(jobs, store, workers=0)
    assert (outcome.ok, outcome.failed) == (2, 2)
    for job in jobs[:2]:
        (row,) = store.read_rows(job)
        assert row.status == "failed"
        assert row.value is None
        assert message in row.reason


def test_failed_simulations_are_counted_and_left_out(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["SometimesFails"], ["Regression"]))
    assert run(jobs, store, workers=0).ok == 1
    row = store.read_rows(jobs[0])[0]
    assert row.calls == 300
    assert 10 < row.invalid < 60
    assert torch.isfinite(load_tensors(store.test_set(jobs[0].test_set))[0]["y"]).all()


def test_a_simulator_that_hangs_is_ended_and_the_rest_completes(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Hangs", "Gaussian"], ["Regression"], timeout_minutes=0.5))
    outcome = run(jobs, store, workers=2)
    assert (outcome.ok, outcome.failed) == (1, 1)
    assert "did not end within 30 seconds" in store.read_rows(jobs[0])[0].reason


def test_a_method_that_kills_its_process_fails_alone(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Gaussian"], ["Crashes", "Regression"]))
    outcome = run(jobs, store, workers=1)
    assert (outcome.ok, outcome.failed) == (1, 1)
    assert "died" in store.read_rows(jobs[0])[0].reason


def test_draws_that_are_no_numbers_are_a_failure(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Gaussian"], ["DrawsNaN"]))
    assert run(jobs, store, workers=0).failed == 1
    assert "2400 of 2400 posterior draws are not finite" in store.read_rows(jobs[0])[0].reason


def test_an_unmet_need_is_skipped_with_the_missing_word(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Gaussian"], ["NeedsLikelihood"]))
    assert run(jobs, store, workers=0).skipped == 1
    (row,) = store.read_rows(jobs[0])
    assert (row.status, row.reason) == ("skipped", "gaussian does not offer log_likelihood")
    assert not list(tmp_path.glob("simulations/*/*")), "nothing is simulated for it"


def test_a_failure_is_kept_until_it_is_asked_to_be_done_again(make_suite, tmp_path):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Raises"], ["Regression"]))
    run(jobs, store, workers=0)
    assert run(jobs, store, workers=0).reused == 1
    again = run(jobs, store, workers=0, retry=True)
    assert (again.reused, again.failed) == (0, 1)


def test_results_hold_every_job_of_the_suite(make_suite, tmp_path):
    store = Store(tmp_path)
    suite = make_suite(["Gaussian", "Raises"], ["prior", "reference", "Regression", "NeedsLikelihood"])
    run(plan(suite), store, workers=0)
    results = collect(suite, store, "toys.toml")
    assert [job.status for job in results.jobs] == [
        "ok",
        "ok",
        "ok",
        "skipped",
        "failed",
        "skipped",
        "failed",
        "skipped",
    ]
    assert results.labels["regression"] == "Regression"
    assert [p.name for p in results.tasks[0].parameters] == ["a", "b"]
    assert results.jobs[2].command == f"posterior-bench run toys.toml --only {results.jobs[2].job}"


def test_a_suite_says_how_long_it_will_take(make_suite, tmp_path):
    store = Store(tmp_path)
    suite = make_suite(["Gaussian"], ["Regression"])
    (job,) = plan(suite)
    assert estimate(job, store).seconds is None
    assert time_left([job], store, 2) == (0.0, 3)  # the test set, one chunk, the job
    run([job], store, workers=0)
    assert time_left([job], store, 2) == (0.0, 0)
    (other,) = plan(make_suite(["Gaussian"], ["Regression"], draws=50))
    assert estimate(other, store).source == "earlier jobs"

"""Methods that start from another method's posterior."""

from __future__ import annotations

import pytest

from posterior_bench import Need, Problem, Task
from posterior_bench.checks import LinearGaussian
from posterior_bench.problem import Ungranted
from posterior_bench.running.collect import time_left
from posterior_bench.running.plan import plan
from posterior_bench.running.run import run
from posterior_bench.running.store import Store
from posterior_bench.running.suite import SuiteError
from posterior_bench.running.units import units_of

TASK = """
[[tasks]]
simulator = "toys:Gaussian"
labels = 80
reality = { simulator = "toys:Gaussian", options = { sd = 2.0 } }
repetitions = 2
"""
BASE = """
[[methods]]
method = "toys:Noisy"
name = "base"
"""
WRAPPER = """
[[methods]]
method = "toys:Rescales"
around = "base"
repetitions = 5
"""


def rows_of(store: Store) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in store.root.glob("rows/**/*.jsonl")}


def value(store: Store, job, metric: str) -> float:
    return next(row.value for row in store.read_rows(job) if row.metric == metric)


def test_repetitions_are_draws_of_the_labels_around_few_fits(suite_of, tmp_path):
    jobs = plan(suite_of(TASK + BASE + WRAPPER))
    bases, wrappers = jobs[:2], jobs[2:]
    assert [(job.label, job.repetition, job.budget) for job in wrappers] == [("rescales", r, 300) for r in range(5)]
    assert [job.base for job in wrappers] == [bases[r % 2] for r in range(5)]
    assert len({job.fit for job in jobs}) == 7
    store = Store(tmp_path / "store")
    assert run(jobs, store, workers=0).ok == 7
    assert len(list(store.root.glob("simulations/*/*"))) == 2, "they learn from the simulations of their bases"
    for job in wrappers:
        assert {(row.n_labels, row.calls, row.budget) for row in store.read_rows(job)} == {(50, 300, 300)}
        assert abs(value(store, job, "coverage_bias/a")) < 0.15
        assert store.read_cost(job).fit_seconds < 5
    assert value(store, bases[0], "coverage_bias/a") < -0.15
    assert value(store, wrappers[0], "energy_skill") != value(store, wrappers[2], "energy_skill"), "other labels"


def test_a_base_is_fitted_once_whatever_is_asked_for(suite_of, tmp_path):
    """All at once on two workers, and first what starts from the base alone: the same rows, from as many fits."""
    suite = suite_of(TASK + BASE + WRAPPER)
    together, alone = Store(tmp_path / "together"), Store(tmp_path / "alone")
    assert run(plan(suite), together, workers=2).ok == 7
    wrappers = plan(suite, ["*/rescales"])
    units = units_of(wrappers, alone, "cpu")
    fits = {key for key in units if key.startswith("fit-")}
    assert fits == {f"fit-{wrappers[r].base.fit}" for r in (0, 1)}
    assert all(fits & set(units[job.id].needs) for job in wrappers)
    assert time_left(wrappers, alone, 1)[1] == 5 + 2 + 1 + 2  # jobs, bases, test set, simulations
    assert run(wrappers, alone, workers=0).ok == 5
    assert len(list(alone.root.glob("fits/*"))) == 7
    times = {p: p.stat().st_mtime_ns for p in alone.root.glob("fits/*")}
    assert run(plan(suite), alone, workers=0).reused == 5
    assert times == {p: p.stat().st_mtime_ns for p in alone.root.glob("fits/*")}
    assert rows_of(alone) == rows_of(together)


def test_a_base_that_was_removed_is_fitted_again(suite_of, tmp_path):
    store = Store(tmp_path / "store")
    jobs = plan(suite_of(TASK + BASE + WRAPPER, draws=30))[2:3]
    run(jobs, store, workers=0)
    store.fit(jobs[0].base).unlink()
    more = plan(suite_of(TASK + BASE + WRAPPER))[2:3]
    assert more[0].fit == jobs[0].fit
    assert run(more, store, workers=0).ok == 1
    assert store.fit(jobs[0].base).exists()


def test_the_address_holds_what_it_starts_from(suite_of):
    ends = plan(suite_of(TASK + BASE + WRAPPER))[-1], plan(suite_of(TASK + BASE + WRAPPER, budgets=[200]))[-1]
    other = plan(suite_of(TASK + BASE.replace("Noisy", "Regression") + WRAPPER))[-1]
    assert len({job.fit for job in (*ends, other)}) == 3


def test_whatever_keeps_the_base_from_a_posterior_keeps_the_others(suite_of, tmp_path):
    store = Store(tmp_path / "store")
    jobs = plan(suite_of(TASK + BASE.replace("Noisy", "Crashes") + WRAPPER))
    outcome = run(jobs, store, workers=1)
    assert (outcome.failed, outcome.ok) == (7, 0)
    assert all("base" in row.reason and "died" in row.reason for job in jobs for row in store.read_rows(job))
    jobs = plan(suite_of(TASK + BASE.replace("Noisy", "NeedsLikelihood") + WRAPPER))
    assert run(jobs, store, workers=0).skipped == 7
    assert {store.read_rows(job)[0].reason for job in jobs} == {"gaussian does not offer log_likelihood"}


def test_budgets_and_tasks_are_those_of_the_base(suite_of):
    text = TASK + TASK.replace("labels", 'name = "second"\nlabels') + WRAPPER.replace("repetitions = 5", "")
    jobs = plan(suite_of(text + BASE + 'tasks = ["second"]\nrepetitions = 1', budgets=[100, 200]))
    wrappers = [job for job in jobs if job.label == "rescales"]
    assert [(job.task, job.budget, job.repetition) for job in wrappers] == [("second", 100, 0), ("second", 200, 0)]
    assert [job.base.budget for job in wrappers] == [100, 200]
    anchored = plan(suite_of(TASK + WRAPPER.replace('"base"', '"prior"') + '[[methods]]\nmethod = "prior"'))
    assert [(job.budget, job.base.label) for job in anchored[:-1]] == [(0, "prior")] * 5


@pytest.mark.parametrize(
    ("labels", "option", "used"), [(80, "", 50), (80, "options = { labels = 20 }", 20), (30, "", 30)]
)
def test_rows_tell_the_labels_that_were_used(suite_of, labels, option, used):
    task = TASK.replace("80", str(labels))
    assert plan(suite_of(task + BASE + WRAPPER + option))[-1].n_labels == used


SEQUENTIAL = '[[methods]]\nmethod = "toys:Sequential"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + WRAPPER.replace('"base"', '"bas"'), "rescales: around: unknown method 'bas'; did you mean 'base'"),
        (BASE + WRAPPER.replace('around = "base"', ""), "rescales: around is missing .* name its entry: base"),
        (BASE + 'around = "base"', "base: around was given and the method starts from no other's posterior"),
        (BASE + WRAPPER + WRAPPER.replace('"base"', '"rescales"\nname = "twice"'), "is itself around another"),
        (BASE + WRAPPER.replace('"base"', '"rescales"'), "is itself around another"),
        (SEQUENTIAL + WRAPPER.replace('"base"', '"sequential"'), "is fitted for each measurement anew"),
    ],
)
def test_what_a_method_is_around_must_fit(suite_of, text, message):
    with pytest.raises(SuiteError, match=message):
        plan(suite_of(TASK + text))


def test_a_posterior_to_start_from_is_granted_to_those_who_declare_it():
    task = Task("t", LinearGaussian())
    with pytest.raises(Ungranted, match=r"Need\.POSTERIOR"):
        _ = Problem(task).posterior
    with pytest.raises(ValueError, match="no posterior to start from"):
        _ = Problem(task, frozenset({Need.POSTERIOR})).posterior

"""Tasks that score the fits of another task on measurements of their own."""

from __future__ import annotations

import pytest

from posterior_bench.running.plan import plan
from posterior_bench.running.run import run
from posterior_bench.running.store import Store
from posterior_bench.running.suite import SuiteError
from posterior_bench.running.units import units_of
from posterior_bench.runtime import load_tensors

TASK = """
[[tasks]]
simulator = "toys:Gaussian"
name = "home"
labels = 60
repetitions = 2
reality = { simulator = "toys:Gaussian", options = { sd = 1.0 } }
"""
SHIFTED = """
[[tasks]]
fit_of = "home"
name = "shifted"
reality = { simulator = "toys:Population", options = { place = 2.0 } }
"""
METHODS = """
[[methods]]
method = "prior"
[[methods]]
method = "reference"
[[methods]]
method = "toys:Noisy"
[[methods]]
method = "toys:Rescales"
around = "noisy"
"""


def fits_of(store: Store) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.root.glob("fits/*")}


def states_of(store: Store) -> dict[str, dict[str, list]]:
    found = {p.name: load_tensors(p)[0] for p in store.root.glob("fits/*")}
    return {name: {key: tensor.tolist() for key, tensor in state.items()} for name, state in found.items()}


def by_cell(jobs) -> dict[tuple[str, str, int], object]:
    return {(job.task, job.label, job.repetition): job for job in jobs}


def test_fits_are_those_of_the_other_task_and_all_else_its_own(suite_of):
    jobs = by_cell(plan(suite_of(TASK + SHIFTED + METHODS)))
    assert len(jobs) == 2 * 6
    for label in ("noisy", "rescales"):
        for repetition in (0, 1):
            home, shifted = jobs["home", label, repetition], jobs["shifted", label, repetition]
            assert shifted.fit == home.fit
            assert shifted.learner == home
            assert shifted.n_labels == home.n_labels
            assert shifted.id != home.id
            assert shifted.test_set != home.test_set
    for label in ("prior", "reference"):
        assert jobs["home", label, 0].fit != jobs["shifted", label, 0].fit
    before = by_cell(plan(suite_of(TASK + METHODS)))
    assert all(before[cell].fit == jobs[cell].fit and before[cell].id == jobs[cell].id for cell in before)


def test_fits_are_shared_both_ways_and_made_once(suite_of, tmp_path):
    suite = suite_of(TASK + SHIFTED + METHODS)
    jobs = plan(suite)
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    assert run(plan(suite, ["shifted/*"]), first, workers=0).ok == 6
    assert not list(first.root.glob("rows/home*"))
    before = fits_of(first)
    assert len(before) == 2 + 4
    assert run(jobs, first, workers=0).reused == 6
    assert before.items() <= fits_of(first).items()
    units = units_of(jobs, second, "cpu")
    noisy = next(job for job in jobs if job.label == "noisy")
    assert {f"fit-{job.fit}" for job in jobs if job.learner.label in ("noisy", "rescales")} == {
        key for key in units if key.startswith("fit-")
    }
    assert units[f"fit-{noisy.fit}"].title == "home/noisy budget 300: fit"
    assert run(jobs, second, workers=2).ok == 12
    assert states_of(first) == states_of(second)
    rows = [{p.name: p.read_bytes() for p in store.root.glob("rows/**/*.jsonl")} for store in (first, second)]
    assert rows[0] == rows[1]


def test_measurements_reference_and_scores_are_its_own(suite_of, tmp_path):
    jobs = by_cell(plan(suite_of(TASK + SHIFTED + METHODS, measurements=200)))
    store = Store(tmp_path / "store")
    assert run(list(jobs.values()), store, workers=0).ok == 12

    def value(task: str, label: str, metric: str) -> float:
        return next(row.value for row in store.read_rows(jobs[task, label, 0]) if row.metric == metric)

    theta = {
        task: load_tensors(store.test_set(jobs[task, "noisy", 0].test_set))[0]["theta"] for task in ("home", "shifted")
    }
    assert abs(theta["home"].mean()) < 0.3
    assert abs(theta["shifted"].mean() - 2) < 0.1
    for task in ("home", "shifted"):
        assert abs(value(task, "reference", "coverage_bias/a")) < 0.1
    assert value("home", "noisy", "energy_skill") > value("shifted", "noisy", "energy_skill") + 0.1
    assert {row.task for row in store.read_rows(jobs["shifted", "noisy", 0])} == {"shifted"}


@pytest.mark.parametrize(
    "given", ['simulator = "toys:Gaussian"', "options = { sd = 1 }", "labels = 5", "unlabelled = 5"]
)
def test_what_determines_a_fit_stays_with_the_other_task(suite_of, given):
    with pytest.raises(SuiteError, match=f"found fit_of together with {given.split()[0]}"):
        suite_of(TASK + SHIFTED + given + METHODS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHIFTED.replace('"home"', '"hom"'), "shifted: fit_of: unknown task 'hom'; did you mean 'home'"),
        (SHIFTED + SHIFTED.replace("shifted", "third").replace("home", "shifted"), "which takes the fits of 'home'"),
        (SHIFTED.replace("shifted", "home"), "two entries are called 'home'"),
        (SHIFTED + '[[methods]]\nmethod = "toys:Sequential"', "fitted for each measurement anew, and task 'shifted'"),
    ],
)
def test_whose_fits_a_task_takes_must_fit(suite_of, text, message):
    with pytest.raises(SuiteError, match=message):
        plan(suite_of(TASK + text + METHODS))


def test_a_task_needs_a_simulator_or_the_fits_of_another_and_then_a_name(suite_of):
    with pytest.raises(SuiteError, match="simulator is missing"):
        suite_of('[[tasks]]\nname = "mine"\n' + METHODS)
    with pytest.raises(SuiteError, match="name is missing"):
        suite_of(TASK + SHIFTED.replace('name = "shifted"', "") + METHODS)


def test_a_method_for_each_measurement_leaves_the_task_out(suite_of):
    text = TASK + SHIFTED + '[[methods]]\nmethod = "toys:Sequential"\ntasks = ["home"]\nobservations = 1'
    assert {job.task for job in plan(suite_of(text))} == {"home"}


def test_seconds_are_those_of_the_other_task_where_not_told(suite_of):
    text = TASK + SHIFTED + '[[methods]]\nmethod = "toys:Noisy"\nseconds = { home = 3 }'
    assert {job.seconds for job in plan(suite_of(text))} == {3}
    assert [job.seconds for job in plan(suite_of(text.replace("home = 3", "home = 3, shifted = 1")))] == [3, 3, 1, 1]

"""Test sets that are given as files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from posterior_bench.reporting import terminal_tables, write_report
from posterior_bench.running.collect import collect, time_left
from posterior_bench.running.plan import plan
from posterior_bench.running.run import run
from posterior_bench.running.store import Store
from posterior_bench.running.suite import SuiteError
from posterior_bench.running.truth import draw_dense_reference, draw_reference, make_test_set, truth_of

DRAWS = 30
TASK = '[[tasks]]\nsimulator = "toys:Known"\n'
GIVEN = 'test_set = "given.safetensors"\n'
METHODS = '[[methods]]\nmethod = "prior"\n[[methods]]\nmethod = "toys:Regression"\n'


def numbers(count: int = 10, draws: int = DRAWS, seed: int = 0) -> dict[str, Tensor]:
    """Measurements of the Gaussian toy with exact draws; those of more measurements begin with those of fewer."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randn(count, 2, 2, generator=generator)
    theta, y = pairs[:, 0], pairs[:, 0] + 0.5 * pairs[:, 1]
    reference = 0.8 * y[:, None] + 0.2**0.5 * torch.randn(count, draws, 2, generator=generator)
    return {"theta": theta.contiguous(), "y": y, "reference": reference}


@pytest.fixture
def give(tmp_path):
    """Write the file of a test set; without arguments, ten measurements with draws of their posteriors."""

    def write(tensors: dict[str, Tensor] | None = None, name: str = "given") -> dict[str, Tensor]:
        tensors = numbers() if tensors is None else tensors
        save_file(tensors, tmp_path / f"{name}.safetensors")
        return tensors

    return write


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_the_numbers_of_the_file_are_what_draws_are_scored_against(suite_of, give, tmp_path):
    tensors, store = give(), Store(tmp_path / "store")
    (job,) = plan(suite_of(TASK + GIVEN + METHODS, dense_measurements=15, dense_draws=20), ["*/regression"])
    assert (job.measurements, job.size, job.reference_measurements, job.dense_measurements) == (10,) * 4
    for make in (make_test_set, draw_reference, draw_dense_reference):
        make(job, store, "cpu")
    truth = truth_of(job, job.build_task(), store, "cpu")
    assert torch.equal(truth.theta, tensors["theta"])
    assert torch.equal(truth.y, tensors["y"])
    assert torch.equal(truth.reference, tensors["reference"].transpose(0, 1)), "30 draws are there, 40 were asked"
    assert torch.equal(truth.dense_reference, tensors["reference"][:, :20].transpose(0, 1))
    assert truth.reference_log_prob is None


def test_ten_measurements_suffice_for_every_score(suite_of, give, tmp_path):
    give()
    store = Store(tmp_path / "store")
    jobs = plan(suite_of(TASK + GIVEN + METHODS))
    outcome = run(jobs, store, workers=0)
    assert outcome.ok == 2, outcome.reasons
    rows = {row.metric: row for row in store.read_rows(jobs[1])}
    assert {row.test_set for row in rows.values()} == {f"{jobs[1].test_set}-10"}
    assert {"calibration_error/a", "energy_skill", "err_post"} <= set(rows)
    assert "regret_nats" not in rows
    assert rows["energy_skill"].value > 0.2
    assert all(row.value is not None for row in rows.values())


def test_the_report_says_where_measurements_come_from(suite_of, give, tmp_path):
    give()
    store, suite = Store(tmp_path / "store"), suite_of(TASK + GIVEN + METHODS)
    run(plan(suite), store, workers=0)
    results = collect(suite, store, "mine.toml")
    assert results.measurements == 10
    page = write_report(results, tmp_path / "report")
    said = "10 test measurements are those of the file <code>given.safetensors</code>"
    assert said in page.read_text(encoding="utf-8")
    assert "T = 10 test measurements, those of the file given" in (tmp_path / "report/README.md").read_text("utf-8")
    assert all("T = 10," in str(table.caption) for table in terminal_tables(results))


def test_addresses_depend_on_the_numbers_and_not_on_the_place(suite_of, give):
    def job(path: str = "given", **settings: object):
        return plan(suite_of(TASK + GIVEN.replace("given", path) + METHODS, **settings))[1]

    tensors = give()
    first = job()
    give({name: tensor.double() for name, tensor in reversed(tensors.items())}, "moved")
    give(without(tensors, "reference"), "bare")
    give(numbers(seed=1), "others")
    assert job("moved").id == first.id
    for name in ("bare", "others"):
        assert job(name).test_set != first.test_set
        assert job(name).id != first.id
        assert job(name).fit == first.fit
    simulated = plan(suite_of(TASK + METHODS))[1]
    assert simulated.fit == first.fit, "what is trained does not depend on what it is scored on"
    assert simulated.test_set != first.test_set
    wide = job(measurements=100, reference_measurements=50, dense_measurements=80)
    narrow = job(measurements=20, reference_measurements=11, dense_measurements=12)
    assert wide.id == narrow.id, "there are ten"


def test_other_tasks_of_the_suite_keep_their_addresses(suite_of, give):
    give()
    other = '[[tasks]]\nsimulator = "toys:Gaussian"\n'
    alone, beside = plan(suite_of(other + METHODS)), plan(suite_of(other + TASK + GIVEN + METHODS))
    assert [job.id for job in beside if job.task == "gaussian"] == [job.id for job in alone]


def test_no_more_is_taken_than_the_suite_asks_for(suite_of, give, tmp_path):
    tensors, store = give(numbers(80)), Store(tmp_path / "store")
    (job,) = plan(suite_of(TASK + GIVEN + METHODS, measurements=50), ["*/prior"])
    assert (job.measurements, job.reference_measurements) == (50, 20)
    assert run([job], store, workers=0).ok == 1
    truth = truth_of(job, job.build_task(), store, "cpu")
    assert torch.equal(truth.y, tensors["y"][:50])
    assert truth.reference.shape == (DRAWS, 20, 2)


def test_without_draws_the_simulator_s_reference_works_as_before(suite_of, give, tmp_path):
    tensors, store = give(without(numbers(), "reference")), Store(tmp_path / "store")
    (job,) = plan(suite_of(TASK + GIVEN + METHODS), ["*/prior"])
    assert run([job], store, workers=0).ok == 1
    truth = truth_of(job, job.build_task(), store, "cpu")
    assert truth.reference.shape == (40, 10, 2)
    torch.testing.assert_close(truth.reference.mean(0), 0.8 * tensors["y"], atol=0.3, rtol=0)
    assert truth.reference_log_prob is not None
    (engine,) = plan(suite_of(TASK + GIVEN + 'reference = "engine"\n' + METHODS), ["*/prior"])
    assert engine.engine


def test_draws_of_the_file_serve_a_simulator_without_a_reference(suite_of, give, tmp_path):
    give()
    task = TASK.replace("Known", "OnlyLikelihood") + GIVEN
    (job,) = plan(suite_of(task + METHODS), ["*/prior"])
    assert job.has_reference
    assert not plan(suite_of(task + "reference = false\n" + METHODS))[0].has_reference
    with pytest.raises(SuiteError, match=r'onlylikelihood: reference = "engine" and .*given\.safetensors holds draws'):
        plan(suite_of(task + 'reference = "engine"\n' + METHODS))


def test_fits_of_another_task_are_scored_on_the_file(suite_of, give, tmp_path):
    tensors, store = give(), Store(tmp_path / "store")
    public = '[[tasks]]\nname = "public"\nfit_of = "known"\n' + GIVEN
    jobs = {(job.task, job.method): job for job in plan(suite_of(TASK + public + METHODS))}
    own, given = jobs["known", "regression"], jobs["public", "regression"]
    assert given.learner == own
    assert (own.measurements, given.measurements) == (60, 10)
    assert run(list(jobs.values()), store, workers=0).ok == 4
    assert torch.equal(truth_of(given, given.build_task(), store, "cpu").y, tensors["y"])
    assert len(list(store.root.glob("fits/*"))) == 3


def test_methods_for_one_measurement_take_those_that_there_are(suite_of, give, tmp_path):
    tensors, store = give(numbers(4)), Store(tmp_path / "store")
    text = TASK + GIVEN + '[[methods]]\nmethod = "toys:Sequential"\n[[methods]]\nmethod = "prior"\nmeasurements = 5\n'
    suite = suite_of(text)
    *each, prior = plan(suite)
    assert [job.observation for job in each] == [0, 1, 2, 3]
    assert prior.size == 4
    assert run(each, store, workers=0).ok == 4
    assert torch.equal(store.read_artefact(each[2]).y, tensors["y"][2:3])
    assert collect(suite, store, "mine.toml").jobs[0].measurements == 4


def test_measurements_of_a_reality_are_checked_against_its_prior(suite_of, give):
    tensors = give(without(numbers(), "reference"))
    bounded = f'[[tasks]]\nsimulator = "two_moons"\n{GIVEN}'
    outside = int((tensors["theta"].abs() > 1).any(1).sum())
    assert outside
    with pytest.raises(SuiteError, match=rf"theta of {outside} of 10 measurements lies outside .* 'two_moons'"):
        plan(suite_of(bounded + METHODS))
    (job, _) = plan(suite_of(bounded + 'reality = { simulator = "toys:Gaussian" }\n' + METHODS))
    assert job.has_reference


def test_a_file_that_changed_after_planning_is_not_taken(suite_of, give, tmp_path):
    give()
    (job,) = plan(suite_of(TASK + GIVEN + METHODS), ["*/prior"])
    give(numbers(seed=1))
    outcome = run([job], Store(tmp_path / "store"), workers=0)
    assert outcome.failed == 1
    assert "has changed since the jobs were planned" in next(iter(outcome.reasons.values()))


def test_a_file_costs_no_time(suite_of, give, tmp_path):
    give()
    text = TASK + GIVEN + "milliseconds = 1e6\n" + '[[methods]]\nmethod = "prior"\nseconds = { known = 3.0 }\n'
    assert time_left(plan(suite_of(text)), Store(tmp_path / "store"), 1) == (3.0, 0)


GOOD = numbers()
BAD = GOOD["y"].clone()
BAD[[2, 5], 1] = torch.nan


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without(GOOD, "theta"), r"holds reference, y; expected theta and y, and reference or nothing else"),
        (GOOD | {"noise": GOOD["y"].clone()}, r"holds noise, reference, theta, y; expected theta and y"),
        (GOOD | {"theta": GOOD["theta"][:, :1].contiguous()}, r"theta has shape \(10, 1\); expected \(10, 2\)"),
        (GOOD | {"theta": GOOD["theta"][:9]}, r"theta has shape \(9, 2\); expected \(10, 2\)"),
        (GOOD | {"y": torch.zeros(10, 3)}, r"y has shape \(10, 3\); expected \(T, 2\) for 'known'"),
        (GOOD | {"y": torch.tensor(1.0)}, r"y has shape \(\); expected \(T, 2\)"),
        (GOOD | {"reference": torch.zeros(30, 10, 2)}, r"reference has shape \(30, 10, 2\); expected \(10, n, 2\)"),
        (GOOD | {"reference": torch.zeros(10, 1, 2)}, r"reference has 1 draws of each posterior; expected at least 2"),
        (GOOD | {"reference": torch.zeros(10, 2)}, r"reference has shape \(10, 2\); expected \(10, n, 2\)"),
        (GOOD | {"y": torch.zeros(10, 2, dtype=torch.int64)}, r"y is torch.int64; expected floating-point"),
        (GOOD | {"y": BAD}, r"y has numbers that are not finite in single precision for 2 of 10 measurements"),
        (GOOD | {"theta": GOOD["theta"].double() * 1e300}, r"theta has numbers that are not finite .* 10 of 10"),
        ({name: tensor[:1] for name, tensor in GOOD.items()}, r"has 1 measurements; expected at least 2"),
    ],
)
def test_a_file_that_cannot_be_the_test_set_is_told_before_anything_runs(suite_of, give, tensors, message):
    give(tensors)
    with pytest.raises(SuiteError, match=message) as found:
        plan(suite_of(TASK + GIVEN + METHODS))
    assert "tasks: known: test_set: " in str(found.value)
    assert "given.safetensors" in str(found.value)


def test_a_file_that_is_missing_or_of_another_kind_is_told(suite_of, tmp_path):
    with pytest.raises(SuiteError, match=r"there is no file .*given\.safetensors; expected safetensors"):
        plan(suite_of(TASK + GIVEN + METHODS))
    for content in (b"", b"theta,y\n1.0,2.0\n" * 20):
        (tmp_path / "given.safetensors").write_bytes(content)
        with pytest.raises(SuiteError, match=r"given\.safetensors cannot be read: .*; expected safetensors"):
            plan(suite_of(TASK + GIVEN + METHODS))
    with pytest.raises(SuiteError, match="test_set"):
        suite_of(TASK + GIVEN.replace('"given.safetensors"', "5") + METHODS)

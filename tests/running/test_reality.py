"""Measurements of a process that methods do not simulate: what they may learn from it, and its exact posterior."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from posterior_bench.running.plan import plan
from posterior_bench.running.run import run
from posterior_bench.running.store import Store
from posterior_bench.running.truth import truth_of
from posterior_bench.runtime import load_tensors, save_tensors

SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from posterior_bench import MethodSpec, Need
from toys import Gaussian, Linear, Regression


@dataclass(frozen=True)
class Rescales(Regression):
    """The regression, whose sd is what the labelled measurements say of it."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        "rescales", 1, "nowhere", needs=frozenset({Need.UNLABELLED, Need.LABELLED})
    )

    def fit(self, simulations, problem, progress):
        found = super().fit(simulations, problem, progress)
        pairs = problem.labelled
        assert problem.unlabelled.shape == (70, 2)
        assert not torch.isin(problem.unlabelled, pairs.y).any()
        return Linear(found.slope, (pairs.theta - found.slope * pairs.y).std(0))
'''
WIDE = {"sd": 2.0}


@pytest.fixture
def suite_with(make_suite, tmp_path, monkeypatch):
    """Gaussian measurements with more noise than the simulations have."""
    toys = Path(__file__).with_name("toys.py")
    monkeypatch.syspath_prepend(str(toys.parent))
    method = tmp_path / "learns.py"
    method.write_text(SOURCE)

    def build(**of_task: object):
        reality = {"simulator": f"{toys}:Gaussian", "options": WIDE}
        suite = make_suite(["Gaussian"], ["reference", "Regression"], {"reality": reality, **of_task})
        entry = suite.methods[1].model_copy(update={"method": f"{method}:Rescales"})
        return suite.model_copy(update={"methods": (*suite.methods, entry)})

    return build


def rows_of(store: Store, jobs) -> dict[str, dict[str, float]]:
    return {job.label: {r.metric: r.value for r in store.read_rows(job) if r.metric} for job in jobs}


def test_who_learns_from_labels_is_calibrated_and_who_does_not_is_not(suite_with, tmp_path):
    jobs = plan(suite_with(unlabelled=70, labels=200))
    store = Store(tmp_path / "store")
    assert run(jobs, store, workers=0).ok == 3
    coverage = {label: rows["coverage_bias/a"] for label, rows in rows_of(store, jobs).items()}
    assert coverage["regression"] < -0.15, "simulations have a quarter of the noise"
    assert abs(coverage["rescales"]) < 0.12
    assert {row.n_labels for row in store.read_rows(jobs[2])} == {200}
    assert {row.n_labels for row in store.read_rows(jobs[1])} == {None}


def test_the_exact_posterior_is_that_of_the_process_behind_the_measurements(suite_with, tmp_path):
    jobs = plan(suite_with())
    store = Store(tmp_path / "store")
    outcome = run(jobs, store, workers=0)
    assert (outcome.ok, outcome.skipped) == (2, 1)
    assert "labelled, unlabelled" in store.read_rows(jobs[2])[0].reason
    theta = load_tensors(store.reference(jobs[1].reference_address))[0]["theta"]
    y = load_tensors(store.test_set(jobs[1].test_set))[0]["y"][: theta.shape[1]]
    torch.testing.assert_close(theta.mean(0), y / 5, atol=0.6, rtol=0)  # 4 standard errors of 40 draws
    assert abs(rows_of(store, jobs[:1])["reference"]["coverage_bias/a"]) < 0.12


def test_what_a_method_learns_from_is_part_of_its_fit_s_address(suite_with):
    few, many = (plan(suite_with(unlabelled=70, labels=count)) for count in (20, 50))
    assert few[2].fit != many[2].fit
    assert few[1].fit == many[1].fit, "the regression learns from simulations alone"


def test_the_target_s_prior_is_that_of_the_process_behind_the_measurements(make_suite, tmp_path):
    reality = {"simulator": str(Path(__file__).with_name("toys.py")) + ":Population", "options": {"place": 1.0}}
    jobs = plan(make_suite(["Gaussian"], ["reference", "Regression"], {"reality": reality}))
    store = Store(tmp_path)
    assert run(jobs, store, workers=0).ok == 2
    truth = truth_of(jobs[0], jobs[0].build_task(), store, "cpu")
    assert truth.prior.mean.tolist() == [1.0, 1.0]
    torch.testing.assert_close(truth.prior_sd, torch.full((2,), 0.3), atol=0.01, rtol=0)
    found = rows_of(store, jobs)
    assert 0 < found["reference"]["energy_skill"] < 0.5, "the population is known to be narrow"
    assert found["regression"]["energy_skill"] < found["reference"]["energy_skill"] - 0.05


def test_the_signals_of_the_measurements_go_on_with_their_own_noise(make_suite, tmp_path):
    (job,) = plan(make_suite(["Ramp"], ["Regression"], of_method={"measurements": 40}))
    store = Store(tmp_path)
    assert run([job], store, workers=0).ok == 1
    tests, _ = load_tensors(store.test_set(job.test_set))
    assert {name: len(tensor) for name, tensor in tests.items()} == {"theta": 60, "y": 60, "noise": 60}
    assert (tests["noise"][:, 0] <= 1.5).all(), "failed simulations are no measurements"
    truth = truth_of(job, job.build_task(), store, "cpu")
    signal = truth.signal(truth.theta, 5)
    assert signal.shape == (40, 5)
    torch.testing.assert_close(signal[:, :2] + 0.5 * tests["noise"][:40, 1:], truth.y)
    nuisance = tests["noise"][:40, :1]
    torch.testing.assert_close(truth.signal(torch.zeros(40, 2), 3), nuisance.expand(-1, 3))
    with pytest.raises(ValueError, match="one a measurement, 40"):
        truth.signal(torch.zeros(1, 2), 3)
    save_tensors(store.test_set(job.test_set), {"theta": tests["theta"], "y": tests["y"]})
    assert truth_of(job, job.build_task(), store, "cpu").signal is None, "an old test set has no noise"


def test_a_process_without_a_trajectory_has_no_signal(make_suite, tmp_path):
    (job,) = plan(make_suite(["Gaussian"], ["prior"]))
    store = Store(tmp_path)
    run([job], store, workers=0)
    assert truth_of(job, job.build_task(), store, "cpu").signal is None

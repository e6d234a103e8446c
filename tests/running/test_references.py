"""Exact draws and densities: stored once, cut to what a job is scored on, and found by the engine where asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch.distributions import Normal

import posterior_bench.reference
from posterior_bench import Metric, Score
from posterior_bench.reference import Settings
from posterior_bench.running import work
from posterior_bench.running.collect import collect
from posterior_bench.running.plan import plan
from posterior_bench.running.run import run, units_of
from posterior_bench.running.store import Store
from posterior_bench.running.suite import SuiteError
from posterior_bench.running.truth import ROWS, draws_in_parts, truth_of
from posterior_bench.runtime import load_tensors


@dataclass(frozen=True)
class Looks(Metric):
    """One score."""

    name: ClassVar[str] = "looks"

    def score(self, draws, truth):
        yield Score("looks", 1.0)


@pytest.fixture
def looks(monkeypatch):
    """The draws and truths that metrics were given."""
    seen = []

    def look(job, draws, truth, device):
        seen.append((draws, truth))
        return [(Looks(), Score("looks", 1.0))]

    monkeypatch.setattr(work, "_score", look)
    return seen


def test_dense_draws_are_those_of_the_first_measurements(make_suite, tmp_path, looks):
    store = Store(tmp_path)
    jobs = plan(make_suite(["Known"], ["reference", "Regression"], dense_measurements=3, dense_draws=4000))
    assert run(jobs, store, workers=0).ok == 2
    for draws, truth in looks:
        assert draws.dense.shape == truth.dense_reference.shape == (4000, 3, 2)
        assert not torch.equal(draws.dense[:40], draws.theta[:, :3])
        error = 5 * (0.2 / 4000) ** 0.5
        torch.testing.assert_close(truth.dense_reference.mean(0), 0.8 * truth.y[:3], atol=error, rtol=0)
    exact = looks[0][0].dense
    torch.testing.assert_close(exact.mean(0), 0.8 * looks[0][1].y[:3], atol=error, rtol=0)
    assert torch.equal(looks[0][1].dense_reference, looks[1][1].dense_reference), "one file for all methods"
    assert len(list(tmp_path.glob("references/*dense-3-4000*"))) == 1


def test_without_dense_measurements_nothing_is_drawn_for_them(make_suite, tmp_path, looks):
    run(plan(make_suite(["Known"], ["Regression"])), Store(tmp_path), workers=0)
    assert looks[0][0].dense is None
    assert looks[0][1].dense_reference is None


def test_dense_draws_need_a_reference_for_exact_ones_alone(make_suite, tmp_path, looks):
    suite = make_suite(["Gaussian"], ["Regression"], of_task={"reference": False}, dense_measurements=2)
    (job,) = plan(suite)
    run([job], Store(tmp_path), workers=0)
    assert looks[0][0].dense.shape == (10_000, 2, 2)
    assert looks[0][1].dense_reference is None
    assert not list(tmp_path.glob("references/*"))


def test_the_address_of_rows_depends_on_dense_draws_and_that_of_fits_does_not(make_suite):
    def job(**settings):
        return plan(make_suite(["Known"], ["Regression"], **settings))[0]

    base, dense, more = job(), job(dense_measurements=3), job(dense_measurements=3, dense_draws=500)
    assert len({base.id, dense.id, more.id}) == 3
    assert base.fit == dense.fit == more.fit
    assert base.reference_address == dense.reference_address


def test_draws_in_parts_ask_for_the_whole_batch_each_time():
    asked = []

    def sample(y, n):
        asked.append((n, len(y)))
        return torch.arange(float(n))[:, None, None] + y

    y = torch.arange(20.0)[:, None]
    assert draws_in_parts(sample, y, 6000).shape == (6000, 20, 1)
    assert asked == [(2500, 20), (2500, 20), (1000, 20)]
    assert all(n * count <= ROWS for n, count in asked)
    wide = draws_in_parts(sample, torch.arange(150.0)[:, None], 2)
    assert torch.equal(wide[0, :, 0], torch.arange(150.0)), "measurements keep their order"


def test_the_density_of_the_truth_is_known_for_the_reference_measurements(make_suite, tmp_path, looks):
    store = Store(tmp_path)
    (job,) = plan(make_suite(["Known"], ["Regression"]))
    run([job], store, workers=0)
    truth = looks[0][1]
    exact = Normal(0.8 * truth.y[:20], 0.2**0.5).log_prob(truth.theta[:20]).sum(1)
    torch.testing.assert_close(truth.reference_log_prob, exact)
    (other,) = plan(make_suite(["Gaussian"], ["Regression"]))
    run([other], store, workers=0)
    assert looks[1][1].reference_log_prob is None


def test_damaged_order_would_show(make_suite, tmp_path, looks):
    """The units: test set, then exact draws, both kinds, then the job."""
    jobs = plan(make_suite(["Known"], ["Regression"], dense_measurements=2))
    units = list(units_of(jobs, Store(tmp_path), "cpu").values())
    assert [unit.title.partition(": ")[2] for unit in units[:3]] == [
        "test set",
        "exact posterior",
        "exact posterior, many draws",
    ]
    assert units[1].needs == units[2].needs == (units[0].key,)
    assert {units[0].key, units[1].key, units[2].key} < set(units[-1].needs)


@pytest.fixture
def engine(monkeypatch):
    """A reference engine that knows the toy's posterior."""
    called = []

    def fake(simulator, y, draws, settings, truth=None):
        called.append((y.shape, draws, settings))
        theta = 0.8 * y + 0.2**0.5 * torch.randn(draws, *y.shape)
        evidence = Normal(0.0, 1.25**0.5).log_prob(y.double()).sum(1)
        return SimpleNamespace(theta=theta, log_evidence=evidence, record={"accepted": True, "how": "by hand"})

    monkeypatch.setattr(posterior_bench.reference, "build_reference", fake)
    return called


@pytest.mark.parametrize("simulator", ["OnlyLikelihood", "Known"])
def test_the_engine_finds_the_reference_from_the_likelihood(make_suite, tmp_path, looks, engine, simulator):
    store = Store(tmp_path)
    of_task = {"reference": "engine", "recipe": {"flow_steps": 0, "components": 4}}
    suite = make_suite([simulator], ["Regression", "reference"], of_task, dense_measurements=2)
    jobs = plan(suite)
    outcome = run(jobs, store, workers=0)
    own = simulator == "Known"
    assert (outcome.ok, outcome.skipped) == ((2, 0) if own else (1, 1))
    truth = looks[0][1]
    assert truth.reference.shape == (40, 20, 2)
    assert truth.dense_reference.shape == (10_000, 2, 2)
    exact = Normal(0.8 * truth.y[:20], 0.2**0.5).log_prob(truth.theta[:20]).sum(1)
    torch.testing.assert_close(truth.reference_log_prob.float(), exact, atol=1e-4, rtol=1e-4)
    recipe = Settings(flow_steps=0, components=4)
    assert engine == [((20, 2), 40, recipe), ((2, 2), 10_000, recipe)]
    record = store.engine_record(jobs[0].reference_address)
    assert json.loads(record.read_text()) == {"accepted": True, "how": "by hand"}
    assert collect(suite, store, "toys.toml").tasks[0].engine == {"accepted": True, "how": "by hand"}
    if not own:
        assert store.read_rows(jobs[1])[0].reason == "onlylikelihood does not offer reference"


def test_the_engines_draws_are_not_taken_for_the_simulators(make_suite):
    own, found = (plan(make_suite(["Known"], ["Regression"], {"reference": word}))[0] for word in (True, "engine"))
    assert own.reference_address != found.reference_address
    assert own.id != found.id
    assert own.fit == found.fit


def test_draws_of_another_recipe_are_others(make_suite):
    engine = {"reference": "engine"}
    recipes = ({}, {"recipe": {"components": 4}}, {"recipe": {"components": Settings.components}})
    usual, other, same = (plan(make_suite(["Known"], ["Regression"], engine | recipe))[0] for recipe in recipes)
    assert usual.reference_address != other.reference_address
    assert usual.id != other.id
    assert (usual.fit, usual.id) == (other.fit, same.id)


@pytest.mark.parametrize(
    ("of_task", "message"),
    [
        ({"reference": "engine", "recipe": {"component": 4}}, "unknown setting of a recipe 'component'.*components"),
        ({"reference": "engine", "recipe": {"components": 0}}, "recipe: components is 0; expected at least 1"),
        ({"reference": "engine", "recipe": {"components": "4"}}, "components is '4', of type str; expected int"),
        ({"recipe": {"components": 4}}, 'recipe is given without reference = "engine"'),
    ],
)
def test_a_recipe_that_the_engine_cannot_follow_is_told_before_the_run(make_suite, of_task, message):
    with pytest.raises(SuiteError, match=message):
        plan(make_suite(["Known"], ["prior"], of_task))


@pytest.mark.parametrize("of_task", [{}, {"reality": {"simulator": "x"}}])
def test_the_engine_needs_a_likelihood_of_the_process(make_suite, of_task):
    if of_task:
        source = make_suite(["Known"], ["prior"]).tasks[0].simulator
        of_task = {"reality": {"simulator": source}}
    suite = make_suite(["Known" if of_task else "Gaussian"], ["prior"], {"reference": "engine", **of_task})
    with pytest.raises(SuiteError, match="expected measurements of a simulator with a log_likelihood"):
        plan(suite)


def test_a_truth_is_cut_to_what_is_scored(make_suite, tmp_path):
    store = Store(tmp_path)
    whole = plan(make_suite(["Known"], ["Regression"], dense_measurements=3))[0]
    run([whole], store, workers=0)
    few = plan(make_suite(["Known"], ["Regression"], of_method={"measurements": 5}, dense_measurements=3))[0]
    assert (few.test_set, few.reference_address, few.dense_address) == (
        whole.test_set,
        whole.reference_address,
        whole.dense_address,
    )
    full, cut = (truth_of(job, job.build_task(), store, "cpu") for job in (whole, few))
    assert torch.equal(cut.theta, full.theta[:5])
    assert torch.equal(cut.reference, full.reference[:, :5])
    assert torch.equal(cut.reference_log_prob, full.reference_log_prob[:5])
    assert torch.equal(cut.dense_reference, full.dense_reference)
    assert torch.equal(cut.y_sd, full.y.std(0))
    assert full.y_sd is None
    stored, _ = load_tensors(store.test_set(few.test_set))
    assert len(stored["y"]) == 60

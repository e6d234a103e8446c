from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from posterior_bench import HasLikelihood, HasReference, HasReferenceDensity, Simulator
from posterior_bench.checks.gaussian import LinearGaussian
from posterior_bench.cli import app
from posterior_bench.reference import (
    CRITERIA,
    Recipe,
    Settings,
    accepted,
    build_reference,
    log_posterior,
    make_reference,
    read_reference,
    write_reference,
)
from posterior_bench.reference.acceptance import (
    DIFFERENCE,
    EFFECTIVE_SIZE,
    PARETO_K,
    TEMPERED,
    check_duplicates,
    check_ranks,
    check_tempered,
    judge,
)
from posterior_bench.reference.weights import pareto_k
from posterior_bench.runtime import scope
from simulators.inverse_kinematics import InverseKinematics

SMALL = Settings(
    flow_steps=0,
    components=4,
    pilot=1000,
    most_pilot=1000,
    proposals=10_000,
    error=0.006,
    particles=300,
    repetitions=2,
    moves=3,
    rank_measurements=50,
    rank_draws=50,
)
LINEAR = LinearGaussian()


class LikelihoodOnly(Simulator, HasLikelihood):
    """The linear problem without its sampler."""

    spec = LINEAR.spec  # type: ignore[assignment]

    def prior(self):
        return LINEAR.prior()

    def simulate(self, theta: Tensor) -> Tensor:
        return LINEAR.simulate(theta)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return LINEAR.log_likelihood(theta, y)


class ClosedForm(LikelihoodOnly, HasReferenceDensity):
    """The linear problem with its density; ``wrong`` is added to it."""

    wrong = 0.0

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return LINEAR.sample_reference(y, n)

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        return LINEAR.posterior(y).log_prob(theta) + self.wrong


class Repeating(LikelihoodOnly, HasReference):
    """A sampler that draws with replacement."""

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return LINEAR.sample_reference(y, n // 2).repeat(2, 1, 1)


def outcome(reference, criterion) -> dict:
    return next(item for item in reference.record["acceptance"] if item["name"] == criterion.name)


@pytest.fixture(scope="module")
def whole():
    """60 measurements with their truths, by the engine alone."""
    return make_reference(LikelihoodOnly(), 60, 100, SMALL)


def test_a_sound_reference_is_accepted(whole):
    assert whole.accepted, whole.record["acceptance"]
    assert whole.theta.shape == (100, 60, 2)
    assert whole.theta.dtype == whole.y.dtype
    statuses = {item["name"]: item["status"] for item in whole.record["acceptance"]}
    assert list(statuses) == [criterion.name for criterion in CRITERIA]
    assert sorted(statuses.values()) == ["not applicable", *["passed"] * 6]
    diagnostics = whole.record["diagnostics"]
    assert all(len(values) == 60 for values in diagnostics.values())
    assert {"effective_size", "pareto_k", "route_two_importance_log_evidence"} <= set(diagnostics)
    json.dumps(whole.record, allow_nan=False)


def test_the_density_is_the_posteriors(whole):
    found = log_posterior(LikelihoodOnly(), whole.theta, whole.y, whole.log_evidence)
    exact = LINEAR.posterior(whole.y.double()).log_prob(whole.theta.double())
    assert (found - exact).abs().max() < 0.03


def test_it_is_the_same_at_every_call_and_comes_back_from_disk(whole, tmp_path):
    again = build_reference(LikelihoodOnly(), whole.y[:12], 100, dataclasses.replace(SMALL, rank_measurements=2))
    assert torch.equal(again.theta[:, :10], whole.theta[:, :10])  # the first part of both
    assert not again.accepted  # too few pseudo-truths
    folder = write_reference(tmp_path, whole)
    assert folder == tmp_path / "references" / "linear_gaussian-v1"
    back = read_reference(tmp_path, "linear_gaussian", 1)
    for name in ("theta", "log_evidence", "log_evidence_error", "y", "truth"):
        assert torch.equal(getattr(back, name), getattr(whole, name))
    assert back.record == whole.record
    assert back.accepted
    write_reference(tmp_path, whole, "other", 3)
    assert read_reference(tmp_path, "other", 3).record == whole.record
    with pytest.raises(FileNotFoundError, match="posterior-bench reference nothing"):
        read_reference(tmp_path, "nothing", 1)


def test_a_closed_form_gives_log_z_and_a_wrong_one_is_caught():
    reference = make_reference(ClosedForm(), 60, 100, SMALL)
    assert reference.accepted, reference.record["acceptance"]
    assert "its own density" in reference.record["how"]
    assert outcome(reference, EFFECTIVE_SIZE)["status"] == "not applicable"
    assert reference.log_evidence_error.max() < 1e-3

    class Wrong(ClosedForm):
        wrong = 0.1

    broken = make_reference(Wrong(), 60, 100, SMALL)
    assert not broken.accepted
    item = outcome(broken, DIFFERENCE)
    assert item["status"] == "failed"
    assert item["failed"] == list(range(10))
    assert item["value"] == pytest.approx(0.1, abs=0.03)


def test_a_sampler_that_repeats_draws_gives_way_to_the_engine():
    few = dataclasses.replace(SMALL, repetitions=0, rank_measurements=2)
    found = build_reference(Repeating(), LINEAR.simulate(torch.zeros(2, 2)), 50, few)
    assert "repeats up to 25 of 50" in found.record["how"]
    assert outcome(found, DIFFERENCE)["status"] == "missing"
    kept = build_reference(Repeating(), found.y, 50, dataclasses.replace(few, source="simulator"))
    assert kept.record["how"] == "the simulator's own sampler"
    repeated = next(item for item in kept.record["acceptance"] if item["name"] == "repeated draws")
    assert repeated["failed"] == [0, 1]


def test_a_deterministic_process_has_draws_alone():
    found = make_reference(InverseKinematics(), 50, 60, SMALL)
    assert found.log_evidence.isnan().all()
    assert outcome(found, DIFFERENCE)["note"] == "the process has no density"
    assert found.theta.shape == (60, 50, 4)
    json.dumps(found.record, allow_nan=False)


@pytest.mark.parametrize(
    ("simulator", "y", "settings", "message"),
    [
        (LikelihoodOnly(), torch.full((1, 4), math.nan), SMALL, "not finite"),
        (LikelihoodOnly(), torch.zeros(1, 3), SMALL, "expected"),
        (LikelihoodOnly(), torch.zeros(1, 4), dataclasses.replace(SMALL, source="simulator"), "HasReference"),
        (InverseKinematics(), torch.zeros(1, 2), dataclasses.replace(SMALL, source="engine"), "HasLikelihood"),
    ],
)
def test_what_cannot_be_is_refused(simulator, y, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build_reference(simulator, y, 10, settings)


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"source": "both"}, {"prior_share": 0.0}, {"ladder": 1.0}, {"repetitions": 1}, {"pilot": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(**wrong)


def test_a_proposal_that_is_too_narrow_fails():
    """Weights of a normal of half the width: their variance is infinite."""
    with scope(1, dtype=torch.float64):
        r = 0.5 * torch.randn(20_000, 1)
    log_weights = -0.5 * r**2 + 0.5 * (r / 0.5) ** 2
    check = judge(PARETO_K, torch.tensor([0.1, pareto_k(log_weights[:, 0])]))
    assert check.status == "failed"
    assert check.failed == (1,)
    assert judge(EFFECTIVE_SIZE, torch.tensor([12.0, 9.9, math.nan])).failed == (1, 2)


def test_repeated_draws_and_a_wrong_log_z_fail(whole):
    theta = whole.theta.clone()
    theta[3, 7] = theta[80, 7]
    assert check_duplicates(theta).failed == (7,)
    assert check_duplicates(whole.theta).passed
    assert check_duplicates(torch.zeros(5, 2, 1)).status == "not applicable"  # whole numbers
    tempered = whole.log_evidence + 0.1 * torch.randn(4, 60)
    assert check_tempered(whole.log_evidence, tempered).passed
    assert check_tempered(whole.log_evidence + 0.92, tempered).status == "failed"


@pytest.mark.parametrize("kind", ["shifted", "narrow", "wide", "prior", "exchanged"])
def test_ranks_catch_a_wrong_posterior(kind):
    with scope(6):
        truth = LINEAR.prior().sample((200,))
        y = LINEAR.simulate(truth)
        draws = LINEAR.sample_reference(y, 100)
        centre = draws.mean(0)
        wrong = {
            "shifted": draws + 0.5 * draws.std(0),
            "narrow": centre + 0.5 * (draws - centre),
            "wide": centre + 2 * (draws - centre),
            "prior": LINEAR.prior().sample((100, 200)),
            "exchanged": draws.roll(1, 1),
        }[kind]

        def check(theta: Tensor):
            everything = torch.cat([truth[None], theta])
            flat = LINEAR.log_likelihood(everything.flatten(0, 1), y.repeat(101, 1))
            return check_ranks(truth, theta, flat.view(101, 200))

        assert check(draws).passed
        assert check(wrong).status == "failed"
        assert check_ranks(truth[:20], draws[:, :20]).status == "missing"


def test_the_list_is_whole_and_a_missing_item_is_not_acceptance():
    assert all(criterion.reason and criterion.source for criterion in CRITERIA)
    checks = [judge(criterion, torch.tensor([criterion.threshold], dtype=torch.float64)) for criterion in CRITERIA]
    assert [check.status for check in checks] == ["passed", "failed", "passed", "failed", "failed", "passed", "passed"]
    good = [judge(c, torch.tensor([c.threshold * (2.0 if c.relation == "at least" else 0.5)])) for c in CRITERIA]
    assert accepted(good)
    assert not accepted([check for check in good if check.criterion is not TEMPERED])


def test_the_command_writes_prints_and_fails_where_it_is_not_accepted(tmp_path):
    recipe = json.dumps({"part": 2, "repetitions": 0, "rank_measurements": 60, "rank_draws": 20, "flow_steps": 0})
    arguments = ["reference", "inverse_kinematics", "--draws", "30", "--out", str(tmp_path), "--recipe", recipe]
    good = CliRunner().invoke(app, [*arguments, "--measurements", "60"], env={"COLUMNS": "200"})
    assert good.exit_code == 0, good.output
    assert "accepted" in good.output
    assert read_reference(tmp_path, "inverse_kinematics", 1).theta.shape == (30, 60, 4)
    record = tmp_path / "references" / "inverse_kinematics-v1" / "record.json"
    again = CliRunner().invoke(app, ["reference", "--record", str(record), "--out", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    first, second = (read_reference(root, "inverse_kinematics", 1) for root in (tmp_path, tmp_path / "again"))
    assert torch.equal(first.theta, second.theta)
    assert first.record == second.record
    listed = (tmp_path / "references" / "README.md").read_text()
    assert "inverse\\_kinematics-v1" in listed
    assert '"rank\\_draws": 20' in listed
    recipe = json.dumps({"rank_measurements": 3})
    bad = CliRunner().invoke(app, [*arguments[:-1], recipe, "--measurements", "2"], env={"COLUMNS": "200"})
    assert bad.exit_code == 1
    assert "missing" in bad.output
    unknown = CliRunner().invoke(app, [*arguments[:-1], '{"partt": 2}'])
    assert unknown.exit_code == 2
    assert "did you mean 'part'" in " ".join(unknown.output.replace("│", " ").split())
    listed = (tmp_path / "references" / "README.md").read_text()
    assert "**missing**" in listed, "what was not accepted is listed as such"


def test_a_recipe_from_a_file_says_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "record.json"
    for text, message in (
        ("theta", "is not JSON"),
        ("[1]", "has the layout list"),
        ('{"schema": 99}', "has the layout 99; expected 1"),
        ('{"schema": 1, "simulator": "two_moons"}', "lacks 'options'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Recipe.read(path)
    with pytest.raises(ValueError, match="has version 1 and its record tells of version 7"):
        Recipe("inverse_kinematics", version=7).make()
    neither = CliRunner().invoke(app, ["reference"])
    assert neither.exit_code == 2
    assert "either a simulator or --record" in " ".join(neither.output.split())

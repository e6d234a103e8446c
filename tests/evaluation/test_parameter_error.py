"""Errors of the posterior mean, and the CRPS in a parameter's own unit, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.checks import check_metric
from posterior_bench.evaluation import ParameterError, Skill
from posterior_bench.evaluation.parameter_error import pseudo_errors

MEAN_ABSOLUTE = math.sqrt(2 / math.pi)
"""E|Z| of a standard normal."""


def test_keeps_what_every_metric_promises():
    assert [finding for finding in check_metric(ParameterError()) if not finding.ok] == []


def test_errors_of_exact_draws_are_those_of_their_normal(problem, by_name):
    truth = problem.truth(4000)
    n = 25
    scores = by_name(ParameterError().score(Draws(problem.draws(truth.y, n)), truth))
    sd = problem.covariance.diagonal().sqrt()
    for k, name in enumerate("abc"):
        expected = MEAN_ABSOLUTE * float(sd[k]) * math.sqrt(1 + 1 / n)
        error, relative, bias = (scores[f"{m}/{name}"] for m in ("mean_error", "relative_error", "bias"))
        assert error.value == pytest.approx(expected, abs=4 * error.std_error)
        assert error.std_error == pytest.approx(expected / MEAN_ABSOLUTE * math.sqrt((1 - 2 / math.pi) / 4000), rel=0.1)
        assert error.null_low < error.value < error.null_high
        assert float(error.per_measurement.mean()) == pytest.approx(error.value)
        assert relative.value == pytest.approx(expected / (MEAN_ABSOLUTE * float(problem.sd[k])), rel=0.06)
        assert relative.null_low < relative.value < relative.null_high
        assert abs(bias.value) < bias.null_high == -bias.null_low
        # |error| has the sd of the error times sqrt(1 - 2 / pi); both means are over 4,000
        ratio = (error.null_high - error.null_low) / (bias.null_high - bias.null_low)
        assert ratio == pytest.approx(math.sqrt(1 - 2 / math.pi), rel=0.1)
        assert bias.null_high == pytest.approx(1.96 * expected / MEAN_ABSOLUTE / math.sqrt(4000), rel=0.1)


def test_wrong_draws_are_caught_with_the_sign(problem, by_name):
    truth = problem.truth(2000)

    def scores(**change):
        return by_name(ParameterError().score(Draws(problem.draws(truth.y, 50, **change)), truth))

    narrow, wide, high = scores(scale=0.5), scores(scale=2.0), scores(shift=0.2)
    for name in "abc":
        for metric in ("mean_error", "relative_error"):
            assert narrow[f"{metric}/{name}"].value > narrow[f"{metric}/{name}"].null_high
            assert wide[f"{metric}/{name}"].value < wide[f"{metric}/{name}"].null_low
        assert high[f"bias/{name}"].value > high[f"bias/{name}"].null_high, "too large a mean is a positive bias"
    assert high["bias/c"].value == pytest.approx(4.0, abs=4 * high["bias/c"].std_error), "0.2 sd of 20, in its own unit"


def test_prior_errs_as_the_prior_mean_and_the_truth_not_at_all(problem, by_name):
    truth = problem.truth(1000)
    prior = by_name(ParameterError().score(Draws(problem.prior.sample((400, 1000))), truth))
    known = by_name(ParameterError().score(Draws(truth.theta.expand(5, -1, -1).clone()), truth))
    for name in "abc":
        assert prior[f"relative_error/{name}"].value == pytest.approx(1.0, abs=0.01)
        assert prior[f"relative_error/{name}"].std_error < 0.005, "paired with the prior mean's error"
        assert known[f"relative_error/{name}"].value < 1e-6
        assert known[f"mean_error/{name}"].null_high < 1e-6


def test_standard_error_of_a_ratio_is_that_of_the_test_set(problem, by_name):
    values, claimed = [], []
    for _ in range(60):
        truth = problem.truth(100)
        score = by_name(ParameterError().score(Draws(problem.draws(truth.y, 20)), truth))["relative_error/a"]
        values.append(score.value)
        claimed.append(score.std_error)
    assert 0.75 < sum(claimed) / 60 / float(torch.tensor(values, dtype=torch.float64).std()) < 1.35


def test_all_draws_at_the_prior_mean_have_no_band(normal_truth, by_name):
    truth = normal_truth(20)
    draws = truth.prior_draws.mean(0).expand(4, 20, 1).clone()
    score = by_name(ParameterError().score(Draws(draws), truth))["relative_error/p0"]
    assert score.value == pytest.approx(1.0, abs=1e-6)
    assert (score.null_low is None) == (score.null_high is None)


def test_pseudo_truths_are_left_out_of_the_mean_with_their_copies():
    draws = torch.randn(6, 3, 2)
    draws[4, 1] = draws[0, 1]
    rows = torch.tensor([0, 5])
    found = pseudo_errors(draws, draws.double().mean(0), rows)
    for i, row in enumerate(rows.tolist()):
        for t in range(3):
            others = [j for j in range(6) if not torch.equal(draws[j, t], draws[row, t])]
            expected = draws[others, t].double().mean(0) - draws[row, t]
            assert torch.allclose(found[i, t], expected, atol=1e-6)


def test_crps_is_in_the_parameters_unit(problem, by_name):
    truth = problem.truth(2000)
    scores = by_name(Skill().score(Draws(problem.draws(truth.y, 50)), truth))
    narrow = by_name(Skill().score(Draws(problem.draws(truth.y, 50, scale=0.5)), truth))
    for k, name in enumerate("abc"):
        score = scores[f"crps/{name}"]
        exact = float(problem.covariance[k, k].sqrt()) / math.sqrt(math.pi)  # of N(0, s^2) under itself
        assert score.value == pytest.approx(exact, abs=4 * score.std_error)
        assert score.null_low < score.value < score.null_high
        assert float(score.per_measurement.double().mean()) == pytest.approx(score.value)
        assert narrow[f"crps/{name}"].value > narrow[f"crps/{name}"].null_high

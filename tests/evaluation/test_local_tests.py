from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation.local_tests import LocalTwoSample


def test_exact_draws_lie_in_the_band_and_wrong_ones_do_not(problem, by_name):
    truth = problem.truth(750)
    metric = LocalTwoSample(draws=40, asked=40, learned=700)
    exact = by_name(metric.score(problem.exact(truth, 60), truth))
    assert set(exact) == {"local_c2st", "local_c2st_rejected"}
    score = exact["local_c2st"]
    assert 0 < score.null_low < score.null_high < 0.25
    assert score.value < score.null_high + (score.null_high - score.null_low)
    assert score.per_measurement.shape == score.artefacts["p_values"].shape == (40,)
    wrong = {
        "narrow": problem.draws(truth.y, 60, scale=0.3),
        "wide": problem.draws(truth.y, 60, scale=2.0),
        "prior": problem.prior.sample((60, 750)),
    }
    for name, draws in wrong.items():
        found = by_name(metric.score(Draws(draws), truth))
        assert found["local_c2st"].value > found["local_c2st"].null_high, name
        assert found["local_c2st_rejected"].value > found["local_c2st_rejected"].null_high, name


def test_the_order_of_measurements_changes_nothing_at_all(problem):
    truth = problem.truth(150)
    draws = problem.draws(truth.y, 20)
    order = torch.randperm(150)
    other = replace(truth, theta=truth.theta[order], y=truth.y[order])
    metric = LocalTwoSample(draws=10, asked=10)
    torch.manual_seed(1)
    first = [score.value for score in metric.score(Draws(draws), truth)]
    torch.manual_seed(1)
    assert [score.value for score in metric.score(Draws(draws[:, order]), other)] == pytest.approx(first, rel=1e-3)


def test_few_measurements_have_nothing_to_learn_from(normal_truth):
    truth = normal_truth(99)
    assert list(LocalTwoSample().score(Draws(torch.randn(10, 99, 1)), truth)) == []

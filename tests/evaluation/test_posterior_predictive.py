from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation import PosteriorPredictive
from posterior_bench.evaluation.posterior_predictive import distances_again, ratio_of_medians


def test_distances_are_root_mean_squares_in_sd_of_y(normal_truth):
    truth = normal_truth(300, 2)
    truth = replace(truth, y=torch.cat([10 * truth.theta[:, :1], torch.ones(300, 1)], dim=1))
    truth = replace(truth, simulate=lambda t: torch.cat([10 * t[:, :1], torch.full((len(t), 1), 4.0)], dim=1))
    which = torch.tensor([5, 2])
    theta = truth.theta[which] + torch.tensor([2.0, 0.0])
    found = distances_again(theta[None], truth, which)
    sd = float(truth.y[:, 0].std())
    assert found.shape == (1, 2)
    assert torch.allclose(found, torch.full((1, 2), (((20 / sd) ** 2 + 9) / 2) ** 0.5).double(), rtol=1e-4)
    assert float(ratio_of_medians(torch.full((3, 5), 4.0), torch.full((3, 5), 2.0))) == 2


def test_exact_draws_pass_and_wrong_ones_fail_with_the_sign(problem, by_name):
    truth = problem.truth(300)

    def scores(**options):
        return by_name(PosteriorPredictive().score(Draws(problem.draws(truth.y, 60, **options)), truth))

    exact = scores()
    assert set(exact) == {"posterior_predictive", "posterior_predictive_bias"}
    for score in exact.values():
        assert len(score.per_measurement) == len(score.artefacts["measurements"]) == 250
        assert abs(score.value - (score.null_low + score.null_high) / 2) < 0.75 * (score.null_high - score.null_low)
    assert sum(exact["posterior_predictive"].per_measurement > 1) > 50
    for name in exact:
        for wrong in ({"scale": 2.0}, {"shift": 0.5}):
            assert scores(**wrong)[name].value > scores(**wrong)[name].null_high, (name, wrong)
        narrow = scores(scale=0.3)[name]
        assert narrow.value < narrow.null_low, name
    prior = by_name(PosteriorPredictive().score(Draws(problem.prior.sample((60, 300))), truth))
    assert prior["posterior_predictive"].value > 1.5
    assert prior["posterior_predictive_bias"].value > 0.3


def test_the_band_holds_exact_draws_as_often_as_it_says(problem, by_name):
    inside = []
    for _ in range(60):
        truth = problem.truth(60)
        for score in PosteriorPredictive().score(problem.exact(truth, 20), truth):
            inside.append(score.null_low <= score.value <= score.null_high)
    assert len(inside) == 120
    assert sum(inside) >= 104  # of 120 at 95 %, half of them dependent: fewer with probability 2e-3
    assert sum(inside) < 120


def test_draws_without_a_valid_simulation_are_infinitely_far(problem, by_name):
    truth = problem.truth(100)

    def fails(theta: torch.Tensor) -> torch.Tensor:
        y = problem.simulate(theta)
        y[theta[:, 0] > 5] = torch.nan
        return y

    truth = replace(truth, simulate=fails)
    draws = problem.draws(truth.y, 60)
    draws[:, :80, 0] = 6.0
    found = by_name(PosteriorPredictive().score(Draws(draws), truth))
    assert set(found) == {"posterior_predictive_bias"}, "the median draw is infinitely far away"
    assert found["posterior_predictive_bias"].value == pytest.approx(0.4, abs=0.05)


def test_without_noise_and_with_few_measurements_there_is_nothing(problem, normal_truth):
    truth = normal_truth(50)
    assert list(PosteriorPredictive().score(Draws(torch.randn(10, 50, 1)), truth)) == []
    truth = problem.truth(19)
    assert list(PosteriorPredictive().score(problem.exact(truth, 10), truth)) == []

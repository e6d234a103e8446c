from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Beta, MixtureSameFamily, MultivariateNormal, Uniform

from posterior_bench import Draws, Parameter, Truth
from posterior_bench.evaluation.information import Information, gains, normal_scores
from posterior_bench.priors import Product


def test_scores_are_normal_with_known_and_with_unknown_marginals(problem):
    truth = problem.truth(30)
    theta = truth.prior.sample((3000,))
    exact = normal_scores(theta, truth)
    assert torch.allclose(exact, theta / problem.sd, atol=1e-4)
    joint = MultivariateNormal(torch.zeros(3), problem.sd.diag() ** 2)
    found = normal_scores(theta, replace(truth, prior=joint))
    assert float((found - exact).abs().quantile(0.9)) < 0.25
    assert torch.isfinite(found).all()


def test_gain_of_a_linear_gaussian_is_its_mutual_information(problem, by_name):
    truth = problem.truth(600)
    found = by_name(Information().score(problem.exact(truth, 300), truth))
    sd = problem.covariance.diag().sqrt()
    for k, name in enumerate("abc"):
        score = found[f"information_gain/{name}"]
        expected = float((problem.sd[k] / sd[k]).log())
        assert score.value == pytest.approx(expected, abs=4 * score.std_error + 0.03)
        assert score.null_low - 0.03 < score.value < score.null_high + 0.03
        assert len(score.per_measurement) == 600


def test_wrong_draws_lose_and_the_band_says_which_way(problem, by_name):
    truth = problem.truth(400)
    truth = replace(truth, reference=problem.draws(truth.y, 200))
    exact = by_name(Information().score(problem.exact(truth, 100), truth))
    lost = exact["information_lost/a"]
    assert 1.5 * lost.null_low < lost.value < 1.5 * lost.null_high
    assert exact["information_ceiling/a"].value == pytest.approx(exact["information_gain/a"].value, abs=0.25)
    narrow, wide, shifted = (
        by_name(Information().score(Draws(problem.draws(truth.y, 100, scale=s, shift=m)), truth))
        for s, m in ((0.4, 0.0), (1.5, 0.0), (1.0, 1.0))
    )
    for wrong in (narrow, wide, shifted):
        assert wrong["information_gain/a"].value < exact["information_gain/a"].value
        assert wrong["information_lost/a"].value > wrong["information_lost/a"].null_high
    assert narrow["information_gain/a"].value < narrow["information_gain/a"].null_low
    # of the parameter that the data inform best: draws nearly as wide as the prior claim by their tails
    assert wide["information_gain/b"].value > wide["information_gain/b"].null_high


def test_the_prior_gains_nothing(problem, by_name):
    truth = problem.truth(400)
    found = by_name(Information().score(Draws(problem.prior.sample((200, 400))), truth))
    assert all(abs(found[f"information_gain/{name}"].value) < 0.03 for name in "abc")


def bounded(theta: torch.Tensor, prior: torch.distributions.Distribution) -> Truth:
    names = tuple(Parameter(f"p{k}") for k in range(theta.shape[1]))
    return Truth(theta, theta, prior, prior.sample((4000,)), names, lambda t: t)


def test_bounds_two_modes_and_leakage():
    prior = Product([Uniform(0.0, 1.0)])
    # a posterior against its bound: Beta(1, 9), with gain E[log 9 (1 - x)^8]
    posterior = Beta(1.0, 9.0)
    truth = bounded(posterior.sample((800, 1)), prior)
    found, _ = gains(posterior.sample((400, 800, 1)), truth, 800)
    assert float(found.mean()) == pytest.approx(math.log(9) - 8 / 9, abs=0.12)
    # two narrow modes: uniform on two intervals of width 0.02 gains log 25
    modes = MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)),
        Uniform(torch.tensor([0.2, 0.7]), torch.tensor([0.22, 0.72])),
        validate_args=False,
    )
    truth = bounded(modes.sample((800, 1)), prior)
    draws = modes.sample((400, 800, 1))
    found, _ = gains(draws, truth, 800)
    assert float(found.mean()) == pytest.approx(math.log(25), abs=0.25)
    # half of the draws outside: half of the density
    leaky = draws.clone()
    leaky[::2] += 5
    half, _ = gains(leaky, truth, 800)
    assert float((found - half).mean()) == pytest.approx(math.log(2), abs=0.12)


def test_whole_numbers_are_counted():
    prior = Product([Uniform(0.0, 1.0)])
    theta = torch.ones(60, 1)
    truth = replace(bounded(theta, prior), prior_draws=(torch.rand(4000, 1) < 0.25).float())
    found, pseudo = gains((torch.rand(400, 60, 1) < 0.75).float(), truth, 60)
    assert float(found.mean()) == pytest.approx(math.log(3), abs=0.08)
    expected = 0.75 * math.log(3) + 0.25 * math.log(1 / 3)
    assert float(pseudo.mean()) == pytest.approx(expected, abs=0.15)


def test_no_truth_costs_more_than_the_draws_can_say(normal_truth):
    truth = normal_truth(40, theta=torch.full((40, 1), 4.0))
    found, _ = gains(0.01 * torch.randn(50, 40, 1) - 4, truth, 40)
    assert torch.allclose(found, torch.full_like(found, -math.log(51)), atol=1e-4)

"""Every score that ships on problems that are out of the ordinary: finite numbers, or nothing, and never an error."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from posterior_bench import Draws, Parameter, Truth
from posterior_bench.evaluation import evaluate
from posterior_bench.priors import Product

T, N = 60, 40


@pytest.fixture
def scores(by_name):
    return lambda draws, truth: by_name(evaluate(draws, truth))


def parameters(dim: int) -> tuple[Parameter, ...]:
    return tuple(Parameter(f"p{k}") for k in range(dim))


def test_whole_numbers(scores):
    """Two labels, one of them right nine times in ten; y is the label, and no two draws differ by little."""
    prior = Product([Normal(0.0, 1.0)])
    theta = (torch.rand(T, 1) < 0.5).float()

    def simulate(theta: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.rand_like(theta) < 0.9, theta, 1 - theta)

    y = simulate(theta)
    draws = torch.stack([simulate(y) for _ in range(N)])
    prior_draws = (torch.rand(2000, 1) < 0.5).float()
    truth = Truth(theta, y, prior, prior_draws, parameters(1), simulate, reference=draws.flip(0))
    truth = replace(truth, log_likelihood=lambda t, y: torch.where(t == y, 0.9, 0.1).log().sum(-1))
    found = scores(Draws(draws), truth)
    assert {"sbc_p_value/p0", "information_gain/p0", "tarp_p_value", "posterior_predictive_bias"} <= set(found)
    assert "posterior_predictive" not in found, "the median distance from a label is zero"
    # log 2 less the entropy of a coin that falls on one side nine times in ten
    assert found["information_gain/p0"].value == pytest.approx(0.368, abs=4 * 0.08)
    assert found["sbc_p_value/p0"].value > 0.001


def test_measurements_with_several_axes_and_a_constant_dimension(scores):
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    theta = prior.sample((T,))

    def simulate(theta: torch.Tensor) -> torch.Tensor:
        y = torch.randn(len(theta), 2, 3) + theta[:, :, None]
        y[:, 0, 0] = 7.0
        return y

    truth = Truth(theta, simulate(theta), prior, prior.sample((500,)), parameters(2), simulate)
    found = scores(Draws(torch.randn(N, T, 2)), truth)
    assert {"posterior_predictive", "calibration_worst_bin/p1", "tarp_coverage_bias"} <= set(found)
    assert found["posterior_predictive"].value > found["posterior_predictive"].null_high


def test_a_simulator_without_noise_and_draws_without_density_or_reference(scores):
    prior = MultivariateNormal(torch.zeros(2), torch.eye(2))
    theta = prior.sample((T,))
    truth = Truth(theta, theta[:, :1], prior, prior.sample((500,)), parameters(2), lambda t: t[:, :1])
    exact = torch.stack([theta[:, 0].expand(N, T), torch.randn(N, T)], dim=-1)
    found = scores(Draws(exact), truth)
    absent = ("posterior_predictive", "hpd_", "c2st", "sliced_", "regret", "log_score", "information_lost")
    assert [name for name in found if name.startswith(absent)] == []
    assert found["information_gain/p0"].value > 2, "a parameter that is known exactly"


@pytest.mark.parametrize("measurements", [3, 20])
def test_few_measurements(scores, problem, measurements):
    truth = problem.truth(measurements, reference=20)
    found = scores(problem.exact(truth, 20), truth)
    assert {"sbc_p_value/a", "hpd_coverage_p_value", "tarp_p_value", "sliced_wasserstein"} <= set(found)
    assert ("posterior_predictive" in found) == (measurements == 20)
    assert "local_c2st" not in found


def test_one_value_for_all(scores, problem):
    """A posterior that has collapsed to a point, and measurements that are all alike."""
    truth = problem.truth(120, reference=20)
    point = (truth.y @ problem.gain.T).expand(N, *truth.theta.shape)
    found = scores(Draws(point.contiguous()), truth)
    assert found["sbc_p_value/a"].value < 0.01
    assert found["sliced_wasserstein"].value > found["sliced_wasserstein"].null_high
    alike = replace(truth, y=truth.y[:1].expand_as(truth.y).contiguous(), reference=None, reference_log_prob=None)
    scores(Draws(problem.prior.sample((N, 120))), alike)

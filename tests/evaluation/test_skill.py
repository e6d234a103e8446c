from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posterior_bench import Draws
from posterior_bench.evaluation import Skill
from posterior_bench.evaluation.arithmetic import absolute_differences, pair_sum, squared_distances
from posterior_bench.evaluation.skill import PriorScores, crps, energy_scores
from posterior_bench.runtime import scope

seeds = st.integers(0, 2**31)


def brute_energy(draws: Tensor, theta: Tensor) -> float:
    """Fair energy score of one measurement by loops: draws (n, D), theta (D,)."""
    n = len(draws)
    pairs = sum(float((draws[i] - draws[j]).norm()) for i in range(n) for j in range(n) if i != j)
    return sum(float((d - theta).norm()) for d in draws) / n - pairs / (2 * n * (n - 1))


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(3, 7), st.integers(1, 3), st.booleans())
def test_energy_score_and_crps_are_their_definitions(seed, n, dim, tied):
    torch.manual_seed(seed)
    draws, theta = torch.randn(n, 2, dim), torch.randn(2, dim)
    if tied:
        draws, theta = draws.round(), theta.round()
    scores, pseudo = energy_scores(draws, theta)
    marginal, marginal_pseudo = crps(draws, theta, torch.arange(n))
    for t in range(2):
        assert float(scores[t]) == pytest.approx(brute_energy(draws[:, t], theta[t]), abs=2e-5)
        for i in range(n):
            rest = draws[torch.arange(n) != i, t]
            assert float(pseudo[i, t]) == pytest.approx(brute_energy(rest, draws[i, t]), abs=2e-3 if tied else 2e-5)
            for k in range(dim):
                expected = brute_energy(rest[:, [k]], draws[i, t, [k]])
                assert float(marginal_pseudo[i, t, k]) == pytest.approx(expected, abs=2e-5)
        for k in range(dim):
            assert float(marginal[t, k]) == pytest.approx(brute_energy(draws[:, t, [k]], theta[t, [k]]), abs=2e-5)


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(1, 20), st.integers(1, 5), st.booleans())
def test_sums_over_pairs(seed, n, q, tied):
    torch.manual_seed(seed)
    values, at = torch.randn(3, n), torch.randn(3, q)
    if tied:
        values, at = values.round(), at.round()
    ordered = values.sort(-1).values
    assert torch.allclose(absolute_differences(ordered, at), (values[:, None] - at[..., None]).abs().sum(-1), atol=1e-4)
    assert torch.allclose(pair_sum(ordered), (values[:, None] - values[..., None]).abs().sum((1, 2)), atol=1e-3)
    a, b = torch.randn(2, n, 3), torch.randn(2, q, 3)
    assert torch.allclose(squared_distances(a, b), ((a[:, :, None] - b[:, None]) ** 2).sum(-1), atol=1e-4)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_crps_is_that_of_a_normal_for_any_number_of_draws(spread):
    theta = 1.5 * torch.randn(20_000, 1)
    z = theta / spread
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    exact = spread * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    for n in (3, 50):
        found, _ = crps(spread * torch.randn(n, 20_000, 1), theta, torch.arange(1))
        difference = (found - exact).double()
        assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(20_000)


@pytest.mark.parametrize("dim", [1, 2, 13])
def test_energy_score_is_that_of_a_normal_for_any_number_of_draws(dim):
    exact = math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))  # E|X - X'| / 2 for N(0, I)
    for n in (3, 40):
        found, pseudo = energy_scores(torch.randn(n, 10_000, dim), torch.randn(10_000, dim))
        assert abs(found.double().mean() - exact) < 4 * found.double().std() / 100
        assert abs(pseudo.double().mean() - exact) < 6 * pseudo.double().std() / math.sqrt(10_000 * n / 2)


def test_scores_of_the_prior_are_those_of_its_draws():
    prior, theta = torch.randn(60, 3) + 5, torch.randn(4, 3)
    scores = PriorScores(prior)
    repeated = prior[:, None].expand(-1, 4, -1)
    assert torch.allclose(scores.energy(theta), energy_scores(repeated, theta)[0], atol=1e-4)
    assert torch.allclose(scores.crps(theta), crps(repeated, theta, torch.arange(1))[0], atol=1e-4)


def test_prior_has_skill_zero_and_the_exact_posterior_the_highest(problem, by_name):
    truth = problem.truth(2000)
    skill = {}
    for name, draws in {
        "prior": problem.prior.sample((100, 2000)),
        "exact": problem.draws(truth.y, 100),
        "narrow": problem.draws(truth.y, 100, scale=0.5),
        "wide": problem.draws(truth.y, 100, scale=2.0),
        "shifted": problem.draws(truth.y, 100, shift=0.3),
        "swapped": problem.draws(truth.y.roll(1, 0), 100),
    }.items():
        skill[name] = by_name(Skill().score(Draws(draws), truth))
    for metric, score in skill["prior"].items():
        if "skill" in metric:
            assert abs(score.value) < 0.02
            assert score.null_low < score.value < score.null_high
    best = skill["exact"]["energy_skill"]
    assert best.value > 0.2
    for name in ("narrow", "wide", "shifted", "swapped"):
        paired = (best.per_measurement - skill[name]["energy_skill"].per_measurement).double()
        assert paired.mean() > 4 * paired.std() / math.sqrt(2000)
    for name, sign in (("narrow", -1), ("wide", 1), ("shifted", -1), ("swapped", -1)):
        for metric in ("energy_skill", "crps_skill/b"):
            score = skill[name][metric]
            edge = score.null_low if sign < 0 else score.null_high
            assert sign * (score.value - edge) > 0, (name, metric)
    # closed form for one parameter: CRPS of N(0, s^2) under itself is s / sqrt(pi)
    posterior_sd = problem.covariance.diagonal().sqrt()
    for k, name in enumerate("abc"):
        score = skill["exact"][f"crps_skill/{name}"]
        assert score.value == pytest.approx(float(1 - posterior_sd[k] / problem.sd[k]), abs=4 * score.std_error)
        assert float(score.per_measurement.mean()) == pytest.approx(score.value)


def test_standard_errors_are_those_of_the_test_set(problem, by_name):
    values, claimed = [], []
    for _ in range(50):
        truth = problem.truth(100)
        scores = by_name(Skill().score(problem.exact(truth, 50), truth))
        values.append([s.value for s in scores.values()])
        claimed.append([s.std_error for s in scores.values()])
    actual = torch.tensor(values, dtype=torch.float64).std(0)
    ratio = torch.tensor(claimed, dtype=torch.float64).mean(0) / actual
    assert ((ratio > 0.7) & (ratio < 1.4)).all(), ratio


def test_order_of_measurements_and_of_draws_does_not_matter(problem):
    truth = problem.truth(40)
    draws = problem.draws(truth.y, 30)
    scores, _ = energy_scores(draws, truth.theta)
    order = torch.randperm(40)
    assert torch.allclose(energy_scores(draws[:, order], truth.theta[order])[0], scores[order], atol=1e-4)
    assert torch.allclose(energy_scores(draws[torch.randperm(30)], truth.theta)[0], scores, atol=1e-4)


def test_one_measurement_has_a_score_and_no_standard_error(problem, by_name):
    truth = problem.truth(1)
    score = by_name(Skill().score(problem.exact(truth, 50), truth))["energy_skill"]
    assert score.std_error is None


def test_draws_that_came_twice_are_one_draw():
    """Importance sampling repeats draws; the score is that of the distribution, not of its repetitions."""
    with scope(21):
        theta = torch.randn(1500, 3)
        bank = torch.randn(40, 1500, 3)
        picks = torch.randint(40, (200, 1500))
        repeated = torch.gather(bank, 0, picks[..., None].expand(-1, -1, 3))
        plain, _ = energy_scores(torch.randn(200, 1500, 3), theta)
        scores, pseudo = energy_scores(repeated, theta)
        marginal, _ = crps(repeated, theta, torch.arange(5))
        expected, _ = crps(torch.randn(200, 1500, 3), theta, torch.arange(5))
    error = float((scores - plain).std()) / 1500**0.5
    assert abs(float(scores.mean() - plain.mean())) < 4 * error
    assert float(plain.mean()) / 40 > 6 * error, "what the repetitions would take off the spread"
    assert abs(float(pseudo.mean() - scores.mean())) < 0.05
    assert abs(float(marginal.mean() - expected.mean())) < 0.01

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation import LogScore
from posterior_bench.evaluation.log_score import densities


def test_scores_are_entropy_and_divergence(problem, by_name):
    truth = problem.truth(2000, reference=10)
    entropy = 1.5 * (1 + math.log(2 * math.pi)) + 0.5 * float(problem.covariance.logdet())
    for scale in (0.5, 1.0, 2.0):
        draws = Draws(problem.draws(truth.y, 100, scale), problem.density(truth.y, scale))
        scores = by_name(LogScore().score(draws, truth))
        regret = 3 * (math.log(scale) + (1 / scale**2 - 1) / 2)  # KL(N(0, 1) || N(0, scale^2)) for each parameter
        found = scores["log_score"]
        assert found.value == pytest.approx(-entropy - regret, abs=4 * found.std_error)
        assert scores["regret_nats"].value == pytest.approx(regret, abs=4 * scores["regret_nats"].std_error + 1e-5)
        assert scores["log_score_zero_density"].value == 0
        side = -1 if found.value < found.null_low else 1 if found.value > found.null_high else 0
        assert side == (-1 if scale < 1 else 1 if scale > 1 else 0)
        assert len(found.per_measurement) == 2000


def test_truths_without_density_are_told_apart(problem, by_name):
    truth = problem.truth(100, reference=10)
    inner = problem.density(truth.y)

    def cut(theta: torch.Tensor) -> torch.Tensor:
        return torch.where(theta[..., 0] < 0.3, inner(theta), -torch.inf)

    scores = by_name(LogScore().score(Draws(problem.draws(truth.y, 40), cut), truth))
    lost = truth.theta[:, 0] >= 0.3
    assert scores["log_score_zero_density"].value == pytest.approx(float(lost.double().mean()))
    assert torch.equal(scores["log_score"].per_measurement == -torch.inf, lost)
    nowhere = Draws(problem.draws(truth.y, 40), lambda t: torch.full(t.shape[:2], -torch.inf))
    assert set(by_name(LogScore().score(nowhere, truth))) == {"log_score_zero_density"}


def test_broken_densities_raise(problem):
    truth = problem.truth(100, reference=10)
    theta = problem.draws(truth.y, 40)
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="NaN or \\+inf in 100 of 100 places"):
            list(LogScore().score(Draws(theta, lambda t, v=value: torch.full(t.shape[:2], v)), truth))
    bad = replace(truth, reference_log_prob=torch.full((100,), -torch.inf))
    with pytest.raises(ValueError, match="reference's log density"):
        list(LogScore().score(Draws(theta, problem.density(truth.y)), bad))


def test_regret_is_of_the_measurements_with_an_exact_density(problem, by_name):
    truth = problem.truth(300)
    exact = replace(truth, reference_log_prob=problem.density(truth.y)(truth.theta[None])[0, :40])
    scores = by_name(LogScore().score(problem.exact(truth, 40), exact))
    regret = scores["regret_nats"]
    assert len(regret.per_measurement) == 40
    assert len(scores["log_score"].per_measurement) == 300
    assert float(regret.per_measurement.abs().max()) < 1e-4
    assert regret.null_low < regret.value < regret.null_high
    for scale in (0.7, 1.4):
        wrong = Draws(problem.draws(truth.y, 40, scale), problem.density(truth.y, scale))
        found = by_name(LogScore().score(wrong, exact))["regret_nats"]
        each = wrong.log_density(truth.theta[None])[0, :40]
        assert torch.allclose(found.per_measurement, (exact.reference_log_prob - each).double(), atol=1e-4)
        assert found.value > found.null_high
    with pytest.raises(ValueError, match="shape \\(301,\\)"):
        list(LogScore().score(problem.exact(truth, 40), replace(truth, reference_log_prob=torch.zeros(301))))


def test_regret_leaves_out_truths_without_density(problem, by_name):
    truth = problem.truth(100, reference=10)
    inner = problem.density(truth.y)
    half = Draws(problem.draws(truth.y, 40), lambda t: torch.where(t[..., 0] < 0.0, inner(t), -torch.inf))
    regret = by_name(LogScore().score(half, truth))["regret_nats"]
    assert regret.value == pytest.approx(0, abs=1e-5)
    assert torch.equal(regret.per_measurement == torch.inf, truth.theta[:, 0] >= 0)
    kept = truth.theta[:, 0].argsort(descending=True)[:5]  # of the first five no truth has a density
    other = replace(truth, theta=truth.theta[kept], y=truth.y[kept], reference_log_prob=torch.zeros(3))
    density = problem.density(other.y)
    theta = torch.cat([problem.draws(other.y, 40)])
    lost = Draws(theta, lambda t: torch.where(t[..., 0] < float(other.theta[2, 0]) - 1e-6, density(t), -torch.inf))
    assert "regret_nats" not in by_name(LogScore().score(lost, other))


def test_densities_are_computed_once_and_from_the_same_draws_in_any_order(problem):
    truth = problem.truth(50)
    calls = []
    inner = problem.density(truth.y)

    def density(theta: torch.Tensor) -> torch.Tensor:
        calls.append(len(theta))
        return inner(theta)

    theta = problem.draws(truth.y, 40)
    draws = Draws(theta, density)
    torch.manual_seed(1)
    first = densities(draws, truth)
    list(LogScore().score(draws, truth))
    assert calls == [1, 32]
    torch.manual_seed(2)
    assert torch.equal(first[1], densities(Draws(theta, inner), truth)[1])


def test_no_density_gives_nothing(problem):
    truth = problem.truth(10)
    assert list(LogScore().score(Draws(problem.draws(truth.y, 10)), truth)) == []

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation import LogScore


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


def test_no_density_gives_nothing(problem):
    truth = problem.truth(10)
    assert list(LogScore().score(Draws(problem.draws(truth.y, 10)), truth)) == []

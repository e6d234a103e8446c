from __future__ import annotations

import math

import pytest
import torch

from posterior_bench.reference.weights import (
    effective_size,
    gather,
    largest_exponent,
    log_mean,
    log_mean_error,
    pareto_k,
    systematic,
)
from posterior_bench.runtime import scope


def test_the_effective_size_counts_equal_weights_and_no_zeros():
    log_weights = torch.tensor([[0.0, 2.0], [0.0, -torch.inf], [0.0, 2.0]])
    assert torch.allclose(effective_size(log_weights), torch.tensor([3.0, 2.0]))
    assert torch.allclose(effective_size(torch.full((3, 1), -torch.inf)), torch.zeros(1))


def test_the_error_of_log_z_is_its_spread_over_repetitions():
    with scope(1, dtype=torch.float64):
        log_weights = 0.8 * torch.randn(400, 2000)
    spread = log_mean(log_weights).std()
    assert float(log_mean_error(log_weights).mean()) == pytest.approx(float(spread), rel=0.08)
    assert float(log_mean(log_weights).mean()) == pytest.approx(0.32, abs=0.01)


def test_the_exponent_is_the_largest_that_keeps_the_size():
    with scope(2, dtype=torch.float64):
        log_weights = 5 * torch.randn(1000, 3)
    log_weights[:500, 2] = -torch.inf
    size = torch.tensor([500.0, 100.0, 250.0], dtype=torch.float64)
    exponent = largest_exponent(log_weights, size, torch.ones(3, dtype=torch.float64))
    assert torch.allclose(effective_size(exponent * log_weights), size, rtol=1e-6)
    assert largest_exponent(log_weights, size * 0 + 1, torch.ones(3, dtype=torch.float64)).eq(1).all()


def test_systematic_draws_follow_the_weights_and_repeat_none_that_is_small():
    with scope(3, dtype=torch.float64):
        log_weights = 0.5 * torch.randn(5000, 2)
        values = torch.randn(5000, 2, 1)
        index = systematic(log_weights, 400)
        assert index.shape == (400, 2)
        assert all(len(column.unique()) == 400 for column in index.unbind(1))
        weighted = (torch.softmax(log_weights, 0)[..., None] * values).sum(0)
        assert torch.allclose(gather(values, index).mean(0), weighted, atol=0.2)
    zero = torch.tensor([[-torch.inf], [0.0], [-torch.inf], [0.0]])
    assert set(systematic(zero, 100)[:, 0].tolist()) == {1, 3}


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_finds_the_shape_of_a_tail(k):
    with scope(4, dtype=torch.float64):
        found = [pareto_k(-k * torch.rand(20_000).log()) for _ in range(10)]  # u^-k has tail shape k
    assert sum(found) / len(found) == pytest.approx(k, abs=0.06)


def test_pareto_k_at_the_ends():
    assert pareto_k(torch.zeros(1000)) == -1
    assert pareto_k(torch.cat([torch.zeros(3), torch.full((997,), -torch.inf)])) == math.inf
    uniform = torch.linspace(0.01, 1, 5000, dtype=torch.float64).log()
    assert pareto_k(uniform) < 0  # bounded weights: no tail

"""Fixed-step solvers against closed forms: their order, times and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from posterior_bench.dynamics import SOLVERS, integrate, require_solver


def forced(state: Tensor, time: float) -> Tensor:
    """u' = -u + cos t from u(0) = 0: u = (cos t + sin t - exp(-t)) / 2."""
    return -state + math.cos(time)


def error(solver: str, substeps: int) -> float:
    found = integrate(forced, torch.zeros(1, 1, dtype=torch.float64), 11, 0.3, substeps, solver)[0, :, 0]
    t = torch.arange(11, dtype=torch.float64) * 0.3
    return float((found - (t.cos() + t.sin() - (-t).exp()) / 2).abs().max())


@pytest.mark.parametrize(("solver", "gain", "limit"), [("rk4", 16, 2e-7), ("euler", 2, 2e-2)])
def test_order(solver: str, gain: float, limit: float) -> None:
    """Twice the steps, a gain of 2^order: what takes the forcing at a wrong time is of order 1."""
    assert error(solver, 16) < limit
    assert error(solver, 8) / error(solver, 16) == pytest.approx(gain, rel=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_are_apart_and_the_first_state_is_given(solver: str) -> None:
    rates = torch.tensor([[0.5], [1.0], [torch.nan]])
    initial = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    states = integrate(lambda state, time: -rates * state, initial, 4, 0.1, 3, solver)
    assert states.shape == (3, 4, 2)
    assert torch.equal(states[:, 0], initial)
    assert torch.isfinite(states[:2]).all()
    alone = integrate(lambda state, time: -rates[1] * state, initial[1:2], 4, 0.1, 3, solver)
    assert torch.equal(states[1:2], alone)
    assert torch.equal(integrate(forced, initial, 1, 0.1, 3, solver), initial[:, None])


def test_gradients_flow() -> None:
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    last = integrate(lambda state, time: -rate * state, torch.ones(1, 1, dtype=torch.float64), 2, 1.0, 20, "rk4")[0, -1]
    (slope,) = torch.autograd.grad(last.sum(), rate)
    assert float(slope) == pytest.approx(-math.exp(-0.7), rel=1e-6)


@pytest.mark.parametrize(("solver", "substeps"), [("heun", 1), ("rk4", 0)])
def test_what_it_does_not_know_is_told(solver: str, substeps: int) -> None:
    with pytest.raises(ValueError, match="found"):
        require_solver(solver, substeps)
    with pytest.raises(ValueError, match="found"):
        integrate(forced, torch.zeros(1, 1), 2, 0.1, substeps, solver)

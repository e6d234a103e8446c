"""The epidemic's equations against scipy's solver, its counts against scipy's binomial and published counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import binom

from posterior_bench.checks import check_simulator
from posterior_bench.runtime import scope
from simulators.two_populations import Epidemic, dynamics
from simulators.two_populations.epidemic import DAYS, log_infected

SIMULATOR = Epidemic()

PUBLISHED = (
    ([0.61479264, 0.19172086], [0.0, 1.0, 352.0, 40.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ([0.6667743, 0.09215801], [0.0, 21.0, 373.0, 85.0, 17.0, 5.0, 0.0, 0.0, 0.0, 0.0]),
)
"""theta and y of the benchmark's first two observations, from its public repository."""


def solved(theta: torch.Tensor) -> np.ndarray:
    """Infected fractions (10,) for theta (2,), in the variables of the definition."""
    beta, gamma = theta.tolist()

    def slope(_: float, u: np.ndarray) -> list[float]:
        infections = beta * u[0] * u[1] / 1e6
        return [-infections, infections - gamma * u[1]]

    solution = solve_ivp(slope, (0, 160), [1e6 - 1, 1], method="LSODA", t_eval=DAYS, rtol=1e-10, atol=1e-14)
    return solution.y[1] / 1e6


def test_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamics, "TOLERANCE", 1e-6)  # it calls row by row; the accuracy is tested below
    with scope(0):
        findings = {f.name: f for f in check_simulator(SIMULATOR)}
    assert {"likelihood", "gradient"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


def test_infected_agree_with_scipy() -> None:
    with scope(1):
        theta = SIMULATOR.prior().sample((12,))
    extremes = torch.tensor([[2.5, 0.06], [0.06, 0.3], [0.125, 0.125], [4.0, 0.25]])
    theta = torch.cat([theta, extremes]).double()
    found = log_infected(theta).exp().numpy()
    for row, rates in zip(found, theta, strict=True):
        np.testing.assert_allclose(row, solved(rates), rtol=1e-5, atol=1e-18)  # scipy's own errors


def test_rows_do_not_touch_each_other() -> None:
    """Steps are each row's own: the company changes rounding at most."""
    with scope(2):
        theta = SIMULATOR.prior().sample((40,))
    together = log_infected(theta)
    alone = torch.cat([log_infected(theta[i : i + 1]) for i in range(0, 40, 8)])
    torch.testing.assert_close(together[::8], alone, rtol=1e-9, atol=1e-9)


def test_prior() -> None:
    with scope(3):
        theta = SIMULATOR.prior().sample((20_000,)).log()
    torch.testing.assert_close(theta.mean(0).exp(), torch.tensor([0.4, 0.125]), rtol=0.02, atol=0)
    torch.testing.assert_close(theta.std(0), torch.tensor([0.5, 0.2]), rtol=0.03, atol=0)


@pytest.mark.parametrize(("theta", "y"), PUBLISHED)
def test_published_observations_are_as_far_off_as_counting_puts_them(theta: list[float], y: list[float]) -> None:
    at, seen = torch.tensor([theta]).double(), torch.tensor([y]).double()
    chance = log_infected(at).exp()
    assert ((seen - 1000 * chance).abs() < 4 * (1000 * chance * (1 - chance)).sqrt() + 1)[0].all()
    best = float(SIMULATOR.log_likelihood(at, seen))
    assert best > -25
    for factor in ([1.3, 1.0], [1.0, 1.5], [0.8, 1.0], [1.0, 0.67]):
        assert float(SIMULATOR.log_likelihood(at * torch.tensor(factor), seen)) < best - 3


def test_counts_are_binomial() -> None:
    theta, n = torch.tensor([PUBLISHED[1][0]]).double(), 5000
    chance = log_infected(theta).exp()[0]
    with scope(4):
        y = SIMULATOR.simulate(theta.expand(n, -1))
    variance = 1000 * chance * (1 - chance)
    assert ((y.mean(0) - 1000 * chance).abs() < 5 * (variance / n).sqrt()).all()
    informative = variance > 1
    torch.testing.assert_close(y.var(0)[informative], variance[informative], rtol=0.1, atol=0)
    assert torch.corrcoef(y[:, informative].T).triu(1).abs().max() < 5 / math.sqrt(n)


def test_likelihood_is_the_binomial_probability() -> None:
    with scope(5):
        theta = SIMULATOR.prior().sample((50,)).double()
        y = SIMULATOR.simulate(theta)
    exact = binom.logpmf(y.numpy(), 1000, log_infected(theta).exp().numpy()).sum(1)
    np.testing.assert_allclose(SIMULATOR.log_likelihood(theta, y).numpy(), exact, rtol=1e-7, atol=1e-7)


def test_what_is_no_count_is_impossible() -> None:
    y = torch.zeros(5, 10)
    y[1, 2], y[2, 2], y[3, 2], y[4, 2] = -1, 1001, 0.5, math.nan
    values = SIMULATOR.log_likelihood(torch.tensor([PUBLISHED[0][0]]).expand(5, -1), y)
    assert torch.isfinite(values).tolist() == [True, False, False, False, False]
    assert (values[1:] == -math.inf).all()


def test_rates_far_outside_the_prior() -> None:
    """A fast epidemic and one that does not start are solved; what is not finite fails alone."""
    theta = torch.tensor([[50.0, 0.1], [0.0, 5.0], [math.nan, 0.1], [0.4, math.inf], [0.4, 0.125]])
    y = SIMULATOR.simulate(theta)
    assert torch.isnan(y).all(1).tolist() == [False, False, True, True, False]
    assert torch.isfinite(y[[0, 1, 4]]).all()
    assert (y[1] == 0).all()

"""Predators and prey against scipy's solver, the conserved quantity, torch's log-normal and published counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.distributions import LogNormal

from posterior_bench.checks import check_simulator
from posterior_bench.runtime import scope
from simulators.two_populations import LotkaVolterra, dynamics
from simulators.two_populations.lotka_volterra import DAYS, LOG_RANGE, log_populations

SIMULATOR = LotkaVolterra()


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


PUBLISHED = (
    (
        [0.6859157, 0.10761319, 0.88789904, 0.116794825],
        numbers(
            "31.783262 1.1971166 0.29703617 0.71145046 2.9415865 11.482614 36.09036 0.46229604 0.38081983 0.9173736 "
            "0.8910395 27.039942 4.356176 0.78444487 0.17100818 0.1325878 8.727008 16.97251 2.7902339 0.47567415"
        ),
    ),
    (
        [0.52359414, 0.04218707, 1.0599382, 0.11769616],
        numbers(
            "30.08668 2.746265 0.5838125 1.142794 3.2575288 8.075945 23.771442 5.4086976 0.4585322 0.987719 "
            "0.91488636 66.98573 10.695971 1.1389576 0.2448028 0.10622074 0.6781424 62.156113 12.377046 1.5941441"
        ),
    ),
)
"""theta and y of the benchmark's first two observations, from its public repository."""


def solved(theta: torch.Tensor) -> np.ndarray:
    """Logarithms of the populations (20,) for theta (4,)."""
    alpha, beta, gamma, delta = theta.tolist()

    def slope(_: float, u: np.ndarray) -> list[float]:
        prey, predators = np.exp(u)
        return [alpha - beta * predators, -gamma + delta * prey]

    start = [math.log(30), 0.0]
    return solve_ivp(slope, (0, 20), start, method="DOP853", t_eval=DAYS, rtol=1e-12, atol=1e-12).y.flatten()


def test_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamics, "TOLERANCE", 1e-6)  # it calls row by row; the accuracy is tested below
    with scope(0):
        findings = {f.name: f for f in check_simulator(SIMULATOR)}
    assert {"noise", "likelihood", "gradient"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


def test_populations_agree_with_scipy() -> None:
    with scope(1):
        theta = SIMULATOR.prior().sample((10,))
    sharp = torch.tensor([[2.1898, 0.0265, 2.3105, 0.0703], [0.3, 0.15, 0.3, 0.2], [2.5, 0.02, 0.4, 0.15]])
    theta = torch.cat([theta, sharp]).double()
    found = log_populations(theta).numpy()
    for row, rates in zip(found, theta, strict=True):
        np.testing.assert_allclose(row, solved(rates).clip(*LOG_RANGE), rtol=0, atol=1e-5)


def test_solution_in_the_variables_of_the_definition() -> None:
    alpha, beta, gamma, delta = PUBLISHED[0][0]
    solution = solve_ivp(
        lambda _, u: [alpha * u[0] - beta * u[0] * u[1], -gamma * u[1] + delta * u[0] * u[1]],
        (0, 20),
        [30.0, 1.0],
        t_eval=DAYS,
        rtol=1e-10,
        atol=1e-12,
    )
    found = log_populations(torch.tensor([PUBLISHED[0][0]]).double()).exp()[0].numpy()
    np.testing.assert_allclose(found, solution.y.flatten(), rtol=1e-5)


def test_what_the_equations_conserve() -> None:
    """delta X - gamma log X + beta Y - alpha log Y is the same at all times."""
    with scope(2):
        theta = SIMULATOR.prior().sample((200,)).double()
    alpha, beta, gamma, delta = theta.T[:, :, None]
    states = log_populations(theta)
    prey, predators = states[:, :10], states[:, 10:]
    constant = delta * prey.exp() - gamma * prey + beta * predators.exp() - alpha * predators
    inside = ((states > LOG_RANGE[0]) & (states < LOG_RANGE[1])).all(1)
    assert inside.float().mean() > 0.9
    torch.testing.assert_close(constant[inside], constant[inside, :1].expand(-1, 10), rtol=1e-5, atol=1e-5)


def test_rows_do_not_touch_each_other() -> None:
    with scope(3):
        theta = SIMULATOR.prior().sample((24,))
    together = log_populations(theta)
    alone = torch.cat([log_populations(theta[i : i + 1]) for i in range(0, 24, 8)])
    torch.testing.assert_close(together[::8], alone, rtol=1e-7, atol=1e-7)


def test_prior() -> None:
    with scope(4):
        theta = SIMULATOR.prior().sample((20_000,)).log()
    torch.testing.assert_close(theta.mean(0), torch.tensor([-0.125, -3.0, -0.125, -3.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(theta.std(0), torch.full((4,), 0.5), rtol=0.03, atol=0)


@pytest.mark.parametrize(("theta", "y"), PUBLISHED)
def test_published_observations_are_as_far_off_as_the_noise_puts_them(theta: list[float], y: list[float]) -> None:
    at, seen = torch.tensor([theta]).double(), torch.tensor([y]).double()
    squares = ((seen.log() - log_populations(at)) / 0.1).square().sum()
    assert 5.9 < float(squares) < 45.4  # 99.8 % of chi^2 with 20 degrees of freedom
    best = float(SIMULATOR.log_likelihood(at, seen))
    for i in range(4):
        for factor in (0.8, 1.25):
            other = at.clone()
            other[0, i] *= factor
            assert float(SIMULATOR.log_likelihood(other, seen)) < best - 3


def test_noise_is_log_normal_and_each_count_its_own() -> None:
    theta, n = torch.tensor([PUBLISHED[1][0]]).double(), 5000
    with scope(5):
        residual = SIMULATOR.simulate(theta.expand(n, -1)).log() - log_populations(theta)
    assert residual.mean(0).abs().max() < 5 * 0.1 / math.sqrt(n)
    torch.testing.assert_close(residual.T.cov(), 0.01 * torch.eye(20).double(), atol=5 * 0.015 / math.sqrt(n), rtol=0)


def test_likelihood_is_the_log_normal_density() -> None:
    with scope(6):
        theta = SIMULATOR.prior().sample((50,)).double()
        y = SIMULATOR.simulate(theta)
    exact = LogNormal(log_populations(theta), 0.1).log_prob(y).sum(1)
    torch.testing.assert_close(SIMULATOR.log_likelihood(theta, y), exact)
    y[0, 3], y[1, 3] = 0.0, -1.0
    assert (SIMULATOR.log_likelihood(theta, y)[:2] == -math.inf).all()


def test_what_cannot_be_solved_fails_alone() -> None:
    """Populations that feed each other reach infinity in finite time."""
    good = PUBLISHED[0][0]
    theta = torch.tensor([good, [1.0, -0.5, 0.1, 0.5], good, [math.nan, 0.1, 1.0, 0.1]])
    y = SIMULATOR.simulate(theta)
    assert torch.isnan(y).all(1).tolist() == [False, True, False, True]
    assert torch.isfinite(y[[0, 2]]).all()

"""The mixture of a wide and a narrow noise: one component a row, and the posterior against a grid."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import truncnorm
from torch import Tensor
from torch.distributions import Independent, Normal

from posterior_bench.checks import check_simulator
from posterior_bench.checks.statistics import departure_from_uniform, ranks
from posterior_bench.runtime import scope
from simulators.gaussian_mixture_sbibm import GaussianMixtureSbibm

SIMULATOR = GaussianMixtureSbibm()


def test_conforms() -> None:
    with scope(0):
        findings = {f.name: f for f in check_simulator(SIMULATOR)}
    assert {"noise", "likelihood", "gradient", "reference_ranks", "reference_density"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


def test_each_row_draws_its_own_component() -> None:
    """The mean square of a batch would be 2 or 0.02 if one component served all its rows; it is 1.01 in each."""
    theta = torch.tensor([[3.0, -4.0]]).expand(4000, -1)
    with scope(1):
        for _ in range(5):
            squares = (SIMULATOR.simulate(theta) - theta).square().sum(1)
            assert abs(float(squares.mean()) - 1.01) < 5 * math.sqrt((0.5 * 8 - 1) / 4000)


def test_both_coordinates_share_the_component() -> None:
    theta = torch.zeros(20_000, 2)
    with scope(2):
        wide = SIMULATOR.simulate(theta).abs() > 0.5
    both = 0.5 * math.erfc(0.5 / math.sqrt(2)) ** 2
    assert abs(float(wide.all(1).float().mean()) - both) < 5 * math.sqrt(both * (1 - both) / 20_000)


def test_likelihood_is_the_mixture_and_integrates_to_one() -> None:
    theta = torch.tensor([[1.0, -2.0]]).double()
    axis = torch.arange(-300, 301).double() / 50
    y = theta + torch.cartesian_prod(axis, axis)
    density = SIMULATOR.log_likelihood(theta.expand(len(y), -1), y).exp()
    exact = sum(0.5 * Independent(Normal(theta[0], sd), 1).log_prob(y).exp() for sd in (1.0, 0.1))
    torch.testing.assert_close(density, exact)
    assert float(density.sum()) * 0.02**2 == pytest.approx(1, abs=1e-7)


def test_published_observation() -> None:
    """The benchmark's first one lies within the narrow component."""
    theta, y = torch.tensor([[-9.527071, -1.4817104]]), torch.tensor([[-9.472713, -1.4950509]])
    assert torch.isfinite(SIMULATOR.prior().log_prob(theta)).all()
    assert float((y - theta).norm()) < 0.3
    narrow = 0.5 / (2 * math.pi * 0.01)
    assert 0.1 < float(SIMULATOR.log_likelihood(theta, y).exp()) / narrow < 1.02


def on_a_grid(y: Tensor, quantity: Tensor, grid: Tensor) -> float:
    weights = SIMULATOR.log_likelihood(grid, y.double().expand(len(grid), -1)).exp()
    return float((weights * quantity).sum() / weights.sum())


@pytest.mark.parametrize("y", [(0.0, 3.0), (9.95, -2.0), (10.15, -9.9), (12.0, 0.0), (-10.05, -10.05)])
def test_posterior_agrees_with_a_grid(y: tuple[float, float]) -> None:
    """Also where the square cuts the components by different shares."""
    target, n = torch.tensor([y]), 20_000
    with scope(3):
        draws = SIMULATOR.sample_reference(target, n)[:, 0].double()
    assert draws.abs().max() <= 10
    centre = target.double().clamp(-10, 10)[0]
    # cell centres of a square about the posterior, 0.01 apart
    axes = [(torch.arange(900).double() + 0.5) * 0.01 - 4.5 + float(c) for c in centre]
    grid = torch.cartesian_prod(*(axis[axis.abs() < 10] for axis in axes))
    for quantity in (
        lambda t: t[:, 0],
        lambda t: t[:, 1],
        lambda t: ((t - centre).norm(dim=1) < 0.3).double(),
        lambda t: (t[:, 0] - centre[0]) * (t[:, 1] - centre[1]),
    ):
        values = quantity(draws)
        allowed = 5 * float(values.std()) / math.sqrt(n) + 2e-3
        assert abs(float(values.mean()) - on_a_grid(target, quantity(grid), grid)) < allowed


def test_posterior_of_far_measurements() -> None:
    with scope(4):
        draws = SIMULATOR.sample_reference(torch.tensor([[14.0, 0.0], [0.0, -16.0]]), 4000)
    # only the wide component reaches the square from there
    for values, exact in (
        (draws[:, 0, 0], truncnorm(-24, -4, loc=14)),
        (draws[:, 1, 1], truncnorm(6, 26, loc=-16)),
    ):
        assert abs(float(values.mean()) - exact.mean()) < 5 * exact.std() / math.sqrt(4000)
    with pytest.raises(ValueError, match="measurement 0 is"):
        SIMULATOR.sample_reference(torch.tensor([[0.0, 20.0]]), 2)


def test_ranks_of_the_truth_are_uniform() -> None:
    with scope(5):
        theta = SIMULATOR.prior().sample((3000,))
        y = SIMULATOR.simulate(theta)
        draws = SIMULATOR.sample_reference(y, 49)
        for truth, others in (
            (theta[:, 0], draws[..., 0]),
            (theta[:, 1], draws[..., 1]),
            ((theta - y).norm(dim=1), (draws - y).norm(dim=2)),
            (theta.abs().amax(1), draws.abs().amax(2)),
        ):
            assert departure_from_uniform(ranks(truth, others)) == ""


@pytest.mark.parametrize("y", [(0.0, 3.0), (9.95, -2.0), (12.0, 0.0), (-10.05, -10.05)])
def test_density_of_the_posterior_integrates_to_one(y: tuple[float, float]) -> None:
    target = torch.tensor([y]).double()
    centre = target.clamp(-10, 10)[0]
    # cells 0.01 wide, whose edges are those of the square
    axes = [(torch.arange(-600, 600).double() + 0.5) * 0.01 + round(float(c), 2) for c in centre]
    grid = torch.cartesian_prod(*axes)
    density = SIMULATOR.log_reference(grid[:, None], target)[:, 0].exp()
    assert float(density.sum()) * 0.01**2 == pytest.approx(1, abs=1e-3)
    assert float(density[(grid.abs() > 10).any(1)].sum()) == 0

"""The crescent, its density, and the two moons of the posterior against a grid of theta."""

from __future__ import annotations

import math

import pytest
import torch

from posterior_bench.checks import check_simulator
from posterior_bench.checks.statistics import departure_from_uniform, ranks
from posterior_bench.runtime import scope
from simulators.two_moons import TwoMoons

SIMULATOR = TwoMoons()

PUBLISHED = (
    ([-0.8176656, -0.5756806], [-0.6396706, 0.16234657]),
    ([-0.28899693, -0.8759459], [-0.5676688, -0.33194834]),
)
"""theta and y of the benchmark's first two observations, from its public repository."""


def test_conforms() -> None:
    with scope(0):
        findings = {f.name: f for f in check_simulator(SIMULATOR)}
    assert {"noise", "likelihood", "gradient", "reference_ranks", "reference_density"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


@pytest.mark.parametrize(
    ("theta", "noise", "y"),
    [
        ([0, 0], [0, 0], [0.35, 0]),  # a = 0, r = 0.1
        ([0, 0], [0, 2], [0.37, 0]),
        ([0, 0], [9, 0], [0.25, 0.1]),  # a = pi / 2
        ([1, 1], [0, 0], [0.35 - math.sqrt(2), 0]),
        ([-1, -1], [0, 0], [0.35 - math.sqrt(2), 0]),
        ([-1, 1], [0, 0], [0.35, math.sqrt(2)]),
        ([0.5, 0], [-9, 0], [0.25 - math.sqrt(1 / 8), -0.1 - math.sqrt(1 / 8)]),
    ],
)
def test_construction(theta: list[float], noise: list[float], y: list[float]) -> None:
    given, eps, exact = (torch.tensor([values], dtype=torch.double) for values in (theta, noise, y))
    torch.testing.assert_close(SIMULATOR.simulate_from(given, eps), exact, atol=1e-12, rtol=0)


def test_distribution_of_the_crescent() -> None:
    """Angles are uniform over the right half turn and radii normal."""
    with scope(1):
        y = SIMULATOR.simulate(torch.zeros(20_000, 2).double()) - torch.tensor([0.25, 0.0])
    angle, radius = torch.atan2(y[:, 1], y[:, 0]), y.norm(dim=1)
    assert departure_from_uniform(angle / math.pi + 0.5) == ""
    assert departure_from_uniform(torch.special.ndtr((radius - 0.1) / 0.01)) == ""
    assert abs(float(torch.corrcoef(torch.stack([angle, radius]))[0, 1])) < 5 / math.sqrt(20_000)


def test_likelihood_integrates_to_one_and_gives_the_mean() -> None:
    theta = torch.tensor([[0.3, -0.7]]).double()
    _, shift = SIMULATOR.simulate_from(theta, torch.zeros(1, 2)), 0.4 / math.sqrt(2)
    across, along = (torch.arange(-400, 400).double() + 0.5) * 5e-4, (torch.arange(-400, 400).double() + 0.5) * 5e-4
    y = torch.cartesian_prod(0.25 - shift + across, -1 / math.sqrt(2) + along)
    density = SIMULATOR.log_likelihood(theta.expand(len(y), -1), y).exp() * 5e-4**2
    assert float(density.sum()) == pytest.approx(1, abs=1e-3)
    with scope(2):
        simulated = SIMULATOR.simulate(theta.expand(50_000, -1))
    mean = (density[:, None] * y).sum(0)
    torch.testing.assert_close(simulated.mean(0), mean, atol=2e-3, rtol=0)
    # E cos a = 2 / pi
    torch.testing.assert_close(mean[0], torch.tensor(0.25 - shift + 0.2 / math.pi).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("theta", "y"), PUBLISHED)
def test_published_observations(theta: list[float], y: list[float]) -> None:
    at, seen = torch.tensor([theta]), torch.tensor([y])
    # radius within 4 sd: at least e^-8 of the largest density
    assert float(SIMULATOR.log_likelihood(at, seen)) > -8 - math.log(math.sqrt(2 * math.pi) * 0.01 * math.pi * 0.15)
    with scope(3):
        draws = SIMULATOR.sample_reference(seen, 4000)[:, 0]
    for mode in (at, -at.flip(1)):  # the mirror image in the line on which z1 = 0
        assert (draws - mode).norm(dim=1).min() < 0.02
    upper = (draws.sum(1) > 0).float().mean()
    assert abs(float(upper) - 0.5) < 5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("y", [(-0.6396706, 0.16234657), (0.3, 0.02), (0.2, 1.3), (-1.05, 0.0)])
def test_posterior_agrees_with_a_grid(y: tuple[float, float]) -> None:
    """Inside, at the fold (where no theta explains a part of the crescent), and in two corners."""
    target, n = torch.tensor([y]).double(), 10_000
    with scope(4):
        draws = SIMULATOR.sample_reference(target, n)[:, 0]
    axis = (torch.arange(-800, 800).double() + 0.5) / 800
    grid = torch.cartesian_prod(axis, axis)
    weights = SIMULATOR.log_likelihood(grid, target.expand(len(grid), -1)).exp()
    for quantity in (
        lambda t: t.sum(1),
        lambda t: t.sum(1).abs(),
        lambda t: t.sum(1) ** 2,
        lambda t: t[:, 1] - t[:, 0],
        lambda t: (t[:, 1] - t[:, 0]) ** 2,
        lambda t: t.abs().amax(1),
    ):
        values = quantity(draws)
        exact = float((weights * quantity(grid)).sum() / weights.sum())
        assert abs(float(values.mean()) - exact) < 5 * float(values.std()) / math.sqrt(n) + 1e-3


def test_every_draw_explains_its_measurement() -> None:
    with scope(5):
        theta = SIMULATOR.prior().sample((300,)).double()
        y = SIMULATOR.simulate(theta)
        draws = SIMULATOR.sample_reference(y, 30)
    assert draws.abs().max() <= 1
    density = SIMULATOR.log_likelihood(draws.reshape(-1, 2), y.repeat(30, 1))
    assert density.min() > -15  # a radius about 6 sd off; a draw of another measurement has -50 or less


def test_ranks_of_the_truth_are_uniform() -> None:
    with scope(6):
        theta = SIMULATOR.prior().sample((3000,))
        draws = SIMULATOR.sample_reference(SIMULATOR.simulate(theta), 49)
        for quantity in (
            lambda t: t[..., 0],
            lambda t: t[..., 1],
            lambda t: t.sum(-1),
            lambda t: t.sum(-1).abs(),
            lambda t: t.abs().amax(-1),
        ):
            assert departure_from_uniform(ranks(quantity(theta), quantity(draws))) == ""


@pytest.mark.parametrize("y", [(0.6, 0.0), (math.nan, 0.0)])
def test_measurement_out_of_reach_is_told(y: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulators.two_moons.ROUNDS", 3)
    with pytest.raises(ValueError, match="measurement 1 is"):
        SIMULATOR.sample_reference(torch.tensor([[0.0, 0.0], y]), 5)


@pytest.mark.parametrize(
    "y", [(-0.6396706, 0.16234657), (0.3, 0.02), (0.3, -0.05), (0.2, 1.3), (0.2, -1.3), (-1.05, 0.0)]
)
def test_constant_of_the_posterior_is_the_share_of_the_crescent_that_is_kept(y: tuple[float, float]) -> None:
    """A(y) against simulated points, and the density against the likelihood."""
    target = torch.tensor([y]).double()
    with scope(7):
        point = SIMULATOR.simulate(torch.zeros(100_000, 2).double()) - target
        theta = SIMULATOR.sample_reference(target, 50)
    share = ((point[:, 0] >= 0) & (point[:, 0] + point[:, 1].abs() <= math.sqrt(2))).double().mean()
    likelihood = SIMULATOR.log_likelihood(theta[:, 0], target.expand(50, -1))
    found = (likelihood - SIMULATOR.log_reference(theta, target)[:, 0]).exp() / 2
    torch.testing.assert_close(found, share.expand(50), atol=5 * 0.5 / math.sqrt(100_000), rtol=0)
    assert SIMULATOR.log_reference(torch.full((1, 1, 2), 1.01), target).isneginf().all()


def test_density_of_an_impossible_measurement_is_told() -> None:
    with pytest.raises(ValueError, match="measurement 1 is"):
        SIMULATOR.log_reference(torch.zeros(1, 2, 2), torch.tensor([[0.0, 0.0], [0.6, 0.0]]))

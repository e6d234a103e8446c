"""The throw against closed forms and a fine integration of its motion, and its exact posterior against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from scipy.special import lambertw
from scipy.stats import norm, poisson
from torch import Tensor

from posterior_bench import Draws, Truth
from posterior_bench.checks import check_simulator
from posterior_bench.checks.statistics import departure_from_uniform, ranks
from posterior_bench.evaluation import evaluate
from posterior_bench.evaluation.inputs import whole_numbers
from posterior_bench.priors import in_support
from posterior_bench.runtime import scope
from posterior_bench.training import ThetaMap
from simulators import inverse_ballistics as module
from simulators.inverse_ballistics import InverseBallistics, PoissonSpeed, _Throws, flight_time, trajectory

WHOLE, DEQUANTISED = InverseBallistics(), InverseBallistics(integer_speed=False)
BOTH = pytest.mark.parametrize("simulator", [WHOLE, DEQUANTISED], ids=["whole", "dequantised"])

THROWS = torch.tensor(
    [
        [0.0, 1.5, 0.8, 15.0],
        [-0.4, 0.01, 0.16, 3.0],
        [0.7, 3.2, 1.41, 34.0],
        [0.1, 2.0, 0.3, 1.0],
        [1.2, 1.0, 1.0, 0.0],
        [0.0, 0.0, 0.6, 12.0],
        [0.3, -0.5, 1.2, 20.0],
    ],
    dtype=torch.double,
)
"""Ordinary, near the ground, high and fast, slow, dropped, from the ground, and from below it."""


def prior_draws(simulator: InverseBallistics, n: int, seed: int = 0) -> Tensor:
    with scope(seed):
        return simulator.prior().sample((n,))


def velocity(theta: Tensor) -> tuple[Tensor, Tensor]:
    return theta[:, 3] * theta[:, 2].cos(), theta[:, 3] * theta[:, 2].sin()


def test_without_drag_the_range_is_the_textbook_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELAXATION", 1e6)
    theta = torch.cat([THROWS, prior_draws(DEQUANTISED, 1000).double()])
    forward, upward = velocity(theta)
    time = (upward + (upward**2 + 2 * module.GRAVITY * theta[:, 1]).sqrt()) / module.GRAVITY
    found = WHOLE.simulate(theta)[:, 0]
    torch.testing.assert_close(found, theta[:, 0] + forward * time, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("throw", range(len(THROWS)))
def test_impact_agrees_with_an_integration_of_the_motion(throw: int) -> None:
    theta = THROWS[throw : throw + 1]
    forward, upward = (float(part) for part in velocity(theta))

    def motion(_: float, state: np.ndarray) -> list[float]:
        _, _, horizontal, vertical = state
        drag = module.DRAG / module.MASS
        return [horizontal, vertical, -drag * horizontal, -module.GRAVITY - drag * vertical]

    def ground(_: float, state: np.ndarray) -> float:
        return state[1]

    ground.terminal, ground.direction = True, -1.0  # type: ignore[attr-defined]
    start = [float(theta[0, 0]), float(theta[0, 1]), forward, upward]
    path = solve_ivp(motion, (0, 20), start, "DOP853", events=ground, rtol=1e-12, atol=1e-13, max_step=0.05)
    assert len(path.t_events[0]) == 1
    assert float(WHOLE.simulate(theta)) == pytest.approx(path.y_events[0][0][0], abs=1e-9)
    assert float(flight_time(theta[:, 1], velocity(theta)[1])) == pytest.approx(path.t_events[0][0], abs=1e-9)


def test_time_is_the_principal_branch_of_lambert() -> None:
    """s = c + W0(-a exp(-c)) with a = 1 + v2 / (g T), c = a + x2 / (g T^2)."""
    theta = prior_draws(DEQUANTISED, 5000).double()
    upward = velocity(theta)[1]
    a = 1 + upward / (module.GRAVITY * module.RELAXATION)
    c = a + theta[:, 1] / (module.GRAVITY * module.RELAXATION**2)
    expected = c.numpy() + lambertw((-a * (-c).exp()).numpy()).real
    found = flight_time(theta[:, 1], upward) / module.RELAXATION
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@BOTH
def test_the_ground_is_hit_exactly_and_not_before(simulator: InverseBallistics) -> None:
    theta = torch.cat([prior_draws(simulator, 20_000).double(), THROWS[:-2]])
    paths = trajectory(theta, 50)
    assert paths[:, -1, 1].abs().max() < 1e-13
    assert (paths[:, :-1, 1] > 0).all()
    torch.testing.assert_close(paths[:, 0], theta[:, :2])
    torch.testing.assert_close(paths[:, -1, 0], simulator.simulate(theta)[:, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("throw", [5, 6])
def test_the_latest_root_is_taken(throw: int) -> None:
    """From the ground and from below, height is zero on the way up too; it comes down at the impact, and stays down."""
    theta = THROWS[throw : throw + 1]
    path = trajectory(theta, 1001)[0, :, 1]
    assert abs(float(path[-1])) < 1e-13
    assert path[-1] < path[-2]
    signs = (path[1:-1] > 0).int().diff()
    assert (signs == -1).sum() == 0
    assert path[500] > 1
    time = float(flight_time(theta[:, 1], velocity(theta)[1])) * 1.001
    used = 1 - math.exp(-time / module.RELAXATION)
    scale = module.GRAVITY * module.RELAXATION**2 + float(velocity(theta)[1]) * module.RELAXATION
    assert float(theta[0, 1]) + scale * used - module.GRAVITY * module.RELAXATION * time < 0


def test_double_root_and_nearly_double_ones() -> None:
    height = torch.tensor([0.0, 1e-12, 0.0, 1e-300], dtype=torch.double)
    upward = torch.tensor([0.0, 0.0, 1e-9, 0.0], dtype=torch.double)
    expected = torch.tensor([0, math.sqrt(2e-12 / 9.81), 2e-9 / 9.81, 0], dtype=torch.double)
    torch.testing.assert_close(flight_time(height, upward), expected, rtol=1e-5, atol=1e-14)


def test_rows_that_fail() -> None:
    theta = THROWS[:1].repeat(8, 1)
    theta[0, 1] = -20.0  # never rises to the ground
    theta[1, 2] = -0.5  # downward
    theta[2, 0], theta[3, 1], theta[4, 2], theta[5, 3] = math.nan, math.inf, math.nan, math.inf
    theta[6, 0] = -math.inf
    y = WHOLE.simulate(theta.requires_grad_())
    assert y.isnan()[:, 0].tolist() == [True] * 7 + [False]
    (gradient,) = torch.autograd.grad(y[7].sum(), theta)
    assert torch.isfinite(gradient[7]).all()


@BOTH
def test_no_throw_of_the_prior_fails(simulator: InverseBallistics) -> None:
    theta = prior_draws(simulator, 100_000)
    y = simulator.simulate(theta)
    assert y.dtype == torch.float32
    assert torch.isfinite(y).all()
    assert -3 < float(y.min()) < 0
    assert 18 < float(y.max()) < 30


def test_gradients_are_those_of_the_implicit_function() -> None:
    theta = torch.cat([THROWS[:4], prior_draws(WHOLE, 20).double()])
    assert torch.autograd.gradcheck(WHOLE.simulate, theta.requires_grad_(), eps=1e-7, atol=1e-6)


@BOTH
def test_prior(simulator: InverseBallistics) -> None:
    theta = prior_draws(simulator, 100_000)
    prior = simulator.prior()
    assert in_support(prior, theta).all()
    tail = float(norm.pdf(3) / norm.cdf(3))  # of the truncation at 3 sd
    extra, offset = (0.0, 0.0) if simulator.integer_speed else (1 / 12, 0.5)
    mean = torch.tensor([0, 1.5 + 0.5 * tail, math.pi / 4, 15 + offset])
    variance = torch.tensor([0.25, 0.25 * (1 - 3 * tail - tail**2), (0.4 * math.pi) ** 2 / 12, 15 + extra])
    assert ((theta.mean(0) - mean).abs() < 5 * (variance / 100_000).sqrt()).all()
    torch.testing.assert_close(theta.var(0), variance, rtol=0.03, atol=0)
    assert theta[:, 1].min() >= 0
    assert (theta[:, 1] == 0).sum() <= 1  # no atom
    assert whole_numbers(theta).tolist() == [False, False, False, simulator.integer_speed]
    values = theta.double().numpy()
    expected = (
        norm.logpdf(values[:, 0], 0, 0.5)
        + norm.logpdf(values[:, 1], 1.5, 0.5)
        - norm.logcdf(3)
        - math.log(0.4 * math.pi)
        + poisson.logpmf(np.floor(values[:, 3]), 15)
    )
    torch.testing.assert_close(prior.log_prob(theta).double(), torch.from_numpy(expected), atol=1e-3, rtol=0)
    outside = theta[:1].repeat(4, 1)
    outside[0, 1], outside[1, 2], outside[2, 3], outside[3, 3] = -0.1, 1.5, -1, 7.5
    assert torch.isinf(prior.log_prob(outside)).tolist() == [True, True, True, simulator.integer_speed]


def test_the_dequantised_speed_s_distribution_function_has_its_density_as_slope():
    speed = PoissonSpeed(15.0, whole=False)
    value = torch.tensor([0.5, 3.4, 12.2, 30.9], dtype=torch.double, requires_grad=True)
    speed.cdf(value).sum().backward()
    torch.testing.assert_close(value.grad, speed.log_prob(value.detach()).exp())


def test_distribution_of_the_speed() -> None:
    k = torch.arange(0, 45, dtype=torch.double)
    whole, dequantised = PoissonSpeed(15.0, whole=True), PoissonSpeed(15.0, whole=False)
    below, mass = (torch.from_numpy(f) for f in (poisson.cdf(k.numpy() - 1, 15), poisson.pmf(k.numpy(), 15)))
    torch.testing.assert_close(whole.cdf(k), below + mass)
    torch.testing.assert_close(dequantised.cdf(k + 0.25), below + mass / 4)
    assert torch.equal(whole.icdf(below + 0.999 * mass), k)
    assert torch.equal(whole.icdf(below + 0.001 * mass), k)
    # beyond, probabilities differ from 1 by too little
    torch.testing.assert_close(dequantised.icdf(dequantised.cdf(k[:38] + 0.3)), k[:38] + 0.3, rtol=0, atol=1e-3)
    assert whole.icdf(torch.tensor([0.0, 1.0], dtype=torch.double)).tolist()[0] == 0
    assert torch.isfinite(dequantised.icdf(torch.tensor([0.0, 1.0]))).all()
    assert float(whole.log_prob(torch.arange(81).double()).exp().sum()) == pytest.approx(1, abs=1e-5)
    grid = torch.linspace(0, 60, 60_001, dtype=torch.double)[:-1] + 5e-4
    assert float(dequantised.log_prob(grid).exp().mean() * 60) == pytest.approx(1, abs=1e-6)
    with scope(1):
        speed = whole.sample((50_000,))
    frequency = torch.bincount(speed.long(), minlength=45)[:45] / 50_000
    assert ((frequency - mass).abs() < 5 * (mass / 50_000).sqrt() + 1e-3 * (mass < 1e-4)).all()


@BOTH
def test_maps_around_networks_lead_back(simulator: InverseBallistics) -> None:
    theta = prior_draws(simulator, 20_000)
    theta_map = ThetaMap.of(simulator.prior(), theta)
    real = theta_map(theta)
    assert (real.mean(0).abs() < 0.03).all()
    torch.testing.assert_close(real.std(0), torch.ones(4), rtol=0.03, atol=0)
    torch.testing.assert_close(theta_map.inverse(real), theta, atol=1e-3, rtol=0)
    assert torch.isfinite(theta_map.log_abs_det(theta)).all()
    assert in_support(simulator.prior(), theta_map.inverse(real + 0.01)).all()


@BOTH
def test_normal_numbers_are_mapped_to_the_prior(simulator: InverseBallistics) -> None:
    """Of whole speeds to every one with its own probability, as a network that has learned nothing must give it."""
    with scope(11):
        theta = ThetaMap(simulator.prior()).inverse(torch.randn(50_000, 4))
    assert bool(whole_numbers(theta)[3]) == simulator.integer_speed
    speed = theta[:, 3].floor()
    mass = torch.from_numpy(poisson.pmf(np.arange(45), 15))
    frequency = torch.bincount(speed.long(), minlength=45)[:45] / 50_000
    assert ((frequency - mass).abs() < 5 * (mass / 50_000).sqrt() + 1e-3 * (mass < 1e-4)).all()


def test_nothing_is_left_out_of_the_scores_of_whole_speeds() -> None:
    """The mode has a whole speed, too: another one could not be simulated."""
    theta = prior_draws(WHOLE, 60, seed=12)
    with scope(13):
        y = WHOLE.simulate(theta)
        draws = WHOLE.sample_reference(y, 200)
        truth = Truth(theta, y, WHOLE.prior(), prior_draws(WHOLE, 2000), WHOLE.spec.parameters, WHOLE.simulate, draws)
        exact, prior = (
            {score.metric: score.value for score in evaluate(Draws(found), truth)}
            for found in (draws.roll(1, 0), prior_draws(WHOLE, 200 * 60).view(200, 60, 4))
        )
    for metric in ("leakage", "resimulation_invalid", "err_resim_invalid", "err_resim"):
        assert exact[metric] == pytest.approx(0, abs=1e-9)
    assert exact["map_resimulation_error"] < 0.2 < 0.8 < prior["map_resimulation_error"]
    assert exact["energy_skill"] > prior["energy_skill"] + 0.1
    assert exact["err_post"] < 1e-3


@BOTH
def test_conforms(simulator: InverseBallistics) -> None:
    findings = {f.name: f for f in check_simulator(simulator)}
    assert {"noise", "gradient", "reference", "reference_ranks", "picture"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


@BOTH
def test_every_draw_hits_the_target_from_within_the_prior(simulator: InverseBallistics) -> None:
    rare = torch.tensor([[-4.0], [-2.0], [0.0], [25.0], [-5.0], [50.0]])
    y = torch.cat([rare, simulator.simulate(prior_draws(simulator, 100))])
    with scope(2):
        draws = simulator.sample_reference(y, 200)
    assert draws.shape == (200, 106, 4)
    assert draws.dtype == torch.float32
    assert in_support(simulator.prior(), draws).all()
    assert bool(whole_numbers(draws)[3]) == simulator.integer_speed
    again = simulator.simulate(draws.reshape(-1, 4)).view(200, 106)
    torch.testing.assert_close(again, y[:, 0].expand(200, -1), rtol=1e-6, atol=1e-6)


def projections(theta: Tensor) -> Tensor:
    """Parameters (N, 4), their products and the velocity: what must agree for the joint distribution to."""
    position, height, angle, speed = theta.unbind(1)
    products = [position * speed, height * angle, angle * speed, position * angle, height * speed]
    return torch.stack([*theta.unbind(1), *products, speed * angle.cos(), speed * angle.sin(), angle**2], dim=1)


@BOTH
def test_ranks_of_the_truth_are_uniform(simulator: InverseBallistics) -> None:
    theta = prior_draws(simulator, 1500, seed=3)
    with scope(4):
        draws = simulator.sample_reference(simulator.simulate(theta), 49)
        for truth, column in zip(projections(theta).T, projections(draws.reshape(-1, 4)).T, strict=True):
            assert departure_from_uniform(ranks(truth, column.reshape(49, 1500))) == ""


def off(draws: Tensor, y: float, simulator: InverseBallistics) -> float:
    """By how many standard errors draws (n, 4) for y differ from weighted throws of the prior, in the worst mean."""
    theta = prior_draws(simulator, 400_000, seed=5).double()
    theta[:, 0] = 0
    theta[:, 0] = y - simulator.simulate(theta)[:, 0]
    weight = torch.exp(-0.5 * (theta[:, 0] / 0.5) ** 2)
    assert weight.sum() ** 2 / (weight**2).sum() > 500
    share = (weight / weight.sum()).unsqueeze(1)
    values = torch.cat([projections(theta), projections(theta)[:, :4] ** 2], dim=1)
    found = projections(draws.double())
    found = torch.cat([found, found[:, :4] ** 2], dim=1)
    expected = (share * values).sum(0)
    error = ((share * (values - expected)) ** 2).sum(0) + found.var(0) / len(found)
    return float(((found.mean(0) - expected).abs() / error.sqrt()).max())


@BOTH
@pytest.mark.parametrize("y", [0.3, 2.0, 7.0, 14.0])
def test_reference_agrees_with_brute_force(simulator: InverseBallistics, y: float) -> None:
    with scope(6):
        draws = simulator.sample_reference(torch.tensor([[y]]), 20_000)[:, 0]
    assert off(draws, y, simulator) < 5


def test_brute_force_catches_a_wrong_density(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _Throws.log_bound
    for wrong in ("spread of the position", "bound too low"):
        with monkeypatch.context() as patch, scope(6):
            if wrong == "bound too low":  # where the bound is below the density, a draw is kept too rarely
                patch.setattr(_Throws, "log_bound", lambda throws, y: right(throws, y).clamp_max(-0.5))
            else:
                patch.setattr(module, "POSITION_SD", 0.55)
            draws = WHOLE.sample_reference(torch.tensor([[7.0]]), 20_000)[:, 0]
        assert off(draws, 7.0, WHOLE) > 5


@BOTH
def test_bounds_hold_within_their_cells(simulator: InverseBallistics) -> None:
    throws = _Throws(simulator.integer_speed, torch.device("cpu"))
    torch.testing.assert_close(throws.log_prior.exp().sum(), torch.tensor(64.0).double())  # angles have equal mass
    with scope(7):
        cell = torch.randint(len(throws.least), (300_000,))
        u = torch.rand(3, len(cell), dtype=torch.double)
        u = torch.where(torch.rand_like(u) < 0.2, u.round(), u)  # corners too
    height, angle, speed = throws._throw(cell, u).unbind(1)
    reach = module.flight_range(height, speed * angle.cos(), speed * angle.sin())
    assert (reach >= throws.least[cell] - 1e-9).all()
    assert (reach <= throws.most[cell] + 1e-9).all()


def test_draws_of_equal_measurements_are_not_shared() -> None:
    with scope(8):
        draws = WHOLE.sample_reference(torch.full((2, 1), 6.0), 2000)
    assert not torch.isin(draws[:, 0, 1], draws[:, 1, 1]).float().mean() > 0.01
    first, second = draws[..., 2].T
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 / math.sqrt(2000)
    assert abs(float(torch.corrcoef(torch.stack([first[1:], first[:-1]]))[0, 1])) < 5 / math.sqrt(2000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -5.1, 1e4])
def test_an_impossible_measurement_is_told(value: float) -> None:
    with pytest.raises(ValueError, match=r"measurement 1 is .*expected .* between -5.0 and 50.0 m"):
        WHOLE.sample_reference(torch.tensor([[3.0], [value]]), 3)


@BOTH
def test_same_seed_same_draws_in_double_precision(simulator: InverseBallistics) -> None:
    y = torch.tensor([[3.0], [8.0]], dtype=torch.double)
    draws = []
    for _ in range(2):
        with scope(9):
            draws.append(simulator.sample_reference(y, 50))
    assert draws[0].dtype == torch.double
    assert torch.equal(*draws)
    assert in_support(simulator.prior(), draws[0]).all()
    again = simulator.simulate(draws[0].reshape(-1, 4)).view(50, 2)
    assert (again - y[:, 0]).abs().max() < 1e-13


def test_picture_shows_throws_and_target() -> None:
    axes = Figure().subplots()
    y = torch.tensor([6.0])
    with scope(10):
        WHOLE.picture(axes, WHOLE.sample_reference(y[None], 100)[:, 0], y)
    assert axes.get_aspect() == 1
    assert axes.get_xlabel() == "horizontal position [m]"
    assert axes.get_ylabel() == "height [m]"
    named = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert named["target"].tolist() == [[6.0, 0.0]]
    assert np.abs(named["impact"] - [6.0, 0.0]).max() < 1e-5
    assert named["one draw"][0, 1] > 0
    assert len(axes.lines) == 1 + 100 + 3

"""The pendulum against mechanics and an independent solver, and its exact posterior against a grid."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from scipy.special import ellipk
from torch import Tensor

from posterior_bench.checks import check_simulator
from posterior_bench.runtime import scope
from simulators.pendulum import PROCESSES, Pendulum

FULL = Pendulum("full")
KNOWN = Pendulum()


def solved(row: list[float], steps: int) -> Tensor:
    """Angles by an independent solver for frequency, initial angle, friction, force and its frequency."""
    frequency, angle, friction, force, force_frequency = row

    def derivative(time: float, state: list[float]) -> list[float]:
        pull = force * frequency**2 * math.cos(2 * math.pi * force_frequency * time)
        return [state[1], -(frequency**2) * math.sin(state[0]) - friction * state[1] + pull]

    times = torch.arange(steps, dtype=torch.double) * 0.05
    end = float(times[-1])
    solution = solve_ivp(derivative, (0, end), [angle, 0], method="DOP853", rtol=1e-10, atol=1e-11, t_eval=times)
    return torch.from_numpy(solution.y[0])


ROWS = [[3.14, 1.57, 0.0, 40.0, 6.28], [3.14, -1.57, 0.8, 40.0, 3.14], [0.785, 0.3, 0.4, 20.0, 5.0]]
"""The fastest force, the largest response, and a slow swing."""


def trajectories(simulator: Pendulum, rows: list[list[float]], steps: int) -> Tensor:
    values = torch.tensor(rows, dtype=torch.double)
    return simulator.trajectory(values[:, :1], values[:, 1:], steps)


def swing(simulator: Pendulum, angle: float, frequency: float, steps: int) -> Tensor:
    """States (steps, 2) of the known physics."""
    theta = torch.tensor([[frequency]], dtype=torch.double)
    initial = torch.tensor([[angle, 0.0]], dtype=torch.double)
    return simulator.solve(lambda state, time: simulator.derivative(theta, state, time), initial, steps)[0]


def test_small_swings_are_harmonic() -> None:
    times = torch.arange(50, dtype=torch.double) * 0.05
    found = swing(KNOWN, 0.01, 2.0, 50)
    torch.testing.assert_close(found[:, 0], 0.01 * torch.cos(2 * times), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 1], -0.02 * torch.sin(2 * times), atol=2e-6, rtol=0)


@pytest.mark.parametrize("angle", [0.5, 1.57, 3.0])
def test_period_of_large_swings_is_the_elliptic_integral(angle: float) -> None:
    quarter = float(ellipk(math.sin(angle / 2) ** 2)) / 2.5
    angles = swing(Pendulum(time_step=quarter, substeps=200), angle, 2.5, 5)[:, 0]
    expected = torch.tensor([angle, 0, -angle, 0, angle], dtype=torch.double)
    torch.testing.assert_close(angles, expected, atol=1e-5, rtol=0)


def energy(states: Tensor, frequency: float) -> Tensor:
    return states[:, 1] ** 2 / 2 - frequency**2 * torch.cos(states[:, 0])


def test_known_physics_conserves_energy_and_euler_does_not() -> None:
    found = energy(swing(KNOWN, 1.5, 3.0, 600), 3.0)
    assert (found - found[0]).abs().max() < 1e-3  # of 9
    states = swing(Pendulum(solver="euler", substeps=1), 1e-6, 3.14, 50)
    amplitude = (states[:, 0] ** 2 + (states[:, 1] / 3.14) ** 2).sqrt() / 1e-6
    assert float(amplitude[-1]) == pytest.approx((1 + (3.14 * 0.05) ** 2) ** (49 / 2), rel=1e-4)
    assert 1.8 < amplitude[-1] < 1.84  # the published training's error


def test_friction_damps_as_it_should() -> None:
    times = torch.arange(100, dtype=torch.double) * 0.05
    found = trajectories(FULL, [[2.0, 0.01, 0.8, 0.0, 0.0]], 100)[0]
    rate = math.sqrt(2.0**2 - 0.4**2)
    expected = 0.01 * torch.exp(-0.4 * times) * (torch.cos(rate * times) + 0.4 / rate * torch.sin(rate * times))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_force_shakes_by_its_closed_form() -> None:
    """Before gravity has acted, A w^2 (1 - cos W t) / W^2 with W = 2 pi f is added: the force carries w^2."""
    rows = [[0.2, 0.0, 0.0, 80.0, 5.0], [0.2, 0.0, 0.0, 0.0, 5.0]]
    with_force, without = trajectories(Pendulum("full", substeps=20), rows, 5)
    times = torch.arange(5, dtype=torch.double) * 0.05
    rate = 2 * math.pi * 5.0
    expected = 80 * 0.2**2 * (1 - torch.cos(rate * times)) / rate**2
    torch.testing.assert_close(with_force - without, expected, atol=1e-5, rtol=0)
    assert expected.max() > 5e-3


def test_full_process_agrees_with_an_independent_solver() -> None:
    expected = torch.stack([solved(row, 50) for row in ROWS])
    assert (trajectories(FULL, ROWS, 50) - expected).abs().max() < 1e-3
    assert (trajectories(Pendulum("full", substeps=8), ROWS, 50) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("solver", "substeps", "gain"), [("rk4", 4, 16.0), ("euler", 64, 2.0)])
def test_order_of_the_solver(solver: str, substeps: int, gain: float) -> None:
    expected = solved(ROWS[1], 20)
    errors = [
        float((trajectories(Pendulum("full", solver=solver, substeps=n), ROWS[1:2], 20)[0] - expected).abs().max())
        for n in (substeps, 2 * substeps)
    ]
    assert errors[0] / errors[1] == pytest.approx(gain, rel=0.25)


def test_without_friction_and_force_the_full_process_is_the_known_physics() -> None:
    rows = [[2.0, 1.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1e-12, 1e-12, 5.0], [2.0, 1.0, 0.4, 20.0, 5.0]]
    off, nearly_off, on = trajectories(FULL, rows, 50)
    torch.testing.assert_close(off, nearly_off, atol=1e-9, rtol=0)
    torch.testing.assert_close(off, swing(KNOWN, 1.0, 2.0, 50)[:, 0], atol=1e-12, rtol=0)
    assert (on - off).abs().max() > 0.1


def test_a_forecast_continues_the_measurement() -> None:
    with scope(0):
        theta, noise = FULL.prior().sample((4,)).double(), torch.randn(4, FULL.noise_dim, dtype=torch.double)
    long = FULL.trajectory(theta, FULL.nuisances(noise), 600)
    assert long.shape == (4, 600)
    seen = FULL.simulate_from(theta, noise) - 0.01 * noise[:, 4:]
    torch.testing.assert_close(long[:, :50], seen)


def test_nuisances_fill_the_published_ranges() -> None:
    with scope(1):
        noise = torch.randn(20_000, FULL.noise_dim)
        theta = FULL.prior().sample((20_000,))
    values = torch.cat([theta, FULL.nuisances(noise)], dim=1)
    low = torch.tensor([0.785, -1.57, 0.0, 0.0, 3.14])
    high = torch.tensor([3.14, 1.57, 0.8, 40.0, 6.28])
    u = (values - low) / (high - low)
    assert u.min() >= 0
    assert u.max() <= 1
    torch.testing.assert_close(u.mean(0), torch.full((5,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(u.std(0), torch.full((5,), 12**-0.5), atol=0.01, rtol=0)
    y = FULL.simulate_from(theta, noise)
    assert float((y[:, 0] - values[:, 1]).std()) == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize(
    ("process", "field"),
    [
        ("slow", "frequency"),
        ("fast", "frequency"),
        ("strong_friction", "friction"),
        ("strong_force", "force"),
    ],
)
def test_shifted_sets_leave_the_population_in_one_range(process: str, field: str) -> None:
    published, shifted = (dataclasses.asdict(PROCESSES[name]) for name in ("full", process))
    assert [name for name in published if published[name] != shifted[name]] == [field]
    (low, high), (shifted_low, shifted_high) = published[field], shifted[field]
    assert shifted_high <= low or shifted_low >= high
    simulator = Pendulum(process)
    with scope(2):
        theta = simulator.prior().sample((500,))
        values = torch.cat([theta, simulator.nuisances(torch.randn(500, simulator.noise_dim))], dim=1)
    column = values[:, list(published).index(field)]
    assert column.min() >= shifted_low - 1e-6
    assert column.max() <= shifted_high + 1e-5


def test_incomplete_process_has_one_nuisance() -> None:
    assert KNOWN.noise_dim == 51
    assert FULL.noise_dim == 54
    with scope(3):
        nuisances = KNOWN.nuisances(torch.randn(100, 51))
    assert (nuisances[:, 1:] == 0).all()
    assert nuisances[:, 0].std() > 0.5
    wide = Pendulum("wide").prior().support.base_constraint
    assert (float(wide.lower_bound), float(wide.upper_bound)) == pytest.approx((0.392, 3.53))


def test_parts_of_the_known_physics_make_its_trajectory() -> None:
    with scope(4):
        theta = KNOWN.prior().sample((3,))
        y = KNOWN.simulate(theta)
    initial = KNOWN.initial_state(y)
    assert initial.shape == (3, KNOWN.state_dim)
    assert len(KNOWN.correctable) == KNOWN.state_dim
    states = KNOWN.solve(lambda state, time: KNOWN.derivative(theta, state, time), initial, 50)
    nuisances = torch.cat([y[:, :1], torch.zeros(3, 3)], dim=1)
    torch.testing.assert_close(KNOWN.observe(states), KNOWN.trajectory(theta, nuisances, 50))


def test_incomplete_process_conforms() -> None:
    assert [f for f in check_simulator(Pendulum(steps=12), measurements=100) if not f.ok] == []


def test_full_process_conforms() -> None:
    """Among others: ranks of the truth among reference draws are uniform."""
    assert [f for f in check_simulator(Pendulum("full", steps=20), simulations=300, measurements=60) if not f.ok] == []


@pytest.mark.slow
@pytest.mark.parametrize("process", ["full", "strong_force", "slow"])
def test_published_length_conforms(process: str) -> None:
    assert [f for f in check_simulator(Pendulum(process), measurements=200) if not f.ok] == []


def test_reference_of_the_known_physics_agrees_with_a_grid() -> None:
    """Frequency and initial angle on a grid; one measurement's frequency lies at the edge of its range."""
    truth = torch.tensor([[1.7], [0.7851]])
    with scope(5):
        y = KNOWN.simulate_from(truth, torch.randn(2, 51)).double()
        parameters, log_weights = KNOWN.weighted_reference(y, 4000)
        at = torch.tensor([[[1.7], [0.786]], [[1.705], [0.787]]], dtype=torch.double)
        density = KNOWN.log_reference(at, y)
    weights = log_weights.softmax(0)
    assert (1 / (weights**2).sum(0)).min() > 1000
    for k in range(2):
        mean, angle = (weights[:, k, None] * parameters[:, k, :2]).sum(0)
        sd = (weights[:, k, None] * (parameters[:, k, :2] - torch.stack([mean, angle])) ** 2).sum(0).sqrt()
        omega = torch.linspace(float(mean - 8 * sd[0]), float(mean + 8 * sd[0]), 161, dtype=torch.double).clamp_min(
            0.785
        )
        omega = omega.unique()
        start = torch.linspace(float(angle - 8 * sd[1]), float(angle + 8 * sd[1]), 81, dtype=torch.double)
        rows = torch.cartesian_prod(omega, start)
        angles = KNOWN.trajectory(rows[:, :1], torch.nn.functional.pad(rows[:, 1:], (0, 3)), 50)
        value = (-0.5 * ((y[k] - angles) / 0.01) ** 2).sum(1).reshape(len(omega), 81).logsumexp(1)
        mass = (value - value.max()).exp()
        mass = mass / torch.trapezoid(mass, omega)
        grid_mean = torch.trapezoid(mass * omega, omega)
        grid_sd = torch.trapezoid(mass * (omega - grid_mean) ** 2, omega).sqrt()
        assert abs(float(mean - grid_mean)) < 0.1 * grid_sd
        assert float(sd[0]) == pytest.approx(float(grid_sd), rel=0.07)
        for point, found in zip(at[:, k, 0], density[:, k], strict=True):
            exact = mass[(omega - point).abs().argmin()].log()
            if exact > mass.max().log() - 2:
                assert float(found) == pytest.approx(float(exact), abs=0.2)


def test_reference_stays_in_the_range_and_knows_no_density_outside() -> None:
    with scope(6):
        y = KNOWN.simulate(torch.full((2, 1), 3.139))
        draws = KNOWN.sample_reference(y, 200)
        density = KNOWN.log_reference(torch.tensor([[[3.2], [0.7]]]), y)
    assert draws.shape == (200, 2, 1)
    assert draws.max() <= torch.tensor(3.14)
    assert (density == -math.inf).all()


def test_weights_of_the_full_process_are_many() -> None:
    with scope(7):
        theta = FULL.prior().sample((12,))
        parameters, log_weights = FULL.weighted_reference(FULL.simulate(theta), 1000)
    weights = log_weights.softmax(0)
    effective = 1 / (weights**2).sum(0)
    assert effective.median() > 400
    assert effective.min() > 50
    mean = (weights[..., None] * parameters).sum(0)[:, 0]
    assert float((mean - theta[:, 0]).abs().mean()) < 0.02  # the prior's mean is 0.6 off


def test_a_solution_that_diverges_fails_as_a_row() -> None:
    y = KNOWN.simulate(torch.tensor([[1.0], [math.nan]]))
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1]).all()


@pytest.mark.parametrize(
    "options", [{"process": "free"}, {"solver": "heun"}, {"steps": 0}, {"substeps": 0}, {"noise_sd": 0.0}]
)
def test_wrong_options_are_told(options: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        Pendulum(**options)


@pytest.mark.parametrize("y", [torch.zeros(2, 49), torch.full((1, 50), math.nan)])
def test_measurements_of_another_kind_are_told(y: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected finite ones of shape \(B, 50\)"):
        FULL.sample_reference(y, 3)


def test_picture_shows_swings_and_measurement() -> None:
    axes = Figure().subplots()
    with scope(8):
        theta = FULL.prior().sample((10,))
        y = FULL.simulate(theta)[0]
    FULL.picture(axes, theta, y)
    assert "[rad]" in axes.get_ylabel()
    assert len(axes.lines) == 12
    assert axes.lines[-1].get_ydata().tolist() == pytest.approx(y.tolist())
    assert float(axes.lines[0].get_ydata()[0]) == pytest.approx(float(y[0]))

"""Advection and diffusion against closed forms and a matrix exponential, and the exact posterior against a grid."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from matplotlib.figure import Figure
from scipy.linalg import expm
from torch import Tensor

from posterior_bench.checks import check_simulator
from posterior_bench.runtime import scope
from simulators.advection_diffusion import POINTS, PROCESSES, SPACING, AdvectionDiffusion, _log_mass, _Marginal

FULL = AdvectionDiffusion("full")
KNOWN = AdvectionDiffusion()
SHORT = AdvectionDiffusion("full", steps=10)


def trajectory(simulator: AdvectionDiffusion, diffusion: float, speed: float, steps: int = 50) -> Tensor:
    """Profiles (20, steps) of height 1."""
    theta = torch.tensor([[diffusion]], dtype=torch.double)
    return simulator.trajectory(theta, torch.tensor([[speed, 1.0]], dtype=torch.double), steps)[0]


def exact(diffusion: float, speed: float, steps: int = 50) -> Tensor:
    """The same by a matrix exponential: neighbours' differences with 0 outside, the advection +b dT/ds."""
    up, down = torch.ones(POINTS - 1).diag(1).double(), torch.ones(POINTS - 1).diag(-1).double()
    matrix = diffusion * (up + down - 2 * torch.eye(POINTS)) / SPACING**2 + speed * (up - down) / (2 * SPACING)
    step = torch.from_numpy(expm(0.02 * matrix.numpy()))
    profiles = [torch.sin(torch.arange(POINTS).double() / (POINTS - 1) * math.pi)]
    for _ in range(steps - 1):
        profiles.append(step @ profiles[-1])
    return torch.stack(profiles, dim=1)


@pytest.mark.parametrize("mode", [1, 2, 5])
def test_a_sine_decays_at_its_rate(mode: float) -> None:
    """Waves with nodes where T = 0, one step outside the line, decay as exp(-a k^2 t), k^2 = (2 sin(q h / 2) / h)^2."""
    wave = mode * math.pi / (POINTS + 1)
    sine = torch.sin(wave * torch.arange(1, POINTS + 1)).double()
    theta = torch.tensor([[0.08]], dtype=torch.double)
    found = KNOWN.solve(lambda state, time: KNOWN.derivative(theta, state, time), sine[None], 50)[0]
    rate = 0.08 * (2 * math.sin(wave / 2) / SPACING) ** 2
    times = torch.arange(50).double() * 0.02
    torch.testing.assert_close(found, torch.exp(-rate * times)[:, None] * sine, atol=1e-5, rtol=0)
    if mode == 1:  # the continuous limit, exp(-a q^2 t)
        assert rate == pytest.approx(0.08 * (wave / SPACING) ** 2, rel=2e-3)


@pytest.mark.parametrize(("diffusion", "speed"), [(0.05, 0.0), (0.01, 0.1), (0.1, 0.01), (0.2, 0.1), (0.1, 0.2)])
def test_agrees_with_the_matrix_exponential(diffusion: float, speed: float) -> None:
    found = trajectory(FULL, diffusion, speed, 200)
    error = (found - exact(diffusion, speed, 200)).abs().max()
    assert error < (5e-5 if diffusion <= 0.1 else 8e-4)  # the noise is 1e-3
    finer = trajectory(AdvectionDiffusion("full", substeps=4), diffusion, speed)
    assert (finer - exact(diffusion, speed)).abs().max() < 2e-6


@pytest.mark.parametrize(("solver", "substeps", "gain"), [("rk4", 2, 16.0), ("euler", 16, 2.0)])
def test_order_of_the_solver(solver: str, substeps: int, gain: float) -> None:
    errors = []
    for n in (substeps, 2 * substeps):
        simulator = AdvectionDiffusion("full", solver=solver, substeps=n)
        errors.append(float((trajectory(simulator, 0.1, 0.05) - exact(0.1, 0.05)).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(gain, rel=0.25)


def test_the_profile_moves_towards_zero() -> None:
    """Far from the ends T(s, t) = sin(pi (s + v t) / L) with the speed v = b sin(k h) / (k h): the sign is plus."""
    times = torch.arange(50).double() * 0.02
    wave = math.pi / ((POINTS - 1) * SPACING)
    speed = 0.1 * math.sin(wave * SPACING) / (wave * SPACING)
    places = torch.arange(POINTS).double() * SPACING
    found = trajectory(FULL, 0.0, 0.1)
    expected = torch.sin(wave * (places[:, None] + speed * times))
    torch.testing.assert_close(found[7:13], expected[7:13], atol=1e-4, rtol=0)
    assert found[5, -1] > found[5, 0]
    assert found[14, -1] < found[14, 0]


def test_the_other_sign_is_the_mirror_image() -> None:
    torch.testing.assert_close(trajectory(FULL, 0.03, -0.07), trajectory(FULL, 0.03, 0.07).flip(0))


def test_without_speed_the_full_process_is_the_known_physics() -> None:
    theta = torch.tensor([[0.04]], dtype=torch.double)
    off = trajectory(FULL, 0.04, 0.0)
    known = KNOWN.solve(lambda state, time: KNOWN.derivative(theta, state, time), off[:, 0][None], 50)
    torch.testing.assert_close(off, KNOWN.observe(known)[0])
    torch.testing.assert_close(off, off.flip(0))  # diffusion alone keeps the symmetry of the start
    assert (trajectory(FULL, 0.04, 0.05) - off).abs().max() > 0.05


def test_profiles_are_linear_in_the_height() -> None:
    theta = torch.full((2, 1), 0.05)
    one, two = FULL.trajectory(theta, torch.tensor([[0.05, 0.7], [0.05, 1.4]]), 50)
    torch.testing.assert_close(2 * one, two)


def test_a_forecast_continues_the_measurement() -> None:
    with scope(0):
        theta, noise = FULL.prior().sample((4,)).double(), torch.randn(4, FULL.noise_dim, dtype=torch.double)
    long = FULL.trajectory(theta, FULL.nuisances(noise), 600)
    assert long.shape == (4, POINTS, 600)
    seen = FULL.simulate_from(theta, noise) - 0.001 * noise[:, 2:].reshape(4, POINTS, 50)
    torch.testing.assert_close(long[..., :50], seen)


def test_nuisances_fill_the_published_ranges() -> None:
    with scope(1):
        noise = torch.randn(20_000, SHORT.noise_dim)
        theta = SHORT.prior().sample((20_000,))
    values = torch.cat([theta, SHORT.nuisances(noise)], dim=1)
    low, high = torch.tensor([0.01, 0.01, 0.5]), torch.tensor([0.1, 0.1, 1.5])
    u = (values - low) / (high - low)
    assert u.min() >= -1e-6
    assert u.max() <= 1 + 1e-6
    torch.testing.assert_close(u.mean(0), torch.full((3,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(u.std(0), torch.full((3,), 12**-0.5), atol=0.01, rtol=0)
    y = SHORT.simulate_from(theta[:5000], noise[:5000])
    assert float(y[:, 0, 0].std()) == pytest.approx(0.001, rel=0.05)  # T = 0 there at the start
    torch.testing.assert_close(y[:, 9, 0] / math.sin(9 / 19 * math.pi), values[:5000, 2], atol=6e-3, rtol=0)


@pytest.mark.parametrize(
    ("process", "field"), [("slow", "diffusion"), ("fast", "diffusion"), ("strong_advection", "speed")]
)
def test_shifted_sets_leave_the_population_in_one_range(process: str, field: str) -> None:
    published, shifted = (dataclasses.asdict(PROCESSES[name]) for name in ("full", process))
    assert [name for name in published if published[name] != shifted[name]] == [field]
    (low, high), (shifted_low, shifted_high) = published[field], shifted[field]
    assert shifted_high <= low or shifted_low >= high
    simulator = AdvectionDiffusion(process)
    with scope(2):
        theta = simulator.prior().sample((500,))
        values = torch.cat([theta, simulator.nuisances(torch.randn(500, simulator.noise_dim))], dim=1)
    column = values[:, list(published).index(field)]
    assert column.min() >= shifted_low - 1e-6
    assert column.max() <= shifted_high + 1e-6


def test_incomplete_process_has_one_nuisance() -> None:
    assert (KNOWN.noise_dim, FULL.noise_dim) == (1001, 1002)
    with scope(3):
        nuisances = KNOWN.nuisances(torch.randn(100, 1001))
    assert (nuisances[:, 0] == 0).all()
    assert nuisances[:, 1].std() > 0.2
    wide = AdvectionDiffusion("wide").prior().support.base_constraint
    assert (float(wide.lower_bound), float(wide.upper_bound)) == pytest.approx((0.005, 0.2))


def test_parts_of_the_known_physics_have_their_shapes() -> None:
    with scope(4):
        y = KNOWN.simulate(KNOWN.prior().sample((3,)))
    initial = KNOWN.initial_state(y)
    assert initial.shape == (3, KNOWN.state_dim)
    assert len(KNOWN.correctable) == KNOWN.state_dim
    assert KNOWN.observe(initial[:, None].expand(3, 7, POINTS)).shape == (3, POINTS, 7)


@pytest.mark.parametrize("process", ["full", "incomplete"])
def test_conforms(process: str) -> None:
    """Among others: ranks of the truth among reference draws are uniform."""
    simulator = AdvectionDiffusion(process, steps=10)
    assert [f for f in check_simulator(simulator, simulations=300, measurements=80) if not f.ok] == []


def on_a_grid(simulator: AdvectionDiffusion, y: Tensor, centre: list[float], sd: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes of a and the density there, by summing over speed and height on a grid."""
    population = simulator.population
    axes = []
    for middle, width, edges in zip(centre, sd, dataclasses.astuple(population), strict=True):
        low, high = max(edges[0], middle - 6 * float(width)), min(edges[1], middle + 6 * float(width))
        axes.append(torch.linspace(low, high, 61, dtype=torch.double) if low < high else torch.tensor([low]).double())
    pairs = torch.cartesian_prod(*axes[:2])
    nuisances = torch.stack([pairs[:, 1], torch.ones(len(pairs), dtype=torch.double)], dim=1)
    profiles = simulator.trajectory(pairs[:, :1], nuisances, simulator.steps).flatten(1)
    heights = axes[2][:, None]
    residual = y.flatten() - profiles
    misfit, linear, square = (residual**2).sum(1), (residual * profiles).sum(1), (profiles**2).sum(1)
    chi = misfit - 2 * (heights - 1) * linear + (heights - 1) ** 2 * square
    ends = [torch.ones_like(axis) for axis in axes]  # the trapezoidal rule, for axes cut by their range
    for weights in ends[1:]:
        weights[[0, -1]] = 0.5
    value = (-0.5 * chi / simulator.noise_sd**2 + ends[2].log()[:, None]).logsumexp(0)
    value = (value.reshape(len(axes[0]), len(axes[1])) + ends[1].log()).logsumexp(1)
    density = (value - value.max()).exp()
    return axes[0], density / torch.trapezoid(density, axes[0])


@pytest.mark.parametrize(
    ("process", "truth"),
    [
        ("full", [0.05, 0.06, 1.0]),
        ("full", [0.05, 0.0101, 1.0]),  # the speed's range cuts
        ("full", [0.0102, 0.05, 1.499]),  # so do those of diffusion and height
        ("incomplete", [0.05, 0.0, 0.8]),
    ],
)
def test_reference_agrees_with_a_grid(process: str, truth: list[float]) -> None:
    simulator = AdvectionDiffusion(process, steps=10)
    values = torch.tensor([truth], dtype=torch.double)
    with scope(5):
        y = simulator.trajectory(values[:, :1], values[:, 1:], 10)
        y = y + simulator.noise_sd * torch.randn_like(y)
        draws = simulator.sample_reference(y, 4000)[:, 0, 0]
    marginal = _Marginal(simulator, y[0])
    sd = torch.tensor([float(draws.std()) * 1.3, 1.5e-3, 3e-4])
    nodes, density = on_a_grid(simulator, y[0], truth, sd)
    mean = torch.trapezoid(density * nodes, nodes)
    spread = torch.trapezoid(density * (nodes - mean) ** 2, nodes).sqrt()
    assert abs(float(draws.mean() - mean)) < 5 * spread / math.sqrt(4000)
    assert float(draws.std()) == pytest.approx(float(spread), rel=0.06)
    likely = density > 0.02 * density.max()
    found = simulator.log_reference(nodes[likely][:, None, None], y)[:, 0]
    torch.testing.assert_close(found, density[likely].log(), atol=0.02, rtol=0)
    assert float(torch.trapezoid(marginal.density, marginal.nodes)) == pytest.approx(1, abs=1e-6)


def test_log_mass_keeps_its_digits_in_both_tails() -> None:
    low = torch.tensor([-1.0, 10.0, -11.0], dtype=torch.double)
    high = torch.tensor([1.0, 11.0, -10.0], dtype=torch.double)
    found = _log_mass(low, high)
    assert float(found[0]) == pytest.approx(math.log(math.erf(1 / math.sqrt(2))))
    assert float(found[1]) == pytest.approx(math.log(0.5 * (math.erfc(10 / 2**0.5) - math.erfc(11 / 2**0.5))))
    assert float(found[2]) == pytest.approx(float(found[1]))


def test_measurements_of_another_kind_are_told() -> None:
    for y in (torch.zeros(2, POINTS, 9), torch.full((1, POINTS, 10), math.nan)):
        with pytest.raises(ValueError, match=r"expected finite ones of shape \(B, 20, 10\)"):
            SHORT.sample_reference(y, 3)
    y = AdvectionDiffusion("fast", steps=10).simulate(torch.tensor([[0.2]]))
    with pytest.raises(ValueError, match="comes from another process"):
        SHORT.sample_reference(y, 3)


def test_a_solution_that_diverges_fails_as_a_row() -> None:
    y = KNOWN.simulate(torch.tensor([[0.05], [math.nan], [1e8]]))
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1:]).all()


@pytest.mark.parametrize(
    "options", [{"process": "free"}, {"solver": "heun"}, {"steps": 0}, {"substeps": 0}, {"noise_sd": 0.0}]
)
def test_wrong_options_are_told(options: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        AdvectionDiffusion(**options)


def test_picture_shows_profiles_and_measurement() -> None:
    axes = Figure().subplots()
    with scope(8):
        theta = FULL.prior().sample((10,))
        y = FULL.simulate(theta)[0]
    FULL.picture(axes, theta, y)
    assert axes.get_xlabel() == "place [length]"
    assert len(axes.lines) == 13
    assert axes.lines[-1].get_ydata().tolist() == pytest.approx(y[:, -1].tolist())

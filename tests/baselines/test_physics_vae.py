"""The physics VAE as a method: its training, its posterior, and the signals that it makes."""

from __future__ import annotations

import json
import math

import pytest
import torch
from physics_problem import QUICK, REAL, SHORT, WIDE, Incomplete, Silent, fitted, measured, problem, untrained
from torch import nn

from baselines.physics_vae import PhysicsVAE, PhysicsVAEPosterior, PhysicsVAEProper
from baselines.physics_vae.descent import Descent, descend
from posterior_bench import Need
from posterior_bench.checks import check_method
from posterior_bench.runtime import scope, seed_for
from simulators.advection_diffusion import AdvectionDiffusion
from simulators.pendulum import Pendulum

BOTH = pytest.mark.parametrize("cls", [PhysicsVAE, PhysicsVAEProper])


@pytest.fixture(scope="module")
def posterior() -> PhysicsVAEPosterior:
    return fitted(PhysicsVAE(**{**QUICK, "steps": 20}), problem())


def test_draws_and_signals_have_their_shapes(posterior: PhysicsVAEPosterior) -> None:
    theta, y = measured(REAL, 4)
    draws = posterior.sample(y, 7)
    assert draws.shape == (7, 4, 1)
    assert WIDE.prior().support.check(draws).all()
    assert posterior.log_prob(draws, y).shape == (7, 4)
    assert posterior.reconstruct(y, 7).shape == (7, 4, 10)
    assert posterior.extrapolate(y, 2, 30).shape == (2, 4, 30)
    assert posterior.extrapolate(y, 2, 3).shape == (2, 4, 3)
    assert posterior.intervene(y, 7, theta).shape == (7, 4, 10)
    assert posterior.intervene(y[:1], 1, torch.tensor([9.0])).shape == (1, 1, 10)  # outside the prior's support
    assert posterior.sample(y[:1], 1).shape == (1, 1, 1)


def test_signals_continue_and_follow_the_parameters(posterior: PhysicsVAEPosterior) -> None:
    _, y = measured(REAL, 3)
    with scope(10):
        seen = posterior.reconstruct(y, 5)
    with scope(10):
        longer = posterior.extrapolate(y, 5, 25)
    torch.testing.assert_close(longer[..., :10], seen)
    assert torch.isfinite(longer).all()
    with scope(10):
        slow, fast = (posterior.intervene(y, 5, torch.tensor([value])) for value in (0.4, 3.5))
    assert (slow - fast).abs().mean() > 0.05


def test_many_measurements_keep_their_order(posterior: PhysicsVAEPosterior) -> None:
    """More rows than are made at a time: each keeps its own first value, but for f_A2."""
    _, y = measured(REAL, 70)
    silent = PhysicsVAEPosterior(untrained(PhysicsVAE(correct_outside=False, **QUICK)))
    found = silent.reconstruct(y, 80)
    torch.testing.assert_close(found[..., 0], y[:, 0].expand(80, 70))


def test_the_density_is_that_of_the_draws(posterior: PhysicsVAEPosterior) -> None:
    _, y = measured(REAL, 2)
    with scope(11):
        draws = posterior.sample(y, 20_000).double()
    grid = torch.linspace(0.3921, 3.5299, 4001)
    density = posterior.log_prob(grid.reshape(-1, 1, 1).expand(-1, 2, 1), y).exp().double()
    mass = torch.trapezoid(density, grid.double(), dim=0)
    torch.testing.assert_close(mass, torch.ones(2).double(), atol=2e-3, rtol=0)
    mean = torch.trapezoid(density * grid[:, None], grid.double(), dim=0)
    assert ((draws.mean(0)[:, 0] - mean).abs() < 5 * draws.std(0)[:, 0] / math.sqrt(20_000)).all()
    assert (posterior.log_prob(torch.tensor([[[0.3], [3.6]]]), y) == -math.inf).all()


def test_without_physics_the_posterior_is_the_prior() -> None:
    posterior = PhysicsVAEPosterior(untrained(PhysicsVAE(physics="none", **QUICK)))
    _, y = measured(REAL, 3)
    with scope(12):
        draws = posterior.sample(y, 4000)
    assert draws.shape == (4000, 3, 1)
    torch.testing.assert_close(draws.mean(0), torch.full((3, 1), 1.961), atol=0.06, rtol=0)
    torch.testing.assert_close(posterior.log_prob(draws[:5], y), torch.full((5, 3), -math.log(3.53 - 0.392)))
    assert (posterior.log_prob(torch.full((1, 3, 1), 4.0), y) == -math.inf).all()


@BOTH
def test_state_restores_the_posterior(cls: type[PhysicsVAE | PhysicsVAEProper]) -> None:
    method = cls(**{**QUICK, "steps": 20})
    fit = fitted(method, problem())
    tensors, settings = fit.state()
    json.dumps(settings)
    restored = method.restore({name: value.clone() for name, value in tensors.items()}, settings, problem())
    _, y = measured(REAL, 4)
    for make in ("sample", "reconstruct"):
        found = []
        for one in (fit, restored):
            with scope(13):
                found.append(getattr(one, make)(y, 6))
        assert torch.equal(*found)


@BOTH
def test_parameters_are_found_where_the_physics_is_complete(cls: type[PhysicsVAE | PhysicsVAEProper]) -> None:
    """The well-specified twin: measurements come from the known physics itself."""
    twin = Pendulum("incomplete", **SHORT)
    given = Incomplete(WIDE, measured(twin, 500)[1])
    few_held_out = {"held_out": 0.1}  # of 500 measurements, in few steps, each counts
    fit = fitted(cls(**{**QUICK, **few_held_out, "solver": "rk4", "weight_physics_encoder": 1.0}), given)
    theta, y = measured(twin, 300, seed=14)
    error = float((fit.sample(y, 20).mean(0) - theta).abs().mean())
    prior = float((theta - theta.mean()).abs().mean())
    assert error < 0.75 * prior
    first, last = fit.history["reconstruction"][0], fit.history["reconstruction"][-1]
    assert last < 0.5 * first
    assert set(fit.history) > {"step", "held_out", "divergence", "least action", "cleansing", "physics encoder"}


def test_profiles_on_a_line_are_learned_too() -> None:
    """A measurement with places and times, all rows correctable, no correction outside, time as an angle."""
    options = {"steps": 6, "time_step": 0.05}
    given = problem(AdvectionDiffusion("wide", **options), AdvectionDiffusion("full", **options))
    method = PhysicsVAE(**{**QUICK, "steps": 20}, correct_outside=False, time_as="angle", substeps=2, noise_sd=0.001)
    fit = fitted(method, given)
    y = given.unlabelled[:3]
    assert fit.sample(y, 5).shape == (5, 3, 1)
    assert fit.reconstruct(y, 5).shape == (5, 3, 20, 6)
    assert fit.extrapolate(y, 2, 15).shape == (2, 3, 20, 15)
    torch.testing.assert_close(fit.reconstruct(y, 1)[0, ..., 0], y[..., 0])


def test_training_stops_where_the_least_error_was() -> None:
    """One weight, whose loss falls for ever while its held-out error has a minimum on the way."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    settings = Descent(100, 50, 0.05, 1.0, 1e-8, 0.0, 5.0, 0.1, 1)
    curves = descend(
        module,
        lambda y: {"all": -module.weight.sum()},
        lambda y: (module.weight.sum() - 2) ** 2 + 0 * y.sum() + 1e-6 * torch.rand(()),
        torch.zeros(100, 1),
        settings,
        Silent(),
    )
    assert float(module.weight) == pytest.approx(2, abs=0.03)
    with scope(seed_for("held-out")):
        noise = 1e-6 * torch.rand(())
    assert float(curves["held_out"].min()) == pytest.approx(float((module.weight.sum() - 2) ** 2 + noise), abs=1e-7)
    assert not module.weight.requires_grad


def test_loss_that_is_not_finite_is_told() -> None:
    module = nn.Linear(1, 1)
    settings = Descent(10, 50, 0.05, 1.0, 1e-8, 0.0, 5.0, 0.1, 1)
    with pytest.raises(FloatingPointError, match="'all': nan"):
        descend(
            module,
            lambda y: {"all": math.nan * module(y).sum()},
            lambda y: y.sum(),
            torch.zeros(20, 1),
            settings,
            Silent(),
        )


def test_failed_and_too_few_measurements() -> None:
    y = problem().unlabelled.clone()
    y[::3] = math.nan
    fit = fitted(PhysicsVAE(**{**QUICK, "steps": 5}), Incomplete(WIDE, y))
    assert torch.isfinite(fit.sample(y[1:2], 3)).all()
    with pytest.raises(ValueError, match="5 unlabelled measurements are too few"):
        fitted(PhysicsVAE(**QUICK), Incomplete(WIDE, y[~y.isnan().any(1)][:5]))


@BOTH
def test_needs_are_declared(cls: type[PhysicsVAE | PhysicsVAEProper]) -> None:
    assert cls.spec.needs == {Need.DYNAMICS, Need.UNLABELLED}
    assert [f for f in check_method(cls()) if not f.ok] == []


@pytest.mark.parametrize(
    "options",
    [
        {"physics": "unknown"},
        {"time_as": "clock"},
        {"solver": "heun"},
        {"physics": "none", "correct_inside": False, "correct_outside": False},
        {"inside_dim": -1},
        {"substeps": 0},
        {"noise_sd": 0.0},
        {"held_out": 1.0},
    ],
)
def test_wrong_options_are_told(options: dict) -> None:
    with pytest.raises(ValueError, match=r"expected|nothing to train"):
        PhysicsVAE(**options)

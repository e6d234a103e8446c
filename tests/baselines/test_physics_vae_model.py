"""The physics VAE: its networks, its solver, and each term of its loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from physics_problem import QUICK, REAL, WIDE, branches, measured, problem, untrained
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from baselines.physics_vae import PhysicsVAE
from baselines.physics_vae.decoder import with_solver
from baselines.physics_vae.losses import (
    Weights,
    cleansing,
    least_action,
    physics_encoder_error,
    physics_encoder_log_score,
    square,
    unregularised,
)
from baselines.physics_vae.model import Branches, PhysicsVAEModel
from baselines.physics_vae.networks import Correction, Gaussian
from posterior_bench.runtime import scope
from simulators.pendulum import Pendulum


def silence(network: nn.Module | None) -> None:
    """Make a correction zero everywhere."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    nn.init.zeros_(layers[-1].weight)
    nn.init.zeros_(layers[-1].bias)


def moved(network: nn.Module | None) -> bool:
    """Whether any gradient has reached a network."""
    return any(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


PUBLISHED = {
    "NN+phys+reg": ({}, 337_645),
    "NN+solver": ({"physics": "none", "inside_dim": 2, "outside_dim": 2}, 214_715),
    "Phys-only": ({"correct_inside": False, "correct_outside": False}, 122_676),
    "NN-only": ({"physics": "none", "correct_inside": False, "outside_dim": 4}, 116_986),
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_variants_have_the_published_numbers_of_weights(variant: str) -> None:
    options, expected = PUBLISHED[variant]
    model = untrained(PhysicsVAE(**options), problem(Pendulum("wide"), Pendulum("full")))
    assert sum(p.numel() for p in model.parameters()) == expected


def test_variants_have_the_networks_that_they_should() -> None:
    full = untrained(PhysicsVAE(**QUICK))
    assert None not in (full.encoder.inside, full.encoder.outside, full.encoder.physics, full.encoder.cleansing)
    assert None not in (full.decoder.inside, full.decoder.outside)
    bare = untrained(PhysicsVAE(correct_inside=False, correct_outside=False, **QUICK))
    assert {bare.encoder.inside, bare.encoder.outside, bare.decoder.inside, bare.decoder.outside} == {None}
    assert bare.encoder.cleansing is not None
    without = untrained(PhysicsVAE(physics="none", **QUICK))
    assert {without.encoder.physics, without.encoder.cleansing} == {None}
    assert without.decoder.inside is not None
    assert untrained(PhysicsVAE(cleansing=False, **QUICK)).encoder.cleansing is None
    assert untrained(PhysicsVAE(inside_dim=0, **QUICK)).decoder.inside is not None


@pytest.mark.parametrize("time_as", ["number", "angle"])
def test_the_correction_is_its_network_in_the_rows_that_may_be_corrected(time_as: str) -> None:
    with scope(5):
        correction = Correction(3, (False, True, True), 16, time_as)
        latent, state = torch.randn(4, 3), torch.randn(4, 3)
        found = correction(latent)(state, 0.7)
    clock = torch.tensor([math.sin(0.7), math.cos(0.7)] if time_as == "angle" else [0.7]).expand(4, -1)
    assert (found[:, 0] == 0).all()
    torch.testing.assert_close(found[:, 1:], correction.network(torch.cat([latent, state, clock], dim=1)))


@pytest.mark.parametrize("solver", ["euler", "rk4", "simulator"])
def test_without_corrections_the_solver_is_the_simulator(solver: str) -> None:
    model = untrained(PhysicsVAE(solver=solver, **QUICK))
    silence(model.decoder.inside)
    silence(model.decoder.outside)
    found, y = branches(model)
    torch.testing.assert_close(found.with_inside, found.reduced)
    torch.testing.assert_close(found.full, found.reduced)
    theta, signal = found.simulated
    chosen = WIDE if solver == "simulator" else replace(WIDE, solver=solver)
    nuisances = torch.nn.functional.pad(y[:, :1], (0, 3))
    torch.testing.assert_close(signal, chosen.trajectory(theta, nuisances, 10))
    assert not signal.requires_grad


def test_corrections_enter_the_velocity_alone_also_without_physics() -> None:
    """By Euler steps of our own: the angle moves by the velocity, and the velocity by f_A1."""
    model = untrained(PhysicsVAE(physics="none", correct_outside=False, **QUICK))
    _, y = measured(REAL, 5)
    with scope(6), torch.no_grad():
        latent = torch.randn(5, 1)
        found = model.decoder.solve(torch.ones(5, 1), WIDE.initial_state(y), latent, 10)
        angle, velocity = y[:, 0], torch.zeros(5)
        for index in range(10):
            torch.testing.assert_close(found[:, index], angle)
            inputs = torch.stack([latent[:, 0], angle, velocity, torch.full((5,), 0.15 * index)], dim=1)
            push = model.decoder.inside.network(inputs)[:, 0]
            angle, velocity = angle + 0.15 * velocity, velocity + 0.15 * push
    assert (found[:, -1] - found[:, 0]).abs().min() > 1e-4  # the solver does move it


def test_a_network_without_solver_starts_from_the_first_value() -> None:
    model = untrained(PhysicsVAE(physics="none", correct_inside=False, **QUICK))
    silence(model.decoder.outside)
    found, y = branches(model)
    torch.testing.assert_close(found.full, y[:, :1].expand_as(y))
    assert found.reduced is None
    assert found.simulated is None


def test_least_action_is_the_mean_over_four_pairs_of_branches() -> None:
    found, _ = branches(untrained(PhysicsVAE(**QUICK)))
    outside_alone = found.reduced + (found.full - found.with_inside)
    pairs = [
        (found.with_inside, found.reduced),
        (outside_alone, found.reduced),
        (found.full, found.with_inside),
        (found.full, outside_alone),
    ]
    expected = sum(0.25 * square(a - b) for a, b in pairs)
    torch.testing.assert_close(least_action(found), expected)
    assert expected > 0


def test_regularisers_vanish_where_they_must() -> None:
    model = untrained(PhysicsVAE(**QUICK))
    silence(model.decoder.inside)
    silence(model.decoder.outside)
    found, _ = branches(model)
    assert least_action(found) < 1e-10
    perfect = replace(found, code=replace(found.code, cleansed=model.y_map(found.reduced.detach())))
    assert cleansing(model, perfect) == 0
    assert cleansing(model, found) > 0
    assert cleansing(model, replace(found, code=replace(found.code, cleansed=None))) == 0
    real = torch.full((6, 1), 0.3)
    layers = [layer for layer in model.encoder.physics.mean if isinstance(layer, nn.Linear)]
    silence(model.encoder.physics.mean)
    nn.init.constant_(layers[-1].bias, 0.3)
    assert physics_encoder_error(model, model.theta_map.inverse(real), found.reduced) < 1e-10
    without, _ = branches(untrained(PhysicsVAE(physics="none", **QUICK)))
    assert least_action(without) == 0
    assert cleansing(model, without) == 0


TERMS: dict[str, tuple[Callable[[PhysicsVAEModel, Branches, Tensor], Tensor], set[str]]] = {
    "reconstruction": (
        lambda model, found, y: square(found.full - y),
        {"g_A1", "g_A2", "g_P1", "g_P2 mean", "g_P2 spread", "f_A1", "f_A2"},
    ),
    "least action": (
        lambda model, found, y: least_action(found),
        {"g_A1", "g_A2", "g_P1", "g_P2 mean", "g_P2 spread", "f_A1", "f_A2"},
    ),
    "cleansing": (lambda model, found, y: cleansing(model, found), {"g_A1", "g_A2", "g_P1"}),
    "encoder error": (lambda model, found, y: physics_encoder_error(model, *found.simulated), {"g_P2 mean"}),
    "encoder log score": (
        lambda model, found, y: physics_encoder_log_score(model, *found.simulated),
        {"g_P2 mean", "g_P2 spread"},
    ),
}


def test_the_bound_can_be_kept_from_the_spread() -> None:
    model = untrained(PhysicsVAE(**QUICK))
    theta, y = measured(WIDE, 6, seed=3)
    found = model.branches(y, theta, spread_by_bound=False)
    (square(found.full - y) + found.code.divergence().sum() + least_action(found)).backward()
    assert moved(model.encoder.physics.mean)
    assert not moved(model.encoder.physics.log_variance)


@pytest.mark.parametrize("name", TERMS)
def test_each_term_teaches_the_networks_that_it_should(name: str) -> None:
    term, expected = TERMS[name]
    model = untrained(PhysicsVAE(**QUICK))
    found, y = branches(model)
    term(model, found, y).backward()
    networks = {
        "g_A1": model.encoder.inside,
        "g_A2": model.encoder.outside,
        "g_P1": model.encoder.cleansing,
        "g_P2 mean": model.encoder.physics.mean,
        "g_P2 spread": model.encoder.physics.log_variance,
        "f_A1": model.decoder.inside,
        "f_A2": model.decoder.outside,
    }
    assert {name for name, network in networks.items() if moved(network)} == expected


def test_the_divergence_is_that_of_gaussians_and_the_loss_the_scaled_bound() -> None:
    with scope(7):
        gaussian = Gaussian(torch.randn(5, 3), torch.randn(5, 3))
    exact = kl_divergence(Normal(gaussian.mean, (0.5 * gaussian.log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian.divergence(), exact)
    model = untrained(PhysicsVAE(**QUICK))
    found, y = branches(model)
    terms = unregularised(model, found, y, Weights(2.0, 0.0, 0.0, 0.0), noise_sd=0.1)
    assert set(terms) == {"reconstruction", "divergence"}
    likelihood = Normal(found.full, 0.1).log_prob(y).sum(1) + y.shape[1] * math.log(0.1 * math.sqrt(2 * math.pi))
    bound = (likelihood - found.code.divergence()).mean()
    torch.testing.assert_close(sum(terms.values()), -2 * 0.1**2 * bound)


def test_the_log_score_is_a_density_of_mapped_theta() -> None:
    model = untrained(PhysicsVAE(**QUICK))
    theta, y = measured(WIDE, 6, seed=8)
    code = model.encoder.physics(model.y_map(y))
    exact = Normal(code.mean, (0.5 * code.log_variance).exp()).log_prob(model.theta_map(theta))
    torch.testing.assert_close(physics_encoder_log_score(model, theta, y), -exact.mean())


def test_the_control_hands_each_row_the_parameters_of_another() -> None:
    model = untrained(PhysicsVAE(physics="permuted", correct_inside=False, correct_outside=False, **QUICK))
    theta, y = measured(WIDE, 50)
    with scope(9), torch.no_grad():
        found = model.reconstruct(model.encode(y), y, 10, theta)
    own = WIDE.trajectory(theta, torch.nn.functional.pad(y[:, :1], (0, 3)), 10)
    known = untrained(PhysicsVAE(correct_inside=False, correct_outside=False, solver="simulator", **QUICK))
    with torch.no_grad():
        right = known.reconstruct(known.encode(y), y, 10, theta)
    torch.testing.assert_close(right, own)
    assert ((found - right).abs().amax(1) > 0.05).float().mean() > 0.5


def test_solver_is_exchanged_where_there_is_one_to_exchange() -> None:
    assert with_solver(WIDE, "euler", 3) == replace(WIDE, solver="euler", substeps=3)
    assert with_solver(WIDE, "simulator", 3) is WIDE
    other = problem()
    assert with_solver(other, "euler", 3) is other

"""Checks of a simulator's optional capabilities: that they agree with ``simulate`` in distribution."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..contracts import (
    Differentiable,
    HasLikelihood,
    HasNoise,
    HasPicture,
    HasReference,
    HasReferenceDensity,
    Simulator,
)
from ..priors import in_support
from .findings import Failure
from .likelihood import LIMIT, likelihood_checks, measured
from .statistics import departure_from_uniform, largest_excess, mass_and_moments, ranks


def capability_checks(simulator: Simulator, simulations: int, measurements: int) -> list[partial[str]]:
    """The checks of those capabilities that the simulator declares."""
    checks = []
    if isinstance(simulator, HasNoise):
        checks.append(partial(_noise, simulator, simulations))
    if isinstance(simulator, HasLikelihood):
        checks += likelihood_checks(simulator, simulations)
    if isinstance(simulator, Differentiable):
        checks.append(partial(_gradient, simulator))
    if isinstance(simulator, HasReference):
        checks += [partial(_reference, simulator), partial(_reference_ranks, simulator, measurements)]
    if isinstance(simulator, HasReferenceDensity):
        checks.append(partial(_reference_density, simulator))
    if isinstance(simulator, HasPicture):
        checks.append(partial(_picture, simulator))
    return checks


def _noise(simulator: Any, simulations: int) -> str:
    dim = simulator.noise_dim
    repeated = simulator.prior().sample((2,)).repeat_interleave(simulations, 0)
    for theta in (*repeated.split(simulations), simulator.prior().sample((simulations,))):
        noise = torch.randn(len(theta), dim)
        y = simulator.simulate_from(theta, noise)
        if tuple(y.shape) != (len(theta), *simulator.spec.y_shape):
            raise Failure(f"shape {tuple(y.shape)} of simulate_from()", "that of simulate()", "Check its last lines.")
        few = simulator.simulate_from(theta[:50], noise[:50]), simulator.simulate_from(theta[:50], noise[:50])
        if not torch.equal(few[0].nan_to_num(), few[1].nan_to_num()):
            raise Failure(
                "other measurements for the same noise", "the same", "Take all randomness from the argument noise."
            )
        other = simulator.simulate(theta)
        if dim == 0:
            if not torch.allclose(y, other, rtol=1e-4, atol=1e-6, equal_nan=True):
                raise Failure(
                    "noise_dim 0 and measurements that differ from simulate()'s",
                    "the same",
                    "Set noise_dim to the number of noise variables, or make both the same function.",
                )
            continue
        samples = [part.flatten(1)[torch.isfinite(part.flatten(1)).all(1)] for part in (y, other)]
        excess = largest_excess(*samples) if min(map(len, samples)) > 20 else 0.0
        if excess > 1:
            raise Failure(
                f"simulate_from() with N(0, I) noise and simulate() distributed differently ({excess:.1f} times what "
                "chance allows)",
                "one distribution",
                "Let simulate() call simulate_from() with standard normal noise; check sd against variance.",
            )
    return f"{dim} noise variables; simulate_from() is distributed as simulate() is"


def _gradient(simulator: Any) -> str:
    theta, y = measured(simulator, 16)
    theta, y = theta.double(), y.double()
    y_shape = simulator.spec.y_shape
    if isinstance(simulator, HasNoise):
        noise = torch.randn(len(theta), simulator.noise_dim, dtype=theta.dtype)
        weight = torch.randn(y_shape, dtype=theta.dtype)

        def value(at: Tensor) -> Tensor:
            return (simulator.simulate_from(at, noise) * weight).flatten(1).sum(1)

        name = "simulate_from()"
    elif isinstance(simulator, HasLikelihood):

        def value(at: Tensor) -> Tensor:
            return simulator.log_likelihood(at, y)

        name = "log_likelihood()"
    else:
        raise Failure(
            "Differentiable without HasNoise or HasLikelihood", "one of them", "Derive from it, or drop the promise."
        )
    theta = theta.clone().requires_grad_()
    result = value(theta)
    if not result.requires_grad:
        raise Failure(f"no gradient of {name}", "one", "Remove detach(), no_grad(), item() and numpy from its path.")
    (gradient,) = torch.autograd.grad(result.sum(), theta)
    if not torch.isfinite(gradient).all():
        raise Failure(
            f"a gradient of {name} that is not finite", "a finite one", "Look for sqrt, log or a power of zero."
        )
    with torch.no_grad():
        direction = torch.randn_like(theta) * theta.std(0) * 1e-5
        difference = (value(theta + direction) - value(theta - direction)) / 2
    claimed = (gradient * direction).sum(1)
    close = torch.isclose(claimed, difference, rtol=0.02, atol=1e-3 * float(difference.abs().max()) + 1e-12)
    # single points may sit on a kink
    if close.float().mean() < 0.8:
        raise Failure(
            f"a gradient of {name} that differs from finite differences at {int((~close).sum())} of {len(close)} theta",
            "the same",
            "A part of the computation is hidden from autograd: look for detach(), data and rounding.",
        )
    return f"of {name} finite, and equal to finite differences"


def _reference(simulator: Any) -> str:
    dim = len(simulator.spec.parameters)
    _, y = measured(simulator, 20)
    for part, n in ((y[:3], 7), (y[:1], 5)):
        draws = simulator.sample_reference(part, n)
        if tuple(draws.shape) != (n, len(part), dim):
            raise Failure(
                f"shape {tuple(draws.shape)} for {n} draws of {len(part)} measurements",
                f"{(n, len(part), dim)}",
                "Draws lead, then measurements, then parameters.",
            )
        if not in_support(simulator.prior(), draws).all():
            raise Failure(
                "reference draws outside the prior's support, or not finite", "none", "The posterior vanishes there."
            )
    return "draws (n, B, D), all in the prior's support"


def _reference_ranks(simulator: Any, measurements: int) -> str:
    """Simulation-based calibration (Talts et al. 2018), with the parameters, the distance of a new simulation to y
    and, where it is known, the likelihood as test quantities; the last two see dependence on y that the parameters
    alone do not (Modrak et al. 2023).
    """
    n = 30
    theta, y = measured(simulator, measurements)
    draws = simulator.sample_reference(y, n)
    everything = torch.cat([theta[None], draws])  # the truth first: (n + 1, T, D)
    flat = everything.reshape(-1, everything.shape[-1])
    scale = y.flatten(1).std(0)
    again = simulator.simulate(flat).reshape(n + 1, len(y), -1)
    deviation = (again - y.flatten(1)) / torch.where(scale > 0, scale, torch.ones_like(scale))
    distance = deviation.nan_to_num(nan=1e6).norm(dim=-1)
    quantities = dict(zip(simulator.spec.names, everything.unbind(-1), strict=True))
    # distances that are rounding errors are ties
    quantities["distance of a re-simulation to y"] = torch.where(distance < 1e-3, torch.zeros_like(distance), distance)
    if isinstance(simulator, HasLikelihood):
        quantities["likelihood"] = simulator.log_likelihood(flat, y.repeat(n + 1, *(1,) * (y.dim() - 1))).reshape(
            n + 1, -1
        )
    for name, value in quantities.items():
        wrong = departure_from_uniform(ranks(value[0], value[1:]))
        if wrong:
            raise Failure(
                f"{wrong} in {name!r}, by the ranks of the truth on {len(y)} measurements",
                "uniform ranks",
                "The reference is not the posterior of this prior and simulate(), or measurements are mixed up.",
            )
    return f"uniform ranks of {len(quantities)} quantities on {len(y)} measurements"


def _reference_density(simulator: Any) -> str:
    """p(theta | y) integrates to 1 and is that of the exact draws; with a likelihood, in proportion to the joint."""
    _, y = measured(simulator, 20)
    y = y[:3]
    draws = simulator.sample_reference(y, 2000)
    value = simulator.log_reference(draws[:30], y)
    if tuple(value.shape) != (30, len(y)) or not torch.isfinite(value).all():
        raise Failure(
            f"shape {tuple(value.shape)}, or values that are not finite at exact draws",
            f"finite ones of shape {(30, len(y))}",
            "Draws lead, then measurements; check the support.",
        )
    if isinstance(simulator, HasLikelihood):
        spread = _spread_of_evidence(simulator, draws[:30].double(), y.double())
        if spread > 1:
            raise Failure(
                f"log_reference - log prior - log_likelihood that varies with theta, {spread:.1f} times what rounding "
                "allows",
                "minus the log evidence, which depends on y alone",
                "The density is not in proportion to prior and likelihood.",
            )
    told = 0
    for j in range(len(y)):
        if bool((draws[:, j] == draws[:, j].round()).all(0).any()):
            continue  # whole numbers have probabilities, not densities

        def claimed(theta: Tensor, at: Tensor = y[j : j + 1]) -> Tensor:
            return simulator.log_reference(theta[:, None], at)[:, 0]

        off, moments = mass_and_moments(draws[:, j], claimed)
        told += off is not None
        if off is not None and abs(off) > LIMIT:
            raise Failure(
                f"a density whose integral over theta is off 1 by {off:+.1f} standard errors",
                "1",
                "Check its constants, and the mass that lies within the prior's support.",
            )
        if moments is not None and moments > LIMIT:
            raise Failure(
                f"a density whose moments are {moments:.1f} standard errors off those of the exact draws",
                "that of the draws",
                "One of log_reference and sample_reference is another posterior.",
            )
    return f"integrates to 1 for {told} of {len(y)} measurements" if told else "could not be told from its draws"


def _spread_of_evidence(simulator: Any, theta: Tensor, y: Tensor) -> float:
    """By how much log p(theta | y) - log p(theta) p(y | theta) varies over theta (n, B, D), in what rounding allows."""
    n, count, dim = theta.shape
    flat, repeated = theta.reshape(-1, dim), y.repeat(n, *(1,) * (y.dim() - 1))
    likelihood = simulator.log_likelihood(flat, repeated).view(n, count)
    joint = simulator.prior().log_prob(flat).view(n, count) + likelihood
    constant = simulator.log_reference(theta, y) - joint
    allowed = 0.01 + 1e-5 * likelihood.abs().amax(0)
    return float(((constant.amax(0) - constant.amin(0)) / allowed).max())


def _picture(simulator: Any) -> str:
    from matplotlib.figure import Figure

    theta, y = measured(simulator, 20)
    axes = Figure().subplots()
    simulator.picture(axes, theta, y[0])
    if not axes.has_data():
        raise Failure("an empty picture", "something drawn into the axes that were given", "Draw into axes, not plt.")
    return "draws into the axes"

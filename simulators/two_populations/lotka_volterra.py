"""Lotka-Volterra: at which rates do prey and predators grow, eat and die, given ten noisy counts of each?

    dX/dt = alpha X - beta X Y,   dY/dt = -gamma Y + delta X Y,   X(0) = 30,  Y(0) = 1
    y_k = X(t_k) exp(0.1 e_k),   y_{10 + k} = Y(t_k) exp(0.1 e_{10 + k}),   t_k = 0, 2.1, ..., 18.9 days,   e ~ N(0, I)
    alpha, gamma ~ LogNormal(-0.125, 0.5),   beta, delta ~ LogNormal(-3, 0.5), in 1/day (and for each animal)

Populations below 1e-10 and above 10^4 are set to these values before the noise, as in the benchmark's code. That code
solves to an absolute tolerance of about 1e-6, so that in deep troughs, where fewer than about 1e-6 prey are left, its
populations are rounding errors. Here they are those of the equations.

The problem is that of Lueckmann et al. 2021 (arXiv:2101.04964), appendix T.10; constants as in their public code
(https://github.com/sbi-benchmark/sbibm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, LogNormal

from posterior_bench import Differentiable, HasLikelihood, HasNoise, Parameter, Simulator, Spec
from posterior_bench.priors import Product

from .dynamics import trajectories

START = (30.0, 1.0)
DAYS = tuple(21 * k / 10 for k in range(10))
NOISE_SD = 0.1
LOG_RANGE = (math.log(1e-10), math.log(1e4))


@dataclass(frozen=True)
class LotkaVolterra(Simulator, HasLikelihood, HasNoise, Differentiable):
    """Ten noisy counts of prey and of predators; see the module's docstring for formulas and sources.

    A simulation fails where theta is not finite or the solution escapes to infinity, which takes negative rates.
    """

    @property
    def spec(self) -> Spec:
        """Four rates, twenty counts a measurement: prey, then predators."""
        return Spec(
            name="lotka_volterra",
            version=1,
            reference="Lueckmann et al. 2021, arXiv:2101.04964",
            parameters=(
                Parameter("prey_growth", "1/day", r"\alpha"),
                Parameter("predation", "1/day", r"\beta"),
                Parameter("predator_death", "1/day", r"\gamma"),
                Parameter("predator_growth", "1/day", r"\delta"),
            ),
            y_shape=(2 * len(DAYS),),
            y_names=tuple(f"{animal}_day_{day:.1f}" for animal in ("prey", "predators") for day in DAYS),
            description="At which rates prey and predators grow and die, given noisy counts of both on ten days",
        )

    def prior(self) -> Distribution:
        """Independent log-normals of medians 0.88 (growth, death) and 0.05 (the two contacts) per day."""
        return Product([LogNormal(mean, 0.5) for mean in (-0.125, -3.0, -0.125, -3.0)])

    @property
    def noise_dim(self) -> int:
        """20: one for each count."""
        return 2 * len(DAYS)

    def simulate(self, theta: Tensor) -> Tensor:
        """Counts (N, 20) for rates theta (N, 4)."""
        return self.simulate_from(
            theta, torch.randn(len(theta), self.noise_dim, dtype=theta.dtype, device=theta.device)
        )

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Counts (N, 20) for rates theta (N, 4) and noise (N, 20)."""
        return (log_populations(theta) + NOISE_SD * noise.double()).exp().to(theta.dtype)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, 4) and y (N, 20), in nats; -inf where y is not positive."""
        possible = (y > 0).all(1)
        log_y = torch.where(possible[:, None], y, 1.0).double().log()
        squares = ((log_y - log_populations(theta)) / NOISE_SD).square().sum(1)
        constant = 2 * len(DAYS) * math.log(math.sqrt(2 * math.pi) * NOISE_SD)
        return torch.where(possible, -0.5 * squares - log_y.sum(1) - constant, -torch.inf).to(theta.dtype)


def log_populations(theta: Tensor) -> Tensor:
    """Logarithms of the populations, (N, 20), prey then predators, for rates theta (N, 4), in double precision."""
    prey_growth, predation, predator_death, predator_growth = theta.double().unbind(1)
    growth = torch.stack([prey_growth, -predator_death])
    contact = torch.stack([-predation, predator_growth])
    states = trajectories(growth, contact, START, DAYS)
    return states.permute(2, 1, 0).flatten(1).clamp(*LOG_RANGE)

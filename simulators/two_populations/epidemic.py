"""SIR epidemic: how contagious is a disease, and how fast do people recover, given ten samples of who is infected?

    dS/dt = -beta S I / N,   dI/dt = beta S I / N - gamma I,   S(0) = N - 1,  I(0) = 1,  N = 10^6
    y_k ~ Binomial(1000, I(t_k) / N),   t_k = 0, 17, 34, ..., 153 days
    beta ~ LogNormal(log 0.4, 0.5),   gamma ~ LogNormal(log 0.125, 0.2), in 1/day

In fractions s, i of N this is d log s / dt = -beta i, d log i / dt = -gamma + beta s: see ``dynamics``.

The problem is that of Lueckmann et al. 2021 (arXiv:2101.04964), appendix T.9, after Kermack & McKendrick 1927;
constants as in their public code (https://github.com/sbi-benchmark/sbibm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, LogNormal

from posterior_bench import Differentiable, HasLikelihood, Parameter, Simulator, Spec
from posterior_bench.priors import Product

from .dynamics import trajectories

POPULATION = 1e6
INFECTED_AT_START = 1.0
SAMPLED = 1000
DAYS = tuple(17.0 * k for k in range(10))


@dataclass(frozen=True)
class Epidemic(Simulator, HasLikelihood, Differentiable):
    """Ten samples of an epidemic; see the module's docstring for formulas and sources.

    Gradients flow through the likelihood. A simulation whose theta is not finite fails.
    """

    @property
    def spec(self) -> Spec:
        """Two rates, ten counts a measurement."""
        return Spec(
            name="sir",
            version=1,
            reference="Lueckmann et al. 2021, arXiv:2101.04964",
            parameters=(Parameter("contact_rate", "1/day", r"\beta"), Parameter("recovery_rate", "1/day", r"\gamma")),
            y_shape=(len(DAYS),),
            y_names=tuple(f"infected_day_{day:.0f}" for day in DAYS),
            description="How contagious a disease is, given how many of a thousand people were infected on ten days",
        )

    def prior(self) -> Distribution:
        """Independent log-normals of medians 0.4 and 0.125 per day."""
        return Product([LogNormal(math.log(0.4), 0.5), LogNormal(math.log(0.125), 0.2)])

    def simulate(self, theta: Tensor) -> Tensor:
        """Infected among 1000 people on each day, (N, 10), for rates theta (N, 2)."""
        fraction = log_infected(theta).exp().clamp(max=1.0)
        failed = torch.isnan(fraction)
        count = torch.binomial(torch.full_like(fraction, float(SAMPLED)), torch.where(failed, 0.0, fraction))
        return torch.where(failed, torch.nan, count).to(theta.dtype)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, 2) and y (N, 10), in nats: the logarithm of a probability.

        It is -inf where y is not of whole numbers from 0 to 1000.
        """
        possible = ((y >= 0) & (y <= SAMPLED) & (y == y.round())).all(1)
        infected = torch.where(possible[:, None], y, 0.0).double()
        log_fraction = log_infected(theta).clamp(max=-1e-12)  # below 1, which it reaches by rounding alone
        log_rest = torch.log(-torch.expm1(log_fraction))
        ways = math.lgamma(SAMPLED + 1) - torch.lgamma(infected + 1) - torch.lgamma(SAMPLED - infected + 1)
        value = (ways + infected * log_fraction + (SAMPLED - infected) * log_rest).sum(1)
        return torch.where(possible, value, -torch.inf).to(theta.dtype)


def log_infected(theta: Tensor) -> Tensor:
    """Logarithm of the infected fraction on each day, (N, 10), for rates theta (N, 2), in double precision."""
    contact_rate, recovery_rate = theta.double().unbind(1)
    growth = torch.stack([torch.zeros_like(recovery_rate), -recovery_rate])
    contact = torch.stack([-contact_rate, contact_rate])
    start = ((POPULATION - INFECTED_AT_START) / POPULATION, INFECTED_AT_START / POPULATION)
    return trajectories(growth, contact, start, DAYS)[:, 1].T

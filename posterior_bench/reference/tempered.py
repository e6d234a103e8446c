"""Route two: tempered sequential Monte Carlo from the prior to the posterior, which shares no proposal with route one.

    p_t(r) ~ p(r) p(y | r)^b_t,  0 = b_0 < b_1 < ... = 1,   log Z = sum_t log mean_i p(y | r_i)^(b_t - b_{t-1})

Del Moral, Doucet & Jasra 2006 (J. R. Stat. Soc. B 68:411). Each b_t is as far as the conditional effective sample size
allows (Zhou, Johansen & Aston 2016, arXiv:1303.3123; particles are resampled at each step, so that it is the effective
size of the step's weights). Random-walk Metropolis moves have the particles' covariance times 2.38^2 / D (Gelman,
Roberts & Gilks 1996), times a factor that is tuned to the acceptance rate, times a random one a particle, since
posteriors of several modes have several scales. Particles of all measurements are one tensor (N, B, D).

Where a narrow part of the posterior holds much of it, few particles find it, and log Z by tempering alone is too low by
more than its spread shows. So it serves as a coarse check, and log Z of route two is that of importance sampling from
mixtures that begin with these particles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import Settings
from .target import Target
from .weights import gather, largest_exponent, log_mean, systematic

ACCEPTANCE = 0.25
"""Of a random walk in several dimensions (Roberts, Gelman & Gilks 1997, Ann. Appl. Probab. 7:110)."""

SPREAD = 0.7
"""Standard deviation of the logarithm of a particle's own factor."""

TEMPERATURES = 500
"""At most; a likelihood that needs more is a mistake."""


@dataclass(frozen=True, eq=False)
class TemperedResult:
    """Particles and log Z of R independent repetitions for B measurements.

    Args:
        real: (R, N, B, D), mapped particles, of equal weight.
        log_evidence: (R, B), log Z in nats.
        temperatures: (B,), steps from prior to posterior, the mean over repetitions.
        acceptance: (B,), rate of the moves at the last temperature, the mean over repetitions.
    """

    real: Tensor
    log_evidence: Tensor
    temperatures: Tensor
    acceptance: Tensor


def sample_tempered(target: Target, settings: Settings) -> TemperedResult:
    """Particles of the posterior of each measurement of ``target``, from torch's global generator.

    Raises:
        ArithmeticError: where the temperature does not reach 1.
    """
    repetitions, count = settings.repetitions, len(target.y)
    repeated = target.repeat(repetitions)
    walkers = _Walkers(repeated, settings)
    for _ in range(TEMPERATURES):
        active = (walkers.exponent < 1).nonzero()[:, 0]
        if len(active) == 0:
            break
        walkers.step(active)
    else:
        raise ArithmeticError(
            f"{TEMPERATURES} temperatures did not lead from prior to posterior for measurement {int(active[0]) % count}"
            "; the likelihood may be all but zero wherever particles are: raise particles"
        )
    walkers.move(torch.arange(len(repeated.y), device=target.y.device), settings.moves)
    shape = (repetitions, count)
    return TemperedResult(
        walkers.real.unflatten(1, shape).movedim(1, 0),
        walkers.log_evidence.view(shape),
        walkers.steps.view(shape).double().mean(0),
        walkers.rate.view(shape).mean(0),
    )


class _Walkers:
    """Particles on their way, (N, B, D), with their log likelihood and prior."""

    def __init__(self, target: Target, settings: Settings) -> None:
        self.target, self.settings = target, settings
        self.real = target.draw_prior(settings.particles)
        self.log_prior, self.log_likelihood = target.log_prior(self.real), target.log_likelihood(self.real)
        zero = torch.zeros(len(target.y), dtype=torch.float64, device=target.y.device)
        self.exponent, self.log_evidence, self.log_factor, self.rate = (zero.clone() for _ in range(4))
        self.steps = torch.zeros_like(zero, dtype=torch.long)

    def step(self, active: Tensor) -> None:
        """Take the next temperature of the measurements ``active`` (b,): reweight, resample, move."""
        values = self.log_likelihood[:, active]
        possible = torch.isfinite(values).sum(0).double()
        if not (possible > 0).all():
            first = int(active[possible == 0][0])
            raise ArithmeticError(
                f"no draw of {len(values)} from the prior has a positive likelihood for measurement {first}; expected "
                "some. It may not come from this simulator; else raise particles"
            )
        upper = 1 - self.exponent[active]
        rise = largest_exponent(values, self.settings.ladder * possible, upper)
        rise = torch.where(rise >= upper, upper, rise.clamp_min(1e-12))
        log_weights = rise * values.clamp_min(-1e300)
        self.log_evidence[active] += log_mean(torch.where(torch.isfinite(values), log_weights, -torch.inf))
        self.exponent[active] = torch.where(rise >= upper, 1.0, self.exponent[active] + rise)
        self.steps[active] += 1
        index = systematic(torch.where(torch.isfinite(values), log_weights, -torch.inf), len(values))
        for name in ("real", "log_prior", "log_likelihood"):
            everything = getattr(self, name)
            everything[:, active] = gather(everything[:, active], index)
        self.move(active, self.settings.moves)

    def move(self, active: Tensor, moves: int) -> None:
        """Metropolis moves at the present temperature, which leave p_t as it is."""
        target, exponent = self.target.select(active), self.exponent[active]
        real, log_prior = self.real[:, active], self.log_prior[:, active]
        log_likelihood, log_factor = self.log_likelihood[:, active], self.log_factor[active]
        dim = real.shape[-1]
        centred = (real - real.mean(0)).movedim(1, 0)
        covariance = centred.mT @ centred / len(real)
        lift = 1e-8 * covariance.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True) + 1e-20
        root = torch.linalg.cholesky(covariance + torch.diag_embed(lift.expand(-1, dim)))
        root = root * 2.38 / math.sqrt(dim)
        rate = torch.zeros_like(exponent)
        for _ in range(moves):
            factor = (log_factor + SPREAD * torch.randn_like(log_prior)).exp()
            walk = (torch.randn_like(real).movedim(1, 0) @ root.mT).movedim(0, 1)
            proposed = real + factor[..., None] * walk
            new_prior, new_likelihood = target.log_prior(proposed), target.log_likelihood(proposed)
            ratio = new_prior - log_prior + exponent * (new_likelihood - log_likelihood)
            accepted = torch.rand_like(ratio).log() < ratio
            real = torch.where(accepted[..., None], proposed, real)
            log_prior = torch.where(accepted, new_prior, log_prior)
            log_likelihood = torch.where(accepted, new_likelihood, log_likelihood)
            rate = accepted.double().mean(0)
            # between moves alone: the factor does not depend on where a particle goes next
            log_factor = (log_factor + 2 * (rate - ACCEPTANCE)).clamp(-12, 3)
        self.real[:, active], self.log_prior[:, active] = real, log_prior
        self.log_likelihood[:, active], self.log_factor[active], self.rate[active] = log_likelihood, log_factor, rate

"""Temperature scaling: draws keep their mean and shape, and are widened or narrowed by one factor a parameter.

    t -> m(y) + T (t - m(y)),    T^2 = mean over the labelled pairs of ((t* - m(y)) / s(y))^2

which maximises the likelihood of N(t*; m(y), T^2 s(y)^2), with t, m and s the mapped parameter and mean and sd of the
posterior to start from. Guo et al. 2017 (arXiv:1706.04599) do the same to a classifier's logits; for regression it is
the "std-scaling" of Levi et al. 2022, Sensors 22:5540. It repairs over-confidence where s(y) says which measurements
are uncertain; a wrong mean stays wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_bench import HasLogProb, MethodSpec, Posterior, Problem, Simulations
from posterior_bench.priors import is_whole, log_density_in_support

from .base import NEEDS, SMALLEST_SD, Base, Recalibrated, Recalibration


class TemperedPosterior(Recalibrated):
    """Draws of the base, spread about their mean; correlations between parameters are the base's."""

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        theta_map, mean = self.base.theta_map, self.base.moments(y).mean
        with torch.no_grad():
            real = theta_map(self.base.posterior.sample(y, n))
            return theta_map.inverse(mean + self.correction["temperature"] * (real - mean))


class TemperedDensityPosterior(TemperedPosterior, HasLogProb):
    """The same where the base has a density:  log q(t) = log q_base(m + (t - m) / T) - sum log T."""

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and y (B, *y_shape); -inf outside the support."""
        theta_map, mean, temperature = self.base.theta_map, self.base.moments(y).mean, self.correction["temperature"]
        posterior = self.base.posterior
        if not isinstance(posterior, HasLogProb):
            raise TypeError(f"{type(posterior).__name__} has no density; expected a posterior with log_prob")

        def density(at: Tensor) -> Tensor:
            before = theta_map.inverse(mean + (theta_map(at) - mean) / temperature)
            change = theta_map.log_abs_det(at) - theta_map.log_abs_det(before) - temperature.log().sum()
            return posterior.log_prob(before, y) + change

        anchor = theta_map.inverse(torch.zeros_like(theta[0, 0]))
        return log_density_in_support(theta_map.prior, theta, anchor, density)


@dataclass(frozen=True)
class RecalibratedTemperature(Recalibration):
    """Draws spread about their mean by a factor a parameter, found by maximum likelihood."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        "recalibrated_temperature",
        1,
        "Guo et al. 2017, arXiv:1706.04599; Levi et al. 2022, Sensors 22:5540",
        NEEDS,
        label="recalibrated, temperature",
    )
    quick: ClassVar[Mapping[str, object]] = {"labels": 20}

    def _learn(self, base: Base, pairs: Simulations, problem: Problem) -> dict[str, Tensor]:
        moments = base.moments(pairs.y)
        z = (base.theta_map(pairs.theta) - moments.mean) / moments.sd
        return {"temperature": z.square().mean(0).sqrt().clamp_min(SMALLEST_SD)}

    def _posterior(self, base: Base, correction: Mapping[str, Tensor]) -> Posterior:
        # of a whole number the base gives a probability, not the density between whole numbers that is widened
        whole = any(is_whole(marginal) for marginal in base.theta_map.marginals or ())
        if isinstance(base.posterior, HasLogProb) and not whole:
            return TemperedDensityPosterior(base, correction)
        return TemperedPosterior(base, correction)

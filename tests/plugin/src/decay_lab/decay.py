"""A decaying source, seen at a few times: how strong was it, and how fast does it decay?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, Uniform

from posterior_bench import Differentiable, HasLikelihood, HasNoise, Parameter, Simulator, Spec
from posterior_bench.priors import Product


@dataclass(frozen=True)
class Decay(Simulator, HasLikelihood, HasNoise, Differentiable):
    """y_i = activity exp(-rate t_i) + noise at times t_i = 0, 1, ..., times - 1.

    Args:
        times: number of readings.
        noise_sd: standard deviation of a reading [Bq].
    """

    times: int = 6
    noise_sd: float = 0.1

    @property
    def spec(self) -> Spec:
        return Spec(
            name="decay",
            version=1,
            reference="",
            parameters=(Parameter("activity", "Bq", "A"), Parameter("rate", "1/s", r"\lambda")),
            y_shape=(self.times,),
        )

    def prior(self) -> Distribution:
        return Product([Uniform(0.5, 2.0), Uniform(0.1, 1.0)])

    def _mean(self, theta: Tensor) -> Tensor:
        t = torch.arange(self.times, dtype=theta.dtype, device=theta.device)
        return theta[:, :1] * torch.exp(-theta[:, 1:] * t)

    @property
    def noise_dim(self) -> int:
        return self.times

    def simulate(self, theta: Tensor) -> Tensor:
        return self.simulate_from(theta, torch.randn(len(theta), self.times, dtype=theta.dtype, device=theta.device))

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return self._mean(theta) + self.noise_sd * noise

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(self._mean(theta), self.noise_sd).log_prob(y).sum(1)

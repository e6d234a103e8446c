"""A neuron's spikes in a hundred time bins: which offset and filter of its input made it fire?

    p(z_t = 1 | theta) = sigmoid(psi_t),   psi_t = b + sum_{j=0..8} f_j I_{t-j},   theta = (b, f_0, ..., f_8)

with the input I_t, t = 0..99, white Gaussian noise frozen by numpy's legacy generator, seed 42, and I = 0 before. In
matrix form psi = X theta with X_t = (1, I_t, I_{t-1}, ..., I_{t-8}). The prior is normal, of mean 0,

    b ~ N(0, 2),   f ~ N(0, (F^T F)^-1),   F = D^2 + diag(sqrt(i / 9)), i = 0..8

with D the first difference (1 on the diagonal, -1 below it), so that smooth filters are likelier.

    bernoulli_glm_raw   y = z, the hundred bins:   log p(y | theta) = sum_t (z_t psi_t - log(1 + e^psi_t))
    bernoulli_glm       y = X^T z, the number of spikes and nine spike-triggered sums:
                        log p(y | theta) = theta . y - sum_t log(1 + e^psi_t)

The second is the first written in its sufficient statistics. It is the probability of a value, since y is discrete: the
inputs are real numbers in general position, so that no two spike trains share their sums. Both have the same posterior.

The problems are those of Lueckmann et al. 2021 (arXiv:2101.04964), appendix T.5 and T.6, after Gonçalves et al. 2020
(doi:10.7554/eLife.56261); constants as in their public code (https://github.com/sbi-benchmark/sbibm).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal
from torch.nn.functional import softplus

from posterior_bench import Differentiable, HasLikelihood, Parameter, Simulator, Spec

BINS = 100
FILTER = 9
SEED = 42
OFFSET_PRECISION = 0.5

REFERENCE = "Lueckmann et al. 2021, arXiv:2101.04964; Gonçalves et al. 2020, doi:10.7554/eLife.56261"
PARAMETERS = (
    Parameter("offset", symbol="b"),
    *(Parameter(f"filter_{j}", symbol=f"f_{j}") for j in range(FILTER)),
)


class _Neuron(Simulator, HasLikelihood, Differentiable):
    """What both tasks share. Spikes are thresholds of noise: gradients flow through the likelihood alone."""

    def prior(self) -> Distribution:
        """A normal distribution over ten parameters, smooth along the filter."""
        difference = torch.eye(FILTER) - torch.diag(torch.ones(FILTER - 1), -1)
        root = difference @ difference + torch.diag((torch.arange(FILTER) / FILTER).sqrt())
        precision = torch.block_diag(torch.tensor([[OFFSET_PRECISION]]), root.T @ root)
        return MultivariateNormal(torch.zeros(1 + FILTER), precision_matrix=precision)


@dataclass(frozen=True)
class BernoulliGLM(_Neuron):
    """Number of spikes and spike-triggered sums of the input; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Ten parameters without a unit, ten numbers a measurement."""
        return Spec(
            name="bernoulli_glm",
            version=1,
            reference=REFERENCE,
            parameters=PARAMETERS,
            y_shape=(1 + FILTER,),
            y_names=("spikes", *(f"triggered_sum_{j}" for j in range(FILTER))),
            description="How a neuron filters its input, given the number of spikes and the input's sums before them",
        )

    def simulate(self, theta: Tensor) -> Tensor:
        """Sufficient statistics (N, 10) of the spikes for theta (N, 10). A row whose theta is not finite fails."""
        return (_spikes(theta) @ design(theta.device)).to(theta.dtype)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, 10) and y (N, 10), in nats: the logarithm of a probability.

        It is not checked that some spike train has these statistics.
        """
        return ((theta.double() * y.double()).sum(1) - _normaliser(theta)).to(theta.dtype)


@dataclass(frozen=True)
class BernoulliGLMRaw(_Neuron):
    """The spikes themselves; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Ten parameters without a unit, a hundred numbers a measurement, each 0 or 1."""
        return Spec(
            name="bernoulli_glm_raw",
            version=1,
            reference=REFERENCE,
            parameters=PARAMETERS,
            y_shape=(BINS,),
            y_names=tuple(f"bin_{t}" for t in range(BINS)),
            description="How a neuron filters its input, given in which of a hundred time bins it fired",
        )

    def simulate(self, theta: Tensor) -> Tensor:
        """Spikes (N, 100), 0 or 1, for theta (N, 10). A row whose theta is not finite fails."""
        return _spikes(theta).to(theta.dtype)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, 10) and y (N, 100), in nats; -inf where y is not of zeros and ones."""
        possible = ((y == 0) | (y == 1)).all(1)
        statistics = torch.where(possible[:, None], y, 0.0).double() @ design(y.device)
        value = (theta.double() * statistics).sum(1) - _normaliser(theta)
        return torch.where(possible, value, -torch.inf).to(theta.dtype)


@cache
def design(device: torch.device) -> Tensor:
    """X (100, 10), in double precision."""
    generator = np.random.RandomState(SEED)  # the benchmark's own; its stream is frozen
    stimulus = generator.randn(BINS).astype(np.float32).astype(np.float64)  # the benchmark keeps single precision
    columns = [np.ones(BINS), *(np.concatenate([np.zeros(j), stimulus[: BINS - j]]) for j in range(FILTER))]
    return torch.from_numpy(np.stack(columns, axis=1)).to(device)


def _spikes(theta: Tensor) -> Tensor:
    """Spikes (N, 100) for theta (N, 10), in double precision; NaN where theta is not finite."""
    psi = theta.double() @ design(theta.device).T
    spikes = (torch.rand_like(psi) < psi.sigmoid()).double()
    return torch.where(torch.isfinite(theta).all(1, keepdim=True), spikes, torch.nan)


def _normaliser(theta: Tensor) -> Tensor:
    """sum_t log(1 + exp psi_t), (N,), for theta (N, 10)."""
    return softplus(theta.double() @ design(theta.device).T).sum(1)

"""Each check of what a simulator offers beside its process, proven by a simulator that it must catch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from right_simulators import Counts, Numpy, Scale, failures
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from posterior_bench import Differentiable, HasPicture, HasReferenceDensity, Parameter, Simulator, Spec
from posterior_bench.checks import LinearGaussian


class LikelihoodNotSummed(LinearGaussian):
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(theta @ self._matrix(theta).T, 0.3).log_prob(y)


class LikelihoodTooNarrow(LinearGaussian):
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(theta @ self._matrix(theta).T, 0.2).log_prob(y).sum(1)


class LikelihoodWithoutLogScale(Scale):
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_likelihood(theta, y) + 3 * theta[:, 0]


class LikelihoodWithoutConstant(LinearGaussian):
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_likelihood(theta, y) + 2 * math.log(2 * math.pi)


class LikelihoodOfOtherCounts(Counts):
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_likelihood(1.2 * theta, y)


class LikelihoodImpossible(LinearGaussian):
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        value = super().log_likelihood(theta, y)
        return torch.where(y[:, 0] > 1, -torch.inf, value)


class Detached(LinearGaussian):
    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return super().simulate_from(theta.detach(), noise)


class HalfDetached(LinearGaussian):
    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return 0.5 * super().simulate_from(theta, noise) + 0.5 * super().simulate_from(theta.detach(), noise)


class InfiniteGradient(LinearGaussian):
    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return super().simulate_from(theta, noise) + (theta[:, :1] - theta[:, :1]).abs().sqrt()


@dataclass(frozen=True)
class NothingToDifferentiate(Numpy, Differentiable):
    """Says that it is differentiable, and offers no function that could be."""


class ReferenceTransposed(LinearGaussian):
    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return super().sample_reference(y, n).transpose(0, 1)


class ReferenceNaN(LinearGaussian):
    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        draws = super().sample_reference(y, n).clone()
        draws[0] = torch.nan
        return draws


class ReferenceTooNarrow(LinearGaussian):
    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        draws = super().sample_reference(y, n)
        return draws.mean(0) + 0.6 * (draws - draws.mean(0))


class ReferenceTooWide(LinearGaussian):
    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        draws = super().sample_reference(y, n)
        return draws.mean(0) + 1.8 * (draws - draws.mean(0))


class ReferenceShifted(LinearGaussian):
    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return super().sample_reference(y, n) + 0.2


class ReferenceSwapped(LinearGaussian):
    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return super().sample_reference(y.flip(0), n)


class ReferenceIsPrior(LinearGaussian):
    """Every parameter alone is calibrated: only a quantity that depends on y shows it."""

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return self.prior().sample((n, len(y)))


class DensityWithoutConstant(LinearGaussian):
    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_reference(theta, y) + 0.5


class DensityTooWide(LinearGaussian):
    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        posterior = self.posterior(y)
        wide = MultivariateNormal(posterior.mean, covariance_matrix=2 * posterior.covariance_matrix)
        return wide.log_prob(theta)


class DensityTransposed(LinearGaussian):
    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_reference(theta, y).T


@dataclass(frozen=True)
class DensityOfAnother(Simulator, HasReferenceDensity):
    """y = theta + noise, without a likelihood: only its own draws tell that the density is another's."""

    @property
    def spec(self) -> Spec:
        return Spec("another", 1, "", (Parameter("a"),), (1,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(1), 1.0), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta + torch.randn_like(theta)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        return y / 2 + 0.5**0.5 * torch.randn(n, *y.shape, dtype=y.dtype)

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(y / 2 + 0.3, 0.5**0.5).log_prob(theta)[..., 0]


class NothingDrawn(LinearGaussian, HasPicture):
    def picture(self, axes: object, theta: Tensor, y: Tensor) -> None:
        pass


class Raises(LinearGaussian):
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("a table is missing")


@pytest.mark.parametrize(
    ("simulator", "check", "message"),
    [
        (LikelihoodNotSummed(), "likelihood", "one number a row"),
        (LikelihoodImpossible(), "likelihood", "not finite"),
        (LikelihoodTooNarrow(), "likelihood_normalisation", "its scale"),
        (LikelihoodWithoutLogScale(), "likelihood_ratio", "logarithm of a scale"),
        (LikelihoodOfOtherCounts(), "likelihood_ratio", "off 1"),
        (LikelihoodWithoutConstant(), "likelihood_normalisation", "log sqrt(2 pi)"),
        (Detached(), "gradient", "detach"),
        (HalfDetached(), "gradient", "finite differences"),
        (InfiniteGradient(), "gradient", "not finite"),
        (NothingToDifferentiate(), "gradient", "without HasNoise or HasLikelihood"),
        (ReferenceTransposed(), "reference", "Draws lead"),
        (ReferenceNaN(), "reference", "not finite"),
        (ReferenceTooNarrow(), "reference_ranks", "too narrow"),
        (ReferenceTooWide(), "reference_ranks", "too wide"),
        (ReferenceShifted(), "reference_ranks", "too high"),
        (ReferenceSwapped(), "reference_ranks", "mixed up"),
        (ReferenceIsPrior(), "reference_ranks", "re-simulation"),
        (DensityWithoutConstant(), "reference_density", "integral over theta is off 1"),
        (DensityTooWide(), "reference_density", "varies with theta"),
        (DensityTransposed(), "reference_density", "Draws lead"),
        (DensityOfAnother(), "reference_density", "moments"),
        (NothingDrawn(), "picture", "empty picture"),
        (Raises(), "likelihood", "RuntimeError: a table is missing"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_catches(simulator: object, check: str, message: str) -> None:
    found = failures(simulator)
    assert message in found.get(check, "")

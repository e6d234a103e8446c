"""Each check of a simulator, proven by a simulator that it must catch and by none that is right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, Uniform

from posterior_bench import Differentiable, HasLikelihood, HasPicture, HasReferenceDensity, Parameter, Simulator, Spec
from posterior_bench.checks import Finding, LinearGaussian, check_simulator


def failures(simulator: object) -> dict[str, str]:
    return {f.name: f.message for f in check_simulator(simulator) if not f.ok}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scale(Simulator, HasLikelihood):
    """y ~ N(0, exp(theta)^2), three times: the likelihood's constant depends on theta."""

    @property
    def spec(self) -> Spec:
        return Spec("scale", 1, "", (Parameter("log_scale"),), (3,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(1), 0.5), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta.exp() * torch.randn(len(theta), 3, dtype=theta.dtype)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return Normal(0.0, theta.exp()).log_prob(y).sum(1)


@dataclass(frozen=True)
class Counts(Simulator, HasLikelihood):
    """Poisson counts of a rate between 1 and 9, with some failures."""

    @property
    def spec(self) -> Spec:
        return Spec("counts", 1, "", (Parameter("rate"),), (2,))

    def prior(self) -> Distribution:
        return Independent(Uniform(torch.ones(1), 9 * torch.ones(1)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        y = torch.poisson(theta.expand(-1, 2))
        return y.masked_fill((y > 15).any(1, keepdim=True), torch.nan)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        return torch.distributions.Poisson(theta).log_prob(y).sum(1)


@dataclass(frozen=True)
class Numpy(Simulator):
    """Draws from numpy's global generator."""

    @property
    def spec(self) -> Spec:
        return Spec("numpy", 1, "", (Parameter("mean"),), (1,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(1), 1.0), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta + torch.as_tensor(np.random.randn(len(theta), 1), dtype=theta.dtype)  # noqa: NPY002


@pytest.mark.parametrize("simulator", [LinearGaussian(), LinearGaussian((2, 3)), Scale(), Counts(), Numpy()])
def test_passes_what_is_right(simulator: Simulator) -> None:
    assert failures(simulator) == {}


# one simulator a mistake, named by the check that must find it


class NoDataclass(Simulator):
    spec = LinearGaussian().spec
    prior = LinearGaussian.prior  # type: ignore[assignment]
    simulate = LinearGaussian.simulate  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class NoDefault(LinearGaussian):
    strength: float


class Version0(LinearGaussian):
    @property
    def spec(self) -> Spec:
        return Spec("v0", 0, "", (Parameter("a"), Parameter("b")), self.shape)


class BatchedPrior(LinearGaussian):
    def prior(self) -> Distribution:
        return Normal(torch.zeros(2), 1.0)


class Squeezed(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        return super().simulate(theta).squeeze(0)


class SinglePrecision(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        return super().simulate(theta).float()


class WritesTheta(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        return super().simulate(theta.mul_(2))


class PartlyNaN(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        y = super().simulate(theta)
        return torch.where(y > 2, torch.nan, y)


class Infinite(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        y = super().simulate(theta)
        return torch.where(y > 2, torch.inf, y)


class AlwaysFails(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        return super().simulate(theta) * torch.nan


class OwnGenerator(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        noise = torch.as_tensor(np.random.default_rng().standard_normal((len(theta), 4)), dtype=theta.dtype)
        return self.simulate_from(theta, noise)


class Reseeds(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().simulate(theta)


class FixedGenerator(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        noise = torch.randn(len(theta), 4, generator=torch.Generator().manual_seed(0), dtype=theta.dtype)
        return self.simulate_from(theta, noise)


class SharedNoise(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        return self.simulate_from(theta, torch.randn(1, 4, dtype=theta.dtype).expand(len(theta), -1))


class OneComponentABatch(Scale):
    """The mistake of a published benchmark's mixture: its component was drawn once for all rows."""

    def simulate(self, theta: Tensor) -> Tensor:
        component = 0.1 if torch.rand(()) < 0.5 else 1.0
        return super().simulate(theta) * component


class Centred(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        y = super().simulate(theta)
        return y - y.mean(0)


class DeterministicMixing(LinearGaussian):
    def simulate(self, theta: Tensor) -> Tensor:
        y = self.simulate_from(theta, torch.zeros(len(theta), 4, dtype=theta.dtype))
        return y / y.norm(dim=0)


class VarianceAsSd(LinearGaussian):
    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return theta @ self._matrix(theta).T + 0.09 * noise

    def simulate(self, theta: Tensor) -> Tensor:
        return LinearGaussian.simulate_from(self, theta, torch.randn(len(theta), 4, dtype=theta.dtype))


class HiddenNoise(LinearGaussian):
    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return super().simulate_from(theta, torch.randn_like(noise))


class NoNoiseDeclared(LinearGaussian):
    noise_dim = 0  # type: ignore[assignment]

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return theta @ LinearGaussian()._matrix(theta).T

    def simulate(self, theta: Tensor) -> Tensor:
        return LinearGaussian().simulate(theta)


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
        (object(), "spec", "Derive from Simulator"),
        (NoDataclass(), "spec", "frozen dataclass"),
        (NoDefault(strength=1.0), "spec", "strength"),
        (Version0(), "spec", "version 0"),
        (BatchedPrior(), "prior", "Independent"),
        (Squeezed(), "shapes", "(1, 4)"),
        (SinglePrecision(), "dtype_and_device", "torch.float64"),
        (WritesTheta(), "arguments_unchanged", "clone"),
        (PartlyNaN(), "failed_rows", "NaN in part"),
        (Infinite(), "failed_rows", "infinite"),
        (AlwaysFails(), "failed_rows", "all of 500"),
        (OwnGenerator(), "repeatable", "global generators"),
        (Reseeds(), "global_seed", "seeds the global generator of torch"),
        (FixedGenerator(), "global_seed", "the same noise under different seeds"),
        (SharedNoise(), "independent_rows", "one a row"),
        (OneComponentABatch(), "independent_rows", "one batch and another"),
        (Centred(), "independent_rows", "a batch and single calls"),
        (DeterministicMixing(), "independent_rows", "differ between a batch and single calls"),
        (VarianceAsSd(), "noise", "sd against variance"),
        (HiddenNoise(), "noise", "the same noise"),
        (NoNoiseDeclared(), "noise", "noise_dim 0"),
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


def test_basic_failure_ends_the_list_and_another_does_not() -> None:
    assert [f.name for f in check_simulator(Squeezed())] == ["spec", "prior", "shapes"]
    assert len(check_simulator(PartlyNaN())) == len(check_simulator(LinearGaussian()))


def test_findings_repeat_and_leave_the_generators_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert check_simulator(Counts()) == check_simulator(Counts())
    assert torch.equal(before, torch.get_rng_state())
    assert check_simulator(Counts())[0] == Finding("spec", True, "counts version 1: 1 parameters, y_shape (2,)")

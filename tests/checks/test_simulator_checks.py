"""Each check of a simulator's process, proven by a simulator that it must catch and by none that is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from right_simulators import Counts, Numpy, Scale, failures
from torch import Tensor
from torch.distributions import Distribution, Normal

from posterior_bench import Parameter, Simulator, Spec
from posterior_bench.checks import Finding, LinearGaussian, check_simulator


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

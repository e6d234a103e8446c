"""Each check of a method, proven by a method that it must catch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from posterior_bench import HasLatent, HasLogProb, Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.checks import check_method
from posterior_bench.checks.trial import Trial


class Line(Posterior, HasLogProb):
    """N(theta; W y + b, S)."""

    def __init__(self, weight: Tensor, covariance: Tensor) -> None:
        self.weight = weight
        self.covariance = covariance

    def normal(self, y: Tensor) -> MultivariateNormal:
        return MultivariateNormal(y.flatten(1) @ self.weight[:-1] + self.weight[-1], covariance_matrix=self.covariance)

    def sample(self, y: Tensor, n: int) -> Tensor:
        return self.normal(y).sample((n,))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return self.normal(y).log_prob(theta)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"weight": self.weight, "covariance": self.covariance}, {}


@dataclass(frozen=True)
class Regression(Method):
    """Least squares; what a test breaks is overridden below."""

    ridge: float = 1e-6

    spec: ClassVar[MethodSpec] = MethodSpec("regression", 1, "", space="native")
    quick: ClassVar[Mapping[str, object]] = {"ridge": 1e-4}
    posterior: ClassVar[type[Line]] = Line

    def rows(self, simulations: Simulations) -> tuple[Tensor, Tensor]:
        valid = simulations.only_valid()
        return valid.theta, valid.y.flatten(1)

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Line:
        theta, y = self.rows(simulations)
        design = torch.cat([y, torch.ones(len(y), 1)], dim=1)
        gram = design.T @ design + self.ridge * torch.eye(design.shape[1])
        weight = torch.linalg.solve(gram, design.T @ theta)
        residual = theta - design @ weight
        return self.posterior(weight, residual.T @ residual / len(y))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Line:
        return self.posterior(tensors["weight"], tensors["covariance"])


def with_posterior(changed: type[Line]) -> Regression:
    return type(f"With{changed.__name__}", (Regression,), {"posterior": changed})()


def test_passes_what_is_right() -> None:
    findings = check_method(Regression())
    assert [f for f in findings if not f.ok] == []
    assert {f.name for f in findings} == {
        *("spec", "fit", "sample", "arguments_unchanged", "observations_apart", "repeatable", "restore"),
        *("invalid_rows", "shaped_y", "history", "log_prob", "latent"),
    }
    assert next(f for f in findings if f.name == "log_prob").message == "normalised, and that of the draws"


class NotFrozen(Method):
    spec = Regression.spec
    fit = Regression.fit  # type: ignore[assignment]
    restore = Regression.restore  # type: ignore[assignment]


@dataclass(frozen=True)
class SpecAsSetting(Regression):
    spec: MethodSpec = Regression.spec  # type: ignore[misc]


class UnknownQuick(Regression):
    quick: ClassVar[Mapping[str, object]] = {"rigde": 1.0}


class FitsNothing(Regression):
    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Line:
        return None  # type: ignore[return-value]


class NeedsWhatItDoesNotDeclare(Regression):
    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Line:
        problem.simulate(simulations.theta)
        return super().fit(simulations, problem, progress)


class BatchFirst(Line):
    def sample(self, y: Tensor, n: int) -> Tensor:
        return super().sample(y, n).transpose(0, 1)


class SqueezedDraws(Line):
    def sample(self, y: Tensor, n: int) -> Tensor:
        return super().sample(y, n).squeeze(1)


class NaNDraws(Line):
    def sample(self, y: Tensor, n: int) -> Tensor:
        return super().sample(y, n).log()


class DrawsWithGradient(Line):
    def sample(self, y: Tensor, n: int) -> Tensor:
        return super().sample(y, n) * torch.ones(2, requires_grad=True)


class StandardisesInPlace(Regression):
    def rows(self, simulations: Simulations) -> tuple[Tensor, Tensor]:
        simulations.y.sub_(simulations.y.nanmean(0))
        return super().rows(simulations)


class Swapped(Line):
    """The mistake of three packages: draws of a flattened batch, reshaped in the wrong order."""

    def sample(self, y: Tensor, n: int) -> Tensor:
        flat = self.normal(y.repeat_interleave(n, 0)).sample()
        return flat.reshape(n, len(y), 2)


class SharedMean(Line):
    def normal(self, y: Tensor) -> MultivariateNormal:
        return super().normal(y.mean(0, keepdim=True).expand_as(y))


class Clock(Line):
    def sample(self, y: Tensor, n: int) -> Tensor:
        return super().sample(y, n) + 1e-3 * torch.randn(2, generator=self.generator)

    def __init__(self, weight: Tensor, covariance: Tensor) -> None:
        super().__init__(weight, covariance)
        self.generator = torch.Generator()


class OwnSeed(Regression):
    calls: ClassVar[list[int]] = []

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Line:
        self.calls.append(1)
        fitted = super().fit(simulations, problem, progress)
        return Line(fitted.weight + 1e-3 * len(self.calls), fitted.covariance)


class ForgetsBias(Line):
    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"weight": torch.cat([self.weight[:-1], self.weight[-1:] + 1]), "covariance": self.covariance}, {}


class StateNotJSON(Line):
    def state(self) -> tuple[dict[str, Tensor], dict]:
        return super().state()[0], {"scale": torch.ones(1)}


class FailedAsZero(Regression):
    def rows(self, simulations: Simulations) -> tuple[Tensor, Tensor]:
        return simulations.theta, simulations.y.flatten(1).nan_to_num()


class FailedAsNaN(Regression):
    def rows(self, simulations: Simulations) -> tuple[Tensor, Tensor]:
        return simulations.theta, simulations.y.flatten(1)


class VectorsOnly(Regression):
    def rows(self, simulations: Simulations) -> tuple[Tensor, Tensor]:
        valid = simulations.only_valid()
        return valid.theta, valid.y.reshape(len(valid), 4) if valid.y.dim() == 2 else valid.y


class HistoryAsList(Line):
    history: Mapping[str, Tensor] = {"loss": [1.0, 2.0]}  # type: ignore[dict-item]


class TooWideDensity(Line):
    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_prob(theta, y) - 0.5


class DensityOfAnother(Line):
    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return MultivariateNormal(self.normal(y).mean, covariance_matrix=2 * self.covariance).log_prob(theta)


class DensityOfTheBatch(Line):
    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_prob(theta, y.mean(0, keepdim=True).expand_as(y))


class DensityShape(Line):
    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return super().log_prob(theta, y).sum(1)


class Latent(Line, HasLatent):
    """theta = mean(y) + L z."""

    @property
    def latent_dim(self) -> int:
        return 2

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return self.normal(y).mean + z @ torch.linalg.cholesky(self.covariance).T


class RandomDecode(Latent):
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return super().decode(z + torch.randn_like(z), y)


class DecodeOfTheBatch(Latent):
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return super().decode(z, y.mean(0, keepdim=True).expand_as(y))


class DecodeShape(Latent):
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return super().decode(z, y).flatten(0, 1)


def test_a_latent_vector_passes() -> None:
    found = next(f for f in check_method(with_posterior(Latent)) if f.name == "latent")
    assert found.ok
    assert found.message.startswith("2 latent coordinates")


@pytest.mark.parametrize(
    ("method", "check", "message"),
    [
        (object(), "spec", "Derive from Method"),
        (NotFrozen(), "spec", "frozen dataclass"),
        (SpecAsSetting(), "spec", "ClassVar"),
        (UnknownQuick(), "spec", "rigde"),
        (FitsNothing(), "fit", "NoneType"),
        (NeedsWhatItDoesNotDeclare(), "fit", "Ungranted"),
        (with_posterior(BatchFirst), "sample", "Draws lead"),
        (with_posterior(SqueezedDraws), "sample", "axis of length 1"),
        (with_posterior(NaNDraws), "sample", "not finite"),
        (with_posterior(DrawsWithGradient), "sample", "no_grad"),
        (StandardisesInPlace(), "arguments_unchanged", "'y'"),
        (with_posterior(Swapped), "observations_apart", "reshape"),
        (with_posterior(SharedMean), "observations_apart", "mixed up"),
        (with_posterior(Clock), "repeatable", "must not change the posterior"),
        (OwnSeed(), "repeatable", "another posterior"),
        (with_posterior(ForgetsBias), "restore", "state() must hold"),
        (with_posterior(StateNotJSON), "restore", "JSON"),
        (FailedAsZero(), "invalid_rows", "only_valid"),
        (FailedAsNaN(), "invalid_rows", ""),
        (VectorsOnly(), "shaped_y", ""),
        (with_posterior(HistoryAsList), "history", "loss"),
        (with_posterior(TooWideDensity), "log_prob", "off 1"),
        (with_posterior(DensityOfAnother), "log_prob", "off 1"),
        (with_posterior(DensityOfTheBatch), "log_prob", "batch"),
        (with_posterior(DensityShape), "log_prob", "(n, B)"),
        (with_posterior(RandomDecode), "latent", "one latent vector"),
        (with_posterior(DecodeOfTheBatch), "latent", "batch"),
        (with_posterior(DecodeShape), "latent", "(6, 4, 2)"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_catches(method: Method, check: str, message: str) -> None:
    found = {f.name: f.message for f in check_method(method) if not f.ok}
    assert check in found
    assert message in found[check]


def test_what_cannot_be_tried_is_said() -> None:
    wanting = MethodSpec("wanting", 1, "", needs=frozenset({Need.SIMULATE, Need.UNLABELLED}))
    method = type("Wanting", (Regression,), {"spec": wanting})()
    findings = check_method(method)
    assert [(f.name, f.ok, f.message) for f in findings[1:]] == [("fit", True, "not checked: it needs unlabelled")]


class Widened(Posterior):
    """Draws of another posterior, farther from their mean by a factor."""

    def __init__(self, base: Posterior, factor: Tensor) -> None:
        self.base, self.factor = base, factor

    def sample(self, y: Tensor, n: int) -> Tensor:
        draws = self.base.sample(y, n + 50)
        return (draws.mean(0) + self.factor * (draws - draws.mean(0)))[:n]

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"factor": self.factor}, {}


@dataclass(frozen=True)
class Recalibrates(Method):
    """Widens the posterior that it is given until labelled measurements are as far out as its draws."""

    spec: ClassVar[MethodSpec] = MethodSpec("recalibrates", 1, "", frozenset({Need.POSTERIOR, Need.LABELLED}))

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        pairs, base = problem.labelled, problem.posterior
        draws = base.sample(pairs.y, 50)
        return Widened(base, (pairs.theta - draws.mean(0)).std(0) / draws.std(0).mean(0))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return Widened(problem.posterior, tensors["factor"])


def test_a_method_that_starts_from_a_posterior_is_given_one_that_is_too_narrow() -> None:
    method = Recalibrates()
    assert [f for f in check_method(method) if not f.ok] == []
    posterior = Trial(method, 100).posterior
    torch.testing.assert_close(posterior.factor, torch.full((2,), 2.0), atol=0.2, rtol=0)


class Forgets(Recalibrates):
    """What is restored is not on top of the posterior that it was fitted around."""

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return Widened(problem.posterior, torch.ones(2))


def test_a_recalibration_that_is_lost_on_the_way_is_caught() -> None:
    assert {f.name for f in check_method(Forgets()) if not f.ok} == {"restore"}

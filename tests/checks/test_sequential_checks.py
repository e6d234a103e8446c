"""Each check of a method that is fitted for one measurement, proven by one that it must catch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from posterior_bench import HasLogProb, Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.checks import check_method


class OfOne(Posterior):
    """N(mean, 1) for one measurement."""

    def __init__(self, y: Tensor, mean: Tensor) -> None:
        self.y, self.mean = y, mean

    def sample(self, y: Tensor, n: int) -> Tensor:
        if y.shape != (1, 4) or not torch.equal(y[0], self.y):
            raise ValueError("another measurement")
        return self.mean + torch.randn(n, 1, 2)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"y": self.y, "mean": self.mean}, {}


@dataclass(frozen=True)
class Right(Method):
    """Regression on its own simulations."""

    spec: ClassVar[MethodSpec] = MethodSpec("right", 1, "", frozenset({Need.SIMULATE, Need.OBSERVATION}))
    kind: ClassVar[type] = OfOne

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        theta = problem.prior.sample((problem.budget,))
        y = problem.simulate(theta)
        found: Posterior = self.kind(problem.observation, problem.observation @ torch.linalg.lstsq(y, theta).solution)
        return found

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        found: Posterior = self.kind(problem.observation, tensors["mean"])
        return found


class Answers(OfOne):
    def sample(self, y: Tensor, n: int) -> Tensor:
        return self.mean + torch.randn(n, len(y), 2)


class Transposed(OfOne):
    def sample(self, y: Tensor, n: int) -> Tensor:
        return super().sample(y, n).transpose(0, 1)


class Forgets(OfOne):
    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"y": self.y, "mean": torch.zeros(2)}, {}


class DensityShape(OfOne, HasLogProb):
    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return torch.zeros(len(theta))


class OwnGenerator(OfOne):
    def sample(self, y: Tensor, n: int) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        return super().sample(y, n) + torch.randn(n, 1, 2, generator=generator)


def with_posterior(cls: type) -> Method:
    method: Method = type("Method", (Right,), {"kind": cls})()
    return method


class SpendsNothing(Right):
    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        return OfOne(problem.observation, torch.zeros(2))


class SpendsTooMuch(Right):
    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        problem.simulate(problem.prior.sample((problem.budget,)))
        return super().fit(simulations, problem, progress)


def test_passes_what_is_right() -> None:
    findings = check_method(Right())
    assert [f.message for f in findings if not f.ok] == []
    assert len(findings) == 7


@pytest.mark.parametrize(
    ("method", "check", "message"),
    [
        (SpendsNothing(), "fit", "problem.simulate"),
        (SpendsTooMuch(), "fit", "2000 of 2000 simulations are spent"),
        (with_posterior(Transposed), "sample", "(7, 1, 2)"),
        (with_posterior(Answers), "another_measurement", "raise where y is another"),
        (with_posterior(OwnGenerator), "repeatable", "global generators"),
        (with_posterior(Forgets), "restore", "restored"),
        (with_posterior(DensityShape), "log_prob", "(n, 1)"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_catches(method: Method, check: str, message: str) -> None:
    found = {f.name: f.message for f in check_method(method) if not f.ok}
    assert message in found.get(check, "")

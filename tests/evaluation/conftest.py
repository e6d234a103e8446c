"""A linear Gaussian problem whose posterior, and so every score of it, is known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from posterior_bench import Draws, HasLogProb, Parameter, Posterior, Score, Truth
from posterior_bench.runtime import scope


class Exact(Posterior, HasLogProb):
    """The exact posterior of the problem below."""

    def __init__(self, problem: LinearGaussian) -> None:
        self.problem = problem

    def sample(self, y: Tensor, n: int) -> Tensor:
        return self.problem.draws(y, n)

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return self.problem.density(y)(theta)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"forward": self.problem.forward}, {"noise": self.problem.noise}


@dataclass(frozen=True)
class LinearGaussian:
    """theta ~ N(0, diag(sd^2)), y = A theta + noise N(0, I): posterior N(gain y, covariance)."""

    noise: float = 0.5

    @property
    def sd(self) -> Tensor:
        return torch.tensor([0.5, 1.0, 20.0])

    @property
    def forward(self) -> Tensor:
        return torch.tensor([[1.0, 0.5, 0.0], [0.3, -1.0, 0.02], [0.0, 0.4, 0.05], [0.2, 0.0, -0.04]])

    @property
    def prior(self) -> Independent:
        return Independent(Normal(torch.zeros(3), self.sd), 1)

    @property
    def covariance(self) -> Tensor:
        return torch.linalg.inv(torch.diag(self.sd**-2) + self.forward.T @ self.forward / self.noise**2)

    @property
    def gain(self) -> Tensor:
        return self.covariance @ self.forward.T / self.noise**2

    def simulate(self, theta: Tensor) -> Tensor:
        return theta @ self.forward.T + self.noise * torch.randn(len(theta), 4)

    def truth(self, measurements: int, reference: int = 0) -> Truth:
        theta = self.prior.sample((measurements,))
        y = self.simulate(theta)
        parameters = tuple(Parameter(name) for name in "abc")
        found = Truth(theta, y, self.prior, self.prior.sample((2000,)), parameters, self.simulate)
        if not reference:
            return found
        exact = self.draws(y[:50], reference)
        return replace(found, reference=exact, reference_log_prob=self.density(y)(theta[None])[0])

    def draws(self, y: Tensor, n: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """Draws (n, T, 3) with their spread multiplied by ``scale``, moved by ``shift`` prior sd."""
        noise = torch.randn(n, len(y), 3) @ torch.linalg.cholesky(self.covariance).T
        return y @ self.gain.T + shift * self.sd + scale * noise

    def density(self, y: Tensor, scale: float = 1.0) -> Callable[[Tensor], Tensor]:
        def log_density(theta: Tensor) -> Tensor:
            mean = y[: theta.shape[1]] @ self.gain.T
            return MultivariateNormal(mean, scale**2 * self.covariance).log_prob(theta)

        return log_density

    def exact(self, truth: Truth, n: int) -> Draws:
        return Draws(self.draws(truth.y, n), self.density(truth.y))

    def posterior(self) -> Posterior:
        return Exact(self)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with scope(1):
        yield


@pytest.fixture(scope="session")
def problem() -> LinearGaussian:
    return LinearGaussian()


@pytest.fixture
def normal_truth() -> Callable[..., Truth]:
    """A truth theta ~ N(0, I) of given (T, D), with a simulator that returns theta itself."""

    def make(measurements: int, dim: int = 1, theta: Tensor | None = None) -> Truth:
        prior = Independent(Normal(torch.zeros(dim), torch.ones(dim)), 1)
        theta = prior.sample((measurements,)) if theta is None else theta
        parameters = tuple(Parameter(f"p{k}") for k in range(dim))
        return Truth(theta, theta, prior, prior.sample((2000,)), parameters, lambda t: t)

    return make


@pytest.fixture
def by_name() -> Callable[..., dict[str, Score]]:
    """Scores by their id; raises where an id comes twice or a number is not finite, which JSON could not hold."""

    def collect(scores: object) -> dict[str, Score]:
        found: dict[str, Score] = {}
        for score in scores:  # type: ignore[attr-defined]
            assert score.metric not in found
            numbers = (score.value, score.std_error, score.null_low, score.null_high)
            assert all(isinstance(v, float) and abs(v) < float("inf") for v in numbers if v is not None), score
            found[score.metric] = score
        return found

    return collect

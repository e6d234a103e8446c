"""q(theta | y) = N(theta; W y + b, S), by least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from posterior_bench import HasLogProb, Method, MethodSpec, Posterior, Problem, Progress, Simulations


class LinearPosterior(Posterior, HasLogProb):
    def __init__(self, weight: Tensor, covariance: Tensor) -> None:
        self.weight = weight  # (M + 1, D), the last row is b
        self.covariance = covariance

    def _normal(self, y: Tensor) -> MultivariateNormal:
        mean = y.flatten(1) @ self.weight[:-1] + self.weight[-1]
        return MultivariateNormal(mean, covariance_matrix=self.covariance)

    def sample(self, y: Tensor, n: int) -> Tensor:
        return self._normal(y).sample((n,))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        return self._normal(y).log_prob(theta)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"weight": self.weight, "covariance": self.covariance}, {}


@dataclass(frozen=True)
class LinearRegression(Method):
    """Args: ridge: added to the diagonal of the normal equations."""

    ridge: float = 1e-6

    spec: ClassVar[MethodSpec] = MethodSpec("linear_regression", 1, "", space="native", label="Linear regression")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> LinearPosterior:
        valid = simulations.only_valid()
        design = torch.cat([valid.y.flatten(1), torch.ones(len(valid), 1)], dim=1)
        gram = design.T @ design + self.ridge * torch.eye(design.shape[1])
        weight = torch.linalg.solve(gram, design.T @ valid.theta)
        residual = valid.theta - design @ weight
        covariance = residual.T @ residual / (len(valid) - design.shape[1])
        return LinearPosterior(weight, covariance)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> LinearPosterior:
        return LinearPosterior(tensors["weight"], tensors["covariance"])

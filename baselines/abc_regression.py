"""ABC with a regression adjustment: what the nearest simulations would have been, had they met the measurement.

    q(theta | y*) = sum over the K nearest i of w_i delta(theta - T^-1(m(y*) + sigma(y*) / sigma(y_i) (t_i - m(y_i))))

    t_i = T(theta_i) mapped to the reals,   w_i = 1 - (d_i / d_K)^2,   d_i = |(y_i - y*) / sd(y)|
    m = argmin sum_i w_i |t_i - a - B' f(y_i - y*)|^2 + ridge penalty on B,   log sigma^2 likewise from the residuals

The local-linear adjustment with Epanechnikov weights is of Beaumont, Zhang & Balding 2002, Genetics 162:2025; the ridge
penalty of Blum, Nunes, Prangle & Sisson 2013, Statistical Science 28:189; the scale sigma of Blum & Francois 2010,
Statistics and Computing 20:63. Plain rejection answers with the width of the accepted region; the adjustment takes out
what a regression can explain of it, so that many more simulations can be accepted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_bench import Method, MethodSpec, Posterior, Problem, Progress, Simulations
from posterior_bench.training import ThetaMap

from .abc_rejection import NearestSimulations

BLOCK = 2**19
"""Numbers of the largest array held at a time: 2 MB in single precision, which stays in cache."""

SMALLEST_RIDGE = 1e-6
"""Below it the penalty is lost in the rounding of single precision, and collinear features have no solution."""


class AdjustedSimulations(Posterior):
    """The nearest simulations of a bank, moved along a local regression to the measurement.

    Draws are a systematic resample of the weighted sample (Kitagawa 1996, Journal of Computational and Graphical
    Statistics 5:1): each simulation comes floor(n p_i) or ceil(n p_i) times, n p_i on average, p_i = w_i / sum w. None
    repeats while n <= 1 / max p_i, and beyond as few do as the weights allow. Draws are not smoothed: that would widen
    the posterior. As with rejection, draws for different measurements come from one bank and are not independent.

    Where the measurement lies outside the bank, the regression extrapolates. Where ``accept`` is not many times the
    number of features, it follows the noise, and draws are too narrow.

    Args:
        nearest: the bank and the number K that is accepted.
        to_real: the map T of theta, so that adjusted draws stay inside the support of the prior.
        ridge: penalty, as a fraction of a feature's variance among the accepted.
        degree: 1 for features y - y*, 2 for their squares and products in addition.
        heteroscedastic: whether residuals are scaled by sigma(y*) / sigma(y_i).
    """

    def __init__(
        self, nearest: NearestSimulations, to_real: ThetaMap, ridge: float, degree: int, heteroscedastic: bool
    ) -> None:
        self.nearest = nearest
        self.to_real = to_real.to(nearest.theta.device)
        self.ridge, self.degree, self.heteroscedastic = ridge, degree, heteroscedastic
        self._bank = nearest.standardise(nearest.y)
        self._real = self.to_real(nearest.theta)

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D), in random order."""
        dim = self._bank.shape[1]
        features = dim if self.degree == 1 else dim * (dim + 3) // 2
        widest = max(self.nearest.accept * max(features, self._real.shape[1]), n * self._real.shape[1], features**2)
        with torch.no_grad():
            parts = [self._sample(some, n) for some in y.split(max(1, BLOCK // widest))]
        return torch.cat(parts, dim=1)

    def _sample(self, y: Tensor, n: int) -> Tensor:
        real, weights = self.adjusted(y)
        chosen = systematic(weights, n).unsqueeze(-1).expand(-1, -1, real.shape[-1])
        return self.to_real.inverse(real.gather(1, chosen)).transpose(0, 1)

    def adjusted(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sample behind the draws for measurements y (B, *y_shape), nearest simulation first.

        Returns:
            Adjusted parameters mapped to the reals (B, K, D) and weights (B, K), positive, at most 1.
        """
        accepted = self.nearest.nearest(y)
        offset = self._bank[accepted] - self.nearest.standardise(y).unsqueeze(1)
        square = offset.square().sum(-1)
        furthest = square.amax(1, keepdim=True)
        furthest = torch.where(furthest > 0, furthest, torch.ones_like(furthest))
        # the bandwidth lies just beyond the last accepted, so that none, a single one included, has no weight
        weights = 1 - square / (furthest * (1 + 1 / self.nearest.accept))
        features = _features(offset / furthest.sqrt().unsqueeze(-1), self.degree)
        real = self._real[accepted]
        mean = self._regress(features, weights, real)  # features are zero at y*: what they explain is the way to y*
        if not self.heteroscedastic:
            return real - mean, weights
        centre = _weighted_mean(real - mean, weights)
        residual = real - mean - centre
        power = residual.square()
        # the floor keeps the log of a residual that happens to be zero from ruling the fit
        floor = 1e-6 * _weighted_mean(power, weights) + torch.finfo(power.dtype).tiny
        log_ratio = -0.5 * self._regress(features, weights, (power + floor).log())
        return centre + residual * log_ratio.clamp(-math.log(10), math.log(10)).exp(), weights

    def _regress(self, features: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        """The part of ``values`` (B, K, D) that a weighted ridge regression explains by ``features`` (B, K, F).

        The intercept, unpenalised, is no part of it.
        """
        root = (weights / weights.sum(1, keepdim=True)).sqrt().unsqueeze(-1)
        centred = (features - _weighted_mean(features, weights)) * root
        scale = centred.norm(dim=1, keepdim=True)
        scale = torch.where(scale > 1e-6, scale, torch.ones_like(scale))  # features are at most 1: less is rounding
        centred = centred / scale
        gram = (centred.mT @ centred).double()
        gram.diagonal(dim1=1, dim2=2).add_(self.ridge)
        moment = centred.mT @ ((values - _weighted_mean(values, weights)) * root)
        slope = torch.cholesky_solve(moment.double(), torch.linalg.cholesky(gram)).to(values.dtype)
        return features @ (slope / scale.mT)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The whole bank: there is nothing smaller that says which rows are near a measurement not seen yet."""
        settings = {"ridge": self.ridge, "degree": self.degree, "heteroscedastic": self.heteroscedastic}
        return {"theta": self.nearest.theta, "y": self.nearest.y}, {"accept": self.nearest.accept, **settings}


def _features(offset: Tensor, degree: int) -> Tensor:
    """(B, K, M) -> (B, K, F): the offsets, with their squares and products where ``degree`` is 2."""
    if degree == 1:
        return offset
    first, second = torch.triu_indices(offset.shape[-1], offset.shape[-1], device=offset.device)
    return torch.cat([offset, offset[..., first] * offset[..., second]], dim=-1)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """(B, K, D), (B, K) -> (B, 1, D)."""
    return (weights / weights.sum(1, keepdim=True)).unsqueeze(1) @ values


def systematic(weights: Tensor, n: int) -> Tensor:
    """Systematic resampling: indices (B, n), in random order, of which i comes n w_i / sum w times on average.

    Args:
        weights: (B, K), not negative, a positive sum a row.
        n: number of indices a row.
    """
    total = weights.double().cumsum(1)
    start = torch.rand(len(weights), 1, dtype=torch.float64, device=weights.device)
    steps = torch.arange(n, dtype=torch.float64, device=weights.device)
    index = torch.searchsorted(total, (start + steps) / n * total[:, -1:], right=True)
    order = torch.rand(index.shape, device=weights.device).argsort(1)
    return index.clamp(max=weights.shape[1] - 1).gather(1, order)


@dataclass(frozen=True)
class ABCRegression(Method):
    """Accept the simulations nearest to the measurement, then move them to it along a local regression.

    Args:
        accept: number of simulations that are accepted; all of them where there are fewer.
        quantile: fraction of the valid simulations that is accepted instead, at least one; 0 to accept ``accept``.
        ridge: penalty of the regression, as a fraction of a feature's variance among the accepted.
        degree: 1 for a regression on y, 2 for its squares and products in addition.
        heteroscedastic: whether the residuals are scaled by a local regression of their log variance, too.
    """

    accept: int = 4000
    quantile: float = 0.0
    ridge: float = 1e-3
    degree: int = 1
    heteroscedastic: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="abc_regression",
        version=1,
        reference="Beaumont, Zhang & Balding 2002, Genetics 162:2025",
        label="ABC + regression",
    )
    quick: ClassVar[dict[str, object]] = {"accept": 200}

    def __post_init__(self) -> None:
        if self.accept < 1:
            raise ValueError(f"accept is {self.accept}; expected 1 or more")
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile is {self.quantile}; expected a fraction of the simulations between 0 and 1")
        if not self.ridge >= SMALLEST_RIDGE:
            raise ValueError(f"ridge is {self.ridge}; expected {SMALLEST_RIDGE} or more: less is lost in rounding")
        if self.degree not in (1, 2):
            raise ValueError(f"degree is {self.degree}; expected 1 (linear) or 2 (squares and products, too)")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> AdjustedSimulations:
        """Keep the valid simulations; the regressions are made when measurements are known.

        Raises:
            ValueError: where none is valid.
        """
        bank = simulations.only_valid()
        if len(bank) == 0:
            raise ValueError(f"none of {len(simulations)} simulations is valid; expected at least one to accept")
        accept = self.accept if self.quantile == 0 else max(1, round(self.quantile * len(bank)))
        settings = {"ridge": self.ridge, "degree": self.degree, "heteroscedastic": self.heteroscedastic}
        return self.restore({"theta": bank.theta, "y": bank.y}, {"accept": min(accept, len(bank)), **settings}, problem)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> AdjustedSimulations:
        """The same bank and settings."""
        nearest = NearestSimulations(tensors["theta"], tensors["y"], settings["accept"])
        return AdjustedSimulations(
            nearest,
            ThetaMap.of(problem.prior, tensors["theta"]),
            settings["ridge"],
            settings["degree"],
            settings["heteroscedastic"],
        )

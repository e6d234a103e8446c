"""Recalibration by a Gaussian process: the error of the mean is a smooth function of y, its size depends on y too.

    t | y ~ Student_nu(m(y) + f(y),  (n + 5) / (n - 5) (var f(y) + s^2(y))),    s(y) = exp(c + d log s_base(y))
    f ~ GP(0, k),    k(y, y') = 1 + x_1 x_1' + A^2 exp(-|x(y) - x(y')|^2 / (2 l^2))

for each mapped parameter t, with mean m and sd s_base of the posterior to start from. The features x(y) are all
parameters' means, this one's first, its log s_base, and the leading principal components of unlabelled measurements.
The line in k is what affine recalibration learns; the smooth rest is what further labels buy.

A and l are found by marginal likelihood with log-normal priors: with ten labels, A stays near a twentieth of the
prior's sd and little but the line is left. c, d and nu are fitted to leave-one-out errors (Rasmussen & Williams 2006,
section 5.4.2), which do not know how flexible f is, as in-sample ones would. Both take turns, as in the most likely
heteroscedastic Gaussian process of Kersting et al. 2007 (ICML 24:393); labels that Student's t finds wild weigh less.
The processes themselves are scikit-learn's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel
from torch import Tensor
from torch.distributions import StudentT

from posterior_bench import MethodSpec, Need, Posterior, Problem, Simulations
from posterior_bench.training import Standardise

from .affine import straight_line
from .base import NEEDS, SMALLEST_SD, Base, RecalibratedStudent, Recalibration
from .spread import Spread, fit_spread

AMPLITUDE, AMPLITUDE_SPREAD = 0.05, 1.0
LENGTH, LENGTH_SPREAD = 3.0, 0.5
"""Medians of the log-normal priors of A, in sd of the prior, and of l, in sd of a feature; and sd of their logs."""

EXPECTED = 0.5
"""Of the spread about a line, what the prior expects to be left about a smooth function."""

FITTED = 5
"""A, l, c, d and nu, p in all: since they were chosen to suit the n labels, variances are widened by (n + p) / (n - p),
as the final prediction error is (Akaike 1969, Annals of the Institute of Statistical Mathematics 21:243)."""

TURNS = 3
"""Of the process and the spread."""

SCALES = 200
"""Unlabelled measurements by which the base's means and log sd are standardised."""

WIDEST = 3.0
"""Standardised log sd of the base beyond which it says no more: it is an outlier, and s(y) must not follow it."""


class Line(Kernel):
    """1 + x_0 x_0' for the first feature: the covariance of a line with intercept and slope ~ N(0, 1)."""

    def __init__(self) -> None:
        """No hyperparameters; scikit-learn asks for a constructor that says so."""

    def __call__(self, X, Y=None, eval_gradient: bool = False):  # type: ignore[no-untyped-def]
        """The matrix and, where asked for, its gradient in no hyperparameters; the signature is scikit-learn's."""
        matrix = 1 + np.outer(X[:, 0], (X if Y is None else Y)[:, 0])
        return (matrix, np.empty((*matrix.shape, 0))) if eval_gradient else matrix

    def diag(self, X: np.ndarray) -> np.ndarray:
        """The diagonal of the matrix."""
        return 1 + X[:, 0] ** 2

    def is_stationary(self) -> bool:
        """It is not: a line has an origin."""
        return False


class GPPosterior(RecalibratedStudent):
    """The predictive distribution of the process and the spread; see the module's docstring."""

    def __init__(self, base: Base, correction: Mapping[str, Tensor]) -> None:
        super().__init__(base, correction)
        known = {name: value.double().cpu().numpy() for name, value in correction.items()}
        self._processes = [
            process(
                columns(known["features"], d, known["error"].shape[1]), known["error"][:, d], known["variance"][d], at
            )
            for d, at in enumerate(known["hyperparameters"])
        ]

    def _predictive(self, y: Tensor) -> StudentT:
        mean = self.base.moments(y).mean
        features = features_of(self.base, self.correction, y).double().cpu().numpy()
        dim = mean.shape[1]
        count = len(self.correction["features"])
        loc, scale = np.empty(mean.shape), np.empty(mean.shape)
        for d, fitted in enumerate(self._processes):
            error, sd = fitted.predict(columns(features, d, dim), return_std=True)
            spread = Spread(*self.correction["spread"][d].tolist())
            square = sd**2 + spread.square(clipped(features, d, dim))
            loc[:, d], scale[:, d] = error, np.sqrt(square * (count + FITTED) / max(count - FITTED, 1))
        df = self.correction["spread"][:, 2].to(mean)
        return StudentT(df, mean + torch.from_numpy(loc).to(mean), torch.from_numpy(scale).to(mean))


@dataclass(frozen=True)
class RecalibratedGP(Recalibration):
    """Correction of the mean by a Gaussian process, with an sd that depends on the measurement.

    Args:
        components: principal components of y among the features; fewer where y has fewer numbers.
    """

    components: int = 10

    spec: ClassVar[MethodSpec] = MethodSpec(
        "recalibrated_gp",
        1,
        "Kersting et al. 2007, ICML 24:393, on the errors of another posterior's mean",
        NEEDS | {Need.UNLABELLED},
        label="recalibrated, Gaussian process",
    )
    quick: ClassVar[Mapping[str, object]] = {"labels": 20}

    def _learn(self, base: Base, pairs: Simulations, problem: Problem) -> dict[str, Tensor]:
        y = problem.unlabelled
        y = torch.cat([pairs.y, y[torch.isfinite(y.flatten(1)).all(1)]])
        known = scales(base, y, self.components)
        mean, real = base.moments(pairs.y).mean, base.theta_map(pairs.theta)
        features = features_of(base, known, pairs.y)
        dim = real.shape[1]
        wide = features.double().cpu().numpy()
        error = (real - mean).double().cpu().numpy()
        line = straight_line(mean, real)
        residual = real - line["middle_theta"] - line["slope"] * (mean - line["middle_mean"])
        # not their sd: a few wild ones would make it so large that the process starts, and stays, without a use
        rough = (1.4826 * residual.abs().quantile(0.5, dim=0)).clamp_min(SMALLEST_SD).double().cpu().numpy()
        found = [learn(columns(wide, d, dim), error[:, d], clipped(wide, d, dim), float(rough[d])) for d in range(dim)]
        learned = [torch.from_numpy(np.stack(part)).to(real) for part in zip(*found, strict=True)]
        names = ("hyperparameters", "variance", "spread")
        return known | {"features": features, "error": real - mean} | dict(zip(names, learned, strict=True))

    def _posterior(self, base: Base, correction: Mapping[str, Tensor]) -> Posterior:
        return GPPosterior(base, correction)


def scales(base: Base, y: Tensor, components: int) -> dict[str, Tensor]:
    """What makes features of measurements: scales, and principal components of y (N, *y_shape), labelled ones first."""
    y_map = Standardise.of(y)
    standard = y_map(y)
    _, values, directions = torch.linalg.svd(standard.double(), full_matrices=False)
    kept = min(components, int((values > 1e-6 * values[0]).sum()))
    # scores with an sd of the square root of their share in the first one's: whitened, noise would count as much
    sizes = values[:kept] / math.sqrt(len(y))
    weights = (sizes / sizes[0]).sqrt() / sizes if kept else sizes
    mean, sd = base.moments(y[:SCALES])
    moments = Standardise.of(torch.cat([mean, sd.log()], dim=1))
    return {
        "y_loc": y_map.loc,
        "y_scale": y_map.scale,
        "components": (directions[:kept].T * weights).to(standard).contiguous(),
        "moments_loc": moments.loc,
        "moments_scale": moments.scale,
    }


def features_of(base: Base, known: Mapping[str, Tensor], y: Tensor) -> Tensor:
    """Standardised means and log sd of all parameters, then components of y: (B, 2 D + K), for y (B, *y_shape)."""
    mean, sd = base.moments(y)
    moments = (torch.cat([mean, sd.log()], dim=1) - known["moments_loc"]) / known["moments_scale"]
    return torch.cat([moments, ((y.flatten(1) - known["y_loc"]) / known["y_scale"]) @ known["components"]], dim=1)


def columns(features: np.ndarray, d: int, dim: int) -> np.ndarray:
    """Those of the features (B, 2 D + K) that parameter d uses, its own mean first: (B, D + 1 + K)."""
    others = [i for i in range(dim) if i != d]
    return features[:, [d, *others, dim + d, *range(2 * dim, features.shape[1])]]


def clipped(features: np.ndarray, d: int, dim: int) -> np.ndarray:
    """The feature (B,) of the spread of parameter d."""
    return np.clip(features[:, dim + d], -WIDEST, WIDEST)


def learn(x: np.ndarray, error: np.ndarray, feature: np.ndarray, rough: float) -> tuple[np.ndarray, ...]:
    """Process and spread of one parameter.

    Args:
        x: features (N, F) of the labels.
        error: of the base's mean, (N,).
        feature: of the spread, (N,).
        rough: sd of the errors of a line, by their median, to begin with.

    Returns:
        log A^2 and log l; the variance (N,) of each label's noise, over its weight; and the spread's c, d and nu.
    """
    at = np.array([2 * math.log(AMPLITUDE), math.log(LENGTH)])
    variance = np.full(len(error), rough**2)
    spread = Spread(math.log(rough), 0.0, 6.0)
    for _ in range(TURNS):
        fitted = process(x, error, variance, at, _penalised)
        at = fitted.kernel_.theta
        precision = np.linalg.inv(fitted.kernel_(x) + np.diag(variance))
        left_out = precision @ error / np.diag(precision)
        of_process = np.maximum(1 / np.diag(precision) - variance, 0)
        spread = fit_spread(left_out, feature, of_process, EXPECTED * rough)
        noise = np.maximum(spread.square(feature), SMALLEST_SD**2)
        variance = noise * (spread.df + left_out**2 / (of_process + noise)) / (spread.df + 1)
    return at, variance, np.array(spread)


def process(
    x: np.ndarray, error: np.ndarray, variance: np.ndarray, at: np.ndarray, optimiser: Callable | None = None
) -> GaussianProcessRegressor:
    """The process given errors (N,) with variances (N,) at features (N, F), with hyperparameters log A^2 and log l."""
    smooth = ConstantKernel(math.exp(at[0]), (1e-8, 1e2)) * RBF(math.exp(at[1]), (1e-2, 1e3))
    return GaussianProcessRegressor(Line() + smooth, alpha=variance, optimizer=optimiser).fit(x, error)


def _penalised(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, float]:
    """Minimise minus the log marginal likelihood and log prior; the signature is scikit-learn's."""
    middle = np.array([2 * math.log(AMPLITUDE), math.log(LENGTH)])
    width = np.array([2 * AMPLITUDE_SPREAD, LENGTH_SPREAD])

    def penalised(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(at)
        z = (at - middle) / width
        return float(value + 0.5 * z @ z), slope + z / width

    found = minimize(penalised, middle, jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x, found.fun

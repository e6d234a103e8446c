"""Affine recalibration: the error of the mean is a straight line and noise of constant size.

    t | y ~ Student_{n-2}(a + b m(y),  s^2 (1 + 1/n + (m(y) - mbar)^2 / S_mm))

for each mapped parameter t and the mean m(y) of the posterior to start from; a, b by least squares on n labelled pairs,
s^2 = RSS / (n - 2). It is the predictive distribution of simple linear regression under the flat prior
p(a, b, log s) (Gelman et al. 2013, Bayesian Data Analysis, 3rd ed., section 14.2): with few labels it is as much wider
as a, b and s are uncertain. Whatever the posterior to start from says of its own width is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import StudentT

from posterior_bench import MethodSpec, Posterior, Problem, Simulations

from .base import NEEDS, SMALLEST_SD, Base, RecalibratedStudent, Recalibration


class AffinePosterior(RecalibratedStudent):
    """The predictive distribution of the regression; see the module's docstring."""

    def _predictive(self, y: Tensor) -> StudentT:
        line, mean = self.correction, self.base.moments(y).mean
        loc = line["middle_theta"] + line["slope"] * (mean - line["middle_mean"])
        leverage = 1 / line["count"] + (mean - line["middle_mean"]) ** 2 / line["squares"]
        return StudentT(line["count"] - 2, loc, line["sd"] * (1 + leverage).sqrt())


@dataclass(frozen=True)
class RecalibratedAffine(Recalibration):
    """Affine correction of the mean with an sd that is the same for all measurements."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        "recalibrated_affine",
        1,
        "Gelman et al. 2013, Bayesian Data Analysis, section 14.2",
        NEEDS,
        label="recalibrated, affine",
    )
    quick: ClassVar[Mapping[str, object]] = {"labels": 20}

    def _learn(self, base: Base, pairs: Simulations, problem: Problem) -> dict[str, Tensor]:
        return straight_line(base.moments(pairs.y).mean, base.theta_map(pairs.theta))

    def _posterior(self, base: Base, correction: Mapping[str, Tensor]) -> Posterior:
        return AffinePosterior(base, correction)


def straight_line(mean: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Least squares of mapped parameters (N, D) on means (N, D), a parameter at a time; each result is (D,) or ().

    ``squares`` is S_mm, infinite, and the slope 0, where the means are all the same.
    """
    count = len(mean)
    middle_mean, middle_theta = mean.mean(0), real.mean(0)
    centred = mean - middle_mean
    squares = centred.square().sum(0)
    constant = squares < count * SMALLEST_SD**2
    squares = torch.where(constant, torch.full_like(squares, math.inf), squares)
    slope = (centred * (real - middle_theta)).sum(0) / squares
    residual = real - middle_theta - slope * centred
    return {
        "middle_mean": middle_mean,
        "middle_theta": middle_theta,
        "slope": slope,
        "squares": squares,
        "sd": (residual.square().sum(0) / (count - 2)).sqrt().clamp_min(SMALLEST_SD),
        "count": real.new_tensor(count),
    }

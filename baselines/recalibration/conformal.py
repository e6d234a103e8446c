"""Split-conformal recalibration: errors of a held-back half of the labels say how far the truth may be off.

    z_j = (t_j - centre(y_j)) / scale(y_j),  j in the second half;      t | y = centre(y) + scale(y) Q(u),  u ~ U(0, 1)
    Q(j / (k + 1)) = z_(j),  linear in between

The conformal predictive distribution of Vovk et al. 2018 (Machine Learning 108:445), split as by Vovk et al. 2020
(PMLR 128:84): if labels and measurement are exchangeable, the truth falls between z_(j) and z_(j+1) with probability
1 / (k + 1), whatever centre and scale, which the first half fits: the centre by a straight line in the base's mean, the
scale by its log sd. With fewer than ``ENOUGH`` labels in that half they are the base's mean and a constant.

Beyond the extreme errors ranks say nothing but that 1 / (k + 1) of the truths lie there on either side. There the
quantiles go on as those of Student's t with ``TAIL_DF`` degrees of freedom and the sd of the z, times sqrt(1 + 1 / k).
So with 10 labels the 90 % interval is finite, and wider than the five errors themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from posterior_bench import MethodSpec, Posterior, Problem, Simulations

from .affine import straight_line
from .base import NEEDS, SMALLEST_SD, Base, Recalibrated, Recalibration
from .spread import fit_spread

ENOUGH = 10
"""Labels that a line and the slope of a log scale take."""

TAIL_DF = 2.0
"""With k - 1, the 90 % interval of five errors holds 90 % of the truths if they are normal, and 88 % if they are
Student's t with 3 degrees of freedom, or normal with an sd that varies by a factor of 7; with 2 it holds 92 to 95 %."""


class ConformalPosterior(Recalibrated):
    """Draws by inversion of the predictive distribution, the parameters independent of each other given y."""

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        with torch.no_grad():
            centre, scale = centre_and_scale(self.base, self.correction, y)
            levels = torch.rand(n, *centre.shape, dtype=centre.dtype, device=centre.device)
            errors = [quantile(z, u) for z, u in zip(self.correction["errors"].T, levels.unbind(-1), strict=True)]
            return self.base.theta_map.inverse(centre + scale * torch.stack(errors, dim=-1))


@dataclass(frozen=True)
class RecalibratedConformal(Recalibration):
    """Split-conformal predictive distribution of errors of the mean, normalised by what the base's sd is worth."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        "recalibrated_conformal",
        1,
        "Vovk et al. 2020, PMLR 128:84",
        NEEDS,
        label="recalibrated, conformal",
    )
    quick: ClassVar[Mapping[str, object]] = {"labels": 20}

    def _learn(self, base: Base, pairs: Simulations, problem: Problem) -> dict[str, Tensor]:
        half = len(pairs) // 2
        real = base.theta_map(pairs.theta)
        mean, sd = base.moments(pairs.y[:half])
        known = _fit_centre(mean, sd.log(), real[:half])
        centre, scale = centre_and_scale(base, known, pairs.y[half:])
        return known | {"errors": ((real[half:] - centre) / scale).sort(0).values}

    def _posterior(self, base: Base, correction: Mapping[str, Tensor]) -> Posterior:
        return ConformalPosterior(base, correction)


def _fit_centre(mean: Tensor, log_sd: Tensor, real: Tensor) -> dict[str, Tensor]:
    """centre = intercept + slope m, scale = exp(power (log s - middle)), each (D,), from labels (N, D)."""
    none = torch.zeros_like(mean[0])
    if len(mean) < ENOUGH:
        return {"intercept": none, "slope": none + 1, "middle": none, "power": none}
    line = straight_line(mean, real)
    intercept = line["middle_theta"] - line["slope"] * line["middle_mean"]
    error = real - intercept - line["slope"] * mean
    middle = log_sd.mean(0)
    width = log_sd.std(0).clamp_min(SMALLEST_SD)
    features = ((log_sd - middle) / width).double().cpu().numpy()
    pairs = zip(error.double().cpu().numpy().T, features.T, strict=True)
    slopes = [
        fit_spread(e, f, np.zeros_like(e), 1.2 * float(np.median(np.abs(e))) + SMALLEST_SD).slope for e, f in pairs
    ]
    # where the log sd hardly varies, it cannot say which measurement is uncertain
    power = torch.where(width > 1e-3, mean.new_tensor(slopes) / width, none)
    return {"intercept": intercept, "slope": line["slope"], "middle": middle, "power": power}


def centre_and_scale(base: Base, known: Mapping[str, Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and scale, each (B, D), for measurements y (B, *y_shape); a scale is at most twentyfold, either way."""
    mean, sd = base.moments(y)
    log_scale = known["power"] * (sd.log() - known["middle"])
    return known["intercept"] + known["slope"] * mean, log_scale.clamp(-math.log(20), math.log(20)).exp()


def quantile(errors: Tensor, levels: Tensor) -> Tensor:
    """Q(u), (...,), of the module's docstring, for sorted errors (k,), k >= 2, and levels u (...,) in [0, 1)."""
    k = len(errors)
    place = levels * (k + 1)
    below = place.floor().long().clamp(1, k - 1)
    inner = torch.lerp(errors[below - 1], errors[below], (place - below).clamp(0, 1))
    # the sd of errors that are all the same is zero, as it should be
    reach = errors.std() * math.sqrt(1 + 1 / k)
    # the level at the far ends is finite: draws are numbers
    tail = np.clip(np.asarray(levels.double().cpu()), 1e-9, 1 - 1e-9)
    student = torch.as_tensor(stats.t.ppf(tail, TAIL_DF)).to(errors)
    edge = float(stats.t.ppf(1 / (k + 1), TAIL_DF))
    beyond = torch.where(place < 1, (student - edge).clamp(max=0), (student + edge).clamp(min=0))
    return inner + torch.where((place < 1) | (place > k), reach * beyond, torch.zeros_like(beyond))

"""Posterior predictive check: how far are re-simulated draws s(theta) from y*, against s(theta*) simulated once more?

Distances d = rms over the dimensions of (s(theta) - y*) / sd(y); their median is the one of Lueckmann et al. 2021
(arXiv 2101.04653) but for the units. Given y*, the truth and a draw of an exact posterior are exchangeable, and so are
their distances, for any simulator: this is simulation-based calibration of a quantity that depends on the data
(Modrák et al. 2023, arXiv 2211.02383), with no density and no reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .inputs import check
from .measurements import chosen
from .nulls import NORMAL_95, some_rows, standard_error
from .resimulation import simulated

SMALLEST = 20
"""Measurements at least: a median of fewer distances says little."""

NOISELESS = 1e-5
"""Largest distance, in sd of y, at which simulations at theta* count as y* itself."""

RESAMPLES = 200
"""Of the measurements with replacement, for the standard error of a ratio of medians."""


def distances_again(theta: Tensor, truth: Truth, which: Tensor) -> Tensor:
    """Distances d (k, E) of simulations at theta (k, E, D) from the measurements ``which`` (E,).

    Infinite outside the prior's support and where a simulation fails. A dimension of y that is constant keeps scale 1.
    """
    y = truth.y.flatten(1)
    sd = y[torch.isfinite(y).all(1)].std(0)
    again, _ = simulated(theta.flatten(0, 1), truth)
    errors = (again.view(*theta.shape[:2], -1) - y[which]) / torch.where(sd > 0, sd, torch.ones_like(sd))
    return errors.square().mean(-1).sqrt().nan_to_num(torch.inf).double()


def ratio_of_medians(found: Tensor, unit: Tensor) -> Tensor:
    """Median of distances (..., k, E) over that of others (..., k, E): (...)."""
    return found.flatten(-2).median(-1).values / unit.flatten(-2).median(-1).values


@dataclass(frozen=True)
class PosteriorPredictive(Metric):
    """Distances of re-simulated draws from the measurement, in units of the simulator's own noise.

    - ``posterior_predictive``: median over draws and measurements of d, over the median of d at theta*. 1 for exact
      draws; above it they explain the measurements worse than the truth does, below it better, as too narrow ones and
      estimates do.
    - ``posterior_predictive_bias``: how much more often than half a draw is farther off than the truth, of all pairs of
      a simulation at a draw and one at theta* of its measurement, ties counting half. Positive where draws are wrong,
      too wide, or the prior's; negative where they are too narrow.

    The null values, 1 and 0, are known; bands are as wide as the spread over measurements has it, +-1.96 standard
    errors. A draw outside the prior's support or without a valid simulation is infinitely far away. Nothing where
    simulations at theta* give y* again (there is no noise to measure by), nor for fewer than 20 measurements; no ratio
    where a median is zero, as it may be for whole numbers, or infinite.

    Args:
        draws: of each measurement that are simulated, once each; as many simulations are run at theta*.
        measurements: simulated at, the same for every method.
    """

    name: ClassVar[str] = "posterior_predictive"
    version: ClassVar[int] = 1
    draws: int = 10
    measurements: int = 250

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """Two scores, with ``per_measurement`` (E,) and which measurements they are as an artefact."""
        check(draws, truth)
        which = chosen(truth.y, self.measurements).sort().values
        which = which[torch.isfinite(truth.y.flatten(1)).all(1)[which]]
        if len(which) < SMALLEST:
            return
        points = draws.theta[some_rows(len(draws.theta), self.draws, which.device)][:, which]
        unit = distances_again(truth.theta[which].expand_as(points), truth, which)
        # a simulator without noise repeats itself but for rounding
        if not (unit[unit.isfinite()] > NOISELESS).any():
            return
        found = distances_again(points, truth, which)
        again = torch.randint(len(which), (RESAMPLES, len(which)), device=which.device)
        ratio, spread = ratio_of_medians(found, unit), ratio_of_medians(found.T[again].mT, unit.T[again].mT).std()
        each = found.median(0).values / unit.median()
        if torch.stack([ratio, spread]).isfinite().all():
            yield _score(self.name, float(ratio), 1.0, float(spread), each, which)
        farther = (found[:, None] > unit[None]).double() + 0.5 * (found[:, None] == unit[None]).double()
        each = farther.mean((0, 1)) - 0.5
        yield _score(f"{self.name}_bias", float(each.mean()), 0.0, standard_error(each) or 0.0, each, which)


def _score(metric: str, value: float, null: float, error: float, each: Tensor, which: Tensor) -> Score:
    half = NORMAL_95 * error
    artefacts = {"measurements": which}
    return Score(metric, value, error, null - half, null + half, per_measurement=each, artefacts=artefacts)

"""Re-simulation: does the simulator, run at the estimate, give the measurement back?

MAP re-simulation error and simulation noise as in Ardizzone et al. 2019 (arXiv 1808.04730), the mean squared
re-simulation error of draws, Err_resim, as in Kruse et al. 2021 (arXiv 2101.10763).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..priors import in_support
from ..records import Draws, Score, Truth
from .inputs import check
from .map_estimate import map_estimate, map_estimate_density
from .nulls import root_mean, some_rows, standard_error

MEASUREMENTS, DRAWS = 200, 20
"""Of Err_resim: measurements, and draws of each. A simulation may be dear."""

ROWS = 4096
"""Simulations in one call."""


def simulated(theta: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """Measurements (N, M) at theta (N, D), flattened, and which are valid (N,).

    A simulator promises nothing outside the support of its prior: such rows are not run. They and failed simulations
    are NaN, and not valid.
    """
    y = truth.y.new_full((len(theta), truth.y[0].numel()), torch.nan)
    inside = in_support(truth.prior, theta).nonzero()[:, 0]
    for rows in inside.split(ROWS):
        if len(rows):
            y[rows] = truth.simulate(theta[rows]).flatten(1)
    valid = torch.isfinite(y).all(1)
    y[~valid] = torch.nan
    return y, valid


class Resimulation(Metric):
    """Simulations at the estimate against the measurement.

    - ``map_resimulation_error``: root mean square of (s(theta_MAP) - y*) / sd(y) over the first 2,000 measurements and
      all dimensions, with the noise of s; ``per_measurement`` is its square. ``map_resimulation_error_density`` by the
      mode of the density.
    - ``simulation_noise``: the same with theta* for theta_MAP. **It is the scale**: what exact draws reach. A mode may
      lie below it, which is no merit; a pseudo-truth has no measurement of its own, so there is no null band.
    - ``err_resim``: mean over 200 measurements and 20 draws each of |s(theta) - y*|^2, in raw units, summed over the
      dimensions. It alone rewards a collapse onto one mode: read it with ``err_post`` or the calibration.
    - ``resimulation_invalid``, ``resimulation_invalid_density``, ``err_resim_invalid``: fraction of the estimates, or
      draws, outside the prior's support or without a valid simulation. They are left out of the scores above.

    A dimension of y that does not vary in the test set keeps scale 1.
    """

    name = "map_resimulation_error"
    version = 3
    single = True

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores, with ``per_measurement`` (min(T, 2000),), NaN where a measurement is left out."""
        check(draws, truth)
        y = truth.y.flatten(1)
        if truth.y_sd is None:
            known = torch.isfinite(y).all(1)
            sd = y[known].std(0) if int(known.sum()) > 1 else torch.ones_like(y[0])
        else:
            sd = truth.y_sd.flatten()
        sd = torch.where(sd > 0, sd, torch.ones_like(sd))

        def squares(theta: Tensor) -> Tensor:
            return (((simulated(theta, truth)[0] - y[: len(theta)]) / sd) ** 2).mean(1)

        estimates = {"": map_estimate(draws)}
        if draws.log_density is not None:
            estimates["_density"] = map_estimate_density(draws)
        for suffix, estimate in estimates.items():
            yield from _scores(f"{self.name}{suffix}", f"resimulation_invalid{suffix}", squares(estimate))
        noise = squares(truth.theta[: len(estimates[""])])
        if not noise.isnan().all():
            yield root_mean("simulation_noise", noise)
        yield from self._of_draws(draws, truth)

    def _of_draws(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        chosen = draws.theta[some_rows(len(draws.theta), DRAWS, draws.theta.device), :MEASUREMENTS]
        y = truth.y[: chosen.shape[1]].flatten(1)
        again, valid = simulated(chosen.flatten(0, 1), truth)
        errors = ((again.view(len(chosen), *y.shape) - y) ** 2).sum(-1)
        each = errors.nanmean(0)
        kept = each[~each.isnan()]
        if len(kept):
            value = float(kept.double().mean())
            yield Score("err_resim", value, standard_error(kept), per_measurement=each)
        lost = (~valid).view(errors.shape).double().mean(0)
        yield Score("err_resim_invalid", float(lost.mean()), standard_error(lost), per_measurement=lost)


def _scores(metric: str, invalid: str, squares: Tensor) -> Iterator[Score]:
    lost = squares.isnan().double()
    if not lost.all():
        yield root_mean(metric, squares)
    yield Score(invalid, float(lost.mean()), standard_error(lost), per_measurement=lost)

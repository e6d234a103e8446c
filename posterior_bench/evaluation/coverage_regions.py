"""Coverage of regions of all parameters at once: P(theta* in the region of credibility c) = c for an exact posterior.

Two families of regions. Those of highest density, {theta : q(theta | y) > t} (Hyndman 1996, Am. Stat. 50:120), where
there is a density; and balls about random points, {theta : |theta - r| < R} (TARP: Lemos, Coogan, Hezaveh &
Perreault-Levasseur 2023, arXiv 2302.03026), where there need be none. Of either, the smallest credibility u whose
region holds the truth is uniform. Marginals can all be calibrated while the regions are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks
from .calibration import randomised_ranks
from .inputs import check
from .log_score import densities
from .measurements import chosen
from .nulls import some_rows
from .rank_statistics import centred_mean, uniformity


def density_credibility(draws: Draws, truth: Truth) -> Tensor:
    """Credibility u (T,) of the smallest region of highest density that holds the truth.

    u is the randomised rank of -log q(theta* | y) among that of 32 draws: 0 at the mode, 1 in a tail.
    """
    at_truth, at_draws = densities(draws, truth)
    return randomised_ranks(-at_draws.unsqueeze(-1), -at_truth.unsqueeze(-1))[:, 0]


def ball_credibility(draws: Tensor, theta: Tensor, centres: Tensor) -> Tensor:
    """Credibility u (T,) of the smallest ball about the point of each measurement that holds the truth.

    Args:
        draws: (n, T, D), in units that make the parameters comparable.
        theta: (T, D), the truth.
        centres: (T, D), drawn without a look at the truth.
    """
    found = torch.empty(len(theta), dtype=torch.float64, device=theta.device)
    for part in chunks(len(theta), draws[:, 0].numel()):
        near = (draws[:, part] - centres[part]).norm(dim=-1)
        at = (theta[part] - centres[part]).norm(dim=-1)
        found[part] = randomised_ranks(near.unsqueeze(-1), at.unsqueeze(-1))[:, 0]
    return found


class HighestDensityCoverage(Metric):
    """Coverage of highest-density regions, where the posterior has a density.

    - ``hpd_coverage_bias``: mean over credibilities c of (fraction of truths inside) - c, which is 1/2 - mean u.
      Negative is over-confident. Its band is +-1.96 / sqrt(12 T).
    - ``hpd_coverage_deviation``, ``hpd_coverage_p_value``: the largest distance of the curve from the diagonal, and the
      probability of one as far by simultaneous bands (below 0.05 is wrong with 95 %).

    A posterior that misses a mode is over-confident here, also where its marginals are not. Density and draws must
    belong together: a density that is wrong by a constant for each measurement changes nothing. The prior passes.
    Nothing where T < 3.
    """

    name = "hpd_coverage_bias"
    version = 1

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores; ``per_measurement`` (T,) of the bias is 1/2 - u."""
        if draws.log_density is None:
            return
        check(draws, truth)
        if len(truth.theta) < 3:
            return
        u = density_credibility(draws, truth)
        yield centred_mean(self.name, 0.5 - u)
        yield from uniformity("hpd_coverage", u)


@dataclass(frozen=True)
class BallCoverage(Metric):
    """TARP: coverage of balls about random points, for any posterior that gives draws.

    - ``tarp_coverage_bias``: mean over c of (fraction of truths in the central c of the balls) - c, which is
      1/2 - mean |2u - 1|. Negative is over-confident. Its band is +-1.96 / sqrt(12 T).
    - ``tarp_deviation``, ``tarp_p_value``: the largest distance of P(u < c) from c, and the probability of one as far
      by simultaneous bands (below 0.05 is wrong with 95 %); a bias shows in these, too.

    The points are draws of the prior, one a measurement and the same for every method; distances are in units of the
    prior's standard deviations. Points that know nothing of y cannot tell the prior from the posterior. Nothing
    where T < 3.

    Args:
        draws: of each measurement that are used.
    """

    name: ClassVar[str] = "tarp_coverage_bias"
    version: ClassVar[int] = 1
    draws: int = 500

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores; ``per_measurement`` (T,) of the bias is 1/2 - |2u - 1|."""
        check(draws, truth)
        if len(truth.theta) < 3:
            return
        scale = truth.prior_sd
        # by content, so that a measurement keeps its point; where draws of the prior are fewer, several share one
        place = torch.empty(len(truth.theta), dtype=torch.long, device=scale.device)
        place[chosen(truth.y, len(place))] = torch.arange(len(place), device=scale.device)
        centres = truth.prior_draws[place % len(truth.prior_draws)]
        rows = some_rows(len(draws.theta), self.draws, draws.theta.device)
        u = ball_credibility(draws.theta[rows] / scale, truth.theta / scale, centres / scale)
        yield centred_mean(self.name, 0.5 - (2 * u - 1).abs())
        yield from uniformity("tarp", u)

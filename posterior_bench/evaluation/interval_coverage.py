"""Coverage of central intervals, P(|2u - 1| < c) for c = 50 and 90 %, and how wide they are.

u is the randomised rank of the truth among the draws, see ``calibration``: for an exact posterior it is uniform for any
number of draws, so that the number of truths inside is Binomial(T, c) and the null band is exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import bdtr
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks, sort
from .calibration import randomised_ranks
from .inputs import check, names
from .nulls import standard_error

PERCENT = (50, 90)
"""Confidences whose coverage is told, in per cent."""

WIDTH = 90
"""The one whose intervals are measured."""


def binomial_band(total: int, probability: float) -> tuple[float, float]:
    """Central 95 % of the share of ``total`` independent trials that succeed, ends included.

    The ends are the smallest shares whose distribution function reaches 2.5 % and 97.5 %: with few trials they hold
    more than 95 %.

    >>> binomial_band(10, 0.5)
    (0.2, 0.8)
    """
    below = bdtr(np.arange(total + 1), total, probability)
    low, high = np.searchsorted(below, (0.025, 0.975))
    return float(low / total), float(high / total)


def central_widths(draws: Tensor, confidence: float) -> Tensor:
    """Widths (T, D) of the central intervals of draws (n, T, D), in their units.

    An end lies at the order statistic p (n + 1), p = (1 - c) / 2, between two draws where that is no whole number: the
    interval then holds one more draw with probability c, whatever n is. With n < 2 / (1 - c) - 1 draws it is their
    range, which is too narrow.
    """
    n = len(draws)
    place = max(0.0, (1 - confidence) / 2 * (n + 1) - 1)
    below, rest = int(place), place - int(place)
    found = torch.empty_like(draws[0])
    for part in chunks(draws.shape[1], draws[:, 0].numel()):
        ordered = sort(draws[:, part].permute(1, 2, 0).contiguous())
        low, high = (torch.lerp(o[..., below], o[..., below + 1], rest) for o in (ordered, ordered.flip(-1)))
        found[part] = high - low
    return found


class IntervalCoverage(Metric):
    """Coverage of each parameter's central intervals of 50 and 90 %, as fractions.

    - ``coverage_50/<p>``, ``coverage_90/<p>``: fraction of the truths inside; below the band is over-confident. The
      band is exact, and of one parameter at one confidence; ``coverage_bias`` asks for all confidences at once.
    - ``width_90/<p>``: mean width of the intervals of 90 %, in sd of the prior. The prior's own is 3.3 where it is
      normal, 3.1 where it is uniform. No band: how wide an exact posterior is, draws cannot tell.

    The ranks that the coverage comes from are artefacts of ``calibration_error``. Nothing where T < 3.
    """

    name = "coverage_90"
    version = 1

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """Three scores a parameter."""
        check(draws, truth)
        total = len(truth.theta)
        if total < 3:
            return
        central = (2 * randomised_ranks(draws.theta, truth.theta) - 1).abs()
        for percent in PERCENT:
            held = (central < percent / 100).double()
            low, high = binomial_band(total, percent / 100)
            for k, name in enumerate(names(truth)):
                own = held[:, k]
                yield Score(f"coverage_{percent}/{name}", float(own.mean()), standard_error(own), low, high)
        widths = central_widths(draws.theta, WIDTH / 100) / truth.prior_sd
        for k, name in enumerate(names(truth)):
            own = widths[:, k].double()
            yield Score(f"width_{WIDTH}/{name}", float(own.mean()), standard_error(own))

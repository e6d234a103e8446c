"""Stray draws: those at a landmark that the measurement excludes, and those at none.

Where a simulator names points of its parameter space, such as the modes of a mixture, exact draws of a measurement lie
about some of them. A map from one Gaussian to several modes has to be torn; where it is not, draws lie between modes,
and where conditioning is weak, they lie at modes of another label. Both are what Ardizzone et al. 2019
(arXiv:1808.04730, fig. 2) show by eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks, squared_distances
from .inputs import check
from .nulls import NORMAL_95, standard_error

FAR = 4.0
"""A draw is far beyond so many sd of the exact draws about their landmarks; of a Gaussian in the plane, 0.034 % are."""

SEEN = 0.01
"""A landmark lies behind a measurement where at least this share of the exact draws is nearest to it."""


class StrayDraws(Metric):
    """``stray_draws/other_landmark`` and ``stray_draws/far``, shares of draws, means over R reference measurements.

    The first counts draws whose nearest landmark is nearest to no more than 1 % of the measurement's exact draws, the
    second those farther from every landmark than 4 sd, one sd a dimension being that of the exact draws about theirs.
    Nothing where the simulator names no landmarks or there is no reference. The null bands are from zero to what
    exact draws of the same number reach, by the normal approximation to their count.
    """

    name = "stray_draws"

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """Two scores, with ``per_measurement`` (R,)."""
        check(draws, truth)
        if truth.landmarks is None or truth.reference is None:
            return
        exact, landmarks = truth.reference, truth.landmarks
        nearest, squared = nearest_landmark(exact, landmarks)
        sd = (squared.mean() / exact.shape[-1]).sqrt()
        behind = torch.stack([(nearest == index).double().mean(0) for index in range(len(landmarks))], dim=1) > SEEN
        own = strays(nearest, squared, behind, sd)
        count = len(draws.theta) * exact.shape[1]
        found = strays(*nearest_landmark(draws.theta[:, : exact.shape[1]], landmarks), behind, sd)
        for name, each, null in zip(("other_landmark", "far"), found, own, strict=True):
            share = float(null.mean())
            high = share + NORMAL_95 * math.sqrt(share * (1 - share) * (1 / count + 1 / null.numel() / len(exact)))
            yield Score(
                f"{self.name}/{name}", float(each.mean()), standard_error(each), 0.0, high, per_measurement=each
            )


def nearest_landmark(draws: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the landmark (L, D) nearest to each draw (n, R, D), and its squared distance; each (n, R)."""
    flat = draws.flatten(0, 1)
    parts = [
        squared_distances(flat[part][None], landmarks.to(draws.dtype)[None])[0].min(-1)
        for part in chunks(len(flat), len(landmarks))
    ]
    index, squared = torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])
    return index.view(draws.shape[:2]), squared.view(draws.shape[:2])


def strays(nearest: Tensor, squared: Tensor, behind: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
    """Shares (R,) of draws at a landmark that is not behind the measurement, and of draws far from all.

    Args:
        nearest, squared: (n, R), from ``nearest_landmark``.
        behind: (R, L), which landmarks are behind each measurement.
        sd: of exact draws about their landmark, a dimension.
    """
    excluded = ~behind.T.gather(0, nearest)
    return excluded.double().mean(0), (squared > (FAR * sd) ** 2).double().mean(0)

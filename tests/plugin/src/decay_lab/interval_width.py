"""How wide are the central 68 % intervals, in standard deviations of the prior?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from posterior_bench import Draws, Metric, Score, Truth


class IntervalWidth(Metric):
    """``interval_width/<parameter>``: mean over the test set. A width has no null band."""

    name = "interval_width"
    version = 1

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        low, high = draws.theta.quantile(torch.tensor([0.16, 0.84]), dim=0)
        width = (high - low) / truth.prior_sd  # (T, D)
        for parameter, each in zip(truth.parameters, width.unbind(1), strict=True):
            error = float(each.std()) / math.sqrt(len(each))
            yield Score(f"{self.name}/{parameter.name}", float(each.mean()), error, per_measurement=each)

"""Calibration where the measurement lies: max over bins b of y of the calibration score of the ranks in b.

Over all measurements, too wide here and too narrow there cancel, and the prior is perfectly calibrated. Given y, ranks
are uniform for an exact posterior alone; so they are within every bin of y.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .calibration import LEVELS, calibration_score, confidences, curve, randomised_ranks
from .inputs import check, names
from .measurements import principal_components

SMALLEST = 30
"""Measurements in a bin at least; fewer bins where there are fewer."""

SIMULATIONS = 1000
"""Sets of uniform ranks behind a band."""


def within(ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Calibration score and mean signed coverage (...,) of the ranks (size, ...) of one bin."""
    curves = curve(ranks)
    return calibration_score(curves, len(ranks)), curves.mean(-1)


@lru_cache(maxsize=16)
def worst_of_uniform(size: int, bins: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Central 95 % of the largest calibration score and of the least coverage over bins of ``size`` uniform ranks."""
    # no global generator: what is kept for later calls must not depend on who called first
    generator = np.random.default_rng(size)
    # the smallest interval that holds a uniform rank is any of the 101 alike
    counts = generator.multinomial(size, [1 / (LEVELS + 1)] * (LEVELS + 1), size=(SIMULATIONS, bins))
    held = torch.from_numpy(counts.cumsum(-1)[..., :LEVELS] / size)
    curves = held - confidences().cpu()
    at = torch.tensor([0.025, 0.975], dtype=torch.float64, device="cpu")
    largest, least = calibration_score(curves, size).amax(-1), curves.mean(-1).amin(-1)
    (a, b), (c, d) = (values.quantile(at).tolist() for values in (largest, least))
    return (a, b), (c, d)


@dataclass(frozen=True)
class CalibrationByMeasurement(Metric):
    """The bin of y in which the ranks of a parameter are worst.

    Bins hold equally many measurements, along the first principal component of standardised y.

    - ``calibration_worst_bin/<p>``: the largest calibration score of a bin: mean over c of e(c)^2 less its noise.
    - ``coverage_worst_bin/<p>``: the least mean over c of e(c) of a bin. Below its band the posterior is over-confident
      for measurements of that kind, though it may not be for all.

    Bands are those of uniform ranks in as many bins. The prior fails here where the component tells of the parameter.
    Nothing where there are fewer than 60 measurements.

    Args:
        bins: at most.
    """

    name: ClassVar[str] = "calibration_worst_bin"
    version: ClassVar[int] = 1
    bins: int = 10

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores; ``bins`` (bins,) of every bin, from the lowest of the component up, is an artefact."""
        check(draws, truth)
        total = len(truth.theta)
        bins = min(self.bins, total // SMALLEST)
        if bins < 2:
            return
        u = randomised_ranks(draws.theta, truth.theta)
        order = principal_components(truth.y, 1)[:, 0].argsort(stable=True)
        found = [within(u[part]) for part in order.tensor_split(bins)]
        scores, coverage = (torch.stack(part) for part in zip(*found, strict=True))  # (bins, D)
        of_scores, of_coverage = worst_of_uniform(total // bins, bins)
        for k, name in enumerate(names(truth)):
            low, high = of_scores
            value = float(scores[:, k].max())
            yield Score(f"{self.name}/{name}", value, None, low, high, artefacts={"bins": scores[:, k]})
            low, high = of_coverage
            value = float(coverage[:, k].min())
            yield Score(f"coverage_worst_bin/{name}", value, None, low, high, artefacts={"bins": coverage[:, k]})

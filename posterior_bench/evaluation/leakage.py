"""Leakage: draws where the prior says that no parameter can be."""

from __future__ import annotations

from collections.abc import Iterator

from ..contracts import Metric
from ..priors import in_support
from ..records import Draws, Score, Truth
from .inputs import check_shapes
from .nulls import standard_error


class Leakage(Metric):
    """``leakage``: fraction of draws outside the prior's support, non-finite ones included. Exactly 0 when exact."""

    name = "leakage"
    version = 1
    single = True

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """One score, with the fraction of each measurement (T,)."""
        check_shapes(draws, truth)
        each = (~in_support(truth.prior, draws.theta)).double().mean(0)
        yield Score(self.name, float(each.mean()), standard_error(each), 0.0, 0.0, per_measurement=each)

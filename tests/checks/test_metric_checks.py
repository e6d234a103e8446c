"""Each check of a metric, proven by a metric that it must catch."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator

import pytest
import torch

from posterior_bench import Draws, Metric, Score, Truth
from posterior_bench.checks import check_metric
from posterior_bench.evaluation import (
    BallCoverage,
    CalibrationByMeasurement,
    HighestDensityCoverage,
    Information,
    LocalTwoSample,
    LogScore,
    PosteriorPredictive,
    RankStatistics,
    SlicedWasserstein,
)


class Bias(Metric):
    """Mean over the test set of (mean draw - truth) / sd of the draws, with its null band."""

    name = "bias"
    band = 1.96

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        each = ((draws.theta.mean(0) - truth.theta) / draws.theta.std(0))[:, 0]
        error = float(each.std()) / math.sqrt(len(each))
        edge = self.band / math.sqrt(len(each))
        yield Score(self.name, float(each.mean()), error, -edge, edge, per_measurement=each)


class Nothing(Metric):
    """Does not apply."""

    name = "nothing"

    def score(self, draws: Draws, truth: Truth) -> list[Score]:
        return []


@pytest.mark.parametrize("metric", [Bias(), Nothing()])
def test_passes_what_is_right(metric: Metric) -> None:
    findings = check_metric(metric)
    assert [f for f in findings if not f.ok] == []
    assert len(findings) == 8


SHIPPED = (
    BallCoverage(),
    CalibrationByMeasurement(),
    HighestDensityCoverage(),
    Information(),
    LocalTwoSample(),
    LogScore(),
    PosteriorPredictive(),
    RankStatistics(),
    SlicedWasserstein(),
)


@pytest.mark.parametrize("metric", SHIPPED, ids=lambda metric: metric.name)
def test_passes_those_that_ship(metric: Metric) -> None:
    assert [f for f in check_metric(metric) if not f.ok] == []


class Nameless(Bias):
    name = None  # type: ignore[assignment]


class NotScores(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield 0.5  # type: ignore[misc]


class Twice(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield from super().score(draws, truth)
        yield from super().score(draws, truth)


class PerDraw(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield Score("bias", 0.0, per_measurement=draws.theta)


class NotANumber(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield Score("bias", math.nan)


class HalfABand(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield Score("bias", 0.0, null_low=-1.0)


class UpsideDown(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield Score("bias", 0.0, null_low=1.0, null_high=-1.0)


class Sorts(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield from super().score(draws, truth)
        draws.theta.copy_(draws.theta.sort(0).values)


class OwnNumbers(Bias):
    counter = itertools.count()

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield Score("bias", 1e-9 * next(self.counter))


class FirstMeasurements(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        error = (draws.theta.mean(0) - truth.theta)[:10]
        yield Score("bias", float(error.abs().mean()))


class Misaligned(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        error = draws.theta.mean(0) - truth.theta.roll(1, 0)
        yield Score("bias", float(error.abs().mean()))


class NarrowBand(Bias):
    band = 0.3


class NeedsMany(Bias):
    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        yield Score("bias", math.nan if len(truth.theta) < 50 else 0.0)


class ClaimsOne(Bias):
    """Its standard error is that of one measurement: NaN."""

    single = True

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        each = (draws.theta.mean(0) - truth.theta)[:, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield Score("bias", float(each.mean() / each.std()))


@pytest.mark.parametrize(
    ("metric", "check", "message"),
    [
        (object(), "spec", "Derive from Metric"),
        (Nameless(), "spec", "no name"),
        (NotScores(), "scores", "float"),
        (Twice(), "scores", "more than once"),
        (PerDraw(), "scores", "one number a measurement"),
        (NotANumber(), "finite", "nan"),
        (HalfABand(), "finite", "both edges"),
        (UpsideDown(), "finite", "upside down"),
        (Sorts(), "arguments_unchanged", "draws"),
        (OwnNumbers(), "repeatable", "the same seed"),
        (FirstMeasurements(), "order_of_measurements", "another order"),
        (Misaligned(), "order_of_measurements", "Pair draws"),
        (NeedsMany(), "few_measurements", "of 10 measurements"),
        (ClaimsOne(), "few_measurements", "of 1 measurements"),
        (NarrowBand(), "null_band", "outside the null band"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_catches(metric: Metric, check: str, message: str) -> None:
    found = {f.name: f.message for f in check_metric(metric) if not f.ok}
    assert check in found
    assert message in found[check]


def test_draws_and_truth_are_the_same_for_everyone() -> None:
    torch.manual_seed(5)
    first = check_metric(Bias())
    torch.manual_seed(6)
    assert check_metric(Bias()) == first

"""Checks of what every metric promises, on draws of a posterior that is known exactly."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from functools import partial

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from ..runtime import scope
from .findings import Failure, Finding, run
from .gaussian import LinearGaussian

REPEATS = 16
OUTSIDE = 7
"""Of 16 test sets an exact posterior leaves a central 95 % band on 7 or more with probability 6e-6."""


def check_metric(metric: Metric, measurements: int = 100, draws: int = 200) -> list[Finding]:
    """Check that a metric keeps its contract, and that exact draws lie inside its null band.

    It is no proof that the metric sees what it is meant to see: that takes draws that are wrong in a known way.

    Args:
        metric: an instance.
        measurements: size of a test set, T.
        draws: draws of each measurement, n.

    Returns:
        One finding a check. Where a basic one fails, those that rest on it are left out.
    """
    checks = (
        _scores,
        _finite,
        _arguments_unchanged,
        _repeatable,
        _order_of_measurements,
        _few_measurements,
        _null_band,
    )
    return run(
        [partial(_spec, metric), *(partial(check, metric, measurements, draws) for check in checks)], essential=2
    )


def _exact(measurements: int, draws: int) -> tuple[Draws, Truth]:
    """Exact draws with their density, and the truth, for a new test set."""
    simulator = LinearGaussian()
    prior = simulator.prior()
    theta = prior.sample((measurements,))
    y = simulator.simulate(theta)
    posterior = simulator.posterior(y)
    truth = Truth(
        theta=theta,
        y=y,
        prior=prior,
        prior_draws=prior.sample((2000,)),
        parameters=simulator.spec.parameters,
        simulate=simulator.simulate,
        reference=posterior.sample((draws,)),
        reference_log_prob=posterior.log_prob(theta),
    )
    return Draws(posterior.sample((draws,)), log_density=posterior.log_prob), truth


def _score(metric: Metric, draws: Draws, truth: Truth) -> dict[tuple[str, int | None], Score]:
    with scope(7):
        return {(s.metric, s.observation): s for s in metric.score(Draws(draws.theta, draws.log_density), truth)}


def _spec(metric: Metric) -> str:
    if not isinstance(metric, Metric):
        raise Failure(f"a {type(metric).__name__}", "an instance of Metric", "Derive from Metric.")
    if not isinstance(getattr(metric, "name", None), str) or not isinstance(metric.version, int):
        raise Failure("no name, or a version that is no whole number", "both as class attributes", "Add them.")
    return f"{metric.name} version {metric.version}"


def _scores(metric: Metric, measurements: int, draws: int) -> str:
    found = list(metric.score(*_exact(measurements, draws)))
    strange = [s for s in found if not isinstance(s, Score)]
    if strange:
        raise Failure(f"a {type(strange[0]).__name__} among the scores", "records of type Score", "Yield Score(...).")
    twice = [key for key, count in Counter((s.metric, s.observation) for s in found).items() if count > 1]
    if twice:
        raise Failure(f"the score {twice[0]} more than once", "one of each name and observation", "Rename one.")
    for score in found:
        each = score.per_measurement
        if each is not None and (each.dim() != 1 or len(each) > measurements):
            raise Failure(
                f"per_measurement of shape {tuple(each.shape)} in {score.metric!r}", "one number a measurement", ""
            )
    return f"{len(found)} scores" if found else "no score: it does not apply to this problem"


def _finite(metric: Metric, measurements: int, draws: int) -> str:
    for score in metric.score(*_exact(measurements, draws)):
        numbers = {"value": score.value, "std_error": score.std_error}
        numbers |= {"null_low": score.null_low, "null_high": score.null_high}
        for name, number in numbers.items():
            if number is not None and not (isinstance(number, int | float) and math.isfinite(number)):
                raise Failure(f"{name} {number!r} in {score.metric!r} for exact draws", "a finite float", "Convert it.")
        if (score.null_low is None) != (score.null_high is None):
            raise Failure(f"half a null band in {score.metric!r}", "both edges or neither", "Give the other edge.")
        if score.null_low is not None and score.null_high is not None and score.null_low > score.null_high:
            raise Failure(f"a null band upside down in {score.metric!r}", "null_low <= null_high", "Swap them.")
        if score.std_error is not None and score.std_error < 0:
            raise Failure(f"std_error {score.std_error} in {score.metric!r}", "one that is not negative", "")
    return "every number is finite, every band has two edges"


def _arguments_unchanged(metric: Metric, measurements: int, draws: int) -> str:
    exact, truth = _exact(measurements, draws)
    tensors: dict[str, Tensor | None] = {"draws": exact.theta}
    tensors |= {name: getattr(truth, name) for name in ("theta", "y", "prior_draws", "reference")}
    before = {name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}
    list(metric.score(exact, truth))
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, tensors[name])]  # type: ignore[arg-type]
    if changed:
        raise Failure(f"that score() changed {changed}", "nothing to be changed", "Work on copies.")
    return "draws and truth are left alone"


def _repeatable(metric: Metric, measurements: int, draws: int) -> str:
    exact, truth = _exact(measurements, draws)
    first, second = ({k: s.value for k, s in _score(metric, exact, truth).items()} for _ in range(2))
    if first != second:
        raise Failure("other scores under the same seed", "the same", "Draw from the global generators.")
    return "the same seed gives the same scores"


def _order_of_measurements(metric: Metric, measurements: int, draws: int) -> str:
    """A score over the test set must not depend on the order of its measurements, up to its own random numbers."""
    exact, truth = _exact(measurements, draws)
    first = _score(metric, exact, truth)
    # sorted, neighbours are alike: what pairs a measurement with its neighbour gives itself away
    for order in (truth.theta[:, 0].argsort(), torch.randperm(measurements)):
        _compare(first, _score(metric, *_reordered(exact, truth, order)))
    return "the order of the measurements does not matter"


def _reordered(draws: Draws, truth: Truth, order: Tensor) -> tuple[Draws, Truth]:
    reference, reference_log_prob = truth.reference, truth.reference_log_prob
    shuffled = dataclasses.replace(
        truth,
        theta=truth.theta[order],
        y=truth.y[order],
        reference=None if reference is None else reference[:, order],
        reference_log_prob=None if reference_log_prob is None else reference_log_prob[order],
    )
    density = LinearGaussian().posterior(shuffled.y).log_prob
    return Draws(draws.theta[:, order], log_density=density), shuffled


def _compare(first: dict[tuple[str, int | None], Score], second: dict[tuple[str, int | None], Score]) -> None:
    for key, score in first.items():
        if score.observation is not None:
            continue
        other = second.get(key)
        if other is None:
            raise Failure(f"no {score.metric!r} after a change of order", "the same scores", "")
        band = (score.null_high or 0.0) - (score.null_low or 0.0)
        tolerance = max(2 * (score.std_error or 0.0), 0.25 * band, 0.01 * abs(score.value), 1e-4)
        if abs(score.value - other.value) > tolerance:
            raise Failure(
                f"{score.metric!r} {score.value:.4g}, and {other.value:.4g} with the measurements in another order",
                "the same up to random numbers",
                "Pair draws[:, j] with theta[j] and y[j], and use every measurement.",
            )


def _few_measurements(metric: Metric, measurements: int, draws: int) -> str:
    """Methods that are dear are scored on ten measurements; those fitted for one, on one, where it is ``single``."""
    counts = (10, 1) if metric.single else (10,)
    for count in counts:
        for score in metric.score(*_exact(count, draws)):
            if not math.isfinite(score.value):
                raise Failure(
                    f"{score.metric!r} {score.value!r} of {count} measurements",
                    "a finite number, or no score",
                    "Give no score where there are too few measurements.",
                )
    return f"{' and '.join(map(str, counts))} measurements are enough, or give no score"


def _null_band(metric: Metric, measurements: int, draws: int) -> str:
    outside: Counter[str] = Counter()
    banded: set[str] = set()
    for _ in range(REPEATS):
        for score in metric.score(*_exact(measurements, draws)):
            if score.null_low is None or score.null_high is None:
                continue
            banded.add(score.metric)
            outside[score.metric] += not score.null_low <= score.value <= score.null_high
    wrong = {name: count for name, count in outside.items() if count >= OUTSIDE}
    if wrong:
        name, count = max(wrong.items(), key=lambda item: item[1])
        raise Failure(
            f"exact draws outside the null band of {name!r} on {count} of {REPEATS} test sets",
            "inside on 95 % of them",
            "The band is not that of an exact posterior at this number of measurements and draws.",
        )
    return f"exact draws lie in the bands of {len(banded)} scores" if banded else "no score has a band"

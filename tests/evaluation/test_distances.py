from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation.arithmetic import sort
from posterior_bench.evaluation.distances import (
    SlicedWasserstein,
    directions,
    distances,
    projected,
    sliced_wasserstein,
)


def test_distance_of_shifted_draws_is_the_closed_form():
    """A shift by v moves each projection by v . w: SW_2 = |v| / sqrt(D), exactly so for copies of one sample."""
    sample = torch.randn(50, 1, 3)
    shift = torch.tensor([0.0, 3.0, 4.0])
    along = directions(3, 2000)
    one, two = (sort(projected(s, along)) for s in (sample, sample + shift))
    assert float(sliced_wasserstein(one, two)) == pytest.approx(5 / 3**0.5, rel=0.05)
    assert torch.equal(directions(3), directions(3))


def test_one_dimension_needs_no_directions():
    reference = torch.randn(40, 2, 1)
    found, null = distances(reference[:20] * 7 + 3, reference)
    assert found.shape == (2,)
    assert null.shape == (4, 2)
    assert (found > null.max()).all()


def test_exact_draws_lie_in_the_band_as_often_as_it_says(problem):
    inside = 0
    for _ in range(20):
        truth = problem.truth(50, reference=60)
        (score,) = SlicedWasserstein().score(problem.exact(truth, 30), truth)
        inside += score.null_low < score.value < score.null_high
    assert inside >= 15  # of 20 at 95 %, fewer with probability 3e-4


def test_wrong_draws_are_caught_in_any_units(problem):
    truth = problem.truth(60, reference=120)
    for options in ({"scale": 0.6}, {"scale": 1.6}, {"shift": 0.3}):
        draws = problem.draws(truth.y, 60, **options)
        (score,) = SlicedWasserstein().score(Draws(draws), truth)
        assert score.value > score.null_high + (score.null_high - score.null_low)
        assert score.per_measurement.shape == (50,)
        other = replace(
            truth, theta=10 * truth.theta, prior_draws=10 * truth.prior_draws, reference=10 * truth.reference
        )
        torch.manual_seed(1)
        (one,) = SlicedWasserstein().score(Draws(draws), truth)
        torch.manual_seed(1)
        (ten,) = SlicedWasserstein().score(Draws(10 * draws), other)
        assert ten.value == pytest.approx(one.value, rel=1e-4)


def test_many_measurements_are_looked_at_in_part_and_in_any_order(problem):
    truth = problem.truth(60, reference=60)
    draws = problem.draws(truth.y, 30)
    metric = SlicedWasserstein(measurements=10)
    torch.manual_seed(1)
    (score,) = metric.score(Draws(draws), truth)
    which = score.artefacts["measurements"]
    assert len(which) == len(score.per_measurement) == 10
    (every,) = SlicedWasserstein().score(Draws(draws), truth)
    assert torch.equal(every.artefacts["measurements"], torch.arange(50))
    assert torch.allclose(every.per_measurement[which], score.per_measurement, rtol=0.7)


def test_no_reference_and_a_broken_one(problem):
    truth = problem.truth(60)
    draws = problem.exact(truth, 20)
    assert list(SlicedWasserstein().score(draws, truth)) == []
    with pytest.raises(ValueError, match="expected \\(n, R, D\\)"):
        list(SlicedWasserstein().score(draws, replace(truth, reference=torch.zeros(3, 60, 3))))
    with pytest.raises(ValueError, match="not finite"):
        list(SlicedWasserstein().score(draws, replace(truth, reference=torch.full((9, 5, 3), torch.nan))))

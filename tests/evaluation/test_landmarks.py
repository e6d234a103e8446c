from __future__ import annotations

import math

import pytest

from posterior_bench import Draws, Parameter, Truth
from posterior_bench.checks import check_metric
from posterior_bench.evaluation import StrayDraws
from simulators.gaussian_mixture import GaussianMixture


def truth_and_exact(n: int = 400, measurements: int = 60) -> tuple[Truth, Draws]:
    simulator = GaussianMixture()
    theta = simulator.prior().sample((measurements,))
    y = simulator.simulate(theta)
    truth = Truth(
        theta,
        y,
        simulator.prior(),
        simulator.prior().sample((1000,)),
        (Parameter("first"), Parameter("second")),
        simulator.simulate,
        reference=simulator.sample_reference(y, 500),
        landmarks=simulator.landmarks,
    )
    return truth, Draws(simulator.sample_reference(y, n))


def scores(draws: Draws, truth: Truth) -> dict[str, object]:
    return {score.metric: score for score in StrayDraws().score(draws, truth)}


def test_exact_draws_do_not_stray():
    truth, exact = truth_and_exact()
    found = scores(exact, truth)
    assert found["stray_draws/other_landmark"].value == 0
    far = found["stray_draws/far"]
    assert 0 <= far.value <= 2 * far.null_high
    assert far.null_high == pytest.approx(math.exp(-8), rel=1.5)  # P(radius > 4 sd) in the plane


def test_draws_of_other_labels_and_between_modes_are_told_apart():
    truth, exact = truth_and_exact()
    permuted = exact.theta.clone()
    permuted[:40] = exact.theta[:40].roll(1, dims=1)
    changed = (truth.y != truth.y.roll(1, dims=0)).any(1).double().mean()
    found = scores(Draws(permuted), truth)
    assert found["stray_draws/other_landmark"].value == pytest.approx(0.1 * float(changed), abs=1e-6)
    between = exact.theta.clone()
    between[:20] = 0.0  # the middle of the octagon
    found = scores(Draws(between), truth)
    assert found["stray_draws/far"].value == pytest.approx(0.05, abs=0.005)
    assert found["stray_draws/far"].value > found["stray_draws/far"].null_high


def test_silent_without_landmarks_and_keeps_the_contract():
    truth, exact = truth_and_exact()
    object.__setattr__(truth, "landmarks", None)
    assert scores(exact, truth) == {}
    assert not [finding for finding in check_metric(StrayDraws()) if not finding.ok]

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posterior_bench import Draws
from posterior_bench.evaluation import Calibration, confidences, randomised_ranks
from posterior_bench.evaluation.calibration import (
    calibration_error,
    calibration_score,
    curve,
    null_curves,
    score_of_each,
)


def coverage(c: Tensor, spread: float) -> Tensor:
    """Coverage of the central interval c of N(0, spread^2) for a truth N(0, 1): 2 Phi(spread Phi^-1((1+c)/2)) - 1."""
    return 2 * torch.special.ndtr(spread * torch.special.ndtri((1 + c) / 2)) - 1


@pytest.mark.parametrize("spread", [0.5, 0.8, 1.0, 1.25, 2.0])
def test_curve_is_the_closed_form_of_a_gaussian(spread):
    draws, theta = spread * torch.randn(400, 20_000, 1), torch.randn(20_000, 1)
    found = curve(randomised_ranks(draws, theta))[0]
    expected = coverage(confidences(), spread) - confidences()
    # 5 standard deviations of a binomial fraction, and the 1/n by which 400 draws miss a quantile
    assert (found - expected).abs().max() < 5 * 0.5 / math.sqrt(20_000) + 1 / 400


@pytest.mark.parametrize("spread", [0.5, 0.8, 1.0, 1.25, 2.0])
def test_coverage_bias_is_the_closed_form_with_its_sign(spread, normal_truth, by_name):
    truth = normal_truth(20_000)
    scores = by_name(Calibration().score(Draws(spread * torch.randn(200, 20_000, 1)), truth))
    bias = scores["coverage_bias/p0"]
    # E|2 Phi(z / s) - 1| = (2 / pi) arctan(1 / s) for z ~ N(0, 1)
    assert bias.value == pytest.approx(
        0.5 - 2 / math.pi * math.atan(1 / spread), abs=5 * 0.3 / math.sqrt(20_000) + 1e-3
    )
    assert bias.std_error == pytest.approx(0.29 / math.sqrt(20_000), rel=0.3)
    outside = -1 if bias.value < bias.null_low else 1 if bias.value > bias.null_high else 0
    assert outside == (-1 if spread < 1 else 1 if spread > 1 else 0)
    assert scores["rank_bias/p0"].null_low < scores["rank_bias/p0"].value < scores["rank_bias/p0"].null_high


def test_shift_is_caught_with_its_sign(problem, by_name):
    truth = problem.truth(1000)
    for shift, sign in ((0.3, -1), (-0.3, 1)):  # draws too high: the truth ranks low
        scores = by_name(Calibration().score(Draws(problem.draws(truth.y, 200, shift=shift)), truth))
        for name in "abc":
            bias = scores[f"rank_bias/{name}"]
            assert sign * bias.value > bias.null_high
            assert scores[f"calibration_error/{name}"].value > scores[f"calibration_error/{name}"].null_high


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(3, 40), st.booleans())
def test_curve_and_ranks_are_their_definitions(seed, n, total, discrete):
    torch.manual_seed(seed)
    draws, theta = torch.randn(n, total, 2), torch.randn(total, 2)
    if discrete:
        draws, theta = draws.round(), theta.round()
    torch.manual_seed(seed)
    u = randomised_ranks(draws, theta)
    torch.manual_seed(seed)
    v = torch.rand(total, 2, dtype=torch.float64)
    for t in range(total):
        for k in range(2):
            less = sum(float(d) < float(theta[t, k]) for d in draws[:, t, k])
            ties = sum(float(d) == float(theta[t, k]) for d in draws[:, t, k])
            assert u[t, k] == pytest.approx((less + float(v[t, k]) * (ties + 1)) / (n + 1))
    c = confidences()
    held = ((2 * u - 1).abs()[:, :, None] < c).double().mean(0)
    assert torch.allclose(curve(u), held - c)
    assert np.allclose(calibration_error(curve(u)), np.median((held - c).abs().numpy(), -1))
    each = score_of_each(u, curve(u))
    assert torch.allclose(each.mean(0), calibration_score(curve(u), total))


def test_score_is_the_mean_over_pairs_of_measurements():
    u = torch.rand(30, 1, dtype=torch.float64) ** 2
    h = ((2 * u - 1).abs() < confidences()).double() - confidences()
    products = (h @ h.T) / 100
    expected = (products.sum() - products.diagonal().sum()) / (30 * 29)
    assert calibration_score(curve(u), 30) == pytest.approx(float(expected))
    others = [u[torch.arange(30) != j] for j in range(30)]
    left_out = torch.tensor([float(calibration_score(curve(o), 29)) for o in others], dtype=torch.float64)
    assert torch.allclose(score_of_each(u, curve(u))[:, 0], 30 * expected - 29 * left_out)


def test_score_has_mean_zero_and_an_honest_standard_error():
    exact = torch.rand(200, 500, dtype=torch.float64)
    scores = calibration_score(curve(exact), 200)
    assert abs(scores.mean()) < 4 * scores.std() / math.sqrt(500)
    wrong = (torch.rand(200, 500, dtype=torch.float64) - 0.5) * 0.7 + 0.5  # ranks too central: under-confident
    curves = curve(wrong)
    scores, each = calibration_score(curves, 200), score_of_each(wrong, curves)
    claimed = (each.std(0) / math.sqrt(200)).mean()
    assert claimed == pytest.approx(float(scores.std()), rel=0.15)


def test_replicates_agree_with_the_closed_form_edges(problem, by_name):
    truth = problem.truth(300)
    draws = problem.exact(truth, 50)
    replicates = null_curves(draws.theta, 2000).mean(-1)
    score = by_name(Calibration().score(draws, truth))["coverage_bias/a"]
    # Šidák: 0.99^(1/3) each, two-sided
    width = 2.9348
    assert float(replicates.std()) * width == pytest.approx(score.null_high, rel=0.05)
    assert float(replicates.mean()) == pytest.approx(0, abs=4 * 0.3 / math.sqrt(300 * 2000 * 3))


def test_null_replicates_keep_the_dependence_between_parameters():
    first = torch.randn(40, 100, 1)
    tied, free = torch.cat([first, 2 * first], -1), torch.cat([first, torch.randn(40, 100, 1)], -1)
    for draws, low, high in ((tied, 0.9, 1.0), (free, -0.15, 0.15)):
        bias = null_curves(draws, 500).mean(-1)
        assert low <= float(torch.corrcoef(bias.T)[0, 1]) <= high


def test_ties_are_ranked_at_random(normal_truth, by_name):
    total = 3000
    truth = normal_truth(total, 2, torch.poisson(torch.full((total, 2), 1.5)))
    draws = torch.poisson(torch.full((99, total, 2), 1.5))
    u = randomised_ranks(draws, truth.theta)
    histogram = torch.histc(u[:, 0], 10, 0, 1)
    assert float(((histogram - total / 10) ** 2 / (total / 10)).sum()) < 27.9  # chi^2 of 9 degrees at 0.001
    scores = by_name(Calibration().score(Draws(draws), truth))
    for metric in ("coverage_bias/p0", "rank_bias/p0", "coverage_bias/p1", "rank_bias/p1"):
        assert scores[metric].null_low < scores[metric].value < scores[metric].null_high
    constant = null_curves(torch.zeros(20, 200, 1), 300).mean(-1)  # all tied: the rank is V itself
    assert float(constant.mean()) == pytest.approx(0, abs=4 * 0.3 / math.sqrt(200 * 300))


def test_artefacts_and_names(problem, by_name):
    truth = problem.truth(100)
    scores = by_name(Calibration().score(problem.exact(truth, 60), truth))
    assert set(scores) == {
        *(f"{m}/{p}" for m in ("calibration_error", "calibration_score", "coverage_bias", "rank_bias") for p in "abc"),
        "calibration_error",
        "calibration_score",
    }
    ranks = scores["calibration_error"].artefacts["ranks"]
    assert ranks.dtype is torch.uint16
    assert ranks.shape == (100, 3)
    assert int(ranks.int().min()) >= 0
    assert int(ranks.int().max()) <= 60
    drawn = scores["calibration_error/a"].artefacts
    assert {k: tuple(v.shape) for k, v in drawn.items()} == dict.fromkeys(("curve", "curve_low", "curve_high"), (100,))
    assert float(drawn["curve"].abs().median()) == pytest.approx(scores["calibration_error/a"].value, rel=0.2)
    assert float(drawn["curve"].mean()) == pytest.approx(scores["coverage_bias/a"].value)
    mean = sum(scores[f"calibration_score/{p}"].value for p in "abc") / 3
    assert scores["calibration_score"].value == pytest.approx(mean)
    assert float(scores["calibration_score"].per_measurement.mean()) == pytest.approx(mean)


def test_order_of_measurements_does_not_matter():
    u = torch.rand(200, 3, dtype=torch.float64)
    assert torch.equal(curve(u), curve(u[torch.randperm(200)]))


def test_swapped_measurements_are_caught(problem, by_name):
    truth = problem.truth(500)
    swapped = Draws(problem.draws(truth.y.roll(1, 0), 100))
    scores = by_name(Calibration().score(swapped, truth))
    assert scores["coverage_bias/b"].value < scores["coverage_bias/b"].null_low


def test_shared_draws_move_together(normal_truth, by_name):
    """Draws shared by all measurements are no T independent tests: the edges are too narrow for such a method."""
    found = []
    for _ in range(30):
        truth = normal_truth(1000)
        shared = torch.randn(50, 1, 1).expand(-1, 1000, -1)
        found.append(by_name(Calibration().score(Draws(shared), truth))["rank_bias/p0"].value)
    claimed = 1 / math.sqrt(12 * 1000)
    actual = float(torch.tensor(found).std())
    assert actual / claimed == pytest.approx(math.sqrt(1 + 1000 / 50), rel=0.4)


def test_too_few_measurements_give_nothing(normal_truth):
    assert list(Calibration().score(Draws(torch.randn(10, 2, 1)), normal_truth(2))) == []

"""Coverage at 50 and 90 %, its exact band, and the width of intervals."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom

from posterior_bench import Draws
from posterior_bench.checks import check_metric
from posterior_bench.evaluation import IntervalCoverage
from posterior_bench.evaluation.interval_coverage import binomial_band, central_widths


def test_keeps_what_every_metric_promises():
    assert [finding for finding in check_metric(IntervalCoverage()) if not finding.ok] == []


@pytest.mark.parametrize(("total", "probability"), [(3, 0.5), (10, 0.9), (1000, 0.9), (4000, 0.5)])
def test_band_is_the_binomial_one(total, probability):
    expected = binom.ppf([0.025, 0.975], total, probability) / total
    assert binomial_band(total, probability) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("n", [3, 4, 50])
def test_exact_draws_hold_what_they_should_for_any_number_of_draws(problem, by_name, n):
    truth = problem.truth(4000)
    scores = by_name(IntervalCoverage().score(Draws(problem.draws(truth.y, n)), truth))
    assert set(scores) == {f"{m}/{p}" for m in ("coverage_50", "coverage_90", "width_90") for p in "abc"}
    for name in "abc":
        for percent in (50, 90):
            score = scores[f"coverage_{percent}/{name}"]
            share = percent / 100
            assert abs(score.value - share) < 4 * (share * (1 - share) / 4000) ** 0.5
            assert score.std_error == pytest.approx((share * (1 - share) / 4000) ** 0.5, rel=0.1)


@pytest.mark.parametrize(("scale", "sign"), [(0.5, -1), (2.0, 1)])
def test_coverage_and_width_of_wrong_draws_are_those_of_a_normal(problem, by_name, scale, sign):
    truth = problem.truth(4000)
    scores = by_name(IntervalCoverage().score(Draws(problem.draws(truth.y, 199, scale=scale)), truth))
    for percent in (50, 90):
        z = float(torch.special.ndtri(torch.tensor((1 + percent / 100) / 2)))
        held = 2 * float(torch.special.ndtr(torch.tensor(scale * z))) - 1
        for name in "abc":
            score = scores[f"coverage_{percent}/{name}"]
            assert score.value == pytest.approx(held, abs=0.03)
            assert sign * (score.value - (score.null_low if sign < 0 else score.null_high)) > 0
    sd = problem.covariance.diagonal().sqrt()
    for k, name in enumerate("abc"):
        width = scores[f"width_90/{name}"]
        assert width.value == pytest.approx(float(2 * 1.645 * scale * sd[k] / problem.sd[k]), rel=0.06)
        assert width.null_low is None


def test_widths_are_between_order_statistics():
    def width(n: int, confidence: float) -> float:
        draws = torch.randperm(n).float().view(n, 1, 1)
        return float(central_widths(draws, confidence))

    assert width(19, 0.9) == 18, "the range of 19 holds the twentieth with probability 0.9"
    assert width(39, 0.9) == 36
    assert width(7, 0.5) == 4
    assert width(9, 0.5) == pytest.approx(5.0), "between two draws: places 2.5 and 7.5"
    assert width(3, 0.9) == 2, "their range, where there are too few"


def test_widths_do_not_mix_measurements():
    draws = torch.randn(30, 5, 2) * torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4])[:, None]
    whole = central_widths(draws, 0.9)
    for t in range(5):
        assert torch.equal(central_widths(draws[:, [t]], 0.9)[0], whole[t])


def test_nothing_of_two_measurements(problem):
    truth = problem.truth(2)
    assert list(IntervalCoverage().score(problem.exact(truth, 20), truth)) == []

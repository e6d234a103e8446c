from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterior_bench.evaluation import mean_interval, paired_difference


@pytest.mark.parametrize(("repetitions", "fit"), [(1, 0.0), (3, 0.0), (3, 0.3), (8, 0.1)])
def test_interval_holds_the_mean_as_often_as_it_says(repetitions, fit):
    held = 0
    for _ in range(400):
        test = 0.5 * torch.randn(1, 60)
        scores = 2 + fit * torch.randn(repetitions, 1) + test + 0.4 * torch.randn(repetitions, 60)
        interval = mean_interval(scores)
        held += interval.low < 2 < interval.high
    assert held / 400 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 400)


def test_fit_and_test_set_are_told_apart():
    fits, tests = torch.zeros(300, 2), torch.zeros(300)
    for i in range(300):
        scores = 0.2 * torch.randn(6, 1) + 0.5 * torch.randn(1, 80) + 0.3 * torch.randn(6, 80)
        interval = mean_interval(scores)
        fits[i, 0], tests[i] = interval.sd_fit, interval.sd_test
    assert float((fits[:, 0] ** 2).mean()) == pytest.approx(0.2**2, rel=0.2)
    assert float((tests**2).mean()) == pytest.approx(0.5**2 / 80 + 0.3**2 / (6 * 80), rel=0.15)


def test_one_fit_is_the_textbook_interval_and_says_so():
    scores = torch.randn(1, 21, dtype=torch.float64)
    interval = mean_interval(scores)
    half = 2.085963447 * float(scores.std()) / math.sqrt(21)  # Student's t of 20 degrees at 97.5 %
    assert interval.high - interval.mean == pytest.approx(half)
    assert interval.sd_fit is None
    assert "one fit" in interval.text
    assert "3 fits" in mean_interval(torch.randn(3, 21)).text


def test_pairing_takes_the_test_set_out():
    hard = 5 * torch.randn(1, 200)
    a, b = hard + 0.1 * torch.randn(5, 200) + 0.05, hard + 0.1 * torch.randn(5, 200)
    interval = paired_difference(a, b)
    assert 0 < interval.low < interval.mean < interval.high < 0.2
    assert mean_interval(a).sd_test > 10 * interval.sd_test


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 9), st.floats(-5, 5))
def test_difference_is_antisymmetric_and_moves_with_a_shift(seed, repetitions, measurements, shift):
    torch.manual_seed(seed)
    a, b = torch.randn(2, repetitions, measurements, dtype=torch.float64)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    moved = paired_difference(a + shift, b)
    assert (moved.low, moved.high) == pytest.approx((one.low + shift, one.high + shift))
    assert one.low <= one.mean <= one.high


def test_equal_scores_have_an_interval_of_no_width():
    scores = torch.randn(3, 10)
    interval = paired_difference(scores, scores)
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)
    assert interval.within(0.0)


def test_beyond_and_within_a_margin_exclude_each_other():
    scores = torch.randn(1, 100, dtype=torch.float64)
    scores = (scores - scores.mean()) / scores.std()  # half an interval is 0.198
    for shift, within, beyond in ((0.0, True, False), (0.15, False, False), (0.4, False, False), (0.6, False, True)):
        for sign in (1, -1):
            found = mean_interval(scores + sign * shift)
            assert (found.within(0.3), found.beyond(0.3)) == (within, beyond)


def test_one_repetition_is_paired_with_every_other():
    assert paired_difference(torch.randn(3, 20), torch.randn(1, 20)).repetitions == 3


@pytest.mark.parametrize(("a", "b"), [((2, 10), (3, 10)), ((2, 10), (2, 9)), ((10,), (10,))])
def test_what_cannot_be_paired_raises(a, b):
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(torch.zeros(a), torch.zeros(b))


def test_scores_that_are_not_finite_raise():
    with pytest.raises(ValueError, match="not finite"):
        mean_interval(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match="measurements >= 2"):
        mean_interval(torch.zeros(3, 1))

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterior_bench import Draws
from posterior_bench.evaluation import PosteriorMMD, unbiased_mmd
from posterior_bench.runtime import scope


def brute(a: torch.Tensor, b: torch.Tensor) -> float:
    """Unbiased MMD^2 of samples (n, D) and (m, D) by loops."""

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return sum(1 / (1 + float(((x - y) ** 2).sum()) / h**2) for h in (0.05, 0.2, 0.9))

    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return aa + bb - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(4, 7), st.integers(1, 3))
def test_value_is_the_double_loop(seed, n, m, dim):
    torch.manual_seed(seed)
    a, b = 0.3 * torch.randn(n, 2, dim), 0.3 * torch.randn(m, 2, dim) + 0.1
    found, _ = unbiased_mmd(a, b)
    for t in range(2):
        assert float(found[t]) == pytest.approx(brute(a[:, t], b[:, t]), abs=1e-4)


def test_mean_is_zero_under_the_null_and_the_variance_as_claimed():
    found, variance = unbiased_mmd(0.5 * torch.randn(40, 4000, 2), 0.5 * torch.randn(60, 4000, 2))
    assert abs(found.double().mean()) < 4 * found.double().std() / math.sqrt(4000)
    assert float(variance.mean()) == pytest.approx(float(found.var()), rel=0.12)


def test_expectation_is_the_closed_form_of_two_points():
    """Draws at a and reference at b: MMD^2 = k(a, a) + k(b, b) - 2 k(a, b)."""
    a, b = torch.zeros(10, 1, 1), torch.full((10, 1, 1), 0.2)
    k = sum(1 / (1 + 0.04 / h**2) for h in (0.05, 0.2, 0.9))
    assert float(unbiased_mmd(a, b)[0]) == pytest.approx(6 - 2 * k, rel=1e-4)


def test_wrong_draws_are_caught(problem, by_name):
    truth = problem.truth(100, reference=150)
    exact = by_name(PosteriorMMD().score(problem.exact(truth, 100), truth))
    assert set(exact) == {"err_post", "err_post_raw"}
    for score in exact.values():
        assert len(score.per_measurement) == 50
        assert float(score.per_measurement.double().mean()) == pytest.approx(score.value)
        assert score.null_low < score.value < score.null_high
    for options in ({"scale": 0.5}, {"scale": 2.0}, {"shift": 0.3}):
        wrong = by_name(PosteriorMMD().score(Draws(problem.draws(truth.y, 100, **options)), truth))
        assert wrong["err_post"].value > 3 * wrong["err_post"].null_high
    swapped = by_name(PosteriorMMD().score(Draws(problem.draws(truth.y.roll(1, 0), 100)), truth))
    assert swapped["err_post"].value > 3 * swapped["err_post"].null_high


def test_units_matter_to_the_raw_score_alone(problem, by_name):
    truth = problem.truth(60, reference=80)
    draws = problem.draws(truth.y, 70, shift=0.3)
    first = by_name(PosteriorMMD().score(Draws(draws), truth))
    in_other_units = replace(
        truth, theta=truth.theta * 10, prior_draws=truth.prior_draws * 10, reference=truth.reference * 10
    )
    second = by_name(PosteriorMMD().score(Draws(draws * 10), in_other_units))
    assert second["err_post"].value == pytest.approx(first["err_post"].value, abs=1e-4)
    assert abs(second["err_post_raw"].value - first["err_post_raw"].value) > 1e-3


def test_no_reference_and_a_broken_one(problem):
    truth = problem.truth(60)
    draws = problem.exact(truth, 20)
    assert list(PosteriorMMD().score(draws, truth)) == []
    with pytest.raises(ValueError, match=r"reference of shape \(60, 5, 3\)|expected \(n, R, D\)"):
        list(PosteriorMMD().score(draws, replace(truth, reference=torch.zeros(3, 60, 3))))
    with pytest.raises(ValueError, match="not finite"):
        list(PosteriorMMD().score(draws, replace(truth, reference=torch.full((9, 5, 3), torch.nan))))


def test_draws_that_repeat_do_not_count_as_agreement_or_difference():
    """A reference resampled from few weighted draws, as importance sampling gives it, is no farther away for it."""
    with scope(11):
        bank = torch.randn(60, 150, 3)
        picks = torch.randint(60, (150, 400)).T  # 400 draws with repetition from 60
        repeated = torch.stack([bank[picks[:, k], k] for k in range(150)], dim=1)
        independent = torch.randn(400, 150, 3)
        value, variance = unbiased_mmd(independent, repeated)
        same, _ = unbiased_mmd(repeated[:200], repeated[200:])
    edge = 4 * float(variance.sum().sqrt()) / 150
    assert abs(float(value.mean())) < edge
    assert abs(float(same.mean())) < edge
    assert edge < 0.02, "3 / 60 is what the repetitions would add"


def test_whole_numbers_may_repeat():
    with scope(12):
        coins = (torch.rand(300, 40, 1) < 0.5).float()
        biased = (torch.rand(300, 40, 1) < 0.8).float()
        exact = (torch.rand(300, 40, 1) < 0.5).float()
    assert float(unbiased_mmd(biased, exact)[0].mean()) > 0.1
    assert abs(float(unbiased_mmd(coins, exact)[0].mean())) < 0.01

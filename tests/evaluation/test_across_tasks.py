from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import PermutationMethod, rankdata, wilcoxon

from posterior_bench.evaluation.across_tasks import (
    AcrossTasks,
    Pair,
    compare_across_tasks,
    holm,
    minimum_tasks,
    signed_rank_p_value,
)


def pair_of(found: AcrossTasks, *names: str) -> Pair:
    return next(pair for pair in found.pairs if {pair.first, pair.second} == set(names))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-6, 6).filter(bool), min_size=2, max_size=9))
def test_p_values_are_those_of_scipy_also_with_equal_differences(differences: list[int]) -> None:
    exact = wilcoxon(differences, method=PermutationMethod(n_resamples=10_000)).pvalue  # 10,000 > 2^9: all signs
    assert signed_rank_p_value(differences) == pytest.approx(exact)


def test_p_values_of_distinct_differences_are_those_of_scipys_exact_method() -> None:
    for count in (5, 8, 14):
        differences = (torch.randn(count) + 0.5).double().tolist()
        assert signed_rank_p_value(differences) == pytest.approx(wilcoxon(differences, method="exact").pvalue)


def test_zeros_are_left_out() -> None:
    assert signed_rank_p_value([0.0, 1.0, 2.0, 3.0, 0.0]) == signed_rank_p_value([1.0, 2.0, 3.0]) == 0.25
    assert signed_rank_p_value([0.0, 0.0]) == 1.0


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last may not fall below 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_method_ahead_on_every_task_is_named() -> None:
    base = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.35]
    better = [value + 0.05 + 0.001 * i for i, value in enumerate(base)]
    found = compare_across_tasks({"low": base, "high": better})
    (pair,) = found.pairs
    assert (pair.first, pair.second) == ("high", "low")
    assert (pair.wins, pair.ties, pair.losses) == (8, 0, 0)
    assert pair.p_value == pair.adjusted == 2 / 2**8
    assert pair.decided
    assert found.verdict({"high": "H", "low": "L"}) == "Over 8 tasks H scores more than L, by more than 0.01."


def test_a_significant_difference_inside_the_margin_names_no_winner() -> None:
    base = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.35]
    better = [value + 0.005 + 0.0001 * i for i, value in enumerate(base)]
    found = compare_across_tasks({"low": base, "high": better})
    assert found.pairs[0].adjusted == 2 / 2**8
    assert not found.pairs[0].decided
    assert found.pairs[0].ties == 8
    assert "no method is known to score more" in found.verdict()


def test_an_interval_that_covers_the_margin_names_no_winner() -> None:
    """All differences have one sign, so that the test rejects; the mean may all the same be below the margin."""
    differences = [0.002, 0.003, 0.004, 0.005, 0.006, 0.2, 0.001, 0.0015]
    found = compare_across_tasks({"low": [0.3] * 8, "high": [0.3 + d for d in differences]})
    (pair,) = found.pairs
    assert pair.adjusted is not None
    assert pair.adjusted < 0.05
    assert pair.difference.mean > 0.01 > pair.difference.low
    assert not pair.decided


@pytest.mark.parametrize("tasks", [3, 5])
def test_with_few_tasks_no_p_value_is_given(tasks: int) -> None:
    found = compare_across_tasks({"a": [0.9] * tasks, "b": [0.1] * tasks})
    assert found.pairs[0].p_value is None
    assert found.pairs[0].adjusted is None
    assert not found.pairs[0].decided
    assert found.pairs[0].wins == tasks
    text = found.verdict()
    assert text.startswith("No pair of methods can reach significance")
    assert f"2/2^{tasks} = {2 / 2**tasks:.3g}" in text
    assert minimum_tasks() == 6


def test_the_correction_may_put_significance_out_of_reach() -> None:
    scores = {
        name: [level + 0.01 * task for task in range(6)] for name, level in zip("abc", (0.1, 0.4, 0.8), strict=True)
    }
    found = compare_across_tasks(scores)
    assert [pair.adjusted for pair in found.pairs] == pytest.approx([3 * 2 / 64] * 3)
    assert "none could be: the smallest p-value after correction is 0.0938" in found.verdict()
    seven = {name: [*values, values[-1]] for name, values in scores.items()}
    assert "c scores more than b and a; b scores more than a" in compare_across_tasks(seven).verdict()


def test_mean_ranks_are_friedmans() -> None:
    torch.manual_seed(0)
    scores = {name: torch.rand(7).tolist() for name in "abcd"}
    scores["d"][2] = scores["a"][2]
    expected = rankdata([[-value for value in values] for values in scores.values()], axis=0).mean(1)
    found = compare_across_tasks(scores)
    assert found.mean_ranks == pytest.approx(dict(zip("abcd", expected, strict=True)))
    assert list(found.mean_ranks.values()) == sorted(found.mean_ranks.values())
    assert sum(found.mean_ranks.values()) == pytest.approx(10)


def test_equal_methods_are_called_different_as_rarely_as_promised() -> None:
    """Family-wise over three pairs: at most 5 % of 400 suites of ten tasks, up to four standard errors."""
    torch.manual_seed(1)
    wrong = 0
    for _ in range(400):
        hard = torch.randn(10)
        scores = {name: (hard + 0.1 * torch.randn(10)).tolist() for name in "abc"}
        found = compare_across_tasks(scores)
        wrong += any(pair.adjusted is not None and pair.adjusted < 0.05 for pair in found.pairs)
    assert wrong / 400 < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": [1.0, 2.0]}, "found 1 methods"),
        ({"a": [1.0, 2.0], "b": [1.0]}, r"with \[1, 2\] scores"),
        ({"a": [1.0], "b": [1.0]}, "two at least"),
        ({"a": [1.0, float("nan")], "b": [1.0, 2.0]}, "not finite"),
        ({}, "found 0 methods"),
    ],
)
def test_what_cannot_be_compared_raises(scores: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_across_tasks(scores)

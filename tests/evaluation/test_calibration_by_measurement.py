from __future__ import annotations

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation.calibration_by_measurement import CalibrationByMeasurement, within, worst_of_uniform
from posterior_bench.evaluation.measurements import chosen, principal_components


def test_first_component_is_the_direction_of_largest_spread():
    cause = torch.randn(500, 1)
    y = torch.cat([cause, -2 * cause, 0.1 * torch.randn(500, 1), torch.ones(500, 1)], dim=1) * 7 + 3
    found = principal_components(y, 2)
    assert found.shape == (500, 2)
    assert abs(float(torch.corrcoef(torch.stack([found[:, 0], cause[:, 0]]))[0, 1])) > 0.999
    assert torch.allclose(found.std(0), torch.ones(2), atol=1e-4)


def test_what_is_not_a_number_is_left_out_of_account():
    y = torch.randn(100, 2, 2) * torch.tensor([1.0, 5.0])
    y[3], y[4, 0, 0] = torch.nan, torch.inf
    found = principal_components(y, 10)
    assert found.shape == (100, 4)
    assert torch.isfinite(found).all()


def test_choice_depends_on_the_measurements_and_not_on_their_order():
    y = torch.randn(200, 2, 3)
    order = torch.randperm(200)
    assert torch.equal(y[chosen(y, 20)], y[order][chosen(y[order], 20)])
    assert len(set(chosen(y, 200).tolist())) == 200
    assert torch.equal(chosen(y, 20), chosen(y, 200)[:20])


def test_choice_is_of_typical_measurements():
    y = torch.randn(4000, 3)
    found = y[chosen(y, 1000)]
    assert (found.mean(0).abs() < 4 / 1000**0.5).all()
    assert ((found.std(0) - 1).abs() < 4 / 2000**0.5).all()


def test_choice_among_labels_is_not_all_of_one_label():
    label = torch.nn.functional.one_hot(torch.arange(200) % 4).float()
    found = label[chosen(label, 100)].sum(0)
    assert ((found > 20) & (found < 30)).all()
    same = torch.zeros(50, 1)
    assert len(set(chosen(same, 30).tolist())) == 30


def test_bands_are_those_of_uniform_ranks():
    scores, coverage = within(torch.rand(80, 20_000, 3, dtype=torch.float64))
    at = torch.tensor([0.025, 0.975], dtype=torch.float64)
    for band, found in zip(worst_of_uniform(80, 3), (scores.amax(-1), coverage.amin(-1)), strict=True):
        expected = found.quantile(at)
        width = float(expected[1] - expected[0])
        assert band[0] == pytest.approx(float(expected[0]), abs=0.1 * width)
        assert band[1] == pytest.approx(float(expected[1]), abs=0.2 * width)


def test_wrong_in_opposite_ways_is_seen_in_bins_alone(normal_truth, by_name):
    """Too narrow for small y and too wide for large y: calibrated over all, wrong in each bin."""
    truth = normal_truth(1000)
    offset = truth.theta + torch.randn(1000, 1)
    exact = offset / 2 + 0.5**0.5 * torch.randn(100, 1000, 1)
    factor = torch.where(offset < 0, 0.5, 2.0)
    wrong = offset / 2 + factor * (exact - offset / 2)
    seen = Draws(exact), Draws(wrong), Draws(torch.randn(100, 1000, 1))
    truth = type(truth)(truth.theta, offset, truth.prior, truth.prior_draws, truth.parameters, truth.simulate)
    right, bad, prior = (by_name(CalibrationByMeasurement().score(draws, truth)) for draws in seen)
    score, coverage = "calibration_worst_bin/p0", "coverage_worst_bin/p0"
    width = right[score].null_high - right[score].null_low
    assert right[score].null_low - width < right[score].value < right[score].null_high + width
    assert right[coverage].value > 1.5 * right[coverage].null_low
    assert bad[score].value > bad[score].null_high + width
    assert bad[coverage].value < bad[coverage].null_low
    assert prior[score].value > prior[score].null_high
    assert bad[score].artefacts["bins"].shape == (10,)


def test_bands_hold_exact_draws_as_often_as_they_say(problem):
    inside = []
    for _ in range(12):
        truth = problem.truth(120)
        for score in CalibrationByMeasurement().score(problem.exact(truth, 60), truth):
            inside.append(score.null_low <= score.value <= score.null_high)
    assert len(inside) == 72
    assert sum(inside) >= 61  # of 72 at 95 %, fewer with probability 1e-3


def test_few_measurements_have_no_bins(problem):
    truth = problem.truth(59)
    assert list(CalibrationByMeasurement().score(problem.exact(truth, 20), truth)) == []

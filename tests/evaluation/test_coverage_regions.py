from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation.coverage_regions import (
    BallCoverage,
    HighestDensityCoverage,
    ball_credibility,
    density_credibility,
)
from posterior_bench.evaluation.rank_statistics import RankStatistics


def test_credibility_of_a_normal_is_the_closed_form(normal_truth):
    """The region of highest density that holds theta* of N(0, I_2) is a disc: credibility 1 - exp(-|theta*|^2 / 2)."""
    truth = normal_truth(2000, 2)
    draws = Draws(torch.randn(32, 2000, 2), lambda at: -0.5 * at.square().sum(-1))
    u = density_credibility(draws, truth)
    expected = 1 - (-0.5 * truth.theta.square().sum(-1)).exp().double()
    for low in (0.0, 0.25, 0.5, 0.75):
        some = (expected >= low) & (expected < low + 0.25)
        # the rank of p among 32 draws has mean (32 p + 1/2) / 33
        assert float(u[some].mean()) == pytest.approx((32 * float(expected[some].mean()) + 0.5) / 33, abs=0.02)


def test_balls_about_the_truth_and_far_away():
    draws = torch.randn(500, 3, 2)
    theta = torch.zeros(3, 2)
    assert float(ball_credibility(draws, theta, theta).max()) < 0.01
    far = ball_credibility(draws, theta, torch.tensor([[1e4, 0.0]]).expand(3, 2))
    assert torch.allclose(far, torch.full((3,), 0.5).double(), atol=0.1)


@pytest.mark.parametrize("metric", [HighestDensityCoverage(), BallCoverage()], ids=["density", "balls"])
def test_exact_draws_pass_and_wrong_ones_fail_with_the_sign(metric, problem, by_name):
    truth = problem.truth(500)
    head = metric.name.removesuffix("_coverage_bias") + ("_coverage" if metric.name.startswith("hpd") else "")

    def scores(scale: float = 1.0, shift: float = 0.0):
        draws = Draws(problem.draws(truth.y, 100, scale, shift), problem.density(truth.y, scale))
        return by_name(metric.score(draws, truth))

    exact = scores()
    assert set(exact) == {metric.name, f"{head}_deviation", f"{head}_p_value"}
    bias = exact[metric.name]
    assert 1.5 * bias.null_low < bias.value < 1.5 * bias.null_high
    assert exact[f"{head}_p_value"].value > 0.01
    narrow, wide = scores(scale=0.6), scores(scale=1.6)
    assert narrow[metric.name].value < 2 * bias.null_low
    assert wide[metric.name].value > 2 * bias.null_high
    for wrong in (narrow, wide, scores(shift=0.7)):
        assert wrong[f"{head}_p_value"].value < 0.01
        assert wrong[f"{head}_deviation"].value > wrong[f"{head}_deviation"].null_high


def test_joint_regions_see_what_marginals_hide(normal_truth, by_name):
    """Draws with the right marginals and no correlations."""
    first = torch.randn(500)
    truth = normal_truth(500, 2, theta=torch.stack([first, 0.9 * first + 0.19**0.5 * torch.randn(500)], dim=1))
    draws = torch.randn(100, 500, 2)
    found = by_name(HighestDensityCoverage().score(Draws(draws, lambda at: -0.5 * at.square().sum(-1)), truth))
    assert found["hpd_coverage_p_value"].value < 0.01
    marginals = by_name(RankStatistics().score(Draws(draws), truth))
    assert all(marginals[f"sbc_p_value/p{k}"].value > 0.01 for k in range(2))


def test_without_a_density_and_with_a_broken_one(problem):
    truth = problem.truth(40)
    draws = problem.exact(truth, 20)
    assert list(HighestDensityCoverage().score(Draws(draws.theta), truth)) == []
    broken = Draws(draws.theta, lambda at: torch.full(at.shape[:2], torch.nan))
    with pytest.raises(ValueError, match="NaN or"):
        list(HighestDensityCoverage().score(broken, truth))
    with pytest.raises(ValueError, match="without a density"):
        density_credibility(Draws(draws.theta), truth)


def test_points_belong_to_measurements_in_any_order(problem):
    truth = problem.truth(80)
    draws = problem.exact(truth, 50)
    (first, *_) = BallCoverage().score(draws, truth)
    (second, *_) = BallCoverage().score(
        Draws(draws.theta.flip(1)), replace(truth, theta=truth.theta.flip(0), y=truth.y.flip(0))
    )
    assert torch.allclose(first.per_measurement.flip(0), second.per_measurement, atol=0.05)

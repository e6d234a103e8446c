from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal

from posterior_bench import Draws
from posterior_bench.evaluation.rank_statistics import (
    POINTS,
    RankStatistics,
    excess,
    likelihood_ranks,
    uniform_ranks,
    uniformity,
)


@pytest.fixture
def truth(problem):
    def log_likelihood(theta, y):
        return Normal(theta @ problem.forward.T, problem.noise).log_prob(y).sum(-1)

    return replace(problem.truth(400), log_likelihood=log_likelihood)


def test_curve_of_known_ranks():
    assert float(excess((torch.arange(1000) + 0.5) / 1000).abs().max()) < 1e-9
    low = excess(torch.zeros(10))
    assert float(low[0]) == pytest.approx(1 - 1 / POINTS)
    assert float(low[-1]) == pytest.approx(1 / POINTS)


def test_the_band_holds_a_whole_curve_with_95_per_cent():
    null = uniform_ranks(150)
    curves = torch.stack([excess(u) for u in torch.rand(1500, 150)])
    held = ((curves >= null.low - 1e-9) & (curves <= null.high + 1e-9)).all(1).double().mean()
    assert 0.925 < float(held) < 0.975
    # T F(z) is a whole number: the band is narrow at the ends and widest in the middle
    assert float(null.high[49]) > 2 * float(null.high[0])


def test_p_value_and_band_agree():
    for _ in range(50):
        u = torch.rand(150) ** 1.15
        deviation, p_value = uniformity("sbc", u)
        low, high = (deviation.artefacts[f"curve_{edge}"] for edge in ("low", "high"))
        curve = deviation.artefacts["curve"]
        outside = bool(((curve < low - 1e-9) | (curve > high + 1e-9)).any())
        assert outside == (p_value.value < 0.05) or abs(p_value.value - 0.05) < 0.01


def test_exact_draws_pass_and_wrong_ones_fail(problem, truth, by_name):
    exact = by_name(RankStatistics().score(problem.exact(truth, 100), truth))
    assert set(exact) == {f"sbc_{kind}/{p}" for kind in ("deviation", "p_value") for p in "abc"} | {
        f"sbc_{kind}/log_likelihood" for kind in ("deviation", "p_value", "bias")
    }
    for p in "abc":
        assert exact[f"sbc_p_value/{p}"].value > 0.01
    assert exact["sbc_p_value/log_likelihood"].value > 0.01
    for options in ({"scale": 0.5}, {"scale": 2.0}, {"shift": 0.5}):
        wrong = by_name(RankStatistics().score(Draws(problem.draws(truth.y, 100, **options)), truth))
        assert wrong["sbc_p_value/a"].value < 0.002, options
        assert wrong["sbc_deviation/a"].value > wrong["sbc_deviation/a"].null_high
        assert wrong["sbc_p_value/log_likelihood"].value < 0.002, options
    narrow, wide = (
        by_name(RankStatistics().score(Draws(problem.draws(truth.y, 100, scale=s)), truth))["sbc_bias/log_likelihood"]
        for s in (0.5, 2.0)
    )
    assert narrow.value < narrow.null_low
    assert wide.value > wide.null_high


def test_the_likelihood_tells_the_prior_from_the_posterior(problem, truth, by_name):
    prior = by_name(RankStatistics().score(Draws(problem.prior.sample((100, 400))), truth))
    for p in "abc":
        assert prior[f"sbc_p_value/{p}"].value > 0.01
    assert prior["sbc_p_value/log_likelihood"].value < 0.001
    assert prior["sbc_bias/log_likelihood"].value > 0.3


def test_what_the_likelihood_costs_and_what_is_left_of_its_power(problem, by_name):
    """11 draws of 500 measurements, whatever is given; exact draws pass, draws that are 1.3 times too wide fail."""
    calls = []

    def log_likelihood(theta, y):
        calls.append(len(theta))
        return Normal(theta @ problem.forward.T, problem.noise).log_prob(y).sum(-1)

    truth = replace(problem.truth(600), log_likelihood=log_likelihood)
    found = by_name(RankStatistics().score(problem.exact(truth, 60), truth))
    assert sum(calls) == 12 * 500
    bias = found["sbc_bias/log_likelihood"]
    assert len(bias.per_measurement) == 500
    assert bias.null_high == pytest.approx(1.96 / (12 * 500) ** 0.5, rel=1e-3)
    edges = uniform_ranks(500).largest[[50, 1950]]
    assert found["sbc_deviation/log_likelihood"].null_low == pytest.approx(float(edges[0]))
    assert found["sbc_deviation/log_likelihood"].null_high == pytest.approx(float(edges[1]))
    wide = by_name(RankStatistics().score(Draws(problem.draws(truth.y, 60, scale=1.3)), truth))
    assert wide["sbc_bias/log_likelihood"].value > bias.null_high
    assert wide["sbc_p_value/log_likelihood"].value < 0.05


def test_likelihood_of_what_lies_outside_or_is_broken(normal_truth):
    truth = normal_truth(50)
    below = replace(truth, log_likelihood=lambda theta, y: torch.full((len(theta),), -torch.inf))
    assert 0.3 < float(likelihood_ranks(torch.randn(20, 50, 1), below).mean()) < 0.7, "ties are broken at random"
    broken = replace(truth, log_likelihood=lambda theta, y: torch.full((len(theta),), torch.nan))
    with pytest.raises(ValueError, match="NaN or"):
        likelihood_ranks(torch.randn(20, 50, 1), broken)
    with pytest.raises(ValueError, match="log_likelihood"):
        likelihood_ranks(torch.randn(20, 50, 1), truth)
    assert list(RankStatistics().score(Draws(torch.randn(20, 2, 1)), normal_truth(2))) == []

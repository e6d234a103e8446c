from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Independent, Uniform

from posterior_bench import Draws
from posterior_bench.evaluation import Leakage, metrics_shipped
from posterior_bench.priors import Product


def test_leaked_and_lost_draws_are_counted(problem, by_name):
    prior = Independent(Uniform(torch.zeros(3), torch.ones(3)), 1)
    truth = replace(problem.truth(10), prior=prior)
    theta = torch.rand(20, 10, 3)
    assert by_name(Leakage().score(Draws(theta), truth))["leakage"].value == 0
    theta[:5, 2, 1] = 1.5
    theta[0, 3, 0] = torch.nan
    theta[1, 3, 2] = torch.inf
    for form in (prior, Product([Uniform(0.0, 1.0)] * 3)):
        score = by_name(Leakage().score(Draws(theta), replace(truth, prior=form)))["leakage"]
        assert score.value == pytest.approx(7 / 200)
        assert score.per_measurement[2] == pytest.approx(0.25)
        assert (score.null_low, score.null_high) == (0, 0)


def test_non_finite_draws_raise_in_every_other_metric(problem):
    truth = problem.truth(20, reference=10)
    for value in (torch.nan, torch.inf):
        draws = problem.exact(truth, 30)
        draws.theta[3, 7, 1] = value
        for metric in metrics_shipped():
            if isinstance(metric, Leakage):
                assert next(iter(metric.score(draws, truth))).value == pytest.approx(1 / 600)
            else:
                with pytest.raises(ValueError, match="1 of 600 draws are not finite, the first for measurement 7"):
                    list(metric.score(draws, truth))


DENSITY = ("log_score", "hpd_coverage_bias")
"""Scores that look at nothing where there is no density."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: (Draws(d.theta[:, :5]), t), "expected \\(n, T, D\\)"),
        (lambda d, t: (Draws(d.theta[:2]), t), "at least 3"),
        (lambda d, t: (Draws(d.theta.requires_grad_()), t), "torch.no_grad"),
        (lambda d, t: (d, replace(t, theta=t.theta * torch.nan)), "true parameters hold NaN"),
        (lambda d, t: (d, replace(t, prior_draws=t.prior_draws * 0)), "'a' has spread 0.0 under the prior"),
        (lambda d, t: (d, replace(t, parameters=t.parameters[:2])), "3 columns and there are 2 parameters"),
    ],
)
def test_what_cannot_be_scored_says_why(problem, change, message):
    truth = problem.truth(20, reference=10)
    draws, truth = change(problem.exact(truth, 30), truth)
    for metric in metrics_shipped():
        if isinstance(metric, Leakage) or (draws.log_density is None and metric.name in DENSITY):
            continue
        with pytest.raises(ValueError, match=message):
            list(metric.score(draws, truth))

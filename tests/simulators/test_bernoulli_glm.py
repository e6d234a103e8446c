"""A neuron's spikes against torch's Bernoulli distribution, the definition of the prior, and published spikes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli

from posterior_bench.checks import check_simulator
from posterior_bench.runtime import scope
from simulators.bernoulli_glm import BernoulliGLM, BernoulliGLMRaw, design

SUMS, RAW = BernoulliGLM(), BernoulliGLMRaw()
X = design(torch.device("cpu"))

THETA = (1.215716, 2.1386335, 3.6156292, 3.3703978, 0.3342961)
THETA += (-1.5749966, -2.4357948, -2.1009881, -1.1669482, 0.3189116)
STATISTICS = (56.0, 3.32306, 14.356438, 11.104893, -4.167525, -18.507809, -21.917496, -9.553517, -0.357257, -5.497825)
SPIKES = "1101111111100000011111110001110111100000111100001110001111001100011111001110000000111000111110000111"
"""The benchmark's first observation, from its public repository: theta, statistics, spikes."""


def spikes() -> torch.Tensor:
    return torch.tensor([[float(spike) for spike in SPIKES]])


@pytest.mark.parametrize("simulator", [SUMS, RAW], ids=lambda s: s.spec.name)
def test_conforms(simulator: BernoulliGLM) -> None:
    with scope(0):
        findings = {f.name: f for f in check_simulator(simulator)}
    assert {"likelihood", "gradient"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


def test_published_spikes_have_the_published_statistics() -> None:
    """To the precision printed: the input and its lags are those of the benchmark."""
    assert len(SPIKES) == 100
    found = spikes().double() @ X
    torch.testing.assert_close(found, torch.tensor([STATISTICS]).double(), atol=2e-5, rtol=0)


def test_published_spikes_are_as_likely_as_spikes_of_their_theta_are() -> None:
    theta = torch.tensor([THETA])
    seen = float(RAW.log_likelihood(theta, spikes()))
    with scope(1):
        typical = RAW.log_likelihood(theta.expand(2000, -1), RAW.simulate(theta.expand(2000, -1)))
    assert abs(seen - float(typical.mean())) < 4 * float(typical.std())
    assert seen > float(RAW.log_likelihood(torch.zeros(1, 10), spikes())) + 20
    torch.testing.assert_close(SUMS.log_likelihood(theta, torch.tensor([STATISTICS])), torch.tensor([seen]))


def test_design_is_the_lagged_input() -> None:
    assert X.shape == (100, 10)
    assert (X[:, 0] == 1).all()
    for j in range(9):
        assert (X[:j, 1 + j] == 0).all()
        assert torch.equal(X[j:, 1 + j], X[: 100 - j, 1])
    assert float(X[0, 1]) == pytest.approx(0.49671414, abs=1e-7)  # the first normal number of numpy's seed 42


def test_prior_is_smooth_along_the_filter() -> None:
    """Against the definition, written out row by row."""
    root = np.zeros((9, 9))
    for i in range(9):
        root[i, i] = 1 + math.sqrt(i / 9)
        if i >= 1:
            root[i, i - 1] = -2
        if i >= 2:
            root[i, i - 2] = 1
    prior = SUMS.prior()
    exact = np.zeros((10, 10))
    exact[0, 0] = 2.0
    exact[1:, 1:] = np.linalg.inv(root.T @ root)
    np.testing.assert_allclose(prior.covariance_matrix.numpy(), exact, rtol=2e-3, atol=2e-4)
    with scope(2):
        theta = prior.sample((40_000,))
    np.testing.assert_allclose(theta.T.cov().numpy(), exact, atol=0.05 * exact.max())
    rough = (theta[:, 3:] - 2 * theta[:, 2:-1] + theta[:, 1:-2]).std()
    assert float(rough) < 1.5 * float(theta[:, 1:].std())


def test_spikes_are_bernoulli() -> None:
    theta = torch.tensor([THETA]).double() / 3
    chance = torch.sigmoid(theta @ X.T)[0]
    n = 20_000
    with scope(3):
        y = RAW.simulate(theta.expand(n, -1))
    assert ((y == 0) | (y == 1)).all()
    assert ((y.mean(0) - chance).abs() < 5 * (chance * (1 - chance) / n).sqrt() + 1e-9).all()
    mean, cov = chance @ X, X.T @ (X * (chance * (1 - chance))[:, None])
    with scope(4):
        sums = SUMS.simulate(theta.expand(n, -1))
    assert ((sums.mean(0) - mean).abs() < 5 * (cov.diagonal() / n).sqrt()).all()
    torch.testing.assert_close(sums.T.cov(), cov, atol=0.05 * float(cov.abs().max()), rtol=0)


def test_likelihoods_are_those_of_the_spikes() -> None:
    with scope(5):
        theta = SUMS.prior().sample((100,)).double()
        y = RAW.simulate(theta)
    exact = Bernoulli(logits=theta @ X.T).log_prob(y).sum(1)
    torch.testing.assert_close(RAW.log_likelihood(theta, y), exact)
    torch.testing.assert_close(SUMS.log_likelihood(theta, y @ X), exact)


def test_raw_likelihood_sums_to_one() -> None:
    """Over the 2^8 patterns of eight bins, given those of the others: the conditional probabilities."""
    with scope(6):
        theta = RAW.prior().sample((1,)).double() / 3
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 8)
    y = spikes().double().repeat(256, 1)
    y[:, 40:48] = patterns
    total = RAW.log_likelihood(theta.expand(256, -1), y).logsumexp(0)
    others = torch.cat([torch.arange(40), torch.arange(48, 100)])
    exact = Bernoulli(logits=(theta @ X.T)[0, others]).log_prob(y[0, others]).sum()
    torch.testing.assert_close(total, exact)


def test_what_is_no_spike_train_is_impossible() -> None:
    y = spikes().repeat(3, 1)
    y[1, 3], y[2, 5] = 0.5, math.nan
    values = RAW.log_likelihood(torch.zeros(3, 10), y)
    assert values.tolist() == pytest.approx([100 * math.log(0.5), -math.inf, -math.inf])


@pytest.mark.parametrize("simulator", [SUMS, RAW], ids=lambda s: s.spec.name)
def test_row_that_is_not_finite_fails_as_a_whole(simulator: BernoulliGLM) -> None:
    theta = torch.zeros(2, 10)
    theta[0, 4] = math.inf
    y = simulator.simulate(theta)
    assert torch.isnan(y[0]).all()
    assert torch.isfinite(y[1]).all()

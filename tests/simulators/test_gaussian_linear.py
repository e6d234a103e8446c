"""Ten means under two priors: the noise, the likelihood, and both posteriors against independent constructions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm, truncnorm
from torch import Tensor
from torch.distributions import Normal

from posterior_bench.checks import check_simulator
from posterior_bench.checks.statistics import departure_from_uniform, distance_between, ranks
from posterior_bench.runtime import scope
from simulators.gaussian_linear import GaussianLinear, GaussianLinearUniform

BOTH = (GaussianLinear(), GaussianLinearUniform())
SD = math.sqrt(0.1)


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


PUBLISHED = {
    "gaussian_linear": (
        numbers(
            "0.27184236 0.6762953 0.17189318 -0.04218617 -0.82151634 "
            "0.024290232 -0.24255924 -0.16438946 -0.13595216 0.26958188"
        ),
        numbers(
            "1.0471346 0.5566712 -0.23618454 0.027879834 -1.0051446 "
            "-0.007930746 0.06117077 -0.29286885 -0.38539964 0.2449614"
        ),
    ),
    "gaussian_linear_uniform": (
        numbers(
            "-0.95270705 -0.14817107 0.9824493 0.41320384 0.99042416 "
            "-0.74023414 0.7862458 0.043799043 -0.6261761 -0.76511395"
        ),
        numbers(
            "-0.53739023 -0.23864163 0.81923723 0.6407443 0.41616207 "
            "-0.09746933 1.1292295 -0.05842293 -0.97055256 -0.9423423"
        ),
    ),
}
"""theta and y of the benchmark's first observation, from its public repository."""


@pytest.mark.parametrize("simulator", BOTH, ids=lambda s: s.spec.name)
def test_conforms(simulator: GaussianLinear) -> None:
    with scope(0):
        findings = {f.name: f for f in check_simulator(simulator)}
    assert {"noise", "likelihood", "gradient", "reference_ranks", "reference_density"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


@pytest.mark.parametrize("simulator", BOTH, ids=lambda s: s.spec.name)
def test_noise_has_variance_a_tenth(simulator: GaussianLinear) -> None:
    with scope(1):
        theta = simulator.prior().sample((20_000,))
        residual = simulator.simulate(theta) - theta
    torch.testing.assert_close(residual.T.cov(), 0.1 * torch.eye(10), atol=0.006, rtol=0)
    assert residual.mean(0).abs().max() < 5 * SD / math.sqrt(20_000)
    assert torch.corrcoef(torch.cat([theta, residual], 1).T)[:10, 10:].abs().max() < 0.04


def test_priors() -> None:
    with scope(2):
        normal, uniform = (s.prior().sample((20_000,)) for s in BOTH)
    torch.testing.assert_close(normal.var(0), torch.full((10,), 0.1), atol=0.005, rtol=0)
    assert uniform.abs().max() <= 1
    torch.testing.assert_close(uniform.var(0), torch.full((10,), 1 / 3), atol=0.01, rtol=0)


@pytest.mark.parametrize("simulator", BOTH, ids=lambda s: s.spec.name)
def test_likelihood_is_the_normal_density(simulator: GaussianLinear) -> None:
    with scope(3):
        theta = simulator.prior().sample((50,)).double()
        y = simulator.simulate(theta)
    torch.testing.assert_close(simulator.log_likelihood(theta, y), Normal(theta, SD).log_prob(y).sum(1))


@pytest.mark.parametrize("simulator", BOTH, ids=lambda s: s.spec.name)
def test_published_observation_is_as_far_off_as_the_noise_puts_it(simulator: GaussianLinear) -> None:
    theta, y = (torch.tensor([values]) for values in PUBLISHED[simulator.spec.name])
    assert torch.isfinite(simulator.prior().log_prob(theta)).all()
    assert 1.5 < float(((y - theta) ** 2).sum() / 0.1) < 29.6  # 99.8 % of chi^2 with 10 degrees of freedom


def test_conjugate_posterior() -> None:
    y = torch.tensor([PUBLISHED["gaussian_linear"][1], [0.0] * 9 + [2.0]]).double()
    with scope(4):
        draws = GaussianLinear().sample_reference(y, 20_000)
    # precision weighting of two equal variances
    torch.testing.assert_close(draws.mean(0), y / 2, atol=5 * math.sqrt(0.05 / 20_000), rtol=0)
    for j in range(2):
        torch.testing.assert_close(draws[:, j].T.cov(), 0.05 * torch.eye(10).double(), atol=0.003, rtol=0)


def test_uniform_posterior_is_what_rejection_leaves() -> None:
    y = torch.tensor([PUBLISHED["gaussian_linear_uniform"][1]])
    with scope(5):
        exact = GaussianLinearUniform().sample_reference(y, 5000)[:, 0]
        proposed = y + SD * torch.randn(200_000, 10)
    kept = proposed[(proposed.abs() <= 1).all(1)]
    assert len(kept) > 3000
    for i in range(10):
        assert distance_between(exact[:, i], kept[:, i]) < 5 * math.sqrt((1 / len(kept) + 1 / 5000) / 4)


@pytest.mark.parametrize("value", [-3.0, -1.0, 0.0, 3.0])
def test_uniform_posterior_far_out_in_the_tail(value: float) -> None:
    y = torch.full((1, 10), value).double()
    with scope(6):
        draws = GaussianLinearUniform().sample_reference(y, 4000).flatten()
    exact = truncnorm((-1 - value) / SD, (1 - value) / SD, loc=value, scale=SD)
    assert abs(float(draws.mean()) - exact.mean()) < 5 * exact.std() / math.sqrt(40_000)
    assert float(draws.std()) == pytest.approx(exact.std(), rel=0.05)


@pytest.mark.parametrize("value", [3.5, math.nan])
def test_impossible_measurement_is_told(value: float) -> None:
    y = torch.zeros(3, 10)
    y[1, 4] = value
    with pytest.raises(ValueError, match="measurement 1 is"):
        GaussianLinearUniform().sample_reference(y, 2)


@pytest.mark.parametrize("simulator", BOTH, ids=lambda s: s.spec.name)
def test_ranks_of_the_truth_are_uniform(simulator: GaussianLinear) -> None:
    with scope(7):
        theta = simulator.prior().sample((2000,))
        draws = simulator.sample_reference(simulator.simulate(theta), 49)
        everything: list[tuple[Tensor, Tensor]] = list(zip(theta.unbind(1), draws.unbind(2), strict=True))
        everything.append((theta.norm(dim=1), draws.norm(dim=2)))
        for truth, others in everything:
            assert departure_from_uniform(ranks(truth, others)) == ""


@pytest.mark.parametrize("simulator", BOTH, ids=lambda s: s.spec.name)
def test_row_that_is_not_finite_fails_as_a_whole(simulator: GaussianLinear) -> None:
    theta = torch.zeros(3, 10)
    theta[1, 2] = math.inf
    y = simulator.simulate(theta)
    assert torch.isnan(y).all(1).tolist() == [False, True, False]
    assert torch.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize("simulator", BOTH, ids=lambda s: s.spec.name)
def test_density_of_the_posterior(simulator: GaussianLinear) -> None:
    """Against scipy's, for measurements in the middle and at the prior's edge."""
    y = torch.tensor([[0.1 * i for i in range(10)], [1.2] * 10]).double()
    with scope(8):
        theta = simulator.sample_reference(y, 5)
    if isinstance(simulator, GaussianLinear):
        exact = torch.as_tensor(norm(y / 2, math.sqrt(0.05)).logpdf(theta)).sum(-1)
    else:
        exact = torch.as_tensor(truncnorm((-1 - y) / SD, (1 - y) / SD, loc=y, scale=SD).logpdf(theta)).sum(-1)
        assert simulator.log_reference(torch.full((1, 2, 10), 1.1), y).isneginf().all()
    torch.testing.assert_close(simulator.log_reference(theta, y), exact)

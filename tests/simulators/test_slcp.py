"""Four points of a normal distribution, alone and among distractors, against torch, scipy and published numbers."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest, t
from torch import Tensor
from torch.distributions import MultivariateNormal

from posterior_bench.checks import check_simulator
from posterior_bench.checks.statistics import normalisation
from posterior_bench.runtime import scope
from simulators.slcp import SLCP, SLCPDistractors, distractor_mixture

PLAIN, HIDDEN = SLCP(), SLCPDistractors()

PUBLISHED = (
    (
        [-2.8581212, -0.44451332, 2.9473476, 1.2396116, 2.9712725],
        [2.3718784, 0.49947417, 9.931435, 1.7136912, -10.436423, -1.9067793, -1.2343777, -0.09735],
    ),
    (
        [-0.8669908, -2.6278377, 2.8607178, -1.8587376, -2.7437975],
        [-0.66452104, -2.9279308, -16.49147, 4.06107, 4.232153, -4.652277, -4.9924355, -1.5655216],
    ),
)
"""theta and y of the benchmark's first two observations, from its public repository."""

PLACES = (22, 33, 23, 67, 42, 21, 16, 90)
"""Where the numbers of its first observation stand among those with distractors, counted from 0."""


def covariance(theta: Tensor) -> Tensor:
    """S (N, 2, 2) as the definition has it."""
    first, second, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, theta[:, 4].tanh()
    rows = [torch.stack([first**2, rho * first * second], 1), torch.stack([rho * first * second, second**2], 1)]
    return torch.stack(rows, 1) + 1e-6 * torch.eye(2, dtype=theta.dtype)


@pytest.mark.parametrize("simulator", [PLAIN, HIDDEN], ids=lambda s: s.spec.name)
def test_conforms(simulator: SLCP) -> None:
    with scope(0):
        findings = {f.name: f for f in check_simulator(simulator, measurements=80)}
    assert {"noise", "likelihood", "gradient", "reference", "reference_ranks", "reference_density"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


def test_likelihood_integrates_to_one() -> None:
    told = 0
    with scope(7):
        for theta in PLAIN.prior().sample((10,)).double():
            y = PLAIN.simulate(theta.expand(1000, -1))
            root = torch.linalg.cholesky(torch.block_diag(*[covariance(theta[None])[0]] * 4))
            centre = theta[:2].repeat(4)
            whitened = torch.linalg.solve_triangular(root, (y - centre).T, upper=False).T

            def claimed(z: Tensor, theta: Tensor = theta, root: Tensor = root, centre: Tensor = centre) -> Tensor:
                density = PLAIN.log_likelihood(theta.expand(len(z), -1), centre + z @ root.T)
                return density + root.diagonal().log().sum()

            off = normalisation(whitened, claimed)
            told += off is not None
            assert off is None or abs(off) < 5
    assert told == 10


def test_moments_of_the_points() -> None:
    theta = torch.tensor([[1.5, -2.0, -1.2, 0.8, 1.0]]).double()
    with scope(1):
        points = PLAIN.simulate(theta.expand(20_000, -1)).view(20_000, 4, 2)
    exact = covariance(theta)[0]
    for j in range(4):
        error = 5 * (exact.diagonal() / 20_000).sqrt()
        assert ((points[:, j].mean(0) - theta[0, :2]).abs() < error).all()
        torch.testing.assert_close(points[:, j].T.cov(), exact, atol=0.06, rtol=0.06)
    between = torch.corrcoef(points.flatten(1).T)[:2, 2:]
    assert between.abs().max() < 5 / math.sqrt(20_000)


def test_likelihood_is_the_normal_density() -> None:
    with scope(2):
        theta = PLAIN.prior().sample((200,)).double()
        y = PLAIN.simulate(theta)
    exact = MultivariateNormal(theta[:, None, :2], covariance(theta)[:, None]).log_prob(y.view(-1, 4, 2)).sum(1)
    torch.testing.assert_close(PLAIN.log_likelihood(theta, y), exact, rtol=1e-6, atol=1e-6)


def test_likelihood_is_finite_where_the_spread_vanishes() -> None:
    theta = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 2.0, 3.0]])
    with scope(3):
        y = PLAIN.simulate(theta)
    assert torch.isfinite(PLAIN.log_likelihood(theta, y)).all()
    assert y[0].abs().max() < 0.01  # sd 0.001


@pytest.mark.parametrize(("theta", "y"), PUBLISHED)
def test_published_observations_are_as_far_off_as_the_noise_puts_them(theta: list[float], y: list[float]) -> None:
    at, seen = torch.tensor([theta]).double(), torch.tensor([y]).double()
    assert torch.isfinite(PLAIN.prior().log_prob(at.float())).all()
    off = seen.view(4, 2) - at[:, :2]
    squares = (off @ covariance(at)[0].inverse() * off).sum()
    assert 0.86 < float(squares) < 26.1  # 99.8 % of chi^2 with 8 degrees of freedom
    spread = 4 * math.log(2 * math.pi) + 2 * float(covariance(at)[0].logdet())
    assert float(PLAIN.log_likelihood(at, seen)) == pytest.approx(-0.5 * float(squares) - spread)


def test_posterior_has_four_modes_alike() -> None:
    theta, y = (torch.tensor([values]) for values in PUBLISHED[0])
    values = [
        PLAIN.log_likelihood(theta * torch.tensor([1.0, 1.0, first, second, 1.0]), y)
        for first in (1, -1)
        for second in (1, -1)
    ]
    torch.testing.assert_close(torch.cat(values), values[0].expand(4))


WIDE = [0.5, -1.0, 2.5, -2.2, 0.8]
FLAT = [1.0, 2.0, 0.01, 1.4, -1.0]
"""A spread so small in one direction that the jitter is most of it."""


def weighted(theta: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """A measurement (1, 8) and weighted draws of its posterior (m, 5), (m,), that are not those of the reference.

    The mean of the weights is p(y). Proposed are a Student distribution about the reference in all but theta5, whose
    density is flat, with the sign of theta4 tossed.
    """
    with scope(11):
        y = PLAIN.simulate(torch.tensor([theta]).double())
        near = PLAIN.sample_reference(y, 2000)[:, 0, :4]
        near[:, 3] = near[:, 3].abs()
        student = MultivariateNormal(near.mean(0), 1.5 * near.T.cov())
        m, freedom = 200_000, 5.0
        stretch = (freedom / torch.distributions.Chi2(freedom).sample((m, 1))).sqrt().double()
        at = student.mean + stretch * (student.sample((m,)) - student.mean)
        fifth, sign = 6 * torch.rand(m).double() - 3, torch.where(torch.rand(m) < 0.5, -1.0, 1.0)
    squares = (torch.linalg.solve_triangular(student.scale_tril, (at - student.mean).T, upper=False) ** 2).sum(0)
    log_proposal = (
        math.lgamma((freedom + 4) / 2)
        - math.lgamma(freedom / 2)
        - 2 * math.log(freedom * math.pi)
        - student.scale_tril.logdet()
        - (freedom + 4) / 2 * (1 + squares / freedom).log()
        - math.log(6)
        - math.log(2)
    )
    possible = (at[:, 3] >= 0) & (at.abs() <= 3).all(1)
    draws = torch.cat([at, fifth[:, None]], dim=1)
    draws[:, 3] *= sign
    prior = -5 * math.log(6)
    log_weights = PLAIN.log_likelihood(draws, y.expand(m, -1)) + prior - log_proposal
    return y, draws, torch.where(possible, log_weights, -math.inf).exp()


@pytest.mark.parametrize("theta", [WIDE, FLAT])
def test_reference_is_what_importance_sampling_finds(theta: list[float]) -> None:
    y, draws, weights = weighted(theta)
    ess = float(weights.sum() ** 2 / weights.square().sum())
    assert ess > 2000
    at = draws[weights > 0][:3, None]
    joint = PLAIN.log_likelihood(at[:, 0], y.expand(3, -1)) - 5 * math.log(6)
    constant = joint - PLAIN.log_reference(at, y)[:, 0]
    torch.testing.assert_close(constant, weights.mean().log().expand(3), atol=5 / math.sqrt(ess), rtol=0)
    with scope(12):
        exact = PLAIN.sample_reference(y, 4000)[:, 0]
    for k in range(5):
        order = draws[:, k].argsort()
        below = weights[order].cumsum(0) / weights.sum()
        places = torch.searchsorted(draws[order, k].contiguous(), exact[:, k].contiguous()).clamp(max=len(order) - 1)
        ranks = below[places]  # uniform, but for the error of the weighted draws
        assert kstest(ranks.numpy(), "uniform").statistic < 1.95 * (1 / math.sqrt(4000) + 1 / math.sqrt(ess))


def test_reference_is_the_same_among_distractors() -> None:
    y = torch.tensor([PUBLISHED[0][1]]).double()
    hidden = torch.randn(1, 100).double()
    hidden[0, list(PLACES)] = y[0]
    found = []
    for simulator, at in ((PLAIN, y), (HIDDEN, hidden)):
        with scope(13):
            draws = simulator.sample_reference(at, 50)
            found.append((draws, simulator.log_reference(draws, at)))
    torch.testing.assert_close(found[0], found[1])


def test_reference_of_a_measurement_that_nothing_explains() -> None:
    with pytest.raises(ValueError, match=r"no theta in \[-3, 3\]\^5"):
        PLAIN.sample_reference(torch.full((1, 8), 1e4) + torch.arange(8) * 1e-3, 5)


def test_permutation_is_the_published_one() -> None:
    """It is drawn last, so it agrees only if centres and matrices before it do."""
    assert distractor_mixture()[2].argsort()[:8].tolist() == list(PLACES)


def test_likelihood_reads_the_informative_numbers_alone() -> None:
    theta, y = (torch.tensor([values]).double() for values in PUBLISHED[0])
    hidden = torch.randn(1, 100).double()
    hidden[0, list(PLACES)] = y[0]
    torch.testing.assert_close(HIDDEN.log_likelihood(theta, hidden), PLAIN.log_likelihood(theta, y))


def test_distractors_know_nothing_of_theta_and_points_are_those_of_slcp() -> None:
    with scope(4):
        theta, other = HIDDEN.prior().sample((2, 50))
        noise = torch.randn(50, HIDDEN.noise_dim)
    first, second = HIDDEN.simulate_from(theta, noise), HIDDEN.simulate_from(other, noise)
    rest = [i for i in range(100) if i not in PLACES]
    assert torch.equal(first[:, rest], second[:, rest])
    torch.testing.assert_close(first[:, list(PLACES)], PLAIN.simulate_from(theta, noise[:, :8]))


def test_distractors_are_a_mixture_of_t_distributions() -> None:
    """Components are equally likely, row by row; in a component, each combination of numbers is t of 2 degrees."""
    centres, matrices, order = distractor_mixture()
    n = 6000
    with scope(5):
        noise = torch.randn(n, HIDDEN.noise_dim).double()
        y = HIDDEN.simulate_from(torch.zeros(n, 5).double(), noise)
    hidden = y[:, order.argsort()[8:]]
    component = (torch.special.ndtr(noise[:, 8]) * 20).long()
    counts = component.bincount(minlength=20) / n
    assert (counts - 1 / 20).abs().max() < 5 * math.sqrt(1 / 20 * 19 / 20 / n)
    with scope(6):
        weights = torch.randn(92).double()
    for direction in (torch.eye(92).double()[0], torch.eye(92).double()[57], weights):
        scale = (direction @ matrices).norm(dim=1)  # of the t distribution, by component
        z = (hidden - centres[component]) @ direction / scale[component]
        assert kstest(z.numpy(), t(2).cdf).pvalue > 1e-5


def test_mixture_has_the_scales_of_its_definition() -> None:
    centres, matrices, order = distractor_mixture()
    assert centres.shape == (20, 92)
    assert matrices.shape == (20, 92, 92)
    assert sorted(order.tolist()) == list(range(100))
    assert float(centres.std()) == pytest.approx(15, rel=0.1)
    assert (matrices.triu(1) == 0).all()
    below = matrices[:, *torch.tril_indices(92, 92, -1)]
    assert float(below.std()) == pytest.approx(3, rel=0.02)
    # E[z + exp(z')] = sqrt(e)
    assert float(matrices.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(3 * math.exp(0.5), rel=0.12)


@pytest.mark.parametrize("simulator", [PLAIN, HIDDEN], ids=lambda s: s.spec.name)
def test_row_that_is_not_finite_fails_as_a_whole(simulator: SLCP) -> None:
    theta = torch.zeros(2, 5)
    theta[0, 0] = math.nan
    y = simulator.simulate(theta)
    assert torch.isnan(y[0]).all()
    assert torch.isfinite(y[1]).all()

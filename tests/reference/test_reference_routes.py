from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from posterior_bench.checks.gaussian import NOISE_SD, PRIOR_SD, LinearGaussian
from posterior_bench.reference import Settings, simulate_pairs
from posterior_bench.reference.importance import MOST_CORRECTIONS, Proposal, _distinct, _separate, pool, refine
from posterior_bench.reference.mixture import fit_mixture
from posterior_bench.reference.routes import Routes
from posterior_bench.reference.target import Target
from posterior_bench.runtime import scope
from simulators.bernoulli_glm import BernoulliGLM
from simulators.slcp import SLCP
from simulators.slcp.posterior import log_evidence
from simulators.two_moons import TwoMoons

SMALL = Settings(
    flow_steps=0, components=6, pilot=1000, most_pilot=2000, proposals=10_000, error=0.006, particles=400, moves=4
)


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None:
        pass


def measured(simulator, count: int):
    with scope(11):
        return simulate_pairs(simulator, count)


def evidence(simulator: LinearGaussian, y: torch.Tensor) -> torch.Tensor:
    """log N(y; 0, A diag(sd^2) A^T + noise^2 I)."""
    y = y.double()
    matrix = simulator._matrix(y)
    prior = torch.diag(torch.tensor(PRIOR_SD, dtype=y.dtype) ** 2)
    covariance = matrix @ prior @ matrix.T + NOISE_SD**2 * torch.eye(y.shape[1], dtype=y.dtype)
    return MultivariateNormal(torch.zeros_like(y[0]), covariance).log_prob(y)


def test_both_routes_find_the_known_evidence_and_posterior():
    simulator, y = LinearGaussian(), measured(LinearGaussian(), 4).y
    routes = Routes(simulator, dataclasses.replace(SMALL, part=3), Silent())
    first, second = routes.first(y, 500, None, "one"), routes.second(y, 500, "two")
    posterior = simulator.posterior(y.double())
    sd = posterior.covariance_matrix.diagonal(dim1=1, dim2=2).sqrt()
    for result in (first, second.importance):
        error = result.log_evidence - evidence(simulator, y)
        assert (error.abs() < 4 * result.log_evidence_error).all()
        assert (result.log_evidence_error <= SMALL.error).all()
        assert (result.effective_size >= 5000).all()
        assert (result.pareto_k < 0.7).all()
        assert result.theta.shape == (500, 4, 2)
        shift = (result.theta.mean(0) - posterior.mean) / sd
        assert shift.abs().max() < 4 / 500**0.5
        assert (result.theta.std(0) / sd - 1).abs().max() < 4 / 1000**0.5
    assert (second.tempered.mean(0) - evidence(simulator, y)).abs().max() < 0.4
    again = routes.first(y, 500, None, "one")
    assert torch.equal(again.theta, first.theta)
    assert not torch.equal(routes.first(y, 500, None, "other").theta, first.theta)


def test_a_flow_is_a_proposal_of_its_own():
    simulator, y = LinearGaussian(), measured(LinearGaussian(), 2).y
    recipe = dataclasses.replace(
        SMALL,
        flow_steps=150,
        simulations=2000,
        flow_width=16,
        flow_transforms=1,
        flow_bins=4,
        refinements=0,
        error=0.02,
    )
    routes = Routes(simulator, recipe, Silent())
    flow = routes.flow(torch.device("cpu"))
    result = routes.first(y, 100, flow, "one")
    assert (result.refinements == 0).all()
    assert ((result.log_evidence - evidence(simulator, y)).abs() < 4 * result.log_evidence_error).all()
    with scope(1, dtype=torch.float64):
        target = Target.of(simulator, y)
        proposal = Proposal(target, flow, None, 0.1, 0.1)
        # importance sampling of the flow's own density: its integral is 1
        prior = target.draw_prior(20_000)
        ratio = (flow.log_prob(prior, y) - target.log_prior(prior)).exp()
        assert proposal.shares == pytest.approx((0.1, 0.9, 0.0))
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 20_000**0.5).all()


@pytest.mark.parametrize("steps", [40, 1500])
def test_a_surrogate_poor_or_good_gives_the_known_evidence_and_posterior(steps):
    corrected = []

    class Counted(LinearGaussian):
        def log_likelihood(self, theta, y):
            corrected.append(theta[..., 0].numel())
            return super().log_likelihood(theta, y)

    simulator, y = Counted(), measured(LinearGaussian(), 3).y
    recipe = dataclasses.replace(SMALL, surrogate_simulations=4000, surrogate_steps=steps, surrogate_width=16)
    routes = Routes(simulator, recipe, Silent())
    result = routes.first(y, 200, None, "one", routes.surrogate(torch.device("cpu")))
    once = recipe.corrections * 200
    poor = steps == 40
    assert sum(corrected) == (MOST_CORRECTIONS if poor else 1) * 3 * once  # more, where they do not suffice
    assert poor == bool((result.effective_size < 2000).all())
    assert poor or all(len(draws.unique(dim=0)) == 200 for draws in result.theta.unbind(1))
    assert ((result.log_evidence - evidence(simulator, y)).abs() < 4 * result.log_evidence_error).all()
    posterior = simulator.posterior(y.double())
    sd = posterior.covariance_matrix.diagonal(dim1=1, dim2=2).sqrt()
    assert (((result.theta.mean(0) - posterior.mean) / sd).abs() < 4 / 200**0.5).all()
    assert ((result.theta.std(0) / sd - 1).abs() < 4 / 400**0.5).all()


def test_copies_of_a_draw_count_as_one_of_their_weight():
    draws = torch.tensor([[1.0], [2.0], [1.0], [3.0], [1.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0], dtype=torch.float64).log()
    distinct, merged = _distinct(draws, weights)
    assert distinct[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert merged.exp().tolist() == pytest.approx([3.0, 2.0, 1.0])


def test_a_draw_with_the_share_of_one_kept_would_come_twice():
    weights = torch.full((10_000,), -3.0, dtype=torch.float64)
    assert _separate(weights, 999)
    assert not _separate(weights, 1001)  # too small an ESS
    weights[0] += math.log(309)  # 0.03 of all; ESS about 1,000
    assert _separate(weights, 30)
    assert not _separate(weights, 50)


def test_heavy_tails_of_a_pilot_ask_for_more_refinement():
    simulator, y = LinearGaussian(), measured(LinearGaussian(), 3).y
    rounds = {}
    for k in (None, -100.0):
        recipe = dataclasses.replace(SMALL, efficiency=0.2, pilot_k=k, refinements=5)
        rounds[k] = Routes(simulator, recipe, Silent()).first(y, 50, None, "one").refinements
    assert (rounds[None] < 5).all()
    assert (rounds[-100.0] == 5).all()


def test_a_surrogate_is_refused_where_it_does_not_fit():
    recipe = dataclasses.replace(SMALL, surrogate_simulations=100)
    with pytest.raises(TypeError, match="does not derive from HasNoise"):
        Routes(BernoulliGLM(), recipe, Silent()).surrogate(torch.device("cpu"))


def test_a_mixture_is_normalised_and_found_again():
    with scope(5, dtype=torch.float64):
        centres = torch.tensor([[-3.0, 0.0], [3.0, 1.0]])
        points = centres[torch.randint(2, (4000,))] + torch.tensor([0.3, 1.0]) * torch.randn(4000, 2)
        mixture = fit_mixture(points[:, None].expand(-1, 2, -1), torch.zeros(4000, 2), 4)
        line = torch.linspace(-12, 12, 481)[:-1] + 0.025
        grid = torch.cartesian_prod(line, line)[:, None].expand(-1, 2, -1)
        total = mixture.log_prob(grid).exp().sum(0) * 0.05**2
        assert (total - 1).abs().max() < 1e-3
        drawn = mixture.sample(20_000)
    assert (drawn.mean(0) - points.mean(0)).abs().max() < 0.15
    assert (drawn.std(0) / points.std(0) - 1).abs().max() < 0.1
    assert (drawn[..., 0] < 0).double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_density_does_not_depend_on_the_map_of_theta():
    """Of a prior whose marginals are not known as such, log Z is that of the one whose are."""

    @dataclasses.dataclass(frozen=True)
    class Correlated(LinearGaussian):
        def prior(self):
            return MultivariateNormal(torch.zeros(2), torch.diag(torch.tensor(PRIOR_SD) ** 2))

    y = measured(LinearGaussian(), 2).y
    result = Routes(Correlated(), SMALL, Silent()).first(y, 100, None, "one")
    assert ((result.log_evidence - evidence(LinearGaussian(), y)).abs() < 4 * result.log_evidence_error).all()


def test_two_moons_by_both_routes_and_by_its_own_sampler():
    """Two crescents a hundredth thick; each must have half of the draws."""
    simulator, y = TwoMoons(), measured(TwoMoons(), 2).y
    recipe = dataclasses.replace(SMALL, components=16, pilot=4000, most_pilot=8000, refinements=6)
    routes = Routes(simulator, recipe, Silent())
    first, second = routes.first(y, 400, None, "one"), routes.second(y, 1, "two")
    gap = (first.log_evidence - second.importance.log_evidence).abs()
    assert (gap < 4 * (first.log_evidence_error**2 + second.importance.log_evidence_error**2).sqrt()).all()
    assert (gap < 0.03).all()
    assert (first.pareto_k < 0.7).all()
    exact = simulator.sample_reference(y, 2000).double()
    assert (first.theta.sum(-1) > 0).double().mean().item() == pytest.approx(0.5, abs=0.1)
    for power in (1, 2):
        gap = (first.theta**power).mean(0) - (exact**power).mean(0)
        assert (gap.abs() < 4 * (exact**power).std(0) * (1 / 400 + 1 / 2000) ** 0.5).all()


def test_a_measurement_that_nothing_explains_is_named():
    class Impossible(LinearGaussian):
        def log_likelihood(self, theta, y):
            return torch.where(y[:, 0] > 50, -torch.inf, super().log_likelihood(theta, y))

    y = measured(LinearGaussian(), 3).y
    y[2] = 100
    routes = Routes(Impossible(), dataclasses.replace(SMALL, part=2), Silent())
    with pytest.raises(ArithmeticError, match="measurements 2 to 2: none of 1000 proposals"):
        routes.first(y, 10, None, "one")
    with pytest.raises(ArithmeticError, match="no draw of 400 from the prior"):
        routes.second(y, 10, "two")


def test_a_likelihood_that_is_no_number_is_refused():
    class Broken(LinearGaussian):
        def log_likelihood(self, theta, y):
            return super().log_likelihood(theta, y) * torch.nan

    with pytest.raises(ValueError, match="NaN or \\+inf"):
        Routes(Broken(), SMALL, Silent()).first(measured(LinearGaussian(), 1).y, 10, None, "one")


def test_a_pool_that_does_not_suffice_grows_to_its_limit():
    simulator, y = LinearGaussian(), measured(LinearGaussian(), 1).y
    recipe = dataclasses.replace(SMALL, proposals=500, most_proposals=3000, refinements=0)
    with scope(1, dtype=torch.float64):
        proposal, rounds = refine(Proposal(Target.of(simulator, y), None, None, 0.1, 0.1), recipe)
        result = pool(proposal, 100, 100, recipe, rounds)
    assert result.proposals.tolist() == [3000]
    assert result.effective_size < 1000


@pytest.mark.slow
def test_slcp_by_both_routes():
    simulator, y = SLCP(), measured(SLCP(), 3).y
    routes = Routes(simulator, Settings(flow_steps=500, simulations=20_000), Silent())
    first = routes.first(y, 500, routes.flow(torch.device("cpu")), "one")
    second = routes.second(y, 1, "two").importance
    assert ((first.log_evidence - second.log_evidence).abs() < 0.02).all()
    assert ((first.log_evidence - log_evidence(y)).abs() < 0.02).all()
    assert (first.effective_size > 5000).all()
    assert (first.pareto_k < 0.7).all()

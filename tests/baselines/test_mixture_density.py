"""Mixtures of full Gaussians against closed forms, torch's densities and grids."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, Uniform

from baselines.mixture_density import MixtureDensityNetwork, MixtureNetwork, MixturePosterior
from posterior_bench import Parameter, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.runtime import scope

SMALL = MixtureDensityNetwork(
    components=4, width=48, depth=2, batch_size=200, learning_rate=5e-3, steps=600, epochs=None
)


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


@dataclass(frozen=True)
class Sum(Simulator):
    """y = theta_1 + theta_2 + 0.3 noise, theta ~ N(0, I): given y, the two are strongly anticorrelated."""

    @property
    def spec(self) -> Spec:
        return Spec("sum", 1, "", (Parameter("first"), Parameter("second")), (1,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta.sum(1, keepdim=True) + 0.3 * torch.randn(len(theta), 1)

    def posterior(self, y: Tensor) -> MultivariateNormal:
        covariance = torch.linalg.inv(torch.eye(2) + torch.ones(2, 2) / 0.09)
        return MultivariateNormal(y / 0.09 @ torch.ones(1, 2) @ covariance, covariance)


@dataclass(frozen=True)
class Square(Simulator):
    """y = theta_1^2 + 0.1 noise, theta flat on (-2, 2) and (0, 3): two modes of theta_1, nothing of theta_2."""

    dim: int = 2

    @property
    def spec(self) -> Spec:
        return Spec("square", 1, "", tuple(Parameter(f"p{i}") for i in range(self.dim)), (1,))

    def prior(self) -> Distribution:
        high = torch.tensor([2.0, 3.0, *[1.0] * self.dim])[: self.dim]
        return Independent(Uniform(torch.where(torch.arange(self.dim) == 0, -2.0, 0.0), high), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta[:, :1] ** 2 + 0.1 * torch.randn(len(theta), 1)


def fitted(method: MixtureDensityNetwork, simulator: Simulator, size: int = 4000) -> MixturePosterior:
    with scope(0):
        theta = simulator.prior().sample((size,))
        simulations = Simulations(theta, simulator.simulate(theta))
        return method.fit(simulations, Problem(Task("task", simulator)), Silent())


@pytest.fixture(scope="module")
def square() -> MixturePosterior:
    return fitted(SMALL, Square())


@pytest.fixture(scope="module")
def network() -> MixtureNetwork:
    with scope(1):
        made = MixtureNetwork(3, 4, 5, 16, 1, 1e-3)
        for parameter in made.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return made.double().requires_grad_(False)


def factors(network: MixtureNetwork, y: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances (B, K, D, D) and their Cholesky factors, by inverting."""
    parts = network(y)
    factor = torch.linalg.inv(torch.eye(4).double() - parts.regression) @ torch.diag_embed(parts.sd)
    return factor @ factor.transpose(2, 3), factor


@pytest.mark.parametrize("simulator", [LinearGaussian(), Sum()], ids=["linear", "sum"])
def test_a_linear_problem_is_solved_with_its_covariance(simulator: LinearGaussian | Sum) -> None:
    posterior = fitted(SMALL, simulator)
    with scope(2):
        y = simulator.simulate(simulator.prior().sample((4,)))
        draws = posterior.sample(y, 5000)
        theta = simulator.prior().sample((4000,))
        measured = simulator.simulate(theta)
    exact = simulator.posterior(y)
    scale = exact.stddev
    # fits were off by up to 0.3 of an sd
    assert ((draws.mean(0) - exact.mean).abs() < 0.45 * scale).all()
    for k in range(len(y)):
        whitened = torch.linalg.inv(torch.linalg.cholesky(exact.covariance_matrix.expand(4, 2, 2)[k]))
        covariance = whitened @ torch.cov(draws[:, k].T) @ whitened.T
        torch.testing.assert_close(covariance, torch.eye(2), rtol=0, atol=0.35)
    regret = simulator.posterior(measured).log_prob(theta) - posterior.log_prob(theta[None], measured)[0]
    assert -4 * regret.std() / math.sqrt(4000) < regret.mean() < 0.1


def test_a_component_is_a_gaussian_of_torch(network: MixtureNetwork) -> None:
    """With sd as the diagonal of the Cholesky factor, as the formula has it."""
    y, real = torch.randn(6, 3).double(), torch.randn(7, 6, 4).double()
    parts = network(y)
    covariance, factor = factors(network, y)
    torch.testing.assert_close(factor.diagonal(dim1=2, dim2=3), parts.sd)
    assert torch.equal(parts.regression, parts.regression.tril(-1))
    assert parts.regression.tril(-1).abs().sum((0, 1)).count_nonzero() == 6
    each = MultivariateNormal(parts.mean, covariance).log_prob(real.unsqueeze(2))
    torch.testing.assert_close(parts.log_prob(real), (parts.log_weight + each).logsumexp(2))
    torch.testing.assert_close(parts.log_weight.exp().sum(1), torch.ones(6).double())


def test_draws_have_the_moments_of_the_mixture(network: MixtureNetwork) -> None:
    y = torch.randn(2, 3).double()
    parts, (covariance, _) = network(y), factors(network, y)
    weight = parts.log_weight.exp()[..., None]
    mean = (weight * parts.mean).sum(1)
    apart = parts.mean - mean[:, None]
    expected = (weight[..., None] * (covariance + apart[..., None] * apart[..., None, :])).sum(1)
    with scope(3):
        draws = parts.draw(40_000)
    scale = expected.diagonal(dim1=1, dim2=2).sqrt()
    assert ((draws.mean(0) - mean).abs() < 0.03 * scale).all()
    for k in range(2):
        outer = torch.outer(scale[k], scale[k])
        torch.testing.assert_close(torch.cov(draws[:, k].T) / outer, expected[k] / outer, rtol=0, atol=0.05)


def test_two_modes_are_found(square: MixturePosterior) -> None:
    with scope(4):
        draws = square.sample(torch.tensor([[1.0], [2.25]]), 4000)
    for k, place in enumerate((1.0, 1.5)):
        first = draws[:, k, 0]
        assert 0.4 < (first > 0).float().mean() < 0.6
        assert ((first.abs() - place).abs() < 0.25).float().mean() > 0.97
        assert (first.abs() - place).abs().mean() < 0.1
    assert ((draws[..., 1] > 0) & (draws[..., 1] < 3)).all()
    torch.testing.assert_close(draws[..., 1].mean(0), torch.full((2,), 1.5), rtol=0, atol=0.15)


def test_density_integrates_to_one_and_is_that_of_the_draws(square: MixturePosterior) -> None:
    axes = [torch.linspace(low, high, 401)[:-1] + (high - low) / 800 for low, high in ((-2.0, 2.0), (0.0, 3.0))]
    grid = torch.cartesian_prod(*axes)
    y = torch.tensor([[1.0], [2.25]])
    mass = square.log_prob(grid[:, None].expand(-1, 2, -1), y).exp() * (4 / 400) * (3 / 400)
    torch.testing.assert_close(mass.sum(0), torch.ones(2), rtol=0, atol=5e-3)
    with scope(5):
        draws = square.sample(y, 20_000)
    for low, high in ((-2.0, -1.0), (-1.0, 1.0), (1.0, 1.4), (1.4, 2.0)):
        inside = (draws[..., 0] > low) & (draws[..., 0] <= high) & (draws[..., 1] < 1)
        cells = (grid[:, 0] > low) & (grid[:, 0] <= high) & (grid[:, 1] < 1)
        torch.testing.assert_close(inside.float().mean(0), mass[cells].sum(0), rtol=0, atol=0.02)


def test_density_equals_brute_force_and_is_differentiable(square: MixturePosterior) -> None:
    """In theta's own units, with the map differentiated by autograd; -inf outside the support."""
    model = square.model
    y = torch.tensor([[0.5], [3.0]])
    with scope(6):
        theta = square.sample(y, 3).requires_grad_()
    found = square.log_prob(theta, y)
    assert found.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            real = model.theta_map(theta[i, j].detach())
            jacobian = torch.autograd.functional.jacobian(model.theta_map, theta[i, j].detach())
            expected = model.network(model.y_map(y[j : j + 1])).log_prob(real[None, None])[0, 0]
            expected = float(expected + jacobian.det().abs().log())
            assert found[i, j].item() == pytest.approx(expected, abs=1e-3)
    (slope,) = torch.autograd.grad(found.sum(), theta)
    assert slope.isfinite().all()
    assert slope.abs().min() > 0
    outside = torch.tensor([[[2.5, 1.0]], [[0.0, -0.1]], [[0.5, 1.0]]]).expand(-1, 2, -1)
    assert square.log_prob(outside, y).isneginf().tolist() == [[True, True], [True, True], [False, False]]


@pytest.mark.parametrize("n", [1, 3, 9, 25])
def test_draws_and_density_are_in_their_places(
    square: MixturePosterior, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """Also where a chunk ends among the draws or the measurements."""
    y = torch.linspace(0.2, 3.5, 7)[:, None]
    with scope(7):
        theta = Square().prior().sample((n, 7))
    whole = square.log_prob(theta, y)
    monkeypatch.setattr("baselines.mixture_density.ROWS", 10)
    torch.testing.assert_close(square.log_prob(theta, y), whole, rtol=1e-4, atol=1e-4)
    with scope(8):
        draws = square.sample(y, n)
    assert draws.shape == (n, 7, 2)
    assert (draws[..., 0] ** 2 - y[:, 0]).abs().median() < 0.15


def test_one_parameter_needs_no_regression() -> None:
    posterior = fitted(SMALL, Square(dim=1), size=2000)
    with scope(9):
        draws = posterior.sample(torch.tensor([[1.0]]), 2000)[:, 0, 0]
    assert 0.35 < (draws > 0).float().mean() < 0.65
    assert (draws.abs() - 1).abs().mean() < 0.15


def test_the_sd_has_a_floor(network: MixtureNetwork) -> None:
    low = MixtureNetwork(1, 2, 1, 4, 1, 0.01)
    torch.nn.init.zeros_(low.head.weight)
    for raw in (-50.0, 0.0, 5.0):
        torch.nn.init.constant_(low.head.bias, raw)
        torch.testing.assert_close(low(torch.zeros(1, 1)).sd, torch.full((1, 1, 2), math.log1p(math.exp(raw)) + 0.01))


def test_components_start_apart() -> None:
    with scope(10):
        means = MixtureNetwork(8, 13, 8, 200, 3, 1e-3)(torch.randn(50, 8)).mean
    assert (means[:, :, None] - means[:, None]).norm(dim=-1)[:, ~torch.eye(8, dtype=torch.bool)].min() > 1


def test_a_restored_posterior_is_the_same(square: MixturePosterior) -> None:
    again = SMALL.restore(*square.state(), Problem(Task("task", Square())))
    y = torch.rand(3, 1) * 3
    draws = []
    for each in (square, again):
        with scope(11):
            draws.append(each.sample(y, 50))
    assert torch.equal(*draws)
    assert torch.equal(square.log_prob(draws[0], y), again.log_prob(draws[0], y))


def test_conforms() -> None:
    assert [f for f in check_method(MixtureDensityNetwork()) if not f.ok] == []


def test_size_at_the_defaults() -> None:
    """13 parameters, 8 numbers in a measurement: about 250,000 weights."""
    options = MixtureDensityNetwork()
    sizes = 8, 13, options.components, options.width, options.depth
    weights = sum(p.numel() for p in MixtureNetwork(*sizes, options.sd_floor).parameters())
    assert abs(weights / 250_000 - 1) < 0.2


@pytest.mark.parametrize("options", [{"components": 0}, {"sd_floor": 0.0}])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        MixtureDensityNetwork(**options)

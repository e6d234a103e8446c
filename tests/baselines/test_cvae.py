"""The bound, its parts and the draws of both autoencoders against closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from baselines.cvae import (
    ConditionalVAE,
    ConditionalVAEFlow,
    FlowPosterior,
    GaussianPosterior,
    VAEPosterior,
    log_normal,
)
from posterior_bench import Parameter, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.runtime import scope

BOTH = pytest.mark.parametrize("cls", [ConditionalVAE, ConditionalVAEFlow], ids=["cvae", "cvae_iaf"])
SMALL = {"width": 32, "depth": 2, "batch_size": 200, "learning_rate": 5e-3, "steps": 500}
FLOW = {**SMALL, "steps": 900, "epochs": 60, "transforms": 2, "iaf_hidden": 16, "context_dim": 8}
SETTINGS = {ConditionalVAE: SMALL, ConditionalVAEFlow: FLOW}


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


@dataclass(frozen=True)
class Magnitude(Simulator):
    """theta ~ N(0, I), y = |theta_1| + 0.1 noise: two modes of theta_1, of equal weight."""

    dim: int = 1

    @property
    def spec(self) -> Spec:
        return Spec("magnitude", 1, "", tuple(Parameter(f"p{i}") for i in range(self.dim)), (1,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(self.dim), torch.ones(self.dim)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta[:, :1].abs() + 0.1 * torch.randn(len(theta), 1)


def pairs(simulator: Simulator, size: int, seed: int) -> Simulations:
    with scope(seed):
        theta = simulator.prior().sample((size,))
        return Simulations(theta, simulator.simulate(theta))


def fitted(method: ConditionalVAE | ConditionalVAEFlow, simulator: Simulator, size: int = 4000) -> VAEPosterior:
    simulations = pairs(simulator, size, seed=0)
    with scope(1):
        return method.fit(simulations, Problem(Task("task", simulator)), Silent())


def elbo(posterior: VAEPosterior, simulations: Simulations) -> Tensor:
    model = posterior.model
    with torch.no_grad(), scope(2):
        return model.elbo(model.theta_map(simulations.theta), model.y_map(simulations.y))


@pytest.fixture(scope="module", params=[ConditionalVAE, ConditionalVAEFlow], ids=["cvae", "cvae_iaf"])
def method(request: pytest.FixtureRequest) -> ConditionalVAE | ConditionalVAEFlow:
    return request.param(**SETTINGS[request.param])


@pytest.fixture(scope="module")
def posterior(method: ConditionalVAE | ConditionalVAEFlow) -> VAEPosterior:
    return fitted(method, LinearGaussian())


def test_a_linear_problem_is_solved(posterior: VAEPosterior) -> None:
    """A linear decoder of a normal z, its noise included, can be exactly this posterior."""
    y = pairs(LinearGaussian(), 4, seed=3).y
    exact = LinearGaussian().posterior(y)
    with scope(4):
        draws = posterior.sample(y, 4000)
    scale = exact.stddev
    assert ((draws.mean(0) - exact.mean).abs() < 0.25 * scale).all()
    for k in range(len(y)):
        covariance = torch.cov(draws[:, k].T) / torch.outer(scale[k], scale[k])
        expected = exact.covariance_matrix[k] / torch.outer(scale[k], scale[k])
        torch.testing.assert_close(covariance, expected, rtol=0, atol=0.25)


def test_the_bound_is_one_and_is_nearly_reached(posterior: VAEPosterior) -> None:
    simulations = pairs(LinearGaussian(), 20_000, seed=5)
    exact = LinearGaussian().posterior(simulations.y).log_prob(simulations.theta)
    exact = exact - posterior.model.theta_map.log_abs_det(simulations.theta)
    gap = exact - elbo(posterior, simulations)
    error = gap.std() / math.sqrt(len(gap))
    assert gap.mean() > -4 * error
    assert gap.mean() < 0.06
    assert error < 0.01


@BOTH
def test_two_modes_are_found(cls: type[ConditionalVAE] | type[ConditionalVAEFlow]) -> None:
    """The best single Gaussian at y = 1.5 puts 38 % of its draws within 0.75 of 0, where there is nothing."""
    posterior = fitted(cls(**SETTINGS[cls]), Magnitude())
    with scope(6):
        draws = posterior.sample(torch.tensor([[1.5]]), 4000)[:, 0, 0]
    # a continuous map of z has to cross from one mode to the other, so it leaves some
    assert (draws.abs() < 0.75).float().mean() < 0.27
    assert 0.35 < (draws > 0).float().mean() < 0.65
    # its density, the mean of -log N(theta; 0, y^2) at best, falls short of the bound, which falls short of the truth
    simulations = pairs(Magnitude(), 20_000, seed=7)
    gaussian = Normal(0.0, simulations.y.abs().clamp_min(0.1)).log_prob(simulations.theta).mean()
    assert elbo(posterior, simulations).mean() > gaussian + 0.3


def flow(transforms: int, latent_dim: int = 5) -> FlowPosterior:
    """With weights well away from those at the start, at which the steps do next to nothing."""
    with scope(8):
        module = FlowPosterior(7, latent_dim, 16, 1, transforms=transforms, hidden=16, context_dim=3)
        for parameter in module.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return module.double()


@pytest.mark.parametrize("transforms", [1, 2, 5])
def test_the_flow_has_the_density_of_its_jacobian(transforms: int) -> None:
    module = flow(transforms)
    with scope(9):
        z, context = torch.randn(6, 5).double(), torch.randn(6, 3).double()
    _, log_det = module.transform(z, context)
    assert log_det.abs().min() > 1e-3
    for row in range(6):
        jacobian = torch.autograd.functional.jacobian(
            lambda value, row=row: module.transform(value, context[row : row + 1])[0][0], z[row : row + 1]
        )[:, 0]
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[row])


def test_the_order_of_the_variables_is_reversed_between_steps() -> None:
    """One step's Jacobian is triangular; two of opposite orders let every variable reach every other."""
    context = torch.zeros(1, 3).double()
    z = torch.ones(1, 5).double()

    def jacobian(transforms: int) -> Tensor:
        module = flow(transforms)
        return torch.autograd.functional.jacobian(lambda value: module.transform(value, context)[0][0], z)[:, 0]

    assert torch.equal(jacobian(1), jacobian(1).tril())
    assert (jacobian(2) != 0).all()


def test_a_step_is_one_pass_of_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    original = ConditionalAutoRegressiveNN.forward

    def counted(self: ConditionalAutoRegressiveNN, x: Tensor, context: Tensor) -> object:
        passes.append(self)
        return original(self, x, context)

    monkeypatch.setattr(ConditionalAutoRegressiveNN, "forward", counted)
    module = flow(3)
    module(torch.randn(10, 7).double(), (torch.zeros(10, 5).double(), torch.ones(10, 5).double()))
    assert len(passes) == 3
    assert len(set(passes)) == 3


def test_divergence_without_a_flow_is_the_closed_form() -> None:
    """That of the Gaussian exactly, that of a flow of no steps in the mean over draws."""
    with scope(10):
        gaussian = GaussianPosterior(7, 5, 16, 1)
        pair = torch.randn(1, 7)
        prior = torch.randn(1, 5), torch.rand(1, 5) + 0.5
        raw = gaussian.encoder(pair)
        sd = torch.nn.functional.softplus(raw[:, 5:]) + 1e-3
        exact = kl_divergence(Normal(raw[:, :5], sd), Normal(*prior)).sum()
        torch.testing.assert_close(gaussian(pair, prior)[1][0], exact)

        empty = FlowPosterior(7, 5, 16, 1, transforms=0, hidden=16, context_dim=3)
        empty.encoder[0] = gaussian.encoder[0]
        with torch.no_grad():
            empty.encoder[-1].weight[:10] = gaussian.encoder[-1].weight
            empty.encoder[-1].bias[:10] = gaussian.encoder[-1].bias
            z, divergence = empty(pair.expand(40_000, -1), tuple(p.expand(40_000, -1) for p in prior))
    error = divergence.std() / 200
    assert (divergence.mean() - exact).abs() < 4 * error
    assert error < 0.02 * exact
    torch.testing.assert_close(z.mean(0), raw[0, :5].detach(), rtol=0, atol=0.03)


def test_divergence_of_a_flow_is_never_negative_in_the_mean() -> None:
    """And is the log ratio of the densities, the flow's by inverting it step by step."""
    module = flow(2)
    with scope(11):
        pair = torch.randn(1, 7).double()
        prior = torch.zeros(1, 5).double(), torch.ones(1, 5).double()
        with torch.no_grad():
            _, divergence = module(pair.expand(5000, -1), tuple(p.expand(5000, -1) for p in prior))
            z, one = module(pair, prior)
            raw = module.encoder(pair)
            base, log_det = z, 0.0
            for step in reversed(module.steps):
                conditioned = step.condition(raw[:, 10:])
                after, base = base, conditioned.inv(base)
                log_det += conditioned.log_abs_det_jacobian(base, after)
            sd = torch.nn.functional.softplus(raw[:, 5:10]) + 1e-3
            log_q = log_normal(base, raw[:, :5], sd) - log_det
    assert divergence.mean() > 0
    torch.testing.assert_close(one, log_q - log_normal(z, *prior))


def test_a_density_is_torchs() -> None:
    value, mean, sd = torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 4) + 0.1
    torch.testing.assert_close(log_normal(value, mean, sd), Normal(mean, sd).log_prob(value).sum(1))


@BOTH
def test_gradients_are_those_of_the_bound(cls: type[ConditionalVAE] | type[ConditionalVAEFlow]) -> None:
    """One step of plain descent, taken through the two terms of the training, moves weights as the whole ELBO does."""
    posterior = fitted(cls(width=8, depth=1, steps=1, ramp=0.0), LinearGaussian(), size=20)
    model = posterior.model.requires_grad_(True)
    with scope(12):
        real, y = torch.randn(50, 2), torch.randn(50, 4)
    with scope(13):
        whole = torch.autograd.grad(-model.elbo(real, y).mean(), list(model.parameters()))
    method = cls(ramp=0.5, weight_kl=2.0)
    for fraction, weight in ((0.25, 1.0), (0.9, 2.0)):
        model.zero_grad()
        total = 0.0
        with scope(13):
            for _, term in method.losses(model, real, y, fraction):
                term.backward()
                total += term.item()
        if weight == 1.0:
            for expected, parameter in zip(whole, model.parameters(), strict=True):
                torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)
        with torch.no_grad(), scope(13):
            z, divergence = model.encode(real, y)
            expected_loss = (weight * divergence - model.log_likelihood(real, z, y)).mean().item()
        assert total == pytest.approx(expected_loss, rel=1e-5)


def test_a_restored_posterior_draws_the_same(
    method: ConditionalVAE | ConditionalVAEFlow, posterior: VAEPosterior
) -> None:
    with scope(14):
        again = method.restore(*posterior.state(), Problem(Task("task", LinearGaussian())))
        y = torch.randn(3, 4)
    simulations = pairs(LinearGaussian(), 50, seed=15)
    with scope(16):
        first = posterior.sample(y, 50)
    with scope(16):
        assert torch.equal(first, again.sample(y, 50))
    assert torch.equal(elbo(posterior, simulations), elbo(again, simulations))


def test_the_flow_is_trained_and_saved(posterior: VAEPosterior, method: ConditionalVAE | ConditionalVAEFlow) -> None:
    if isinstance(method, ConditionalVAE):
        pytest.skip("it has no flow")
    weights = {k: v for k, v in posterior.state()[0].items() if ".steps." in k and k.endswith("weight")}
    assert len(weights) == 3 * method.transforms
    with scope(17):
        context = torch.randn(100, method.context_dim)
        _, log_det = posterior.model.approximate.transform(torch.randn(100, 2), context)
    assert log_det.abs().max() > 0.1


def test_draws_are_in_their_places(posterior: VAEPosterior, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a chunk ends in the middle of the measurements."""
    y = pairs(LinearGaussian(), 7, seed=18).y
    exact = LinearGaussian().posterior(y)
    monkeypatch.setattr("baselines.cvae.ROWS", 10)
    with scope(19):
        draws = posterior.sample(y, 300)
    assert draws.shape == (300, 7, 2)
    assert ((draws.mean(0) - exact.mean).abs() < 0.5 * exact.stddev).all()


def test_a_learned_prior_of_z() -> None:
    posterior = fitted(ConditionalVAE(**SMALL, conditional_prior=True), LinearGaussian())
    y = pairs(LinearGaussian(), 3, seed=20).y
    exact = LinearGaussian().posterior(y)
    with scope(21):
        draws = posterior.sample(y, 2000)
    mean, _ = posterior.model.prior(posterior.model.y_map(y))
    assert mean.abs().max() > 0.01
    assert ((draws.mean(0) - exact.mean).abs() < 0.3 * exact.stddev).all()
    assert ((draws.std(0) / exact.stddev - 1).abs() < 0.25).all()


@BOTH
def test_conforms(cls: type[ConditionalVAE] | type[ConditionalVAEFlow]) -> None:
    assert [f for f in check_method(cls()) if not f.ok] == []


def test_sizes_at_the_defaults_are_equal() -> None:
    """13 parameters, 8 numbers in a measurement: about 250,000 weights each."""
    for cls in (ConditionalVAE, ConditionalVAEFlow):
        model = fitted(cls(steps=1, latent_dim=13), Magnitude(dim=13), size=20).model
        # 7 inputs more in encoder and decoder for the other numbers of y
        weights = sum(p.numel() for p in model.parameters()) + 2 * 7 * cls().width
        assert abs(weights / 250_000 - 1) < 0.2


def test_z_of_one_number_is_refused_for_a_flow_and_of_one_parameter_is_not() -> None:
    assert fitted(ConditionalVAEFlow(**{**SMALL, "steps": 2}), Magnitude(), size=20).model.prior.latent_dim == 2
    with pytest.raises(ValueError, match="expected 2 or more"):
        fitted(ConditionalVAEFlow(latent_dim=1), Magnitude(), size=20)


@pytest.mark.parametrize("options", [{"ramp": 1.5}, {"ramp": -0.1}, {"sd_floor": 0.0}])
@BOTH
def test_impossible_options_are_refused(cls: type[ConditionalVAE] | type[ConditionalVAEFlow], options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        cls(**options)

"""The INN's further means: known and estimated noise as pads, terms of the loss that can be added, and its latents."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from posterior_bench import HasNoise, Need, Parameter, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import check_method
from posterior_bench.inn import INN, ConditionalINN, INNLikelihood, INNNoise
from posterior_bench.inn.bidirectional import backward_terms, forward_terms
from posterior_bench.inn.losses import backward_loss, forward_loss, kernel_score
from posterior_bench.inn.outsourcing import outsource
from posterior_bench.runtime import scope
from posterior_bench.training import Training

SMALL = {"blocks": 4, "width": 48, "steps": 600, "batch_size": 200, "learning_rate": 1e-3}
NARROW = (0.5, 1.0, 2.0)
"""Bandwidths for two parameters: the wide ones of the default are for many, and slow here."""
SHORT = {"blocks": 2, "width": 16, "steps": 40, "batch_size": 64}


@dataclass(frozen=True)
class Fan(Simulator, HasNoise):
    """theta ~ N(0, I_2), y = theta_1 + (0.3 + 0.2 theta_2^2) noise: how far y scatters depends on theta."""

    @property
    def spec(self) -> Spec:
        return Spec("fan", 1, "", (Parameter("a"), Parameter("b")), (1,))

    @property
    def noise_dim(self) -> int:
        return 1

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return self.simulate_from(theta, torch.randn(len(theta), 1))

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        return theta[:, :1] + (0.3 + 0.2 * theta[:, 1:] ** 2) * noise


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None:
        pass


def simulations(n: int = 4000) -> Simulations:
    theta, noise = Fan().prior().sample((n,)), torch.randn(n, 1)
    return Simulations(theta, Fan().simulate_from(theta, noise), noise)


def fitted(method, pairs=None):
    with scope(0):
        pairs = pairs or simulations()
        if Need.NOISE not in method.spec.needs:
            pairs = replace(pairs, noise=None)
        return method.fit(pairs, Problem(Task("fan", Fan()), method.spec.needs), Silent())


def exact(y: float) -> tuple[Tensor, Tensor]:
    """Mean and sd (2,) of theta given y, by quadrature on a grid of 0.01."""
    grid = torch.linspace(-5, 5, 1001)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    sd = 0.3 + 0.2 * b**2
    weight = (-0.5 * (a**2 + b**2 + ((y - a) / sd) ** 2) - sd.log()).exp()
    weight = weight / weight.sum()
    mean = torch.stack([(weight * a).sum(), (weight * b).sum()])
    second = torch.stack([(weight * a**2).sum(), (weight * b**2).sum()])
    return mean, (second - mean**2).sqrt()


def estimating() -> INN:
    return INN(**SMALL, bandwidths=NARROW, outsourced=True)


@pytest.fixture(scope="module", params=["known", "estimated"])
def posterior(request):
    return fitted(INNNoise(**SMALL, bandwidths=NARROW) if request.param == "known" else estimating())


@pytest.mark.parametrize("y", [0.0, 1.5])
def test_noise_beside_theta_gives_the_posterior(posterior, y):
    with scope(1):
        draws = posterior.sample(torch.tensor([[y]]), 4000)[:, 0]
    mean, sd = exact(y)
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.12)
    torch.testing.assert_close(draws.std(0), sd, rtol=0.15, atol=0)


def test_with_the_noise_beside_it_theta_predicts_y(posterior):
    """What pads of independent noise cannot: then L_y stays at E var(y | theta) / var(y) = 0.33 / 1.33."""
    assert posterior.history["L_y"][-1] / INN.weight_y < 0.12
    assert posterior.model.known == 1
    assert posterior.model.free == 0


def test_estimated_noise_is_normal_whatever_theta_is():
    with scope(2):
        pairs = simulations(6000)
        scale = pairs.y.std()
        y, eps = outsource(
            pairs.theta, pairs.y / scale, Training(steps=1500, batch_size=200, learning_rate=2e-3), Silent()
        )
    torch.testing.assert_close(y, pairs.y / scale, rtol=0, atol=0.06)
    near = pairs.theta[:, 1].abs() < 0.5
    for part in (eps[near], eps[~near]):
        torch.testing.assert_close(part.mean(), torch.tensor(0.0), rtol=0, atol=0.1)
        torch.testing.assert_close(part.std(), torch.tensor(1.0), rtol=0, atol=0.1)
    assert torch.corrcoef(torch.cat([eps, pairs.noise], dim=1).T)[0, 1].abs() > 0.95


def test_estimating_what_is_known_is_refused():
    with pytest.raises(ValueError, match="is given the simulations' noise"):
        fitted(INNNoise(**SHORT, outsourced=True))


@pytest.mark.parametrize(
    "options",
    [
        {"weight_likelihood": 0.5},
        {"likelihood_start": 0.5},
        {"noise_on_y": 0.1},
        {"closeness": 2.0},
        {"unbiased": False},
        {"learned_noise": False},
        {"average": 0.99},
        {"weight_kernel_score": 0.0, "learned_noise": False},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_changes_the_fit_and_is_restored(options):
    method = INN(**SHORT, **options)
    posterior, plain = fitted(method), fitted(INN(**SHORT))
    again = method.restore(*posterior.state(), Problem(Task("fan", Fan())))
    y = torch.linspace(-1, 1, 5).unsqueeze(1)
    with scope(3):
        draws = posterior.sample(y, 20)
    with scope(3):
        assert torch.equal(draws, again.sample(y, 20))
    with scope(3):
        assert not torch.equal(draws, plain.sample(y, 20))
    assert torch.isfinite(draws).all()


def gradients(model, value) -> list[Tensor]:
    model.zero_grad()
    value()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def test_terms_taken_one_by_one_have_the_gradient_of_their_sum():
    """Each direction runs the network once and its terms meet at leaves; autograd of the whole sum must agree."""
    model = fitted(INNNoise(**SHORT)).model.requires_grad_(True)
    with scope(4):
        pairs = simulations(32)
    inputs, y = torch.cat([pairs.theta, pairs.noise], dim=1), pairs.y
    widths = (0.5, 1.0)

    def parts() -> None:
        with scope(5):
            for _, term in forward_terms(model, inputs, y, 0.7, 0.0, widths, weight_likelihood=0.3):
                term.backward()
        with scope(6):
            for _, term in backward_terms(
                model, inputs, y, 2.0, widths, closeness=0.5, weight_score=3.0, score_bandwidths=widths
            ):
                term.backward()

    def whole() -> None:
        with scope(5):
            u, z, log_det = model.forward_pass(inputs)
            total = 0.7 * forward_loss(u, y) - 0.3 * model.log_prob(u, z, log_det, y).mean()
        with scope(6):
            first, second = model.backward_pass(y.repeat(2, 1)).split(len(y))
            score = kernel_score(first[:, :2], second[:, :2], inputs[:, :2], widths)
            near = 0.5 * y
            back = backward_loss(torch.cat([first, near], dim=1), torch.cat([inputs, near], dim=1), widths)
            (total + 3.0 * score + 2.0 * back).backward()

    for found, expected in zip(gradients(model, parts), gradients(model, whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [INNNoise(**SHORT, learned_noise=False), INNLikelihood(**SHORT, learned_noise=False), ConditionalINN(**SHORT)],
)
def test_latents_decode_to_draws(method):
    """Where u is y, decode(z) for z ~ N(0, I) has the distribution of the draws."""
    posterior = fitted(method)
    y = torch.tensor([[-1.0], [0.5]])
    with scope(7):
        z = torch.randn(4000, 2, posterior.latent_dim)
        decoded, draws = posterior.decode(z, y), posterior.sample(y, 4000)
    assert decoded.shape == draws.shape
    torch.testing.assert_close(decoded.mean(0), draws.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(decoded.std(0), draws.std(0), rtol=0.1, atol=0)
    assert torch.equal(posterior.decode(z, y), decoded)


@pytest.mark.parametrize("method", [INNNoise(), INN(outsourced=True)], ids=["known", "estimated"])
def test_the_contract_is_kept(method):
    broken = [finding for finding in check_method(method) if not finding.ok]
    assert not broken, broken

"""The maps around networks, against closed forms, and the training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet, Distribution, Independent, LogNormal, Normal, Uniform

from posterior_bench.priors import Product, TruncatedNormal
from posterior_bench.runtime import scope
from posterior_bench.training import Losses, Standardise, ThetaMap, Training, train


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


def test_standardise_and_back() -> None:
    with scope(0):
        values = torch.randn(1000, 2, 3) * torch.tensor([1e-3, 1.0, 1e4]) + 5e4
    values[:, 0, 1] = 7.0
    module = Standardise.of(values)
    flat = module(values)
    assert flat.shape == (1000, 6)
    constant = torch.tensor([False, True, False, False, False, False])
    assert (flat[:, constant] == 0).all()
    assert module.scale[1] == 1
    large = values.flatten(1)[:, [2, 5]]
    torch.testing.assert_close(module(values)[:, [2, 5]].std(0), torch.ones(2), rtol=1e-3, atol=0)
    torch.testing.assert_close(module.inverse(flat)[:, [2, 5]], large, rtol=1e-5, atol=0)
    assert Standardise.of(values[:1]).scale.tolist() == [1.0] * 6


PRIORS = {
    "normal": Independent(Normal(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.1])), 1),
    "product": Product([Uniform(-1.0, 5.0), TruncatedNormal(18.9, 10.2, 0.0)]),
    "positive": Independent(LogNormal(torch.zeros(2), torch.tensor([0.5, 1.0])), 1),
    "simplex": Dirichlet(torch.tensor([2.0, 3.0, 4.0])),
}


@pytest.mark.parametrize("name", PRIORS)
def test_theta_map_goes_there_and_back(name: str) -> None:
    prior = PRIORS[name]
    with scope(0):
        theta = prior.sample((2000,)).double()
        if name == "simplex":
            theta = theta / theta.sum(1, keepdim=True)
    mapping = ThetaMap.of(prior, theta)
    torch.testing.assert_close(mapping.inverse(mapping(theta)), theta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["normal", "product"])
def test_known_marginals_become_standard_normal(name: str) -> None:
    with scope(1):
        real = ThetaMap(PRIORS[name])(PRIORS[name].sample((20_000,)))
    assert real.mean(0).abs().max() < 4 / math.sqrt(20_000)
    torch.testing.assert_close(real.T.cov(), torch.eye(2), rtol=0, atol=0.04)


@pytest.mark.parametrize("name", ["normal", "product", "positive"])
def test_log_determinant_is_that_of_autograd(name: str) -> None:
    prior: Distribution = PRIORS[name]
    with scope(2):
        theta = prior.sample((5,)).double()
        mapping = ThetaMap.of(prior, prior.sample((500,)).double())
    for row, claimed in zip(theta, mapping.log_abs_det(theta), strict=True):
        step = 1e-4 * row.abs().clamp_min(1e-3)
        moved = [(mapping((row + e)[None]) - mapping((row - e)[None]))[0] for e in torch.diag(step)]
        jacobian = torch.stack(moved, dim=1) / (2 * step)
        assert float(jacobian.det().abs().log()) == pytest.approx(float(claimed), abs=1e-3)


def test_values_at_a_bound_stay_finite_and_inside() -> None:
    mapping = ThetaMap(PRIORS["product"])
    real = mapping(torch.tensor([[-1.0, 0.0], [5.0, 1e9]]))
    assert torch.isfinite(real).all()
    theta = mapping.inverse(torch.tensor([[-50.0, -50.0], [50.0, 50.0]]))
    assert PRIORS["product"].support.check(theta).all()


def regression(module: nn.Module) -> Losses:
    def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
        assert 0 <= fraction <= 1
        inputs, targets = batch
        yield "fit", ((module(inputs) - targets) ** 2).mean()
        yield "size", 1e-6 * sum((p**2).sum() for p in module.parameters())

    return losses


def data(rows: int = 500) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(rows, 2)
    return inputs, inputs @ torch.tensor([[1.0], [-2.0]]) + 0.5


def fitted(settings: Training) -> tuple[nn.Module, dict[str, Tensor]]:
    with scope(0):
        module = nn.Linear(2, 1)
        return module, train(module, regression(module), data(), settings, Silent())


def test_training_finds_a_line_and_repeats() -> None:
    settings = Training(steps=400, batch_size=50, learning_rate=0.05, check_every=100)
    module, curves = fitted(settings)
    torch.testing.assert_close(module.weight, torch.tensor([[1.0, -2.0]]), atol=0.02, rtol=0)
    assert set(curves) == {"step", "fit", "size", "held_out"}
    assert curves["step"].tolist() == list(range(20, 401, 20))  # at least 20 looks
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    again, curves_again = fitted(settings)
    assert torch.equal(module.weight, again.weight)
    assert torch.equal(curves["held_out"], curves_again["held_out"])


def test_epochs_shorten_a_training_and_its_schedule() -> None:
    """500 pairs, 475 of them kept, are 14 batches of 32, the smallest: 4 epochs are 56 steps."""
    seen: list[float] = []

    def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
        if module.training:
            seen.append(fraction)
        yield from regression(module)(batch, fraction)

    with scope(0):
        module = nn.Linear(2, 1)
        curves = train(module, losses, data(), Training(steps=400, batch_size=50, epochs=4), Silent())
    assert curves["step"].tolist()[-1] == 56
    assert seen == [step / 56 for step in range(56)]


def test_the_best_weights_are_kept_and_training_stops() -> None:
    """A loss that gets worse from the start: the weights of the first look are the best."""
    with scope(0):
        module = nn.Linear(1, 1, bias=False)
        seen = []

        def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
            if module.training:
                yield "climbs", -module.weight.abs().sum()
            else:
                seen.append(float(module.weight))
                yield "held_out", module.weight.abs().sum()

        curves = train(module, losses, (torch.ones(100, 1),), Training(steps=1000, check_every=5, patience=3), Silent())
    assert len(curves["step"]) == 4  # the first and three that are no better
    assert abs(float(module.weight)) == min(map(abs, seen))


def test_failures_are_told() -> None:
    module = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="9 valid simulations are too few"):
        train(module, regression(module), data(9), Training(steps=2), Silent())

    def explodes(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
        yield "fine", module.weight.sum()
        yield "latent", module.weight.sum() * math.nan

    with pytest.raises(FloatingPointError, match="'latent' is nan at step 1"):
        train(module, explodes, data(100), Training(steps=2), Silent())


def test_a_term_is_differentiated_before_the_next_is_asked_for() -> None:
    module = nn.Linear(2, 1)
    gradients = []

    def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
        yield "first", module(batch[0]).mean()
        gradients.append(module.weight.grad is not None)
        yield "second", module(batch[0]).mean()

    train(module, losses, data(50), Training(steps=1), Silent())
    assert gradients[0]

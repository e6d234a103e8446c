"""The maps around networks, against closed forms, and the training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet, Distribution, Independent, LogNormal, Normal, Uniform, constraints

from posterior_bench.priors import Product, TruncatedNormal, log_density_in_support
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


class Dice(Distribution):
    """1 with probability 0.2, 2 with 0.5, 3 with 0.3."""

    arg_constraints = {}  # noqa: RUF012 - torch's own form
    support = constraints.integer_interval(1, 3)
    steps = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.double)

    def cdf(self, value: Tensor) -> Tensor:
        return self.steps[value.long()].to(value.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        return torch.searchsorted(self.steps, value.double().contiguous()).clamp(1, 3).to(value.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.steps.diff()[value.long() - 1].log().to(value.dtype)


WHOLE = Product([Normal(0.0, 2.0), Dice()])


def test_whole_numbers_are_dequantised_and_floored_again() -> None:
    theta = torch.stack([torch.zeros(30_000), torch.tensor([1.0, 2.0, 3.0]).repeat(10_000)], dim=1)
    mapping = ThetaMap(WHOLE)
    with scope(3):
        real = mapping(theta)
        drawn = mapping.inverse(torch.randn(30_000, 2))
    assert torch.equal(mapping.inverse(real)[:, 1], theta[:, 1])
    place = torch.special.ndtr(real[:, 1])  # uniform within the share of probability of each number
    for number, low, high in ((1, 0.0, 0.2), (2, 0.2, 0.7), (3, 0.7, 1.0)):
        share = (place[theta[:, 1] == number] - low) / (high - low)
        assert share.min() > -1e-5
        assert share.max() < 1 + 1e-5
        assert abs(float(share.mean()) - 0.5) < 5 / math.sqrt(12 * 10_000)
        assert abs(float((drawn[:, 1] == number).double().mean()) - (high - low)) < 5 / math.sqrt(4 * 30_000)
    between = torch.tensor([[0.0, 2.25]]).expand(5, 2)
    torch.testing.assert_close(torch.special.ndtr(mapping(between)[:, 1]), torch.full((5,), 0.325))


def test_density_of_a_whole_number_is_its_probability() -> None:
    """Of N(m, s^2) of the mapped numbers: the mass between the ends of a number's share."""
    mapping, normal = ThetaMap(WHOLE), Normal(torch.tensor([0.4, -0.3]), torch.tensor([0.5, 0.7]))

    def density(at: Tensor) -> Tensor:
        return normal.log_prob(mapping(at)).sum(-1) + mapping.log_abs_det(at)

    theta = torch.tensor([[[0.5, 1.0], [1.0, 2.0], [-1.0, 3.0], [0.0, 2.5], [0.0, 4.0]]])
    found = log_density_in_support(WHOLE, theta, torch.tensor([0.0, 2.0]), density)
    ends = torch.special.ndtri(torch.tensor([0.0, 0.2, 0.7, 1.0]))
    mass = normal.cdf(torch.stack([torch.zeros(4), ends], dim=1))[:, 1].diff()
    first = Normal(0.8, 1.0).log_prob(theta[0, :3, 0])
    torch.testing.assert_close(found[0, :3], first + mass.log(), atol=0.02, rtol=0)
    assert found[0, 3:].isneginf().all()


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

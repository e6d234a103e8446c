"""Regressions on labels alone, against a closed form, known noise and known coverage."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform

from baselines.label_regression import LabelNetwork, LabelRidge
from posterior_bench import HasLogProb, Need, Parameter, Posterior, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.registry import build
from posterior_bench.runtime import load_tensors, save_tensors, scope
from posterior_bench.training import ThetaMap

NONE = Simulations(torch.zeros(0, 2), torch.zeros(0, 2, 2))
NOISE = 0.3


class Curve(Simulator):
    """Mapped theta is (sin 2 y_1, y_2) + noise of sd 0.3, for y ~ N(0, 1) of shape (2, 2)."""

    @property
    def spec(self) -> Spec:
        return Spec("curve", 1, "", (Parameter("first"), Parameter("second")), (2, 2))

    def prior(self) -> Distribution:
        return Independent(Uniform(-3 * torch.ones(2), 3 * torch.ones(2)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        raise NotImplementedError


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


CURVE = Curve()
THETA_MAP = ThetaMap(CURVE.prior())


def known_mean(y: Tensor) -> Tensor:
    return torch.stack([torch.sin(2 * y[:, 0, 0]), y[:, 0, 1]], dim=1)


def pairs(count: int) -> Simulations:
    y = torch.randn(count, 2, 2)
    return Simulations(THETA_MAP.inverse(known_mean(y) + NOISE * torch.randn(count, 2)), y)


def fitted(method: LabelRidge | LabelNetwork, labelled: Simulations) -> Posterior:
    given = Problem(Task("task", CURVE), frozenset({Need.LABELLED}), labelled=labelled)
    return method.fit(NONE, given, Silent())


@pytest.fixture(autouse=True)
def _seeded():
    with scope(0):
        yield


@pytest.fixture(params=[LabelRidge(labels=20), LabelNetwork(labels=20, members=2, steps=60)], ids=lambda m: m.spec.name)
def method(request):
    return request.param


@pytest.mark.parametrize("many", [LabelRidge(labels=300), LabelNetwork(labels=300)], ids=lambda m: m.spec.name)
def test_many_labels_teach_mean_and_noise(many: LabelRidge | LabelNetwork) -> None:
    posterior, test = fitted(many, pairs(300)), pairs(200)
    real = THETA_MAP(posterior.sample(test.y, 300))
    error = (real.mean(0) - known_mean(test.y)).square().mean(0).sqrt()
    assert (error < 0.35).all(), error
    assert torch.allclose(real.std(0).mean(0), torch.full((2,), NOISE), rtol=0.35)
    rank = (posterior.sample(test.y, 300) < test.theta).double().mean(0)
    held = ((2 * rank - 1).abs() < 0.9).double().mean()
    assert 0.82 < held < 0.97


def test_few_labels_leave_the_ridge_unsure() -> None:
    labelled, test = pairs(10), pairs(100)
    posterior = fitted(LabelRidge(labels=10), labelled)
    rank = (posterior.sample(test.y, 200) < test.theta).double().mean(0)
    assert ((2 * rank - 1).abs() < 0.9).double().mean() > 0.75
    far = posterior.sample(100 + test.y[:5], 200)
    assert (THETA_MAP(far).std(0) > 0.5).all()


def test_ridge_is_kernel_ridge_regression() -> None:
    labelled, test = pairs(30), pairs(4)
    posterior = fitted(LabelRidge(labels=30), labelled)
    rows, at = posterior.y_map(labelled.y).double(), posterior.y_map(test.y).double()
    for d, (log_variance, log_length, log_ridge) in enumerate(posterior.hyperparameters.double().tolist()):

        def kernel(a: Tensor, b: Tensor, length: float = math.exp(log_length), v: float = log_variance) -> Tensor:
            return math.exp(v) * torch.exp(-0.5 * torch.cdist(a, b).square() / length**2)

        gram = kernel(rows, rows) + math.exp(log_ridge) * torch.eye(30).double()
        expected = kernel(at, rows) @ torch.linalg.solve(gram, posterior.real[:, d].double())
        assert torch.allclose(posterior._components(test.y)[0][0, :, d].double(), expected, atol=1e-4)


def test_density_is_that_of_the_draws(method: LabelRidge | LabelNetwork) -> None:
    posterior, y = fitted(method, pairs(20)), pairs(3).y
    assert isinstance(posterior, HasLogProb)
    # in mapped theta, since a density may have poles at the bounds
    line = torch.linspace(-5, 5, 251).double()
    real = torch.cartesian_prod(line, line)[:, None].expand(-1, 3, 2)
    at = THETA_MAP.inverse(real)
    mass = (posterior.log_prob(at, y).double() - THETA_MAP.log_abs_det(at)).exp() * 0.04**2
    assert torch.allclose(mass.sum(0), torch.ones(3).double(), atol=0.02)
    draws = posterior.sample(y, 2000)
    assert draws.shape == (2000, 3, 2)
    assert (draws.abs() <= 3).all()
    below = (mass * (real[..., 0] < 0)).sum(0)
    assert torch.allclose(below, (draws[..., 0] < 0).double().mean(0), atol=0.06)
    assert torch.isneginf(posterior.log_prob(torch.full((1, 3, 2), 4.0), y)).all()


def test_restored_gives_the_same(method: LabelRidge | LabelNetwork, tmp_path: Path) -> None:
    labelled = pairs(20)
    posterior = fitted(method, labelled)
    save_tensors(tmp_path / "state.safetensors", *posterior.state())
    bare = Problem(Task("task", CURVE), method.spec.needs)
    restored = method.restore(*load_tensors(tmp_path / "state.safetensors"), bare)
    drawn = []
    for one in (posterior, restored):
        with scope(1):
            drawn.append(one.sample(labelled.y[:5], 30))
    assert torch.allclose(*drawn, atol=1e-4)
    assert all(curve.dim() == 1 for curve in posterior.history.values())


def test_failed_labels_are_left_out_and_too_few_are_said(method: LabelRidge | LabelNetwork) -> None:
    labelled = pairs(22)
    y = labelled.y.clone()
    y[:2] = torch.nan
    first, second = (
        _fit_seeded(method, some) for some in (Simulations(labelled.theta, y), Simulations(labelled.theta[2:], y[2:]))
    )
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
    y[2] = torch.nan
    with pytest.raises(ValueError, match="19 valid labelled pairs of 22; expected at least 20"):
        fitted(method, Simulations(labelled.theta, y))


def _fit_seeded(method: LabelRidge | LabelNetwork, labelled: Simulations) -> dict[str, Tensor]:
    with scope(2):
        return fitted(method, labelled).state()[0]


def test_labels_outside_the_support_and_impossible_settings_are_said() -> None:
    labelled = pairs(20)
    labelled.theta[0] = 5.0
    with pytest.raises(ValueError, match="1 of 20 labelled parameters outside the support"):
        fitted(LabelRidge(labels=20), labelled)
    with pytest.raises(ValueError, match="labels is 3"):
        LabelRidge(labels=3)


@pytest.mark.parametrize(("name", "kind"), [("label_ridge", LabelRidge), ("label_network", LabelNetwork)])
def test_registered_with_its_needs(name: str, kind: type) -> None:
    found = build("methods", name)
    assert isinstance(found, kind)
    assert found.spec.name == name
    assert found.spec.needs == {Need.LABELLED}

"""Recalibrations of a posterior that is biased and far too sure of itself, against closed forms and known coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, StudentT, Uniform

from baselines.recalibration import (
    RecalibratedAffine,
    RecalibratedConformal,
    RecalibratedGP,
    RecalibratedTemperature,
)
from baselines.recalibration.base import Base, Recalibration
from baselines.recalibration.conformal import quantile
from baselines.recalibration.spread import fit_spread
from posterior_bench import HasLogProb, Method, Need, Parameter, Posterior, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.registry import build
from posterior_bench.runtime import load_tensors, save_tensors, scope
from posterior_bench.training import ThetaMap

METHODS = {
    "recalibrated_affine": RecalibratedAffine,
    "recalibrated_temperature": RecalibratedTemperature,
    "recalibrated_conformal": RecalibratedConformal,
    "recalibrated_gp": RecalibratedGP,
}
NONE = Simulations(torch.zeros(0, 1), torch.zeros(0, 3))
SD = 0.4
"""Of theta about its mean, which is the first number of y."""


@dataclass(frozen=True)
class Known(Simulator):
    """What of a simulator is asked here: the prior, N(0, 1) or uniform on [-3, 3]; y is (mean, l, noise)."""

    bounded: bool = False
    dim: int = 1

    @property
    def spec(self) -> Spec:
        return Spec("known", 1, "", tuple(Parameter(f"theta_{i}") for i in range(self.dim)), (2 + self.dim,))

    def prior(self) -> Distribution:
        one = torch.ones(self.dim)
        return Independent(Uniform(-3 * one, 3 * one) if self.bounded else Normal(0 * one, one), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(eq=False)
class Sure(Posterior):
    """N(bias + slope mean, (sd e^l)^2) of mapped theta: wrong in the mean, and sd far below the error."""

    simulator: Known
    bias: float = 0.5
    slope: float = 0.6
    sd: float = 0.02
    asked: list[int] = field(default_factory=list)

    def mapped(self, y: Tensor) -> Normal:
        return Normal(self.bias + self.slope * y[:, : self.simulator.dim], self.sd * y[:, -2:-1].exp())

    def sample(self, y: Tensor, n: int) -> Tensor:
        self.asked.append(len(y))
        return ThetaMap(self.simulator.prior()).inverse(self.mapped(y).sample((n,)))

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {}, {}


@dataclass(eq=False)
class SureDensity(Sure, HasLogProb):
    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        theta_map = ThetaMap(self.simulator.prior())
        return self.mapped(y).log_prob(theta_map(theta)).sum(-1) + theta_map.log_abs_det(theta)


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


def pairs(count: int, simulator: Known, power: float = 0.0, bend: float = 0.0, df: float = 0.0) -> Simulations:
    """Mapped theta ~ mean + bend sin(3 l) + SD e^(power l) error, the error normal or Student's t."""
    mean = 0.8 * torch.randn(count, simulator.dim)
    l = 2 * torch.rand(count, 1) - 1  # noqa: E741
    error = StudentT(df).sample(mean.shape) if df else torch.randn_like(mean)
    real = mean + bend * torch.sin(3 * l) + SD * (power * l).exp() * error
    y = torch.cat([mean, l, torch.randn(count, 1)], dim=1)
    return Simulations(ThetaMap(simulator.prior()).inverse(real), y)


def problem(base: Sure, labelled: Simulations, unlabelled: Tensor | None = None) -> Problem:
    needs = frozenset({Need.POSTERIOR, Need.LABELLED, Need.UNLABELLED})
    y = labelled.y if unlabelled is None else unlabelled
    return Problem(Task("task", base.simulator), needs, unlabelled=y, labelled=labelled, posterior=base)


def fitted(method: Method, base: Sure, labelled: Simulations, unlabelled: Tensor | None = None) -> Posterior:
    return method.fit(NONE, problem(base, labelled, unlabelled), Silent())


def coverages(method: Method, base: Sure, repetitions: int = 30, tests: int = 25, **process: float) -> list[float]:
    """Of the central 50 and 90 % intervals, averaged over draws of the labels."""
    held = torch.zeros(2)
    for _ in range(repetitions):
        test = pairs(tests, base.simulator, **process)
        draws = fitted(method, base, pairs(method.labels, base.simulator, **process)).sample(test.y, 400)
        rank = (draws < test.theta).double().mean(0)
        held += torch.tensor([((2 * rank - 1).abs() < level).double().mean() for level in (0.5, 0.9)])
    return (held / repetitions).tolist()


@pytest.fixture(autouse=True)
def _seeded():
    with scope(0):
        yield


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request) -> Recalibration:
    return request.param(labels=20, draws=50)


@pytest.mark.parametrize("labels", [10, 30])
def test_affine_intervals_hold_what_they_claim(labels: int) -> None:
    half, most = coverages(RecalibratedAffine(labels, draws=50), Sure(Known()))
    # with 10 labels the coverage varies by 0.07 from one draw of them to another
    assert abs(half - 0.5) < 0.07
    assert abs(most - 0.9) < 0.045


def test_affine_is_students_t_of_the_regression() -> None:
    base = Sure(Known(), sd=1e-4)
    labelled = pairs(12, base.simulator)
    posterior = fitted(RecalibratedAffine(labels=12), base, labelled)
    m, t = base.mapped(labelled.y).mean[:, 0].double(), labelled.theta[:, 0].double()
    design = torch.stack([torch.ones_like(m), m], dim=1)
    inverse = torch.linalg.inv(design.T @ design)
    line = inverse @ design.T @ t
    variance = ((t - design @ line) ** 2).sum() / 10
    test = pairs(5, base.simulator)
    at = torch.stack([torch.ones(5), base.mapped(test.y).mean[:, 0]], dim=1).double()
    scale = (variance * (1 + ((at @ inverse) * at).sum(1))).sqrt()
    expected = StudentT(10.0, at @ line, scale).log_prob(test.theta[:, 0].double())
    assert torch.allclose(posterior.log_prob(test.theta[None], test.y)[0].double(), expected, atol=2e-3)


def test_a_base_that_says_nothing_leaves_mean_and_sd_of_the_labels() -> None:
    base = Sure(Known(), slope=0.0, sd=1e-8)
    labelled = pairs(400, base.simulator)
    draws = fitted(RecalibratedAffine(labels=400), base, labelled).sample(labelled.y[:1], 4000)
    assert abs(draws.mean() - labelled.theta.mean()) < 0.07
    assert abs(draws.std() / labelled.theta.std() - 1) < 0.06


def test_temperature_is_found_and_draws_and_density_follow() -> None:
    base = SureDensity(Known(dim=2), bias=0.0, slope=1.0)
    labelled = pairs(800, base.simulator, power=1.0)
    posterior = fitted(RecalibratedTemperature(labels=800, draws=400), base, labelled)
    found = posterior.correction["temperature"]
    assert torch.allclose(found, torch.tensor(SD / 0.02), rtol=0.1)
    test = pairs(4, base.simulator, power=1.0)
    draws, wide = posterior.sample(test.y, 4000), base.mapped(test.y)
    assert torch.allclose(draws.std(0), found * wide.scale, rtol=0.06)
    # the mean is known up to the error of 400 draws of the base, times the temperature
    exact = Normal(wide.loc, found * wide.scale).log_prob(test.theta).sum(-1)
    assert torch.allclose(posterior.log_prob(test.theta[None], test.y)[0], exact, atol=0.5)
    assert torch.allclose(draws.mean(0), wide.loc, atol=0.1)


def test_temperature_gives_a_density_only_where_the_base_has_one() -> None:
    labelled = pairs(20, Known())
    assert isinstance(fitted(RecalibratedTemperature(20), SureDensity(Known()), labelled), HasLogProb)
    assert not isinstance(fitted(RecalibratedTemperature(20), Sure(Known()), labelled), HasLogProb)


@pytest.mark.parametrize("name", ["recalibrated_affine", "recalibrated_temperature", "recalibrated_gp"])
def test_densities_integrate_to_one_within_the_support(name: str) -> None:
    base = SureDensity(Known(bounded=True))
    posterior = fitted(METHODS[name](labels=20), base, pairs(20, base.simulator))
    y = pairs(6, base.simulator).y
    # in mapped theta, since a density may have poles at the bounds
    theta_map = ThetaMap(base.simulator.prior())
    real = torch.linspace(-5, 5, 5001).double()[:, None, None].expand(-1, 6, 1)
    at = theta_map.inverse(real)
    mass = (posterior.log_prob(at, y).double() - theta_map.log_abs_det(at)).exp() * 2e-3
    assert torch.allclose(mass.sum(0), torch.ones(6).double(), atol=0.01)
    assert torch.isneginf(posterior.log_prob(torch.full((1, 6, 1), 3.5), y)).all()
    draws = posterior.sample(y, 2000)
    assert (draws.abs() <= 3).all()
    # the density is that of the draws: both put the same mass below the middle
    below = (mass * (real[..., 0] < 0)).sum(0)
    assert torch.allclose(below, (draws[..., 0] < 0).double().mean(0), atol=0.06)


@pytest.mark.parametrize(("labels", "process"), [(10, {}), (10, {"df": 3.0}), (20, {"power": 1.0}), (40, {"df": 3.0})])
def test_conformal_intervals_hold_at_least_what_they_claim(labels: int, process: dict[str, float]) -> None:
    half, most = coverages(RecalibratedConformal(labels, draws=50), Sure(Known()), **process)
    # two standard errors, over draws of labels and of measurements
    assert most > 0.9 - 0.025
    assert half > 0.5 - 0.06


def test_conformal_quantiles_are_the_ranked_errors_and_go_on_beyond_them() -> None:
    errors = torch.tensor([-1.0, 0.0, 0.5, 2.0, 5.0])
    levels = torch.arange(1, 6) / 6
    assert torch.allclose(quantile(errors, levels), errors, atol=1e-5)
    assert torch.allclose(quantile(errors, (levels[:-1] + levels[1:]) / 2), (errors[:-1] + errors[1:]) / 2, atol=1e-5)
    fine = quantile(errors, torch.linspace(0, 1 - 1e-6, 999))
    assert (fine.diff() >= -1e-5).all()
    assert torch.isfinite(fine).all()
    assert quantile(errors, torch.tensor(0.05)) < -2
    assert quantile(errors, torch.tensor(0.95)) > 6


@pytest.mark.parametrize("labels", [10, 30])
def test_gp_intervals_hold_what_they_claim(labels: int) -> None:
    method = RecalibratedGP(labels, draws=50)
    half, most = coverages(method, Sure(Known()), power=1.0, bend=0.5)
    assert abs(half - 0.5) < 0.1
    assert abs(most - 0.9) < 0.06


def test_gp_learns_a_bend_and_a_spread_that_a_line_does_not() -> None:
    base = Sure(Known())
    labelled, test = (pairs(n, base.simulator, power=1.0, bend=0.8) for n in (100, 400))
    line, curve = (fitted(m(labels=100), base, labelled) for m in (RecalibratedAffine, RecalibratedGP))
    errors = [(p.sample(test.y, 200).mean(0) - test.theta).abs().mean() for p in (line, curve)]
    assert errors[1] < 0.75 * errors[0]
    score = [p.log_prob(test.theta[None], test.y).mean() for p in (line, curve)]
    assert score[1] > score[0] + 0.2
    sure, unsure = test.y[:, 1] < -0.7, test.y[:, 1] > 0.7
    spread = curve.sample(test.y, 400).std(0)
    assert spread[unsure].mean() > 2 * spread[sure].mean()


def test_gp_keeps_parameters_apart() -> None:
    base = Sure(Known(dim=2))
    labelled = pairs(60, base.simulator)
    theta = labelled.theta.clone()
    theta[:, 1] += 5.0
    method = RecalibratedGP(labels=60)
    for posterior, shift in (
        (fitted(method, base, labelled), 0.0),
        (fitted(method, base, Simulations(theta, labelled.y)), 5.0),
    ):
        off = posterior.sample(labelled.y, 200).mean(0) - labelled.y[:, :2]
        assert abs(off[:, 0].mean()) < 0.15
        assert abs(off[:, 1].mean() - shift) < 0.2


def test_spread_of_known_errors_is_found() -> None:
    feature = torch.randn(3000).double().numpy()
    error = 0.3 * torch.randn(3000).double().numpy() * torch.exp(torch.tensor(0.7 * feature)).numpy()
    found = fit_spread(error, feature, 0 * error, 0.2)
    assert abs(found.log_scale - math.log(0.3)) < 0.1
    assert abs(found.slope - 0.7) < 0.05
    assert found.df > 10


def test_spread_does_not_vanish_where_a_known_variance_explains_the_errors() -> None:
    error = 0.1 * torch.randn(50).double().numpy()
    found = fit_spread(error, 0 * error, 0 * error + 0.2**2, 0.1)
    assert 0.02 < math.exp(found.log_scale) < 0.2


def test_restored_from_the_correction_and_the_base(method: Recalibration, tmp_path: Path) -> None:
    base = SureDensity(Known(bounded=True, dim=2))
    labelled = pairs(20, base.simulator)
    posterior = fitted(method, base, labelled)
    save_tensors(tmp_path / "state.safetensors", *posterior.state())
    bare = Problem(Task("task", base.simulator), method.spec.needs, posterior=base)
    restored = method.restore(*load_tensors(tmp_path / "state.safetensors"), bare)
    drawn = []
    for one in (posterior, restored):
        with scope(1):
            drawn.append(one.sample(labelled.y[:5], 30))
    assert drawn[0].shape == (30, 5, 2)
    assert torch.isfinite(drawn[0]).all()
    assert torch.allclose(*drawn, atol=1e-4)
    if isinstance(posterior, HasLogProb):
        found = [p.log_prob(drawn[0], labelled.y[:5]) for p in (posterior, restored)]
        assert torch.allclose(*found, atol=1e-3)


def test_draws_and_density_do_not_depend_on_the_batch(method: Recalibration) -> None:
    base = SureDensity(Known())
    labelled, test = pairs(20, base.simulator), pairs(4, base.simulator)
    posterior, other = fitted(method, base, labelled), fitted(method, base, labelled)
    assert posterior.sample(test.y[:1], 1).shape == (1, 1, 1)
    if isinstance(posterior, HasLogProb):
        together = posterior.log_prob(test.theta[None], test.y)[0]
        alone = [other.log_prob(test.theta[None, i : i + 1], test.y[i : i + 1])[0, 0] for i in range(4)]
        assert torch.allclose(together, torch.stack(alone), atol=1e-3)


def test_moments_are_measured_once_and_leave_the_generator_alone() -> None:
    base = Sure(Known())
    measured = Base(base, ThetaMap(base.simulator.prior()), 100)
    y, before = pairs(3, base.simulator).y, torch.get_rng_state()
    first, again = measured.moments(y), measured.moments(y.flip(0))
    assert torch.equal(before, torch.get_rng_state())
    assert base.asked == [1, 1, 1]
    assert torch.equal(first.mean, again.mean.flip(0))
    assert torch.allclose(first.mean, base.mapped(y).mean, atol=0.02)
    assert torch.allclose(first.sd, base.mapped(y).scale, rtol=0.3)


def test_only_the_first_valid_labels_are_used(method: Recalibration) -> None:
    base = Sure(Known())
    good = pairs(20, base.simulator)
    y = torch.cat([good.y[:3], torch.full((2, 3), torch.nan), good.y[3:], 100 + good.y])
    theta = torch.cat([good.theta[:3], torch.ones(2, 1), good.theta[3:], good.theta])
    first = fitted(method, base, good).state()[0]
    second = fitted(method, base, Simulations(theta, y), good.y).state()[0]
    assert all(torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-4) for name in first)


def test_too_few_labels_are_said(method: Recalibration) -> None:
    labelled = pairs(21, Known())
    y = labelled.y.clone()
    y[:2] = torch.nan
    with pytest.raises(ValueError, match="19 valid labelled pairs of 21; expected at least 20"):
        fitted(method, Sure(Known()), Simulations(labelled.theta, y))


def test_labels_outside_the_support_are_said(method: Recalibration) -> None:
    base = Sure(Known(bounded=True))
    labelled = pairs(20, base.simulator)
    labelled.theta[4] = 3.5
    with pytest.raises(ValueError, match=r"1 of 20 labelled parameters outside the support"):
        fitted(method, base, labelled)


def test_impossible_settings_are_said() -> None:
    with pytest.raises(ValueError, match="labels 2"):
        RecalibratedAffine(labels=2)


@pytest.mark.parametrize("name", METHODS)
def test_registered_with_its_needs(name: str) -> None:
    found = build("methods", name)
    assert isinstance(found, METHODS[name])
    assert found.spec.name == name
    assert found.spec.needs >= {Need.POSTERIOR, Need.LABELLED}
    assert found.labels == 50

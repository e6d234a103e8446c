"""The adjustment is the regression it says it is, and gives exact posteriors where its assumptions hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, Uniform

import baselines.abc_regression as module
from baselines.abc_regression import ABCRegression, AdjustedSimulations, systematic
from posterior_bench import Method, Parameter, Posterior, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.runtime import scope

SIMULATOR = LinearGaussian()
PROBLEM = Problem(Task("linear", SIMULATOR))


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


def bank(size: int, seed: int = 0, simulator: Simulator = SIMULATOR) -> Simulations:
    with scope(seed):
        theta = simulator.prior().sample((size,))
        return Simulations(theta, simulator.simulate(theta))


def fit(method: Method, simulations: Simulations, simulator: Simulator = SIMULATOR) -> Posterior:
    return method.fit(simulations, Problem(Task("task", simulator)), Silent())


def draws_of(posterior: Posterior, y: Tensor, n: int = 2000) -> Tensor:
    with scope(7):
        return posterior.sample(y, n)


@pytest.mark.parametrize("options", [{}, {"degree": 2}, {"heteroscedastic": True}])
def test_conforms(options: dict) -> None:
    assert [f for f in check_method(ABCRegression(**options)) if not f.ok] == []


@pytest.mark.parametrize("options", [{}, {"degree": 2}, {"heteroscedastic": True}])
def test_exact_where_the_posterior_is_linear_however_wide_the_acceptance(options: dict) -> None:
    """A fifth of the bank is accepted: its width is several times the posterior's before the adjustment."""
    y = bank(5, seed=1).y
    posterior = fit(ABCRegression(accept=4000, **options), bank(20_000))
    assert isinstance(posterior, AdjustedSimulations)
    exact = SIMULATOR.posterior(y)
    accepted = posterior.nearest.theta[posterior.nearest.nearest(y)]
    assert (accepted.std(1) > 1.8 * exact.stddev).all()
    draws = draws_of(posterior, y)
    assert ((draws.mean(0) - exact.mean).abs() < 0.15 * exact.stddev).all()
    assert ((draws.std(0) / exact.stddev - 1).abs() < 0.08).all()
    for j in range(len(y)):
        covariance = draws[:, j].T.cov()
        correlation = covariance[0, 1] / covariance.diagonal().prod().sqrt()
        expected = exact.covariance_matrix[j, 0, 1] / exact.stddev[j].prod()
        assert abs(correlation - expected) < 0.08


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("block", [2**10, 2**19])
def test_agrees_with_weighted_least_squares(monkeypatch: pytest.MonkeyPatch, degree: int, block: int) -> None:
    """In NumPy, one measurement, by an augmented system: a row of sqrt(ridge) a feature. Whatever the blocks."""
    monkeypatch.setattr(module, "BLOCK", block)
    simulations, y, accept, ridge = bank(2000), bank(3, seed=1).y, 300, 0.05
    posterior = fit(ABCRegression(accept=accept, ridge=ridge, degree=degree), simulations)
    assert isinstance(posterior, AdjustedSimulations)
    found, weights = posterior.adjusted(y)
    values, theta = simulations.y.double().numpy(), simulations.theta.double().numpy() / [1.0, 2.0]
    for j, observed in enumerate(y.double().numpy()):
        z = (values - observed) / values.std(0, ddof=1)
        distance = np.linalg.norm(z, axis=1)
        order = distance.argsort()[:accept]
        w = 1 - (distance[order] / distance[order[-1]]) ** 2 / (1 + 1 / accept)
        assert np.allclose(weights[j], w, atol=1e-4)
        f, t = z[order], theta[order]
        if degree == 2:
            f = np.concatenate([f, *(f[:, [a]] * f[:, a:] for a in range(f.shape[1]))], axis=1)
        p = w / w.sum()
        f_mean, t_mean = p @ f, p @ t
        sd = np.sqrt(p @ (f - f_mean) ** 2)
        rows = np.concatenate([np.sqrt(p)[:, None] * (f - f_mean) / sd, math.sqrt(ridge) * np.eye(len(sd))])
        right = np.concatenate([np.sqrt(p)[:, None] * (t - t_mean), np.zeros((len(sd), 2))])
        slope = np.linalg.lstsq(rows, right, rcond=None)[0] / sd[:, None]
        assert np.allclose(found[j], t - f @ slope, atol=2e-3)
    assert draws_of(posterior, y, 10).shape == (10, 3, 2)


class Fan(Simulator):
    """y ~ U(0, 1); theta | y = 2 (y - 1/2) + (0.1 + 0.9 y) e, e ~ N(0, 1), made jointly. ``prior`` is a cover."""

    @property
    def spec(self) -> Spec:
        return Spec("fan", 1, "", (Parameter("only"),), (1,))

    def prior(self) -> Independent:
        return Independent(Normal(torch.zeros(1), torch.ones(1)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        raise NotImplementedError


def test_heteroscedastic_follows_the_scale() -> None:
    """At y = 0.1 sigma is 0.19; those accepted up to y = 0.35 on one side have up to 0.41."""
    with scope(0):
        y = torch.rand(20_000, 1)
        theta = 2 * (y - 0.5) + (0.1 + 0.9 * y) * torch.randn(20_000, 1)
    simulations, at = Simulations(theta, y), torch.tensor([[0.1], [0.5]])
    scale = 0.1 + 0.9 * at[:, 0]
    plain = draws_of(fit(ABCRegression(accept=8000), simulations, Fan()), at)[..., 0]
    scaled = draws_of(fit(ABCRegression(accept=8000, heteroscedastic=True), simulations, Fan()), at)[..., 0]
    assert plain[:, 0].std() > 1.25 * scale[0]
    assert ((scaled.std(0) / scale - 1).abs() < 0.12).all()
    assert ((scaled.mean(0) - 2 * (at[:, 0] - 0.5)).abs() < 0.12 * scale).all()
    assert abs(float((scaled[:, 0] > scaled[:, 0].mean()).float().mean()) - 0.5) < 0.04  # still a symmetric normal


class Curved(Simulator):
    """theta ~ U(0, 1)^2, y = theta^3 with little noise: the adjustment would leave the support without the map."""

    @property
    def spec(self) -> Spec:
        return Spec("curved", 1, "", (Parameter("a"), Parameter("b")), (2,))

    def prior(self) -> Independent:
        return Independent(Uniform(torch.zeros(2), torch.ones(2)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta**3 + 0.02 * torch.randn_like(theta)


def test_draws_stay_in_the_support_and_a_quadratic_helps_where_the_mean_bends() -> None:
    simulator = Curved()
    simulations, truth = bank(5000, simulator=simulator), bank(200, seed=1, simulator=simulator)
    errors = {}
    for degree in (1, 2):
        draws = draws_of(fit(ABCRegression(degree=degree), simulations, simulator), truth.y, 400)
        assert ((draws >= 0) & (draws <= 1)).all()
        errors[degree] = float((draws.mean(0) - truth.theta).square().mean().sqrt())
    assert errors[2] < errors[1] < 0.2


def test_a_discrete_measurement_leaves_its_group_alone() -> None:
    """All distances are zero: equal weights, no slope, and the draws are those simulations."""
    with scope(0):
        theta = torch.randn(900, 2)
    y = (torch.arange(900) % 3).float()[:, None].expand(-1, 4).contiguous()
    posterior = fit(ABCRegression(accept=300, heteroscedastic=True), Simulations(theta, y))
    assert isinstance(posterior, AdjustedSimulations)
    _, weights = posterior.adjusted(y[:3])
    assert torch.equal(weights, torch.ones(3, 300))
    plain = fit(ABCRegression(accept=300), Simulations(theta, y))
    for j, draws in enumerate(draws_of(plain, y[:3], 300).unbind(1)):
        assert torch.allclose(draws.sort(0).values, theta[j::3].sort(0).values, atol=1e-4)
    assert torch.isfinite(draws_of(posterior, y[:3], 300)).all()


@pytest.mark.parametrize("options", [{}, {"degree": 2}, {"heteroscedastic": True}, {"degree": 2, "ridge": 1e-6}])
@pytest.mark.parametrize("accept", [1, 2, 3, 10_000])
def test_edges_give_finite_draws(options: dict, accept: int) -> None:
    """Constant and repeated dimensions, fewer accepted than features, more than the bank, a y far outside."""
    simulations = bank(500)

    def widened(y: Tensor) -> Tensor:
        return torch.cat([y, y[:, :1], torch.full((len(y), 1), 7.0), torch.zeros(len(y), 1)], dim=1)

    posterior = fit(ABCRegression(accept=accept, **options), Simulations(simulations.theta, widened(simulations.y)))
    y = widened(torch.cat([bank(3, seed=1).y, torch.full((1, 4), 50.0), simulations.y[:1]]))
    draws = draws_of(posterior, y, 50)
    assert draws.shape == (50, 5, 2)
    assert torch.isfinite(draws).all()


@pytest.mark.parametrize("options", [{"heteroscedastic": True}, {}])
def test_a_parameter_without_spread_stays(options: dict) -> None:
    simulations = bank(500)
    theta = torch.cat([simulations.theta[:, :1], torch.full((500, 1), 1.5)], dim=1)
    draws = draws_of(fit(ABCRegression(accept=100, **options), Simulations(theta, simulations.y)), simulations.y[:4])
    assert torch.allclose(draws[..., 1], torch.full_like(draws[..., 1], 1.5), atol=1e-3)


@pytest.mark.parametrize("n", [3, 40, 1000])
def test_resampling_is_systematic(n: int) -> None:
    weights = torch.tensor([[0.1, 0.4, 0.0, 0.3, 0.2], [1.0, 1.0, 1.0, 1.0, 1.0]])
    expected = n * weights / weights.sum(1, keepdim=True)
    total = torch.zeros(2, 5)
    with scope(1):
        for _ in range(400):
            index = systematic(weights, n)
            assert index.shape == (2, n)
            counts = torch.stack([row.bincount(minlength=5) for row in index])
            assert ((counts - expected).abs() < 1 + 1e-4).all()
            total += counts
        assert (total / 400 - expected).abs().max() < 0.15  # sd of a mean of 400 at most 0.025
        first = torch.stack([systematic(weights, n)[:, 0] for _ in range(2000)], dim=1)
    shares = torch.stack([row.bincount(minlength=5) for row in first]) / 2000
    assert (shares - weights / weights.sum(1, keepdim=True)).abs().max() < 0.06  # the order is random, too


def test_draws_stand_for_the_weighted_sample() -> None:
    posterior, y = fit(ABCRegression(accept=100), bank(1000)), bank(3, seed=1).y
    assert isinstance(posterior, AdjustedSimulations)
    real, weights = posterior.adjusted(y)
    sample = posterior.to_real.inverse(real)[..., 0]
    draws = draws_of(posterior, y, 3000)[..., 0].T
    counts = (draws[:, :, None] == sample[:, None]).sum(1)
    assert (counts.sum(1) == 3000).all()
    assert ((counts - 3000 * weights / weights.sum(1, keepdim=True)).abs() < 1.01).all()


def test_state_restores_and_failed_simulations_are_left_out() -> None:
    simulations = bank(400)
    y = simulations.y.clone()
    y[::2] = torch.nan
    method = ABCRegression(quantile=0.25, ridge=0.01, degree=2, heteroscedastic=True)
    posterior = fit(method, Simulations(simulations.theta, y))
    tensors, settings = posterior.state()
    assert torch.equal(tensors["theta"], simulations.theta[1::2])
    assert settings["accept"] == 50
    restored = ABCRegression().restore(tensors, json.loads(json.dumps(settings)), PROBLEM)
    assert torch.equal(draws_of(posterior, simulations.y[:3]), draws_of(restored, simulations.y[:3]))


@pytest.mark.parametrize(
    "options", [{"accept": 0}, {"quantile": 1.5}, {"ridge": 0.0}, {"ridge": math.nan}, {"degree": 3}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        ABCRegression(**options)


def test_no_valid_simulation() -> None:
    nothing = Simulations(torch.zeros(3, 2), torch.full((3, 4), torch.nan))
    with pytest.raises(ValueError, match="none of 3 simulations is valid"):
        fit(ABCRegression(), nothing)

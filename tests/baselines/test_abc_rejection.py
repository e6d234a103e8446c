"""Rejection accepts exactly the nearest simulations, as a full sort and as sbi do."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform

import baselines.abc_rejection as module
from baselines.abc_rejection import BANDWIDTHS, ABCRejection, NearestSimulations, SmoothedSimulations, cross_validated
from posterior_bench import Parameter, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.runtime import scope
from posterior_bench.training import Standardise

SIMULATOR = LinearGaussian()
PROBLEM = Problem(Task("linear", SIMULATOR))


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


def bank(size: int, seed: int = 0) -> Simulations:
    with scope(seed):
        theta = SIMULATOR.prior().sample((size,))
        return Simulations(theta, SIMULATOR.simulate(theta))


def by_full_sort(y: Tensor, simulations: Simulations, accept: int) -> Tensor:
    scale = simulations.y.double().std(0)
    distance = ((simulations.y.double()[None] - y.double()[:, None]) / scale).norm(dim=-1)
    return distance.argsort(1)[:, :accept]


@pytest.mark.parametrize("method", [ABCRejection(), ABCRejection(smooth=True), ABCRejection(standardise=False)])
def test_conforms(method: ABCRejection) -> None:
    assert [f for f in check_method(method) if not f.ok] == []


@pytest.mark.parametrize("block", [2**8, 2**12, 2**22])
@pytest.mark.parametrize("accept", [1, 7, 256, 1000])
def test_accepts_what_a_full_sort_accepts(monkeypatch: pytest.MonkeyPatch, block: int, accept: int) -> None:
    """Whatever the blocks: a bank is cut where its size is no multiple, and a block can be smaller than K."""
    monkeypatch.setattr(module, "BLOCK", block)
    simulations = bank(1000)
    y = bank(13, seed=1).y
    posterior = ABCRejection(accept=accept).fit(simulations, PROBLEM, Silent())
    found = posterior.nearest(y)
    assert found.shape == (13, accept)
    assert torch.equal(found.sort(1).values, by_full_sort(y, simulations, accept).sort(1).values)
    assert torch.equal(found[:, 0], by_full_sort(y, simulations, 1)[:, 0])


def test_holds_no_more_distances_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    cdist = torch.cdist

    def watched(first: Tensor, second: Tensor, **options: str) -> Tensor:
        sizes.append(len(first) * len(second))
        return cdist(first, second, **options)

    monkeypatch.setattr(torch, "cdist", watched)
    monkeypatch.setattr(module, "BLOCK", 2**14)
    ABCRejection(accept=16).fit(bank(20_000), PROBLEM, Silent()).nearest(bank(100, seed=1).y)
    assert sum(sizes) == 100 * 20_000
    assert max(sizes) <= 2**14


def test_accepts_what_sbi_accepts() -> None:
    """MCABC of sbi on the same simulations, with the same distance: y standardised, Euclidean."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sbi's own dependencies, on import
        from sbi.inference import MCABC

    simulations = bank(2000)
    standardise = Standardise.of(simulations.y)
    remaining = iter([simulations])

    class Bank(torch.distributions.Distribution):
        """A prior whose draws are the bank's parameters, in their order."""

        arg_constraints = {}  # noqa: RUF012 - torch's own form

        def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's own default
            return next(remaining).theta

    def simulate(theta: Tensor) -> Tensor:
        rows = [int((simulations.theta == row).all(1).nonzero()[0, 0]) for row in theta]
        return standardise(simulations.y[rows])

    observed = bank(1, seed=5).y
    inference = MCABC(simulate, Bank(event_shape=torch.Size([2])), simulation_batch_size=500, show_progress_bars=False)
    accepted = inference(standardise(observed), num_simulations=2000, quantile=0.05)
    ours = ABCRejection(quantile=0.05).fit(simulations, PROBLEM, Silent())
    assert ours.accept == 100 == len(accepted)
    assert torch.equal(simulations.theta[ours.nearest(observed)[0]], accepted)  # in the same order, too


def test_scale_of_a_number_does_not_matter_and_a_constant_has_none() -> None:
    simulations, y = bank(500), bank(5, seed=1).y
    plain = ABCRejection(accept=20).fit(simulations, PROBLEM, Silent()).nearest(y)
    factor = torch.tensor([1e4, 1.0, 1e-4, 1.0])

    def changed(values: Tensor) -> Tensor:
        return torch.cat([values * factor, torch.full((len(values), 1), 7.0)], dim=1)

    other = ABCRejection(accept=20).fit(Simulations(simulations.theta, changed(simulations.y)), PROBLEM, Silent())
    assert torch.equal(other.nearest(changed(y)).sort(1).values, plain.sort(1).values)


def test_few_draws_are_distinct_and_many_repeat() -> None:
    posterior = ABCRejection(accept=50).fit(bank(1000), PROBLEM, Silent())
    y = bank(4, seed=1).y
    accepted = posterior.theta[posterior.nearest(y)]
    with scope(2):
        for n, distinct in ((20, 20), (50, 50)):
            draws = posterior.sample(y, n)
            assert all(len(draws[:, j].unique(dim=0)) == distinct for j in range(4))
        draws = posterior.sample(y, 4000)
    for j in range(4):
        values, counts = draws[:, j].unique(dim=0, return_counts=True)
        assert torch.equal(values, accepted[j].unique(dim=0))
        assert counts.float().std() < 2 * 80**0.5  # binomial about 80 each


def test_failed_simulations_are_never_accepted() -> None:
    simulations = bank(300)
    y = simulations.y.clone()
    y[::2] = torch.nan
    posterior = ABCRejection(accept=1000).fit(Simulations(simulations.theta, y), PROBLEM, Silent())
    assert posterior.accept == 150
    assert torch.equal(posterior.theta, simulations.theta[1::2])


def test_nears_the_exact_posterior() -> None:
    """At 256 of 200,000 the posterior mean is right to a fifth of its sd, the spread within a third."""
    y = torch.tensor([[0.8, 0.2, 0.5, -0.9], [-0.4, 0.5, 0.6, 0.5]])
    accepted = ABCRejection(accept=256).fit(bank(200_000), PROBLEM, Silent())
    draws = accepted.theta[accepted.nearest(y)]
    exact = SIMULATOR.posterior(y)
    assert ((draws.mean(1) - exact.mean).abs() < 0.2 * exact.stddev).all()
    assert ((draws.std(1) / exact.stddev - 1).abs() < 0.33).all()


@pytest.mark.parametrize("options", [{"accept": 0}, {"quantile": 1.5}, {"quantile": -0.1}])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        ABCRejection(**options)


def test_no_valid_simulation() -> None:
    nothing = Simulations(torch.zeros(3, 2), torch.full((3, 4), torch.nan))
    with pytest.raises(ValueError, match="none of 3 simulations is valid"):
        ABCRejection().fit(nothing, PROBLEM, Silent())


def test_bank_of_one() -> None:
    posterior = NearestSimulations(torch.zeros(1, 2), torch.zeros(1, 4), 1)
    assert posterior.sample(torch.ones(3, 4), 2).shape == (2, 3, 2)


def test_without_standardising_distances_are_in_the_units_of_y() -> None:
    simulations, y = bank(500), bank(5, seed=1).y
    factor = torch.tensor([1e3, 1.0, 1.0, 1.0])
    scaled = Simulations(simulations.theta, simulations.y * factor)
    found = ABCRejection(accept=5, standardise=False).fit(scaled, PROBLEM, Silent()).nearest(y * factor)
    plain = (scaled.y.double()[None] - (y * factor).double()[:, None]).norm(dim=-1).argsort(1)[:, :5]
    assert torch.equal(found, plain)
    assert not torch.equal(ABCRejection(accept=5).fit(scaled, PROBLEM, Silent()).nearest(y * factor), plain)


@dataclass(frozen=True)
class Corner(Simulator):
    """Two uniform parameters of different widths, seen with little noise: posteriors touch the bounds."""

    @property
    def spec(self) -> Spec:
        return Spec("corner", 1, "none", (Parameter("a"), Parameter("b")), y_shape=(2,))

    def prior(self) -> Distribution:
        return Independent(Uniform(torch.tensor([0.0, -100.0]), torch.tensor([1.0, 100.0])), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta / torch.tensor([1.0, 100.0]) + 0.2 * torch.randn_like(theta)


def smoothed_corner() -> tuple[SmoothedSimulations, Tensor]:
    simulator = Corner()
    with scope(3):
        theta = simulator.prior().sample((4000,))
        simulations = Simulations(theta, simulator.simulate(theta))
    posterior = ABCRejection(accept=100, smooth=True).fit(simulations, Problem(Task("corner", simulator)), Silent())
    assert isinstance(posterior, SmoothedSimulations)
    return posterior, torch.tensor([[0.0, 1.0], [0.5, 0.0], [1.0, -1.0]])


def test_smoothed_draws_stay_in_the_support_and_follow_the_density() -> None:
    posterior, y = smoothed_corner()
    with scope(4):
        draws = posterior.sample(y, 5000)
    low, high = torch.tensor([0.0, -100.0]), torch.tensor([1.0, 100.0])
    assert ((draws > low) & (draws < high)).all()
    assert len(draws[:, 0].unique(dim=0)) == 5000
    edges = (torch.arange(200) + 0.5) / 200
    grid = low + (high - low) * torch.cartesian_prod(edges, edges)
    density = posterior.log_prob(grid[:, None].expand(-1, 3, -1), y).exp() * float((high - low).prod()) / 200**2
    torch.testing.assert_close(density.sum(0), torch.ones(3), atol=0.02, rtol=0)
    mean = (density[..., None] * grid[:, None]).sum(0) / density.sum(0)[:, None]
    assert ((mean - draws.mean(0)).abs() < 4 * draws.std(0) / 5000**0.5 + 0.002 * (high - low)).all()
    assert (posterior.log_prob(torch.tensor([1.1, 0.0]).expand(1, 3, 2), y) == -torch.inf).all()


def test_smoothed_draws_widen_the_accepted_by_the_bandwidth() -> None:
    posterior, y = smoothed_corner()
    centres, bandwidth = posterior.kernels(y)
    with scope(5):
        real = posterior.to_real(posterior.sample(y, 20_000))
    expected = (centres.var(1, correction=0) + bandwidth[:, None] ** 2).sqrt()
    torch.testing.assert_close(real.std(0), expected, rtol=0.03, atol=0.0)


def test_kernels_of_other_measurements_are_not_kept() -> None:
    posterior, y = smoothed_corner()
    theta = posterior.nearest.theta[:3].expand(2, 3, 2)
    whole = posterior.log_prob(theta, y)
    order = [2, 0, 1]
    torch.testing.assert_close(posterior.log_prob(theta[:, order], y[order]), whole[:, order])
    torch.testing.assert_close(posterior.log_prob(theta[:, :1], y[:1]), whole[:, :1])


@pytest.mark.parametrize("gap", [0.0, 6.0])
def test_bandwidth_is_what_scikit_learn_finds(gap: float) -> None:
    with scope(6):
        centres = torch.randn(3, 100, 2) * torch.tensor([1.0, 0.3]) + gap * (torch.rand(3, 100, 1) > 0.5)
    for found, points in zip(cross_validated(centres), centres.double().numpy(), strict=True):
        sd = ((points - points.mean(0)) ** 2).mean() ** 0.5
        grid = np.linspace(*BANDWIDTHS, 41) * sd
        search = GridSearchCV(KernelDensity(), {"bandwidth": grid}, cv=20).fit(points)
        assert abs(float(found) - search.best_params_["bandwidth"]) <= 0.011 * sd


def test_smoothing_needs_two() -> None:
    with pytest.raises(ValueError, match="at least 2 to smooth"):
        ABCRejection(accept=1, smooth=True).fit(bank(50), PROBLEM, Silent())
    identical = Simulations(torch.zeros(30, 2), bank(30).y)
    draws = ABCRejection(accept=5, smooth=True).fit(identical, PROBLEM, Silent()).sample(bank(2).y, 7)
    assert torch.isfinite(draws).all()

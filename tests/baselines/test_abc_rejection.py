"""Rejection accepts exactly the nearest simulations, as a full sort and as sbi do."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import baselines.abc_rejection as module
from baselines.abc_rejection import ABCRejection, NearestSimulations
from posterior_bench import Problem, Simulations, Task
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


def test_conforms() -> None:
    assert [f for f in check_method(ABCRejection()) if not f.ok] == []


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

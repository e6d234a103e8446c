"""The anchors draw what they say."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Uniform

from baselines.anchors import Prior, PriorPosterior, Reference
from posterior_bench import Need, Problem, Simulations, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.problem import Ungranted
from posterior_bench.runtime import scope

SIMULATOR = LinearGaussian()
NOTHING = Simulations(torch.empty(0, 2), torch.empty(0, 4))
Y = torch.tensor([[0.3, -0.5, 1.0, 0.2], [2.0, 1.0, -1.0, 0.4]])


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


def problem(*needs: Need) -> Problem:
    return Problem(Task("linear", SIMULATOR), granted=frozenset(needs))


def drawn(method: Reference | Prior, n: int, seed: int = 0) -> torch.Tensor:
    with scope(seed):
        return method.fit(NOTHING, problem(Need.REFERENCE), Silent()).sample(Y, n)


@pytest.mark.parametrize("method", [Prior(), Reference()])
def test_conforms(method: Prior | Reference) -> None:
    assert [f for f in check_method(method) if not f.ok] == []


def test_the_prior_has_no_density_outside_its_support() -> None:
    bounded = PriorPosterior(Independent(Uniform(torch.zeros(1), torch.ones(1)), 1))
    theta = torch.tensor([[[0.5], [1.5]], [[-0.1], [0.2]]])
    with scope(0):
        assert bounded.log_prob(theta, Y).tolist() == [[0, -math.inf], [-math.inf, 0]]


def test_prior_ignores_the_measurement() -> None:
    draws = drawn(Prior(), 20_000)
    assert draws.shape == (20_000, 2, 2)
    torch.testing.assert_close(draws.std(0), torch.tensor([[1.0, 2.0]] * 2), rtol=0.03, atol=0)
    assert not torch.equal(draws[:, 0], draws[:, 1])
    posterior = Prior().fit(NOTHING, problem(), Silent())
    torch.testing.assert_close(posterior.log_prob(draws[:5], Y), SIMULATOR.prior().log_prob(draws[:5]))


def test_reference_is_the_simulators_own() -> None:
    exact = SIMULATOR.posterior(Y)
    draws = drawn(Reference(), 20_000)
    error = exact.stddev / 20_000**0.5
    assert ((draws.mean(0) - exact.mean).abs() < 4 * error).all()
    torch.testing.assert_close(draws.std(0), exact.stddev, rtol=0.03, atol=0)


def test_reference_must_be_granted() -> None:
    posterior = Reference().fit(NOTHING, problem(), Silent())
    with pytest.raises(Ungranted):
        posterior.sample(Y, 3)


def test_anchors_need_no_simulations_and_say_so() -> None:
    assert not Prior.spec.trains
    assert not Reference.spec.trains
    assert Prior.spec.needs == frozenset()
    assert Reference.spec.needs == {Need.REFERENCE}

"""The anchors draw what they say, and the controls are wrong by as much as they say."""

from __future__ import annotations

import pytest
import torch

from baselines.anchors import Prior, Reference
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


@pytest.mark.parametrize("method", [Prior(), Reference(), Reference(scale=0.5, shift=0.2)])
def test_conforms(method: Prior | Reference) -> None:
    assert [f for f in check_method(method) if not f.ok] == []


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


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_scaled_about_the_mean_of_each_measurement(scale: float) -> None:
    plain, scaled = drawn(Reference(), 1000, seed=1), drawn(Reference(scale=scale), 1000, seed=1)
    # drawn after the same draws of the prior, under the same seed
    torch.testing.assert_close(scaled - scaled.mean(0), scale * (plain - plain.mean(0)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled.mean(0), plain.mean(0), rtol=1e-4, atol=1e-5)


def test_a_single_scaled_draw_still_has_the_scaled_spread() -> None:
    method = Reference(scale=3.0)
    posterior = method.fit(NOTHING, problem(Need.REFERENCE), Silent())
    many = Y[:1].expand(5000, -1)
    with scope(2):
        single = posterior.sample(many, 1)[0]
    torch.testing.assert_close(single.std(0), 3 * SIMULATOR.posterior(Y[:1]).stddev[0], rtol=0.05, atol=0)


def test_shift_is_in_standard_deviations_of_the_prior() -> None:
    plain, shifted = drawn(Reference(), 500, seed=3), drawn(Reference(shift=0.5), 500, seed=3)
    expected = 0.5 * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(shifted - plain, expected.expand_as(plain), rtol=0.03, atol=0)


def test_anchors_need_no_simulations_and_say_so() -> None:
    assert not Prior.spec.trains
    assert not Reference.spec.trains
    assert Prior.spec.needs == frozenset()
    assert Reference.spec.needs == {Need.REFERENCE}

"""The controls are wrong by as much as they say, and in nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.controls import MOMENT_DRAWS, STRENGTHS, Control, Permuted, Scaled, Shifted
from posterior_bench import Need, Posterior, Problem, Simulations, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.problem import Ungranted
from posterior_bench.runtime import scope

SIMULATOR = LinearGaussian()
NOTHING = Simulations(torch.empty(0, 2), torch.empty(0, 4))
Y = torch.tensor([[0.3, -0.5, 1.0, 0.2], [2.0, 1.0, -1.0, 0.4], [-1.0, 0.1, 0.4, 0.0]])


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


def problem(*needs: Need) -> Problem:
    return Problem(Task("linear", SIMULATOR), granted=frozenset(needs))


def fitted(kind: str, strength: float | None = None) -> Posterior:
    return Control(kind, strength).fit(NOTHING, problem(Need.REFERENCE), Silent())


def drawn(posterior: Posterior, n: int, y: Tensor = Y, seed: int = 0) -> Tensor:
    with scope(seed):
        return posterior.sample(y, n)


def exact(n: int, y: Tensor = Y, seed: int = 0) -> Tensor:
    with scope(seed):
        return SIMULATOR.sample_reference(y, n)


@pytest.mark.parametrize("kind", ["shrunk", "widened", "shifted"])
def test_conforms(kind: str) -> None:
    assert [f for f in check_method(Control(kind)) if not f.ok] == []


def test_the_check_of_methods_catches_the_permuted() -> None:
    """It breaks what a method promises, that measurements are kept apart, and this alone."""
    wrong = [f for f in check_method(Control("permuted")) if not f.ok]
    assert [f.name for f in wrong] == ["observations_apart"]


@pytest.mark.parametrize(("kind", "factor"), [("shrunk", 0.8), ("widened", 1.25)])
def test_scaled_about_the_mean_of_each_measurement(kind: str, factor: float) -> None:
    plain, found = exact(1000), drawn(fitted(kind), 1000)
    torch.testing.assert_close(found.mean(0), plain.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found - found.mean(0), factor * (plain - plain.mean(0)), rtol=1e-4, atol=1e-4)


def test_shifted_by_a_share_of_the_posteriors_own_sd() -> None:
    plain, found = exact(1000), drawn(fitted("shifted", 0.5), 1000)
    torch.testing.assert_close(found - plain, (0.5 * plain.std(0)).expand_as(plain), rtol=1e-4, atol=1e-4)
    down = drawn(fitted("shifted", -0.5), 1000)
    torch.testing.assert_close(found - plain, plain - down, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [Scaled(SIMULATOR.sample_reference, 3.0), Shifted(SIMULATOR.sample_reference, 2.0)])
def test_a_single_draw_has_the_defect_as_well(method: Posterior) -> None:
    many = Y[:1].expand(4000, -1)
    single, posterior = drawn(method, 1, many)[0], SIMULATOR.posterior(Y[:1])
    factor, share = (3.0, 0.0) if isinstance(method, Scaled) else (1.0, 2.0)
    torch.testing.assert_close(single.std(0), factor * posterior.stddev[0], rtol=0.06, atol=0)
    moved = (single.mean(0) - posterior.mean[0]) / posterior.stddev[0]
    assert ((moved - share).abs() < 0.2).all()
    assert MOMENT_DRAWS >= 200


def test_permuted_answers_with_the_measurement_before() -> None:
    torch.testing.assert_close(drawn(fitted("permuted"), 50), exact(50, Y[[2, 0, 1]]))


def test_a_measurement_alone_is_answered_with_the_prior() -> None:
    draws = drawn(fitted("permuted"), 20_000, Y[:1])
    assert draws.shape == (20_000, 1, 2)
    torch.testing.assert_close(draws.std(0)[0], torch.tensor([1.0, 2.0]), rtol=0.03, atol=0)
    assert (draws.mean(0).abs() < 0.06).all()


@pytest.mark.parametrize("kind", list(STRENGTHS))
def test_restored_controls_have_the_same_defect(kind: str) -> None:
    strength = {"shrunk": 0.5, "widened": 2.0, "shifted": -0.4}.get(kind)
    posterior = fitted(kind, strength)
    restored = Control().restore(*posterior.state(), problem(Need.REFERENCE))
    assert torch.equal(drawn(posterior, 20), drawn(restored, 20))
    assert isinstance(posterior, {"shifted": Shifted, "permuted": Permuted}.get(kind, Scaled))


@pytest.mark.parametrize(
    ("kind", "strength", "expected"),
    [
        ("narrow", None, "expected one of shrunk, widened, shifted, permuted"),
        ("shrunk", 1.25, "expected between 0 and 1"),
        ("shrunk", 0.0, "expected between 0 and 1"),
        ("widened", 0.8, "expected above 1"),
        ("widened", float("inf"), "expected above 1"),
        ("shifted", 0.0, "expected other than 0"),
        ("permuted", 0.5, "expected none at all"),
        ("shifted", float("nan"), "expected other than 0"),
    ],
)
def test_a_strength_of_another_kind_is_refused(kind: str, strength: float | None, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Control(kind, strength)


def test_exact_draws_must_be_granted() -> None:
    posterior = Control().fit(NOTHING, problem(), Silent())
    with pytest.raises(Ungranted):
        posterior.sample(Y, 3)
    assert not Control.spec.trains
    assert Control.spec.needs == {Need.REFERENCE}

"""The INN and its likelihood variant as methods, on problems with a known posterior."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, constraints
from torch.nn.functional import one_hot

from posterior_bench import Parameter, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import check_method
from posterior_bench.inn import INN, INNBackward, INNForward, INNLikelihood
from posterior_bench.runtime import scope

SD = 0.5
LEARNING_RATE = {INN: 1e-3, INNLikelihood: 3e-3}


@dataclass(frozen=True)
class Line(Simulator):
    """theta ~ N(0, I_2), y = theta_1 + theta_2 + N(0, SD^2)."""

    @property
    def spec(self) -> Spec:
        return Spec("line", 1, "", (Parameter("a"), Parameter("b")), (1,))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta.sum(1, keepdim=True) + SD * torch.randn(len(theta), 1)


class Recorder:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        self.told.append((done, total))


def fitted(method, simulations=None, progress=None):
    task = Task("line", Line())
    with scope(0):
        if simulations is None:
            theta = Line().prior().sample((4000,))
            simulations = Simulations(theta, Line().simulate(theta))
        return method.fit(simulations, Problem(task), progress or Recorder())


def exact(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 2) and covariance (2, 2) of theta given y (B, 1)."""
    gain = torch.full((2,), 1 / (2 + SD**2))
    return y * gain, torch.eye(2) - torch.outer(gain, torch.ones(2))


@pytest.fixture(scope="module", params=[INN, INNLikelihood], ids=["inn", "inn_likelihood"])
def method(request):
    return request.param(blocks=4, width=48, steps=600, batch_size=200, learning_rate=LEARNING_RATE[request.param])


@pytest.fixture(scope="module")
def posterior(method):
    return fitted(method)


def test_a_linear_problem_is_solved(posterior):
    y = torch.tensor([[-2.0], [0.0], [1.5]])
    with scope(1):
        draws = posterior.sample(y, 4000)
    mean, covariance = exact(y)
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.12)
    for k in range(3):
        torch.testing.assert_close(torch.cov(draws[:, k].T), covariance, rtol=0, atol=0.12)


def test_a_row_depends_on_its_own_measurement(posterior):
    y = torch.tensor([[-2.0], [2.0]])
    with scope(2):
        draws = posterior.sample(y, 2000).sum(-1)
    with scope(2):
        swapped = posterior.sample(y.flip(0), 2000).sum(-1)
    assert (draws[:, 0] < 0).float().mean() > 0.95
    torch.testing.assert_close(draws.mean(0), swapped.mean(0).flip(0), rtol=0, atol=0.1)


def test_a_restored_posterior_draws_the_same(method, posterior):
    tensors, settings = posterior.state()
    again = method.restore(tensors, settings, Problem(Task("line", Line())))
    y = torch.randn(3, 1)
    with scope(3):
        first = posterior.sample(y, 50)
    with scope(3):
        assert torch.equal(first, again.sample(y, 50))


def test_curves_of_every_term_are_kept(method, posterior):
    expected = {"L_y", "L_z", "L_x", "kernel score"} if isinstance(method, INN) else {"negative log-likelihood"}
    assert expected | {"step", "held_out"} == set(posterior.history)
    assert len({len(curve) for curve in posterior.history.values()}) == 1


def test_failed_simulations_are_not_learned_from(method):
    with scope(4):
        theta = Line().prior().sample((300,))
        y = Line().simulate(theta)
    y[::3] = torch.nan
    quick = dataclasses.replace(method, steps=20)
    with_failures = fitted(quick, Simulations(theta, y))
    without = fitted(quick, Simulations(theta, y).only_valid())
    assert all(
        torch.equal(a, b) for a, b in zip(*(p.state()[0].values() for p in (with_failures, without)), strict=True)
    )


def test_a_fit_repeats_and_tells_its_progress(method):
    quick, recorder = dataclasses.replace(method, steps=200, width=16), Recorder()
    first, second = fitted(quick, progress=recorder), fitted(quick)
    assert all(torch.equal(a, b) for a, b in zip(*(p.state()[0].values() for p in (first, second)), strict=True))
    assert recorder.told == sorted(set(recorder.told))
    assert recorder.told[-1] == (200, 200)


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_any_size_of_z_that_theta_fits_into(latent_dim):
    posterior = fitted(INNLikelihood(latent_dim=latent_dim, steps=10, width=8, blocks=2))
    assert posterior.sample(torch.zeros(2, 1), 7).shape == (7, 2, 2)
    assert posterior.model.free == latent_dim - 1


def test_too_small_a_z_is_refused():
    @dataclass(frozen=True)
    class Plane(Line):
        @property
        def spec(self) -> Spec:
            return Spec("plane", 1, "", tuple(Parameter(f"p{i}") for i in range(4)), (1,))

        def prior(self) -> Distribution:
            return Independent(Normal(torch.zeros(4), torch.ones(4)), 1)

    theta = torch.randn(50, 4)
    with pytest.raises(ValueError, match="expected latent_dim of at least 3"):
        INN(latent_dim=2).fit(Simulations(theta, theta[:, :1]), Problem(Task("plane", Plane())), Recorder())


@pytest.mark.parametrize("cls", [INN, INNLikelihood])
def test_the_contract_is_kept(cls):
    broken = [finding for finding in check_method(cls()) if not finding.ok]
    assert not broken, broken


class Mixture(MixtureSameFamily):
    """A mixture on the whole plane: torch's own says nothing of its support that ``biject_to`` understands."""

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real_vector


@dataclass(frozen=True)
class Modes(Simulator):
    """Eight narrow modes on a circle of radius 2; y is the label of the nearest mode in one-hot code."""

    labels: tuple[int, ...] = tuple(range(8))

    @property
    def spec(self) -> Spec:
        return Spec("modes", 1, "", (Parameter("a"), Parameter("b")), (8,))

    def prior(self) -> Distribution:
        angle = torch.arange(8) * (torch.pi / 4)
        centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
        return Mixture(Categorical(torch.ones(8)), Independent(Normal(centres, 0.2 * torch.ones(8, 2)), 1))

    def mode(self, theta: Tensor) -> Tensor:
        """Index (...,) of the centre that is nearest to theta (..., 2)."""
        return (torch.atan2(theta[..., 1], theta[..., 0]) / (torch.pi / 4)).round().long() % 8

    def simulate(self, theta: Tensor) -> Tensor:
        return one_hot(torch.tensor(self.labels)[self.mode(theta)], 8).float()


def fitted_modes(method, labels):
    modes = Modes(labels)
    with scope(0):
        theta = modes.prior().sample((4000,))
        posterior = method.fit(Simulations(theta, modes.simulate(theta)), Problem(Task("modes", modes)), Recorder())
    y = one_hot(torch.tensor(sorted(set(labels))), 8).float()
    with scope(1):
        return modes, posterior.sample(y, 500)


@pytest.mark.parametrize("labels", [(0, 1, 2, 3, 4, 5, 6, 7), (0, 0, 0, 0, 1, 1, 2, 3), (0,) * 8])
@pytest.mark.parametrize("cls", [INN, INNLikelihood, INNForward, INNBackward])
def test_a_categorical_measurement_with_constant_dimensions(cls, labels):
    """Some codes never occur, in the last case all of y is constant: no information, and no scale to divide by."""
    _, draws = fitted_modes(cls(blocks=2, width=16, steps=20, batch_size=64), labels)
    assert draws.shape == (500, len(set(labels)), 2)
    assert torch.isfinite(draws).all()


@pytest.mark.parametrize("labels", [(0, 1, 2, 3, 4, 5, 6, 7), (0, 0, 0, 0, 1, 1, 2, 3)])
def test_draws_lie_in_the_modes_of_their_label(labels):
    method = INNLikelihood(blocks=4, width=32, steps=300, batch_size=200)
    modes, draws = fitted_modes(method, labels)
    found = torch.tensor(labels)[modes.mode(draws)]
    right = (found == torch.tensor(sorted(set(labels)))).float().mean(0)
    assert right.min() > 0.9, right


@pytest.mark.parametrize("measurements", [1, 7, 5000])
def test_drawing_in_parts_keeps_measurements_and_draws_in_place(posterior, measurements):
    """More measurements, or more draws, than one backward pass takes."""
    y = torch.linspace(-2, 2, measurements).unsqueeze(1)
    n = max(3, 6000 // measurements)
    with scope(5):
        draws = posterior.sample(y, n)
    assert draws.shape == (n, measurements, 2)
    mean, _ = exact(y)
    off = draws - mean
    assert off.flatten(0, 1).mean(0).abs().max() < 0.12
    assert off[-max(1, n // 3) :].std() < 1.2

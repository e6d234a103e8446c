"""The conditional INN: exact inverses, determinants and densities, and posteriors that are known."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform

from posterior_bench import Parameter, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.inn import ConditionalINN, InvertibleNetwork
from posterior_bench.inn.conditional import BLOCKS
from posterior_bench.inn.splines import Spline
from posterior_bench.runtime import scope

COUPLINGS = ["affine", "spline"]


@dataclass(frozen=True)
class Shift(Simulator):
    """theta ~ U(-1, 1), y = (theta + 0.3 noise, 7): one parameter, a bounded prior and a constant dimension."""

    @property
    def spec(self) -> Spec:
        return Spec("shift", 1, "", (Parameter("a"),), (1, 2))

    def prior(self) -> Distribution:
        return Independent(Uniform(-torch.ones(1), torch.ones(1)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        measured = theta + 0.3 * torch.randn_like(theta)
        return torch.stack([measured, torch.full_like(measured, 7.0)], dim=2)


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None:
        pass


def fitted(method, simulator, size):
    with scope(0):
        theta = simulator.prior().sample((size,))
        return method.fit(Simulations(theta, simulator.simulate(theta)), Problem(Task("test", simulator)), Silent())


@pytest.fixture(scope="module", params=COUPLINGS)
def method(request):
    return ConditionalINN(coupling=request.param, blocks=2, width=32, bins=4, steps=500, batch_size=200)


@pytest.fixture(scope="module")
def linear(method):
    return fitted(dataclasses.replace(method, learning_rate=3e-3), LinearGaussian(), 20_000)


@pytest.fixture(scope="module")
def shift(method):
    return fitted(dataclasses.replace(method, steps=300, learning_rate=3e-3), Shift(), 8000)


def network(dim: int, bins: int, mixing: str = "orthogonal") -> InvertibleNetwork:
    """A network in double precision, with weights as large as after a training."""
    with scope(dim, dtype=torch.float64):
        net = InvertibleNetwork(dim, context_dim=3, blocks=3, width=16, bins=bins, mixing=mixing)
        for parameter in net.parameters():
            parameter.data += 0.5 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return net


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("bins", [0, 2, 8])
@pytest.mark.parametrize("mixing", ["orthogonal", "permutation"])
def test_inverse_undoes_forward(dim, bins, mixing):
    net = network(dim, bins, mixing)
    with scope(1, dtype=torch.float64):
        inputs, context = 2 * torch.randn(200, dim), torch.randn(200, 3)
    outputs, _ = net(inputs, context)
    assert (outputs - inputs).abs().max() > 0.1
    torch.testing.assert_close(net.inverse(outputs, context), inputs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("bins", [0, 8])
def test_log_determinant_is_that_of_the_jacobian(dim, bins):
    net = network(dim, bins)
    with scope(2, dtype=torch.float64):
        inputs, context = 2 * torch.randn(20, dim), torch.randn(20, 3)
    _, log_det = net(inputs, context)
    for i in range(20):
        point, given = inputs[i : i + 1], context[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda p, given=given: net(p, given)[0], point)[0, :, 0]
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize("bins", [0, 8])
def test_the_map_depends_on_the_context(bins):
    net = network(1, bins)
    inputs = torch.zeros(2, 1, dtype=torch.float64)
    outputs, _ = net(inputs, torch.tensor([[0.0, 0, 0], [1, 1, 1]], dtype=torch.float64))
    assert (outputs[0] - outputs[1]).abs() > 1e-3


def test_a_spline_of_zeros_is_the_identity():
    inputs = torch.linspace(-6, 6, 101, dtype=torch.float64)
    outputs, log_slope = Spline(torch.zeros(23, 101, dtype=torch.float64), 4.0).forward(inputs)
    torch.testing.assert_close(outputs, inputs)
    torch.testing.assert_close(log_slope, torch.zeros_like(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spline_rises_from_bound_to_bound(dtype):
    with scope(3):
        raw = (4 * torch.randn(23, 1, 50)).to(dtype)
    inputs = torch.linspace(-3.0001, 3.0001, 5001, dtype=dtype)[:, None].expand(-1, 50)
    outputs, log_slope = Spline(raw.expand(-1, 5001, -1), 3.0).forward(inputs)
    assert (outputs.diff(dim=0) > -1e-5).all()
    assert torch.isfinite(log_slope).all()
    torch.testing.assert_close(outputs[[0, -1]], inputs[[0, -1]])
    # the slope integrates to the rise of 6
    torch.testing.assert_close(
        log_slope.exp().mean(0) * 6.0002, torch.full((50,), 6.0002, dtype=dtype), rtol=0.05, atol=0
    )


def test_a_spline_goes_through_its_knots_with_their_slopes():
    raw = torch.zeros(5, 3, dtype=torch.float64)
    raw[0], raw[2] = math.log(3), math.log(1 / 3)
    raw[4] = 1.0
    inner = -2 + 4 * (1e-3 + 0.998 * 0.75)
    outputs, log_slope = Spline(raw, 2.0).forward(torch.tensor([-2 + 1e-9, inner, 2 - 1e-9], dtype=torch.float64))
    expected = -2 + 4 * (1e-3 + 0.998 * 0.25)
    torch.testing.assert_close(outputs, torch.tensor([-2, expected, 2], dtype=torch.float64), rtol=0, atol=1e-7)
    slope = 1e-3 + math.log1p(math.exp(1.0) * math.expm1(0.999))
    torch.testing.assert_close(log_slope.exp(), torch.tensor([1, slope, 1], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def measurements():
    """(5, 4), simulated, so that they lie where the method has learned."""
    with scope(4):
        return LinearGaussian().simulate(LinearGaussian().prior().sample((5,)))


def test_a_normal_posterior_is_recovered(linear, measurements):
    with scope(1):
        draws = linear.sample(measurements, 4000)
    exact = LinearGaussian().posterior(measurements)
    sd = exact.variance.sqrt()
    bias = (draws.mean(0) - exact.mean).abs() / sd
    assert bias.mean() < 0.12
    assert bias.max() < 0.3
    covariance = torch.stack([torch.cov(draws[:, k].T) for k in range(5)])
    error = (covariance - exact.covariance_matrix).abs() / (sd[:, :, None] * sd[:, None])
    assert error.mean() < 0.12
    assert error.max() < 0.35


def test_density_is_the_exact_one_and_integrates_to_one(linear, measurements):
    exact = LinearGaussian().posterior(measurements)
    with scope(5):
        draws = exact.sample((2000,))
    gap = exact.log_prob(draws) - linear.log_prob(draws, measurements)
    # the mean is the divergence of the exact posterior from the fitted one, in nats
    assert gap.mean(0).max() < 0.15
    assert gap.mean(0).min() > -0.02
    steps = torch.linspace(-7, 7, 201)
    grid = exact.mean[:, None] + torch.cartesian_prod(steps, steps) * exact.variance.sqrt()[:, None]
    cell = (14 / 200) ** 2 * exact.variance.sqrt().prod(-1)
    mass = linear.log_prob(grid.transpose(0, 1), measurements).exp().sum(0) * cell
    torch.testing.assert_close(mass, torch.ones(5), rtol=0, atol=0.01)


def test_one_bounded_parameter_is_recovered(method, shift):
    y = torch.tensor([[[-0.7, 7.0]], [[0.2, 7.0]]])
    grid = torch.linspace(-1, 1, 4001)[1:-1]
    density = shift.log_prob(grid[:, None, None].expand(-1, 2, -1), y).exp()
    exact = torch.exp(-0.5 * ((grid[:, None] - y[:, 0, 0]) / 0.3) ** 2)
    exact = exact / exact.mean(0) / 2
    torch.testing.assert_close(density.mean(0) * 2, torch.ones(2), rtol=0, atol=0.01)
    # affine maps of one dimension make nothing but a normal, which the truncated posterior is not
    largest = 0.1 if method.coupling == "spline" else 0.3
    total_variation = (density - exact).abs().mean(0)
    assert total_variation.max() < largest
    with scope(5):
        draws = shift.sample(y, 5000)
    assert draws.shape == (5000, 2, 1)
    assert draws.abs().max() <= 1
    below = (grid[:, None] < 0).float()
    torch.testing.assert_close((draws[..., 0] < 0).float().mean(0), (density * below).mean(0) * 2, rtol=0, atol=0.03)


def test_outside_the_support_there_is_no_density(shift):
    with scope(6):
        value = shift.log_prob(torch.tensor([[[-1.5]], [[0.0]], [[1.01]]]), torch.tensor([[[0.1, 7.0]]]))
    assert torch.isinf(value[[0, 2]]).all()
    assert torch.isfinite(value[1]).all()


def test_gradients_flow_through_the_density(linear):
    theta = torch.zeros(3, 2, 2, requires_grad=True)
    linear.log_prob(theta, torch.ones(2, 4)).sum().backward()
    assert torch.isfinite(theta.grad).all()
    assert (theta.grad != 0).any()


def test_draws_do_not_depend_on_how_they_are_cut(linear, monkeypatch):
    with scope(7):
        y = torch.randn(7, 4)
        far = torch.cat([y, y + 3])
        draws = linear.sample(far, 300)
    exact = LinearGaussian().posterior(far)
    monkeypatch.setattr("posterior_bench.inn.conditional.ROWS", 11)
    with scope(8):
        again = linear.sample(far, 300)
    difference = (draws.mean(0) - again.mean(0)) / exact.variance.sqrt()
    assert difference.abs().max() < 0.6


def test_a_restored_posterior_draws_the_same(method, linear):
    tensors, settings = linear.state()
    again = method.restore(tensors, settings, Problem(Task("linear", LinearGaussian())))
    y = torch.ones(3, 4)
    with scope(9):
        first = linear.sample(y, 50)
    with scope(9):
        assert torch.equal(first, again.sample(y, 50))
    assert torch.equal(linear.log_prob(first, y), again.log_prob(first, y))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_training_starts_near_the_prior(coupling):
    """With fresh weights the density is that of the prior, which the map of theta makes N(0, I)."""
    method = ConditionalINN(coupling=coupling, steps=1, learning_rate=1e-12)
    posterior = fitted(method, LinearGaussian(), 100)
    theta = LinearGaussian().prior().sample((50,))[:, None]
    prior = LinearGaussian().prior().log_prob(theta)
    torch.testing.assert_close(posterior.log_prob(theta, torch.ones(1, 4)), prior, rtol=0, atol=0.2)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_both_couplings_have_about_as_many_numbers(coupling):
    bins = ConditionalINN().bins if coupling == "spline" else 0
    net = InvertibleNetwork(13, BLOCKS[coupling], context_dim=8, bins=bins)
    assert 200_000 < sum(parameter.numel() for parameter in net.parameters()) < 300_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coupling": "cubic"}, "'cubic'; expected one of"),
        ({"blocks": 0}, "blocks 0"),
        ({"bound": -1.0}, "bound -1.0"),
        ({"bins": 1}, "bins is 1; expected 2"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConditionalINN(**options)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_contract_is_kept(coupling):
    broken = [finding for finding in check_method(ConditionalINN(coupling=coupling)) if not finding.ok]
    assert not broken, broken

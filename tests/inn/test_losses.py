"""MMD and the three losses: values by brute force, gradients by autograd, minima where they belong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from posterior_bench.inn import mmd, mmd2
from posterior_bench.inn.losses import MeasurementNoise, backward_loss, kernel_score, latent_loss
from posterior_bench.runtime import scope

WIDTHS = (0.5, 1.0, 2.0)


def brute_force(u: Tensor, v: Tensor, unbiased: bool, paired: bool) -> Tensor:
    """The definition, pair by pair, through autograd."""

    def mean(a: Tensor, b: Tensor, leave_out: bool) -> Tensor:
        squared = ((a[:, None] - b[None]) ** 2).sum(-1)
        kernel = sum(1 / (1 + squared / h**2) for h in WIDTHS)
        if leave_out:
            kernel = kernel * (1 - torch.eye(len(a), dtype=a.dtype))
            return kernel.sum() / (len(a) * (len(a) - 1))
        return kernel.mean()

    return mean(u, u, unbiased) + mean(v, v, unbiased) - 2 * mean(u, v, paired)


@pytest.mark.parametrize(("unbiased", "paired"), [(True, False), (False, False), (True, True)])
def test_value_and_gradient_are_those_of_the_definition(unbiased, paired):
    with scope(0, dtype=torch.float64):
        u, v = torch.randn(12, 3, requires_grad=True), (1 + torch.randn(12, 3)).requires_grad_()
        ours = mmd2(u, v, WIDTHS, unbiased, paired)
        theirs = brute_force(u, v, unbiased, paired)
        torch.testing.assert_close(ours, theirs)
        for mine, other in zip(torch.autograd.grad(ours, (u, v)), torch.autograd.grad(theirs, (u, v)), strict=True):
            torch.testing.assert_close(mine, other)
        assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, WIDTHS, unbiased, paired), (u, v))


@pytest.mark.parametrize("paired", [False, True])
def test_unbiased_mmd_has_mean_zero_under_the_null(paired):
    with scope(1):
        values = torch.stack([mmd2(torch.randn(40, 2), torch.randn(40, 2), WIDTHS, paired=paired) for _ in range(400)])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(400)
    assert values.min() < 0


class Largest(TorchDispatchMode):
    """Watches the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_memory_grows_with_the_points_not_with_the_pairs(monkeypatch):
    monkeypatch.setitem(mmd.SIDE, "cpu", 20)
    u, v = torch.randn(200, 3, requires_grad=True), torch.randn(150, 3)
    with Largest() as seen:
        mmd2(u, v, WIDTHS).backward()
    assert seen.elements <= max(3 * 20**2, 200 * (3 + 2))


def test_biased_mmd_is_never_negative_and_zero_for_one_sample():
    with scope(2):
        u = torch.randn(30, 2)
        assert mmd2(u, torch.randn(30, 2), WIDTHS, unbiased=False) > 0
        assert mmd2(u, u.clone(), WIDTHS, unbiased=False) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("wrong", [(1, 5, {}), (5, 4, {"paired": True}), (5, 5, {"paired": True, "unbiased": False})])
def test_samples_that_do_not_fit_are_refused(wrong):
    n, p, options = wrong
    with pytest.raises(ValueError, match=r"expected|paired"):
        mmd2(torch.zeros(n, 2), torch.zeros(p, 2), WIDTHS, **options)


def test_latent_loss_sends_no_gradient_to_the_side_of_the_measurement():
    with scope(3):
        u, z = torch.randn(20, 2, requires_grad=True), torch.randn(20, 3, requires_grad=True)
        latent_loss(u, z, torch.randn(20, 2), WIDTHS).backward()
    assert u.grad is None
    assert z.grad.abs().max() > 0


def test_latent_loss_sees_dependence_of_z_on_u():
    with scope(4):
        u = torch.randn(500, 1)
        independent = latent_loss(u, torch.randn(500, 1), u, WIDTHS)
        dependent = latent_loss(u, u.clone(), u, WIDTHS)
    assert dependent > 20 * independent.abs()


def test_kernel_score_is_least_for_the_posterior():
    """theta | y ~ N(y, 0.5^2): too narrow, too wide, shifted and the marginal all score worse."""
    with scope(5):
        y = torch.randn(20_000, 3)
        theta = y + 0.5 * torch.randn_like(y)

        def score(sd: float, shift: float = 0.0, use: float = 1.0) -> float:
            one, two = (use * y + shift + sd * torch.randn_like(y) for _ in range(2))
            return float(kernel_score(one, two, theta, WIDTHS))

        best = score(0.5)
        worse = [score(0.3), score(0.8), score(0.5, 0.3), score(math.sqrt(1.25), use=0.0)]
    assert best < min(worse)


def test_backward_loss_sees_a_wrong_marginal():
    with scope(6):
        theta = torch.randn(400, 3)
        assert (
            backward_loss(1.5 * torch.randn(400, 3), theta, WIDTHS)
            > 10 * backward_loss(torch.randn(400, 3), theta, WIDTHS).abs()
        )


def test_noise_of_the_measurement_begins_as_told_and_is_a_density():
    with scope(7), torch.no_grad():
        noise = MeasurementNoise(2, start=0.3)
        y = torch.randn(50_000, 2)
        u = noise.sample(y)
        assert float((u - y).std()) == pytest.approx(0.3, rel=0.02)
        expected = torch.distributions.Normal(y, 0.3).log_prob(u).sum(1)
        torch.testing.assert_close(noise.log_prob(u, y), expected, rtol=1e-4, atol=1e-4)

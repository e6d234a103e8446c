"""What holds for every network and every sample, by Hypothesis: inverses, log-determinants, and the MMD's gradient."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posterior_bench.inn import InvertibleNetwork, mmd, mmd2
from posterior_bench.runtime import scope

few = settings(max_examples=25, deadline=None, derandomize=True)

architectures = st.fixed_dictionaries(
    {
        "dim": st.integers(2, 9),
        "blocks": st.integers(1, 5),
        "width": st.integers(1, 24),
        "depth": st.integers(1, 3),
        "mixing": st.sampled_from(["orthogonal", "permutation"]),
        "bins": st.sampled_from([0, 0, 4]),
        "norm": st.booleans(),
    }
)
pads = st.integers(0, 4)
bandwidths = st.lists(st.floats(0.1, 5.0), min_size=1, max_size=4)


def network(architecture: dict, pads: int, dtype: torch.dtype) -> InvertibleNetwork:
    """A network with weights as large as after a training, of which ``pads`` more dimensions are noise."""
    with scope(sum(value for value in architecture.values() if isinstance(value, int)), dtype=dtype):
        net = InvertibleNetwork(**{**architecture, "dim": architecture["dim"] + pads})
        for parameter in net.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return net.eval().requires_grad_(False)  # in training the first batch would set the norms


def points(seed: int, count: int, dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    with scope(seed, dtype=dtype):
        return torch.randn(count, dim)


@given(architectures, pads)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@few
def test_forward_and_inverse_are_inverses(dtype, tolerance, architecture, pads):
    net = network(architecture, pads, dtype)
    start = points(1, 20, net.dim, dtype)
    for again in (net.inverse(net(start)[0]), net(net.inverse(start))[0]):
        torch.testing.assert_close(again, start, rtol=tolerance, atol=tolerance)


@given(architectures, pads)
@few
def test_log_determinant_is_that_of_autograds_jacobian(architecture, pads):
    net = network(architecture, pads, torch.float64)
    start = points(2, 1, net.dim)
    for direction, log_det in ((lambda x: net(x)[0], net(start)[1]), (net.inverse, -net(net.inverse(start))[1])):
        jacobian = torch.autograd.functional.jacobian(direction, start)[0, :, 0]
        torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian).logabsdet)


@given(
    seed=st.integers(0, 99),
    counts=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    dim=st.integers(1, 5),
    bandwidths=bandwidths,
    estimator=st.sampled_from(["biased", "unbiased", "paired"]),
    side=st.integers(1, 10),
)
@settings(few, max_examples=60)
def test_mmd_and_its_gradient_are_those_of_autograd(seed, counts, dim, bandwidths, estimator, side):
    """In whole tiles and in parts of tiles."""
    unbiased, paired = estimator != "biased", estimator == "paired"
    u = points(seed, counts[0], dim).requires_grad_()
    v = (0.5 + points(seed + 100, counts[0] if paired else counts[1], dim)).requires_grad_()

    def mean(a: Tensor, b: Tensor, without_diagonal: bool) -> Tensor:
        squared = (a[:, None] - b[None]).square().sum(-1)
        kernel = sum(1 / (1 + squared / h**2) for h in bandwidths)
        if not without_diagonal:
            return kernel.mean()
        return (kernel.sum() - kernel.diagonal().sum()) / (len(a) * (len(a) - 1))

    theirs = mean(u, u, unbiased) + mean(v, v, unbiased) - 2 * mean(u, v, paired)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mmd.SIDE, "cpu", side)
        ours = mmd2(u, v, bandwidths, unbiased, paired)
        alone = mmd2(u, v.detach(), bandwidths, unbiased, paired)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(ours, (u, v))
    torch.testing.assert_close(gradients, torch.autograd.grad(theirs, (u, v)), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(alone, u)[0], gradients[0])


@given(seed=st.integers(0, 99), sizes=st.sampled_from([(2, 2), (2, 3), (4, 2), (3, 3)]), bandwidths=bandwidths)
@few
def test_unbiased_mmd_has_mean_zero_under_the_null(seed, sizes, bandwidths):
    """Where all points have one distribution, any may be in either sample: the mean over all splits of them is 0."""
    pool = points(seed, sum(sizes), 2)
    unbiased, biased = [], []
    for chosen in combinations(range(len(pool)), sizes[0]):
        first = torch.zeros(len(pool), dtype=torch.bool)
        first[list(chosen)] = True
        unbiased.append(mmd2(pool[first], pool[~first], bandwidths))
        biased.append(mmd2(pool[first], pool[~first], bandwidths, unbiased=False))
    assert abs(torch.stack(unbiased).mean()) < 1e-12
    assert torch.stack(biased).mean() > 1e-4


@given(seed=st.integers(0, 99), bandwidths=bandwidths)
@few
def test_unbiased_mmd_of_pairs_has_mean_zero_under_the_null(seed, bandwidths):
    """As above, where rows i of both samples are left out of each other's mean: over all orders of the points."""
    pool = points(seed, 4, 2)
    values = [
        mmd2(part[:2], part[2:], bandwidths, paired=True) for part in (pool[list(p)] for p in permutations(range(4)))
    ]
    assert abs(torch.stack(values).mean()) < 1e-12

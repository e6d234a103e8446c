"""The invertible network: an exact inverse, and an exact log-determinant."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterior_bench.inn import InvertibleNetwork
from posterior_bench.runtime import scope

sizes = st.tuples(st.integers(2, 9), st.integers(1, 5), st.integers(1, 24), st.integers(1, 3))
kinds = st.sampled_from(["orthogonal", "permutation"])


def network(dim: int, blocks: int, width: int, depth: int, mixing: str, dtype: torch.dtype) -> InvertibleNetwork:
    """A network with weights as large as after a training."""
    with scope(dim + 10 * blocks + 100 * width, dtype=dtype):
        net = InvertibleNetwork(dim, blocks, width, depth, mixing=mixing)
        for parameter in net.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return net


@given(sizes, kinds)
@settings(max_examples=40, deadline=None)
def test_inverse_undoes_forward_in_double_precision(size, mixing):
    net = network(*size, mixing, torch.float64)
    with scope(1, dtype=torch.float64):
        inputs = torch.randn(20, size[0])
    outputs, log_det = net(inputs)
    again, back = net.inverse(outputs)
    torch.testing.assert_close(again, inputs, rtol=0, atol=1e-9)
    torch.testing.assert_close(back, -log_det, rtol=0, atol=1e-9)


@given(sizes, kinds)
@settings(max_examples=40, deadline=None)
def test_inverse_undoes_forward_in_single_precision(size, mixing):
    net = network(*size, mixing, torch.float32)
    with scope(2):
        inputs = torch.randn(20, size[0])
    torch.testing.assert_close(net.inverse(net(inputs)[0])[0], inputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dim", [2, 3, 7])
def test_log_determinant_is_that_of_the_jacobian(dim):
    net = network(dim, 3, 16, 2, "orthogonal", torch.float64)
    with scope(3, dtype=torch.float64):
        point = torch.randn(1, dim)
    jacobian = torch.autograd.functional.jacobian(lambda p: net(p)[0], point)[0, :, 0]
    torch.testing.assert_close(net(point)[1][0], torch.linalg.slogdet(jacobian).logabsdet)


def test_every_output_depends_on_every_input():
    net = network(5, 2, 16, 2, "orthogonal", torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda p: net(p)[0], torch.zeros(1, 5, dtype=torch.float64))
    assert (jacobian[0, :, 0].abs() > 1e-8).all()


def test_scales_are_clamped():
    net = InvertibleNetwork(4, blocks=1, width=8, clamp=1.5)
    for parameter in net.parameters():
        parameter.data *= 1e4
    _, log_det = net(torch.randn(100, 4))
    assert log_det.abs().max() <= 4 * 1.5 * (1 + 1e-6)  # the arctangent reaches its bound in single precision


@pytest.mark.parametrize(
    "wrong", [{"dim": 1}, {"dim": 4, "blocks": 0}, {"dim": 4, "clamp": 0.0}, {"dim": 4, "mixing": "x"}]
)
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected|needs"):
        InvertibleNetwork(**wrong)

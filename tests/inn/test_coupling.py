"""The invertible network: what mixes, what is bounded, what is refused. Its properties: ``test_properties``."""

from __future__ import annotations

import pytest
import torch

from posterior_bench.inn import InvertibleNetwork
from posterior_bench.runtime import scope


def test_every_output_depends_on_every_input():
    with scope(0, dtype=torch.float64):
        net = InvertibleNetwork(5, blocks=2, width=16)
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
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


def test_norms_are_set_by_the_first_batch_of_a_training_alone():
    net = InvertibleNetwork(3, blocks=1, width=4, norm=True)
    norm = net.blocks[0].norm
    with scope(1):
        batch = 5 + 2 * torch.randn(4000, 3)
    net.eval()(batch)
    assert not norm.ready
    net.train()(batch)
    assert norm.ready
    first = norm(batch)
    torch.testing.assert_close(first.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(first.std(0), torch.ones(3), rtol=0, atol=1e-4)
    net(batch + 7)
    assert torch.equal(norm(batch), first)
    torch.testing.assert_close(norm.inverse(first), batch, rtol=0, atol=1e-4)

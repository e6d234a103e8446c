"""A step of training, against the same architecture from FrEIA's blocks with an MMD left to autograd, in one run.

The losses are the published training's: forwards L_y and L_z, backwards L_x; the optimiser, the same for both, is left
out. Both run on one thread, in turn, and are compared in seconds of processor time, which a busy machine disturbs
less. FrEIA is the extra ``benchmark``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posterior_bench.inn import InvertibleNetwork
from posterior_bench.inn.losses import backward_loss, forward_loss, latent_loss, scaled
from posterior_bench.runtime import scope

pytest.importorskip("FrEIA", reason="FrEIA is not installed: pip install 'posterior_bench[benchmark]'")
from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock, PermuteRandom

BLOCKS, WIDTH = 6, 128
THETA, Y, DIM = 13, 8, 21
BANDWIDTHS = (0.5, 1.0, 2.0)
AT_LEAST = {500: 2.0, 2000: 4.0}
"""Times as fast, for each size of a batch."""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def published() -> SequenceINN:
    """Coupling blocks with one network a half, of two hidden layers, and fixed permutations between them."""

    def network(inputs: int, outputs: int) -> nn.Module:
        hidden = nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
        return nn.Sequential(*hidden, nn.Linear(WIDTH, outputs))

    flow = SequenceINN(DIM)
    for block in range(BLOCKS):
        flow.append(GLOWCouplingBlock, subnet_constructor=network, clamp=2.0)
        flow.append(PermuteRandom, seed=block)
    return flow


def autograd_mmd2(u: Tensor, v: Tensor, paired: bool = True) -> Tensor:
    """What ``mmd2`` computes, from ``torch.cdist``."""
    n = len(u)

    def mean(a: Tensor, b: Tensor, without_diagonal: bool) -> Tensor:
        squared = torch.cdist(a, b) ** 2
        kernel = sum(1 / (1 + squared / h**2) for h in scaled(BANDWIDTHS, u.shape[1]))
        return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1)) if without_diagonal else kernel.mean()

    return mean(u, u, True) + mean(v, v, True) - 2 * mean(u, v, paired)


def their_latent_loss(u: Tensor, z: Tensor, target: Tensor) -> Tensor:
    return autograd_mmd2(torch.cat([u.detach(), z], dim=1), torch.cat([target, torch.randn_like(z)], dim=1))


def step(
    forwards: Callable[[Tensor], Tensor],
    backwards: Callable[[Tensor], Tensor],
    losses: tuple[Callable[..., Tensor], Callable[..., Tensor]],
    theta: Tensor,
    y: Tensor,
) -> None:
    """Three losses and their gradients."""
    inputs = torch.cat([theta, torch.randn(len(theta), DIM - THETA)], dim=1)
    u, z = forwards(inputs).split([Y, DIM - Y], dim=1)
    (forward_loss(u, y) + losses[0](u, z, y)).backward()
    draws = backwards(torch.cat([y, torch.randn(len(y), DIM - Y)], dim=1))[:, :THETA]
    losses[1](draws, theta).backward()


def test_both_mmds_are_the_same():
    with scope(0, dtype=torch.float64):
        u, v = torch.randn(300, THETA), torch.randn(300, THETA) + 0.1
    torch.testing.assert_close(backward_loss(u, v, BANDWIDTHS), autograd_mmd2(u, v))


@pytest.mark.parametrize("size", AT_LEAST)
@pytest.mark.benchmark(group="a step of training, one thread", timer=time.thread_time)
def test_step(benchmark, size):
    with scope(0):
        ours, theirs = InvertibleNetwork(DIM, BLOCKS, WIDTH, depth=2), published()
        theta, y = torch.randn(size, THETA), torch.randn(size, Y)
    their_seconds = []

    def our_step() -> None:
        ours.zero_grad()
        losses = (lambda *a: latent_loss(*a, BANDWIDTHS)), (lambda *a: backward_loss(*a, BANDWIDTHS))
        step(lambda x: ours(x)[0], ours.inverse, losses, theta, y)

    def their_step() -> None:
        start = time.thread_time()
        theirs.zero_grad()
        losses = their_latent_loss, autograd_mmd2
        step(lambda x: theirs(x)[0], lambda x: theirs(x, rev=True)[0], losses, theta, y)
        their_seconds.append(time.thread_time() - start)

    their_step(), our_step()  # to warm up
    their_seconds.clear()
    benchmark.pedantic(our_step, setup=their_step, rounds=10_000 // size)
    our_seconds = np.array(benchmark.stats.stats.data)
    ratio = float(np.median(their_seconds / our_seconds))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
    benchmark.extra_info["ratio"] = ratio
    print(
        f"\none step at batch {size}: ours {1e3 * np.median(our_seconds):.0f} ms ({sizes[0]:,} parameters), FrEIA "
        f"{1e3 * np.median(their_seconds):.0f} ms ({sizes[1]:,}), x{ratio:.1f}"
    )
    assert ratio >= AT_LEAST[size]

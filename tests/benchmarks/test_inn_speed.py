"""The INN's step, and the MMD that is half of it, against plain autograd, side by side on one thread.

Run with ``make benchmark``; the ratio is the number to read, since absolute times vary with the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from posterior_bench.inn import InvertibleNetwork, mmd2

WIDTHS = (0.5, 1.0, 2.0)
POINTS, DIM = 500, 21


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain_mmd2(u: Tensor, v: Tensor) -> Tensor:
    """The same estimator from ``torch.cdist``, differentiated by autograd."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = torch.cdist(a, b) ** 2
        return sum(1 / (1 + squared / h**2) for h in WIDTHS)

    n = len(u)
    same = [(k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in (kernel(u, u), kernel(v, v))]
    return same[0] + same[1] - 2 * kernel(u, v).mean()


def gradient(mmd: Callable[[Tensor, Tensor], Tensor], u: Tensor, v: Tensor) -> Tensor:
    leaf = u.detach().requires_grad_()
    mmd(leaf, v).backward()
    return leaf.grad


def seconds(function: Callable[[], object], rounds: int = 20) -> float:
    """Median time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[rounds // 2]


def test_mmd_against_autograd(benchmark):
    u, v = torch.randn(POINTS, DIM), torch.randn(POINTS, DIM) + 0.1
    torch.testing.assert_close(
        gradient(lambda a, b: mmd2(a, b, WIDTHS), u, v), gradient(plain_mmd2, u, v), rtol=1e-3, atol=1e-6
    )
    plain = seconds(lambda: gradient(plain_mmd2, u, v))
    benchmark(lambda: gradient(lambda a, b: mmd2(a, b, WIDTHS), u, v))
    ratio = plain / benchmark.stats.stats.median
    benchmark.extra_info["ratio"] = ratio
    print(f"\nMMD value and gradient, 2 x {POINTS} points in {DIM}-d: autograd {1e3 * plain:.1f} ms, x{ratio:.1f}")
    assert ratio > 1


def test_step(benchmark):
    """Forward, backward pass and both MMDs with their gradients, as one step of training makes them."""
    network = InvertibleNetwork(DIM, blocks=6, width=128, depth=2)
    inputs, latents = torch.randn(POINTS, DIM), torch.randn(POINTS, DIM)

    def step(mmd: Callable[[Tensor, Tensor], Tensor]) -> None:
        for output, target in ((network(inputs)[0], latents), (network.inverse(latents)[0], inputs)):
            mmd(output, target).backward()

    plain = seconds(lambda: step(plain_mmd2))
    benchmark(lambda: step(lambda a, b: mmd2(a, b, WIDTHS)))
    ratio = plain / benchmark.stats.stats.median
    benchmark.extra_info["ratio"] = ratio
    print(f"\none step at batch {POINTS}: with autograd's MMD {1e3 * plain:.1f} ms, x{ratio:.2f}")
    assert ratio > 1

"""The INN's MMD and its step against plain autograd, side by side on one thread, and the speed of its draws.

Run with ``make benchmark``; a ratio is the number to read, since absolute times vary with the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from posterior_bench import Problem, Simulations, Task
from posterior_bench.inn import INN, InvertibleNetwork, mmd2
from posterior_bench.runtime import scope
from simulators.tissue import Tissue

WIDTHS = (0.5, 1.0, 2.0)
POINTS, DIM = 500, 21
DRAWS_PER_SECOND = 100_000
"""At least, of two jobs side by side, each with a core of its own."""


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


@pytest.mark.parametrize("points", [500, 2000])
def test_mmd_against_autograd(benchmark, points):
    u, v = torch.randn(points, DIM), torch.randn(points, DIM) + 0.1
    torch.testing.assert_close(
        gradient(lambda a, b: mmd2(a, b, WIDTHS), u, v), gradient(plain_mmd2, u, v), rtol=1e-3, atol=1e-6
    )
    plain = seconds(lambda: gradient(plain_mmd2, u, v), rounds=10_000 // points)
    benchmark(lambda: gradient(lambda a, b: mmd2(a, b, WIDTHS), u, v))
    ratio = plain / benchmark.stats.stats.median
    benchmark.extra_info["ratio"] = ratio
    print(f"\nMMD value and gradient, 2 x {points} points in {DIM}-d: autograd {1e3 * plain:.1f} ms, x{ratio:.1f}")
    assert ratio > 1


def test_step(benchmark):
    """Forward, backward pass and both MMDs with their gradients, as one step of training makes them."""
    network = InvertibleNetwork(DIM, blocks=6, width=128, depth=2)
    inputs, latents = torch.randn(POINTS, DIM), torch.randn(POINTS, DIM)

    def step(mmd: Callable[[Tensor, Tensor], Tensor]) -> None:
        for output, target in ((network(inputs)[0], latents), (network.inverse(latents), inputs)):
            mmd(output, target).backward()

    plain = seconds(lambda: step(plain_mmd2))
    benchmark(lambda: step(lambda a, b: mmd2(a, b, WIDTHS)))
    ratio = plain / benchmark.stats.stats.median
    benchmark.extra_info["ratio"] = ratio
    print(f"\none step at batch {POINTS}: with autograd's MMD {1e3 * plain:.1f} ms, x{ratio:.2f}")
    assert ratio > 1


class Quiet:
    """Progress that nobody reads."""

    def update(self, done: int, total: int, message: str = "") -> None:
        pass


@pytest.mark.benchmark(timer=time.thread_time)
def test_draws_of_tissue(benchmark):
    """13 parameters from 8 numbers a measurement; how well the network is trained does not change its speed.

    A second is one of a core's time, whatever else the machine does.
    """
    problem, theta = Problem(Task("tissue", Tissue())), Tissue().prior().sample((500,))
    y, each = torch.randn(50, *problem.y_shape), 200
    with scope(0):
        posterior = INN(steps=2).fit(Simulations(theta, torch.randn(500, *problem.y_shape)), problem, Quiet())
    benchmark(posterior.sample, y, each)
    speed = 2 * len(y) * each / benchmark.stats.stats.median
    parameters = sum(p.numel() for p in posterior.model.parameters())
    benchmark.extra_info.update(draws_per_second=speed, parameters=parameters)
    print(f"\ndraws of tissue a second on two cores: {speed:,.0f}, with {parameters:,} parameters")
    assert speed >= DRAWS_PER_SECOND

"""The classifiers of a two-sample test, trained side by side, against scikit-learn's one after another.

Run with ``make benchmark``; a ratio is the number to read, since absolute times vary with the machine. Both are one
thread on one core: with networks this small a second thread gains neither anything.
"""

from __future__ import annotations

import time

import pytest
import torch
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

from posterior_bench.evaluation.c2st import FOLDS, PASSES, WIDTH_OF_DIMENSION, network_accuracy, null_band
from posterior_bench.runtime import scope

DRAWS, MEASUREMENTS, LIBRARY = 5000, 10, 3
"""Of each side; measurements; and those of them that the library is timed on."""

SHIFT = 0.3
"""Of the first of the parameters, in sd: the best possible rule is right on 0.560 of all."""

DIM = 2
"""Parameters. With many of them both spend their time in the same products, and the ratio falls."""

LEAST = 5.0
"""Ratio at least."""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def library_accuracy(draws: torch.Tensor, reference: torch.Tensor, seed: int) -> float:
    """Of one measurement, draws and reference (N, D), as the published benchmark computes it."""
    both = (torch.cat([reference, draws]) - reference.mean(0)) / reference.std(0)
    labels = [0] * len(reference) + [1] * len(draws)
    width = WIDTH_OF_DIMENSION * draws.shape[1]
    network = MLPClassifier(hidden_layer_sizes=(width, width), max_iter=PASSES, random_state=seed)
    return float(
        cross_val_score(network, both.numpy(), labels, cv=KFold(FOLDS, shuffle=True, random_state=seed)).mean()
    )


@pytest.mark.benchmark(timer=time.thread_time)
def test_networks_side_by_side(benchmark):
    with scope(0):
        reference, draws = torch.randn(DRAWS, MEASUREMENTS, DIM), torch.randn(DRAWS, MEASUREMENTS, DIM)
        draws[..., 0] += SHIFT
        ours = benchmark.pedantic(network_accuracy, (draws, reference), rounds=1)
    start = time.thread_time()
    theirs = torch.tensor([library_accuracy(draws[:, k], reference[:, k], seed=k) for k in range(LIBRARY)])
    plain = (time.thread_time() - start) / LIBRARY
    own = benchmark.stats.stats.median / MEASUREMENTS
    ratio = plain / own
    benchmark.extra_info.update(ratio=ratio, ours=float(ours.mean()), library=float(theirs.mean()))
    print(
        f"\nC2ST, {DIM} parameters, 2 x {DRAWS:,} draws, a measurement: library {plain:.2f} s, ours {own:.2f} s, "
        f"x{ratio:.1f}; accuracy {float(theirs.mean()):.4f} and {float(ours.mean()):.4f}"
    )
    assert float(ours[:LIBRARY].mean()) == pytest.approx(float(theirs.mean()), abs=null_band(DRAWS, LIBRARY)[1] - 0.49)
    assert ratio >= LEAST

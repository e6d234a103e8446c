"""Distances and sums over all pairs of draws, in chunks that fit into a processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**18
"""Numbers in one intermediate tensor: 1 MB, which stays in a core's own cache also where jobs run side by side."""


def chunks(total: int, cost: int, limit: int = CHUNK) -> Iterator[slice]:
    """Slices of ``range(total)`` whose intermediate tensors, of ``cost`` numbers an item, stay near ``limit``.

    >>> list(chunks(5, 3, limit=7))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = max(1, limit // max(1, cost))
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (B, n, m) between a (B, n, D) and b (B, m, D).

    By |a - b|^2 = |a|^2 + |b|^2 - 2 a b, which is several times faster than differences. It cancels where points are
    far from zero: centre both before the call.
    """
    norms = (a * a).sum(-1, keepdim=True) + (b * b).sum(-1).unsqueeze(-2)
    return torch.baddbmm(norms, a, b.mT, alpha=-2).clamp_(min=0)


def sort(values: Tensor) -> Tensor:
    """``values`` sorted along the last axis. NumPy's vectorised sort is some ten times faster than torch's on a CPU."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(-1).values


def absolute_differences(ordered: Tensor, values: Tensor) -> Tensor:
    """Sum over i of |ordered_i - value|: (..., q) for sorted numbers (..., n) and values (..., q).

    With k numbers below v and S_k their sum, it is v (2k - n) + S_n - 2 S_k: a search and no table of pairs.
    """
    n = ordered.shape[-1]
    sums = torch.nn.functional.pad(ordered.double().cumsum(-1), (1, 0))
    below = torch.searchsorted(ordered, values)
    total = values.double() * (2 * below - n) + sums[..., -1:] - 2 * sums.gather(-1, below)
    return total.to(values.dtype)


def pair_sum(ordered: Tensor) -> Tensor:
    """Sum of |x_i - x_j| over all ordered pairs, (...), for sorted numbers (..., n): 2 sum_i (2i - n + 1) x_(i)."""
    n = ordered.shape[-1]
    weights = 2 * torch.arange(n, device=ordered.device, dtype=torch.float64) - (n - 1)
    return 2 * (ordered.double() @ weights).to(ordered.dtype)

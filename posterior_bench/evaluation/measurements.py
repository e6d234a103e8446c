"""What metrics ask of the measurements themselves: a choice of some of them, and their principal components."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, cover the unit interval evenly."""


def chosen(y: Tensor, count: int) -> Tensor:
    """Indices (count,) of measurements y (R, *y_shape), as good as random, picked by their content.

    A metric that looks at a few measurements thus looks at the same ones for every method, in whatever order they come.
    Equal measurements, such as labels, are picked in the order in which they come, and of each label its share. The
    parameters behind y have no say: a choice by them would be of truths that no posterior given y could expect.

    >>> y = torch.randn(50, 3)
    >>> first, second = chosen(y, 5), chosen(y.flip(0), 5)
    >>> torch.equal(first, 49 - second)
    True
    """
    flat = y.flatten(1).double().nan_to_num(0.0)
    weights = torch.arange(1, flat.shape[1] + 1, dtype=torch.float64, device=y.device).sqrt()
    # the digits from the fourth on are as good as random
    marks = (flat / flat.abs().amax(0).clamp_min(1e-300) * weights * 1e4).sum(1).remainder(1)
    ordered, order = marks.sort(stable=True)
    place = torch.arange(len(y), device=y.device)
    new = torch.ones_like(place, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    earlier = place - torch.where(new, place, 0).cummax(0).values  # equal ones before it
    return order[(ordered + GOLDEN * earlier).remainder(1).argsort(stable=True)[:count]]


def principal_components(y: Tensor, count: int) -> Tensor:
    """Scores (T, K) on the first K <= count principal components of standardised measurements, in units of their sd.

    Args:
        y: (T, *y_shape). A dimension that is constant is left out of account, and so is a number that is not finite.
        count: components at most; fewer where there are fewer dimensions or measurements.
    """
    flat = y.flatten(1).double()
    flat = torch.where(flat.isfinite(), flat, torch.nan)
    flat = (flat - flat.nanmean(0)).nan_to_num(0.0)
    scale = flat.std(0)
    flat = flat / torch.where(scale > 0, scale, torch.ones_like(scale))
    count = min(count, *flat.shape)
    left, sizes, _ = torch.pca_lowrank(flat, q=count, center=False, niter=8)
    scores = left * sizes
    spread = scores.std(0)
    return (scores / torch.where(spread > 0, spread, torch.ones_like(spread))).to(y.dtype)

"""The squared maximum mean discrepancy (MMD), as one operation with its gradient in closed form.

    MMD^2(p, q) = E k(u, u') + E k(v, v') - 2 E k(u, v),        k(u, v) = sum_h 1 / (1 + |u - v|^2 / h^2)
Gretton et al. 2012; the inverse multiquadratic kernel as in Tolstikhin et al. 2018 (arXiv 1711.01558), sec. 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def mmd2(u: Tensor, v: Tensor, bandwidths: Sequence[float], unbiased: bool = True, paired: bool = False) -> Tensor:
    """MMD^2 between the samples u (N, K) and v (P, K): a scalar, differentiable once in both.

    Args:
        u: one sample.
        v: the other; gradients are computed only for what asks for them.
        bandwidths: h of each kernel of the sum, in the units of u and v.
        unbiased: leave a point's kernel with itself out of the means, so that the expectation is 0 where both samples
            have one distribution (and the value may be negative); else the V-statistic, which is never negative.
        paired: leave k(u_i, v_i) out as well, for samples of one size whose rows i depend on each other, as when they
            share a measurement (the U-statistic of Gretton et al. 2012, eq. 4). Needs ``unbiased``.

    >>> mmd2(torch.zeros(2, 3), torch.zeros(2, 3), [1.0]).item()
    0.0
    """
    for name, points in (("u", u), ("v", v)):
        if points.ndim != 2 or len(points) < 1 + unbiased:
            raise ValueError(
                f"{name} has shape {tuple(points.shape)}; expected ({1 + unbiased} points or more, dimensions)"
            )
    if paired and (len(u) != len(v) or not unbiased):
        raise ValueError(
            f"paired samples have one size and the unbiased estimator; found {len(u)} and {len(v)} points, "
            f"unbiased={unbiased}"
        )
    return _MMD2.apply(u, v, tuple(bandwidths), unbiased, paired)


class _MMD2(torch.autograd.Function):
    """With D = |u_i - u_j|^2: k = sum_h h^2 / (h^2 + D), dk/dD = -sum_h h^2 / (h^2 + D)^2, dD/du_i = 2 (u_i - u_j)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, bandwidths: tuple[float, ...], unbiased: bool, paired: bool) -> Tensor:
        gradients = [
            torch.zeros_like(t) if needed else None for t, needed in zip((u, v), ctx.needs_input_grad[:2], strict=True)
        ]
        value = u.new_zeros(())
        for points, gradient in zip((u, v), gradients, strict=True):
            pairs = len(points) * (len(points) - unbiased)
            total, slope = _kernel(points, points, bandwidths, gradient is not None, unbiased)
            value = value + total / pairs
            if gradient is not None:
                gradient += _pull(slope.sum(1), slope, points, points, 4 / pairs)
        pairs = len(u) * (len(v) - paired)
        total, slope = _kernel(u, v, bandwidths, any(ctx.needs_input_grad[:2]), paired)
        value = value - 2 * total / pairs
        if gradients[0] is not None:
            gradients[0] += _pull(slope.sum(1), slope, u, v, -4 / pairs)
        if gradients[1] is not None:
            gradients[1] += _pull(slope.sum(0), slope.T, v, u, -4 / pairs)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        gradients = [None if g is None else upstream * g for g in ctx.saved_tensors]
        return gradients[0], gradients[1], None, None, None


def _kernel(
    u: Tensor, v: Tensor, bandwidths: tuple[float, ...], with_slope: bool, without_diagonal: bool
) -> tuple[Tensor, Tensor]:
    """The sum of the kernel over all pairs, and dk/dD of each pair (N, P)."""
    squared = torch.addmm((v * v).sum(1), u, v.T, alpha=-2).add_((u * u).sum(1, keepdim=True)).clamp_(min=0)
    if without_diagonal:
        squared.fill_diagonal_(torch.inf)  # a kernel of 0, and a slope of 0
    elif u is v:
        squared.fill_diagonal_(0)
    slope = torch.zeros_like(squared) if with_slope else squared
    total = squared.new_zeros(())
    buffer = torch.empty_like(squared)
    for h in bandwidths:
        torch.add(squared, h * h, out=buffer).reciprocal_()
        total = total + h * h * buffer.sum()
        if with_slope:
            slope.addcmul_(buffer, buffer, value=-h * h)
    return total, slope


def _pull(row_sums: Tensor, slope: Tensor, points: Tensor, others: Tensor, factor: float) -> Tensor:
    """factor * sum_j slope_ij (points_i - others_j), (N, K)."""
    return torch.addmm(row_sums.unsqueeze(1) * points, slope, others, alpha=-factor, beta=factor)

"""Monotonic rational-quadratic splines, elementwise: strictly rising and smooth on [-B, B], the identity outside.

Between knots (p_k, q_k) and (p_k+1, q_k+1) with slopes d_k and d_k+1, with s = (q_k+1 - q_k) / (p_k+1 - p_k) and
r = (u - p_k) / (p_k+1 - p_k):
    v = q_k + (q_k+1 - q_k) (s r^2 + d_k r (1 - r)) / (s + (d_k+1 + d_k - 2 s) r (1 - r))
Durkan, Bekasov, Murray & Papamakarios 2019, arXiv:1906.04032. The inverse is the root of a quadratic equation in r.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-3
"""The least width and height of a bin, as a fraction of 2 B, and the least slope at a knot."""

SLOPE_OFFSET = math.log(math.expm1(1 - SMALLEST))
"""softplus of it is 1 - SMALLEST, so that a slope's coefficient of 0 stands for the slope 1 of the identity."""


class Spline:
    """A spline for each number of a batch. Coefficients lead, so that each is one block for vectorised arithmetic.

    Args:
        raw: (3 bins - 1, ...), unconstrained: logits of ``bins`` widths, logits of ``bins`` heights, and the slopes at
            the ``bins - 1`` inner knots; at the outer knots the slope is 1. Zeros make the identity.
        bound: B.
    """

    def __init__(self, raw: Tensor, bound: float) -> None:
        bins = (len(raw) + 1) // 3
        self.bound = bound
        shares = raw[: 2 * bins].unflatten(0, (2, bins)).softmax(1)
        self.sizes = 2 * bound * (SMALLEST + (1 - SMALLEST * bins) * shares)
        """(2, bins, ...), widths and heights."""
        start = torch.full_like(self.sizes[:, :1], -bound)
        self.corners = torch.cat([start, self.sizes[:, :-1].cumsum(1) - bound], dim=1)
        """(2, bins, ...), left ends and lower ends."""
        self.raw_slopes = functional.pad(raw[2 * bins :], (0, 0) * (raw.dim() - 1) + (1, 1))
        """(bins + 1, ...); 0 at the outer knots."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """u (...) -> v (...), and log dv/du (...)."""
        (left, bottom), (width, height), (first, last) = self._bin(inputs, axis=0)
        position = ((inputs - left) / width).clamp(0, 1)
        rest = 1 - position
        both = position * rest
        slope = height / width
        denominator = slope + (first + last - 2 * slope) * both
        outputs = bottom + height * (slope * position.square() + first * both) / denominator
        rise = last * position.square() + 2 * slope * both + first * rest.square()
        log_slope = 2 * (slope / denominator).log() + rise.log()
        inside = inputs.abs() < self.bound
        return torch.where(inside, outputs, inputs), torch.where(inside, log_slope, 0.0)

    def inverse(self, outputs: Tensor) -> Tensor:
        """v (...) -> u (...)."""
        (left, bottom), (width, height), (first, last) = self._bin(outputs, axis=1)
        slope = height / width
        above = torch.minimum((outputs - bottom).clamp_min(0), height)
        bend = above * (first + last - 2 * slope)
        b = height * first - bend
        minus_c = slope * above
        # the form of the root that does not cancel; rounding may leave a discriminant just below zero
        discriminant = b.square() + 4 * (height * (slope - first) + bend) * minus_c
        position = 2 * minus_c / (b + discriminant.clamp_min(0).sqrt())
        return torch.where(outputs.abs() < self.bound, left + width * position, outputs)

    def _bin(self, values: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the bin that values are in: its lower left corner, its width and height, its two slopes; (2, ...) each."""
        index = (values >= self.corners[axis, 1:]).sum(0)
        twice = index.expand(2, 1, *index.shape)
        slopes = self.raw_slopes.gather(0, torch.stack([index, index + 1]))
        return (
            self.corners.gather(1, twice).squeeze(1),
            self.sizes.gather(1, twice).squeeze(1),
            SMALLEST + functional.softplus(slopes + SLOPE_OFFSET),
        )

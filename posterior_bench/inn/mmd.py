"""The squared maximum mean discrepancy (MMD), as one operation with its gradient in closed form.

    MMD^2(p, q) = E k(u, u') + E k(v, v') - 2 E k(u, v),        k(u, v) = sum_h 1 / (1 + |u - v|^2 / h^2)
Gretton et al. 2012; the inverse multiquadratic kernel as in Tolstikhin et al. 2018 (arXiv 1711.01558), sec. 4.

Value and gradient come from one pass over square tiles of the matrices of pairs. A tile lives in three buffers that
all tiles share and is forgotten afterwards, so memory grows with the number of points, not of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SIDE = {"cpu": 256, "cuda": 2048}
"""Points on a side of a tile: on a CPU the three buffers of floats, 768 kB, stay in one core's cache; a GPU wants few
and large operations."""


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


class _Sample(NamedTuple):
    """One sample, arranged so that a product of matrices gives squared distances, and another one gradients.

    left_i . right_j = -2 u_i . v_j + |u_i|^2 + |v_j|^2. With weights w_ij, a row of w @ right is
    [sum_j w_ij v_j, sum_j w_ij, *], which is all that sum_j w_ij (u_i - v_j) needs; ``pull`` sums these rows.
    """

    left: Tensor
    right: Tensor
    pull: Tensor | None

    @classmethod
    def of(cls, points: Tensor, with_gradient: bool) -> _Sample:
        norms = points.square().sum(1, keepdim=True)
        ones = torch.ones_like(norms)
        right = torch.cat([points, ones, norms], dim=1)
        return cls(
            torch.cat([-2 * points, norms, ones], dim=1), right, torch.zeros_like(right) if with_gradient else None
        )

    def gradient(self) -> Tensor | None:
        """(N, K), once every tile has been added."""
        if self.pull is None:
            return None
        return self.pull[:, -2:-1] * self.right[:, :-2] - self.pull[:, :-2]


class _MMD2(torch.autograd.Function):
    """With D = |u_i - v_j|^2: k = sum_h h^2 / (h^2 + D), dk/dD = -sum_h h^2 / (h^2 + D)^2, dD/du_i = 2 (u_i - v_j)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, bandwidths: tuple[float, ...], unbiased: bool, paired: bool) -> Tensor:
        samples = [_Sample.of(points, needed) for points, needed in zip((u, v), ctx.needs_input_grad[:2], strict=True)]
        side = min(SIDE.get(u.device.type, SIDE["cpu"]), max(len(u), len(v)))
        tiles = _Tiles(u.new_empty(3, side * side), side, tuple(h * h for h in bandwidths))
        value = u.new_zeros(())
        for sample in samples:
            pairs = len(sample.left) * (len(sample.left) - unbiased)
            tiles.add(value, sample, sample, 1 / pairs, diagonal=torch.inf if unbiased else 0.0)
        tiles.add(value, samples[0], samples[1], -2 / (len(u) * (len(v) - paired)), torch.inf if paired else None)
        ctx.save_for_backward(*(sample.gradient() for sample in samples))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        gradients = [None if g is None else upstream * g for g in ctx.saved_tensors]
        return gradients[0], gradients[1], None, None, None


class _Tiles(NamedTuple):
    """The buffers of a tile (3, side^2), the points on its side, and h^2 of each kernel."""

    buffers: Tensor
    side: int
    squares: tuple[float, ...]

    def add(self, value: Tensor, one: _Sample, other: _Sample, weight: float, diagonal: float | None) -> None:
        """Add weight * sum_ij k(u_i, v_j) to the value, and its gradients to what both samples pull.

        Args:
            value: (), added to in place.
            one, other: the samples of u and v; the same one for the pairs within a sample, each pair visited once.
            weight: of the sum.
            diagonal: squared distance to take for the pairs i = j; infinity leaves them out; ``None``: as it is.
        """
        wanted = [(sample.pull is not None) for sample in (one, other)]
        for rows in self._blocks(len(one.left)):
            for columns in self._blocks(len(other.left)):
                if one is other and columns.start < rows.start:
                    continue  # the mirror image of a tile that counts twice
                times = weight * (2 if one is other and columns != rows else 1)
                left, right = one.left[rows], other.right[columns]
                squared, kernel, slope = (b[: len(left) * len(right)].view(len(left), -1) for b in self.buffers)
                torch.mm(left, right.T, out=squared).clamp_(min=0)
                if diagonal is not None and rows == columns:
                    squared.fill_diagonal_(diagonal)
                slope.zero_()
                for square in self.squares:
                    torch.add(squared, square, out=kernel).reciprocal_()
                    value.add_(kernel.sum(), alpha=times * square)
                    if any(wanted):
                        slope.addcmul_(kernel, kernel, value=square)
                if one.pull is not None:
                    one.pull[rows].addmm_(slope, right, alpha=-2 * times)
                if other.pull is not None:
                    other.pull[columns].addmm_(slope.T, one.right[rows], alpha=-2 * times)

    def _blocks(self, count: int) -> Iterator[slice]:
        return (slice(start, min(start + self.side, count)) for start in range(0, count, self.side))

"""An invertible network of affine coupling blocks.

One block transforms both halves of u = [u1, u2], each with the other's help, elementwise:
    v1 = u1 * exp(s1(u2)) + t1(u2),        v2 = u2 * exp(s2(v1)) + t2(v1),
with s clamped to (-c, c), and then mixes all dimensions by a fixed orthogonal matrix. Either direction costs the same,
and log|det J| is the sum of all s. Dinh et al. 2017 (arXiv 1605.08803); both halves a block and the arctangent clamp
as in Ardizzone et al. 2019 (arXiv 1808.04730) and its published code.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn


class AffineCoupling(nn.Module):
    """One block. A single network a half yields both s and t: half the matrix products of two networks.

    Args:
        dim: number of dimensions, at least 2; the halves have dim // 2 and dim - dim // 2.
        width: hidden units of the two networks.
        depth: hidden layers of the two networks.
        clamp: c, the largest |s|.
        mixing: (dim, dim), the orthogonal matrix applied after both halves.
    """

    mixing: Tensor

    def __init__(self, dim: int, width: int, depth: int, clamp: float, mixing: Tensor) -> None:
        super().__init__()
        self.sizes = (dim // 2, dim - dim // 2)
        self.clamp = clamp
        self.first = perceptron(self.sizes[1], 2 * self.sizes[0], width, depth)
        self.second = perceptron(self.sizes[0], 2 * self.sizes[1], width, depth)
        self.register_buffer("mixing", mixing)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dim) -> (N, dim), and log|det J| (N,)."""
        u1, u2 = inputs.split(self.sizes, dim=1)
        s1, t1 = self._scale_and_shift(self.first, u2)
        v1 = torch.addcmul(t1, u1, s1.exp())
        s2, t2 = self._scale_and_shift(self.second, v1)
        v2 = torch.addcmul(t2, u2, s2.exp())
        return torch.cat((v1, v2), dim=1) @ self.mixing, s1.sum(1) + s2.sum(1)

    def inverse(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dim) -> (N, dim), and log|det J| of this inverse map (N,)."""
        v1, v2 = (outputs @ self.mixing.T).split(self.sizes, dim=1)
        s2, t2 = self._scale_and_shift(self.second, v1)
        u2 = (v2 - t2) * torch.exp(-s2)
        s1, t1 = self._scale_and_shift(self.first, u2)
        u1 = (v1 - t1) * torch.exp(-s1)
        return torch.cat((u1, u2), dim=1), -s1.sum(1) - s2.sum(1)

    def _scale_and_shift(self, network: nn.Module, half: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = network(half).chunk(2, dim=1)
        return torch.atan(raw / self.clamp) * (self.clamp * 2 / math.pi), shift


class InvertibleNetwork(nn.Module):
    """A chain of coupling blocks: an invertible map of R^dim with a cheap inverse and log-determinant.

    It begins close to a rotation: the last layer of each coefficient network is initialised small.

    Args:
        dim: number of dimensions, at least 2.
        blocks: number of coupling blocks.
        width: hidden units of each coefficient network.
        depth: hidden layers of each coefficient network.
        clamp: a block scales a dimension by a factor between exp(-clamp) and exp(clamp).
        mixing: ``"orthogonal"`` or ``"permutation"``: what is drawn, once, from torch's generator between blocks.
    """

    def __init__(
        self,
        dim: int,
        blocks: int = 6,
        width: int = 128,
        depth: int = 2,
        clamp: float = 2.0,
        mixing: str = "orthogonal",
    ) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(
                f"a coupling block splits its dimensions in two; found {dim}, expected at least 2: add pads"
            )
        if min(blocks, width, depth) < 1 or clamp <= 0:
            raise ValueError(
                f"an invertible network needs blocks, width and depth of at least 1 and a positive clamp; "
                f"found blocks {blocks}, width {width}, depth {depth}, clamp {clamp}"
            )
        self.dim = dim
        self.blocks = nn.ModuleList(
            AffineCoupling(dim, width, depth, clamp, mixing_matrix(dim, mixing)) for _ in range(blocks)
        )

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dim) -> (N, dim), and log|det J| (N,)."""
        total = inputs.new_zeros(len(inputs))
        for block in self.blocks:
            inputs, log_det = block(inputs)
            total = total + log_det
        return inputs, total

    def inverse(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dim) -> (N, dim), and log|det J| of the inverse map (N,)."""
        total = outputs.new_zeros(len(outputs))
        for block in reversed(self.blocks):
            outputs, log_det = cast(AffineCoupling, block).inverse(outputs)
            total = total + log_det
        return outputs, total


def perceptron(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """A coefficient network of ``depth`` hidden layers, whose output is small at the beginning."""
    sizes = [inputs] + [width] * depth
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    last = nn.Linear(width, outputs)
    nn.init.normal_(last.weight, std=0.01 / math.sqrt(width))
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def mixing_matrix(dim: int, kind: str) -> Tensor:
    """The fixed orthogonal (dim, dim) matrix of a block; see ``InvertibleNetwork``."""
    if kind == "permutation":
        return torch.eye(dim)[torch.randperm(dim)]
    if kind == "orthogonal":
        # the Q of a Gaussian matrix, with R's diagonal made positive, is uniform over rotations and reflections
        q, r = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))
        return (q * r.diagonal().sign()).to(torch.get_default_dtype())
    raise ValueError(f"mixing is {kind!r}; expected 'orthogonal' or 'permutation'")

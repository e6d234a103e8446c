"""An invertible network of coupling blocks, with or without a context that its coefficients depend on as well.

One block transforms both halves of u = [u1, u2], each with the other's help and elementwise,
    v1 = u1 * exp(s1(u2, c)) + t1(u2, c),        v2 = u2 * exp(s2(v1, c)) + t2(v1, c),
with s clamped to (-k, k), bends them by splines where there are any, and then mixes all dimensions by a fixed
orthogonal matrix. Either direction costs the same, and log|det J| is the sum of all log-slopes. Dinh et al. 2017 (arXiv
1605.08803); both halves a block and the arctangent clamp as in Ardizzone et al. 2018 (arXiv 1808.04730) and its
published code; the context as in Ardizzone et al. 2019 (arXiv 1907.02392).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from .splines import Spline


class ActivationNorm(nn.Module):
    """v = (u + shift) * exp(log_scale), of mean 0 and sd 1 on the first batch of a training, then trained.

    Kingma & Dhariwal 2018, arXiv 1807.03039.
    """

    ready: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, dim) -> (N, dim); log|det J| is the sum of ``log_scale``."""
        if self.training and not self.ready and len(inputs) > 1:
            with torch.no_grad():
                self.shift.copy_(-inputs.mean(0))
                self.log_scale.copy_(-inputs.std(0).clamp_min(1e-3).log())
                self.ready.fill_(True)
        return (inputs + self.shift) * self.log_scale.exp()

    def inverse(self, outputs: Tensor) -> Tensor:
        """(N, dim) -> (N, dim)."""
        return outputs * torch.exp(-self.log_scale) - self.shift


class Coupling(nn.Module):
    """One block. A single network a half yields all its coefficients: fewer matrix products than one for each.

    Scale and shift bring a half to where the splines are; without splines this is the affine coupling block.

    Args:
        dim: number of dimensions, halved into dim // 2 and the rest; of 1, that one depends on the context alone.
        context_dim: number of dimensions of the context; 0 for none.
        width, depth: hidden units and layers of the two networks.
        clamp: k, the largest |s|.
        bins: bins of a spline; 0 for none.
        bound: the splines act on [-bound, bound].
        norm: whether an ``ActivationNorm`` comes first.
        mixing: (dim, dim), the orthogonal matrix applied after both halves.
    """

    mixing: Tensor

    def __init__(
        self,
        dim: int,
        context_dim: int,
        width: int,
        depth: int,
        clamp: float,
        bins: int,
        bound: float,
        norm: bool,
        mixing: Tensor,
    ) -> None:
        super().__init__()
        self.sizes = (dim // 2, dim - dim // 2)
        self.clamp, self.bins, self.bound = clamp, bins, bound
        self.numbers = 2 + max(0, 3 * bins - 1)
        first, second = self.sizes
        self.norm = ActivationNorm(dim) if norm else None
        self.first = perceptron(second + context_dim, self.numbers * first, width, depth) if first else None
        self.second = perceptron(first + context_dim, self.numbers * second, width, depth)
        self.register_buffer("mixing", mixing)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, dim), (N, context_dim) -> (N, dim), and log|det J| (N,)."""
        if self.norm is not None:
            inputs = self.norm(inputs)
        u1, u2 = inputs.split(self.sizes, dim=1)
        if self.first is None:
            v1 = u1
            v2, total = self._transform(u2, self._coefficients(self.second, v1, context))
        else:
            v1, first = self._transform(u1, self._coefficients(self.first, u2, context))
            v2, second = self._transform(u2, self._coefficients(self.second, v1, context))
            total = first + second
        if self.norm is not None:
            total = total + self.norm.log_scale.sum()
        return torch.cat((v1, v2), dim=1) @ self.mixing, total

    def inverse(self, outputs: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, dim), (N, context_dim) -> (N, dim)."""
        v1, v2 = (outputs @ self.mixing.T).split(self.sizes, dim=1)
        u2 = self._undo(v2, self._coefficients(self.second, v1, context))
        u1 = v1 if self.first is None else self._undo(v1, self._coefficients(self.first, u2, context))
        inputs = torch.cat((u1, u2), dim=1)
        return inputs if self.norm is None else self.norm.inverse(inputs)

    def _coefficients(
        self, network: nn.Module, half: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """s and t (N, size), and the splines' coefficients (3 bins - 1, N, size), for the half that is transformed."""
        raw = network(half if context is None else torch.cat((half, context), dim=1))
        if self.bins:
            # contiguous: the many elementwise steps of a spline run half as fast again on whole blocks
            numbers = raw.view(len(half), self.numbers, -1).transpose(0, 1).contiguous()
            scale, shift, bend = numbers[0], numbers[1], numbers[2:]
        else:
            (scale, shift), bend = raw.chunk(2, dim=1), None
        return torch.atan(scale / self.clamp) * (self.clamp * 2 / math.pi), shift, bend

    def _transform(self, half: Tensor, coefficients: tuple[Tensor, Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        log_slope, shift, bend = coefficients
        half = torch.addcmul(shift, half, log_slope.exp())
        if bend is not None:
            half, bent = Spline(bend, self.bound).forward(half)
            log_slope = log_slope + bent
        return half, log_slope.sum(1)

    def _undo(self, half: Tensor, coefficients: tuple[Tensor, Tensor, Tensor | None]) -> Tensor:
        log_slope, shift, bend = coefficients
        if bend is not None:
            half = Spline(bend, self.bound).inverse(half)
        return (half - shift) * torch.exp(-log_slope)


class InvertibleNetwork(nn.Module):
    """A chain of coupling blocks: for each context an invertible map of R^dim with a cheap log-determinant.

    It begins close to a rotation: the last layer of each coefficient network is initialised small.

    Args:
        dim: number of dimensions, at least 2, or 1 where there is a context.
        blocks: number of coupling blocks.
        width, depth: hidden units and hidden layers of each coefficient network.
        clamp: a block scales a dimension by a factor between exp(-clamp) and exp(clamp).
        mixing: ``"orthogonal"`` or ``"permutation"``: what is drawn, once, from torch's generator between blocks.
        context_dim: number of dimensions of the context; 0 for none.
        bins, bound: of rational-quadratic splines on [-bound, bound] behind each affine step; no bins for none.
        norm: whether each block begins with an ``ActivationNorm``.
    """

    def __init__(
        self,
        dim: int,
        blocks: int = 6,
        width: int = 128,
        depth: int = 2,
        clamp: float = 2.0,
        mixing: str = "orthogonal",
        context_dim: int = 0,
        bins: int = 0,
        bound: float = 4.0,
        norm: bool = False,
    ) -> None:
        super().__init__()
        least = 1 if context_dim else 2
        if dim < least:
            raise ValueError(
                f"a coupling block splits its dimensions in two; found {dim}, expected at least {least}: add pads"
            )
        if min(blocks, width, depth) < 1 or min(clamp, bound) <= 0:
            raise ValueError(
                f"an invertible network needs blocks, width and depth of at least 1 and a positive clamp and bound; "
                f"found blocks {blocks}, width {width}, depth {depth}, clamp {clamp}, bound {bound}"
            )
        if bins and not 2 <= bins <= 100:
            raise ValueError(f"bins is {bins}; expected 2 to 100 bins a spline, or 0 for no splines")
        self.dim = dim
        self.blocks = nn.ModuleList(
            Coupling(dim, context_dim, width, depth, clamp, bins, bound, norm, mixing_matrix(dim, mixing))
            for _ in range(blocks)
        )

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, dim), (N, context_dim) -> (N, dim), and log|det J| (N,)."""
        total = inputs.new_zeros(len(inputs))
        for block in self.blocks:
            inputs, log_det = block(inputs, context)
            total = total + log_det
        return inputs, total

    def inverse(self, outputs: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, dim), (N, context_dim) -> (N, dim)."""
        for block in reversed(self.blocks):
            outputs = cast(Coupling, block).inverse(outputs, context)
        return outputs


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

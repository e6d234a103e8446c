"""A conditional invertible network: coupling blocks whose coefficients also depend on the measurement.

    -log q(theta | y) = |z|^2 / 2 + D/2 log(2 pi) - log|det dz/dtheta|,   z = f(theta; y)

averaged over simulations, and lowered. Ardizzone, Luth, Kruse, Rother & Kothe 2019, arXiv:1907.02392; as an estimator
of posteriors Radev et al. 2020, arXiv:2003.06281, and Kruse et al. 2021, arXiv:2101.10763. Theta enters through its
prior's distribution function, y standardised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from posterior_bench import HasLogProb, Method, MethodSpec, Posterior, Problem, Progress, Simulations
from posterior_bench.priors import log_density_in_support
from posterior_bench.training import Standardise, ThetaMap, Training, train

from .coupling import mixing_matrix, perceptron
from .splines import Spline

ROWS = 1000
"""Rows that pass the network at a time when drawing: their activations stay in the cache."""

BLOCKS = {"affine": 6, "spline": 3}
"""Coupling blocks with about as many trained numbers for either coupling, by default."""


class ConditionalCoupling(nn.Module):
    """One block. Each half is scaled and shifted, then bent by splines, with the other half's and the context's help.

    Scale and shift bring a half to where the splines are; without splines this is the affine coupling block.

    Args:
        dim: number of dimensions; of 1, that one is transformed with the context's help alone.
        context_dim: number of dimensions of the context.
        width, depth: hidden units and layers of the two networks.
        clamp: the largest |s| of a factor exp(s).
        bins: bins of a spline; 0 for none.
        bound: the splines act on [-bound, bound].
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
        mixing: Tensor,
    ) -> None:
        super().__init__()
        self.sizes = (dim // 2, dim - dim // 2)
        self.clamp, self.bins, self.bound = clamp, bins, bound
        numbers = 2 + max(0, 3 * bins - 1)
        first, second = self.sizes
        self.first = perceptron(second + context_dim, numbers * first, width, depth) if first else None
        self.second = perceptron(first + context_dim, numbers * second, width, depth)
        self.register_buffer("mixing", mixing)

    def forward(self, inputs: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dim), (N, context_dim) -> (N, dim), and log|det| of its Jacobian (N,)."""
        u1, u2 = inputs.split(self.sizes, dim=1)
        v1, log_det = u1, inputs.new_zeros(len(inputs))
        if self.first is not None:
            v1, log_det = self._transform(u1, self._coefficients(self.first, u2, context))
        v2, second = self._transform(u2, self._coefficients(self.second, v1, context))
        return torch.cat((v1, v2), dim=1) @ self.mixing, log_det + second

    def inverse(self, outputs: Tensor, context: Tensor) -> Tensor:
        """(N, dim), (N, context_dim) -> (N, dim)."""
        v1, v2 = (outputs @ self.mixing.T).split(self.sizes, dim=1)
        u2 = self._undo(v2, self._coefficients(self.second, v1, context))
        u1 = v1 if self.first is None else self._undo(v1, self._coefficients(self.first, u2, context))
        return torch.cat((u1, u2), dim=1)

    def _coefficients(self, network: nn.Module, half: Tensor, context: Tensor) -> Tensor:
        """(numbers, N, size) for the half that is transformed: s, t and the splines'."""
        raw = network(torch.cat((half, context), dim=1))
        # contiguous: the many elementwise steps of a spline run half as fast again on whole blocks
        return raw.view(len(half), 2 + max(0, 3 * self.bins - 1), -1).transpose(0, 1).contiguous()

    def _log_scale(self, raw: Tensor) -> Tensor:
        return torch.atan(raw / self.clamp) * (self.clamp * 2 / math.pi)

    def _transform(self, half: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        log_slope = self._log_scale(coefficients[0])
        half = torch.addcmul(coefficients[1], half, log_slope.exp())
        if self.bins:
            half, bend = Spline(coefficients[2:], self.bound).forward(half)
            log_slope = log_slope + bend
        return half, log_slope.sum(1)

    def _undo(self, half: Tensor, coefficients: Tensor) -> Tensor:
        if self.bins:
            half = Spline(coefficients[2:], self.bound).inverse(half)
        return (half - coefficients[1]) * torch.exp(-self._log_scale(coefficients[0]))


class ConditionalNetwork(nn.Module):
    """A chain of coupling blocks: for each context an invertible map of R^dim; close to a rotation at the start.

    Args:
        dim: number of dimensions, at least 1.
        context_dim: number of dimensions of the context.
        blocks: number of coupling blocks.
        width, depth, clamp, bins, bound: see ``ConditionalCoupling``.
        mixing: ``"orthogonal"`` or ``"permutation"``: what is drawn, once, from torch's generator between blocks.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        blocks: int,
        width: int = 128,
        depth: int = 2,
        clamp: float = 2.0,
        bins: int = 0,
        bound: float = 4.0,
        mixing: str = "orthogonal",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.blocks = nn.ModuleList(
            ConditionalCoupling(dim, context_dim, width, depth, clamp, bins, bound, mixing_matrix(dim, mixing))
            for _ in range(blocks)
        )

    def forward(self, inputs: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(N, dim), (N, context_dim) -> (N, dim), and log|det| of its Jacobian (N,)."""
        total = inputs.new_zeros(len(inputs))
        for block in self.blocks:
            inputs, log_det = block(inputs, context)
            total = total + log_det
        return inputs, total

    def inverse(self, outputs: Tensor, context: Tensor) -> Tensor:
        """(N, dim), (N, context_dim) -> (N, dim)."""
        for block in reversed(self.blocks):
            outputs = cast(ConditionalCoupling, block).inverse(outputs, context)
        return outputs


class ConditionalModel(nn.Module):
    """The network with the maps around it: theta and y in their own units outside, unbounded and unit scale inside."""

    def __init__(self, theta_map: ThetaMap, y_map: Standardise, network: ConditionalNetwork) -> None:
        super().__init__()
        self.theta_map, self.y_map, self.network = theta_map, y_map, network

    def log_density(self, real: Tensor, context: Tensor) -> Tensor:
        """log q(real | y), (N,), of mapped parameters (N, D) given standardised measurements (N, M)."""
        z, log_det = self.network(real, context)
        return log_det - 0.5 * z.square().sum(1) - 0.5 * self.network.dim * math.log(2 * math.pi)


class ConditionalINNPosterior(Posterior, HasLogProb):
    """Draws by inverse passes of a trained network, densities by forward passes."""

    def __init__(self, model: ConditionalModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        context = self.model.y_map(y)
        dim, total = self.model.network.dim, n * len(y)
        real = torch.empty(total, dim, dtype=context.dtype, device=y.device)
        with torch.no_grad():
            for start in range(0, total, ROWS):
                rows = torch.arange(start, min(start + ROWS, total), device=y.device) % len(y)
                z = torch.randn(len(rows), dim, dtype=context.dtype, device=y.device)
                real[start : start + ROWS] = self.model.network.inverse(z, context[rows])
            parts = [self.model.theta_map.inverse(part) for part in real.split(20 * ROWS)]
        return torch.cat(parts).view(n, len(y), dim)

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), for theta (n, B, D) and y (B, *y_shape); -inf outside the prior's support."""
        theta_map = self.model.theta_map
        context = self.model.y_map(y).expand(len(theta), -1, -1).flatten(0, 1)

        def density(at: Tensor) -> Tensor:
            pieces = zip(theta_map(at).flatten(0, 1).split(ROWS), context.split(ROWS), strict=True)
            found = torch.cat([self.model.log_density(*piece) for piece in pieces])
            return found.view(at.shape[:2]) + theta_map.log_abs_det(at)

        anchor = theta_map.inverse(torch.zeros_like(theta[0, 0]))
        return log_density_in_support(theta_map.prior, theta, anchor, density)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}


@dataclass(frozen=True)
class ConditionalINN(Method):
    """A conditional coupling flow, trained by maximum likelihood.

    Args:
        coupling: ``"affine"``, or ``"spline"`` for affine blocks with rational-quadratic splines behind.
        blocks: number of coupling blocks; ``None`` for 6 affine ones or 3 with splines: about as many trained numbers.
        width, depth, clamp, mixing: see ``ConditionalNetwork``. A rotation leaves a normal within the splines' bound.
        bins, bound: of the splines; unused by affine blocks.
        steps, epochs, batch_size, learning_rate, weight_decay, patience: see ``posterior_bench.training.Training``.
    """

    coupling: str = "affine"
    blocks: int | None = None
    width: int = 128
    depth: int = 2
    clamp: float = 2.0
    mixing: str = "orthogonal"
    bins: int = 8
    bound: float = 4.0
    steps: int = 5000
    epochs: int | None = 30
    batch_size: int = 500
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    patience: int = 20

    spec: ClassVar[MethodSpec] = MethodSpec("cinn", 1, "Ardizzone et al. 2019, arXiv:1907.02392", label="cINN")
    quick: ClassVar[Mapping[str, object]] = {"blocks": 2, "width": 32, "bins": 4, "steps": 150, "batch_size": 200}

    def __post_init__(self) -> None:
        if self.coupling not in BLOCKS:
            raise ValueError(f"coupling is {self.coupling!r}; expected one of {sorted(BLOCKS)}")
        least = min(1 if self.blocks is None else self.blocks, self.width, self.depth)
        if least < 1 or min(self.clamp, self.bound) <= 0:
            raise ValueError(
                f"a conditional INN needs blocks, width and depth of at least 1 and a positive clamp and bound; found "
                f"blocks {self.blocks}, width {self.width}, depth {self.depth}, clamp {self.clamp}, bound {self.bound}"
            )
        if not 2 <= self.bins <= 100:
            raise ValueError(f"bins is {self.bins}; expected 2 to 100 bins a spline")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> ConditionalINNPosterior:
        """Train on the valid simulations."""
        pairs = simulations.only_valid()
        theta_map = ThetaMap.of(problem.prior, pairs.theta)
        model = self._model(theta_map, Standardise.of(pairs.y)).to(pairs.theta.device)
        data = theta_map(pairs.theta), model.y_map(pairs.y)

        def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
            yield "negative log-likelihood", -model.log_density(*batch).mean()

        settings = Training(
            steps=self.steps,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
        )
        return ConditionalINNPosterior(model, train(model, losses, data, settings, progress))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> ConditionalINNPosterior:
        """The posterior with these weights."""
        model = self._model(ThetaMap(problem.prior), Standardise(torch.Size(problem.y_shape).numel()))
        model.load_state_dict(tensors)
        model.to(next(iter(tensors.values())).device).eval().requires_grad_(False)
        return ConditionalINNPosterior(model)

    def _model(self, theta_map: ThetaMap, y_map: Standardise) -> ConditionalModel:
        blocks = self.blocks or BLOCKS[self.coupling]
        bins = self.bins if self.coupling == "spline" else 0
        network = ConditionalNetwork(
            len(theta_map.loc),
            len(y_map.loc),
            blocks,
            self.width,
            self.depth,
            self.clamp,
            bins,
            self.bound,
            self.mixing,
        )
        return ConditionalModel(theta_map, y_map, network)

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
from typing import ClassVar

import torch
from torch import Tensor, nn

from posterior_bench import HasLatent, HasLogProb, MethodSpec, Posterior, Problem, Progress
from posterior_bench.priors import log_density_in_support
from posterior_bench.training import Standardise, ThetaMap, TrainedMethod, train

from .coupling import InvertibleNetwork

ROWS = 1000
"""Rows that pass the network at a time when drawing: their activations stay in the cache."""

BLOCKS = {"affine": 6, "spline": 3}
"""Coupling blocks with about as many trained numbers for either coupling, by default."""


class ConditionalModel(nn.Module):
    """The network with the maps around it: theta and y in their own units outside, unbounded and unit scale inside."""

    def __init__(self, theta_map: ThetaMap, y_map: Standardise, network: InvertibleNetwork) -> None:
        super().__init__()
        self.theta_map, self.y_map, self.network = theta_map, y_map, network

    def log_density(self, real: Tensor, context: Tensor) -> Tensor:
        """log q(real | y), (N,), of mapped parameters (N, D) given standardised measurements (N, M)."""
        z, log_det = self.network(real, context)
        return log_det - 0.5 * z.square().sum(1) - 0.5 * self.network.dim * math.log(2 * math.pi)


class ConditionalINNPosterior(Posterior, HasLogProb, HasLatent):
    """Draws by inverse passes of a trained network, densities by forward passes."""

    def __init__(self, model: ConditionalModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        network = self.model.network

        def draw(context: Tensor) -> Tensor:
            z = torch.randn(len(context), network.dim, dtype=context.dtype, device=context.device)
            return network.inverse(z, context)

        return self.model.theta_map.draws(draw, self.model.y_map(y), n, ROWS)

    @property
    def latent_dim(self) -> int:
        """K = D, dimensions of z."""
        return self.model.network.dim

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Parameters (n, B, D) for z (n, B, D) and measurements y (B, *y_shape)."""
        context = self.model.y_map(y).expand(len(z), -1, -1).flatten(0, 1)
        with torch.no_grad():
            pieces = zip(z.flatten(0, 1).split(ROWS), context.split(ROWS), strict=True)
            real = torch.cat([self.model.network.inverse(*piece) for piece in pieces])
            return self.model.theta_map.inverse(real).view(z.shape)

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
class ConditionalINN(TrainedMethod[ConditionalModel]):
    """A conditional coupling flow, trained by maximum likelihood.

    Args:
        coupling: ``"affine"``, or ``"spline"`` for affine blocks with rational-quadratic splines behind.
        blocks: number of coupling blocks; ``None`` for 6 affine ones or 3 with splines: about as many trained numbers.
        width, depth, clamp, mixing: see ``InvertibleNetwork``. A rotation leaves a normal within the splines' bound.
        bins, bound: of the splines; unused by affine blocks.
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

    def _model(self, theta_map: ThetaMap, y_map: Standardise, problem: Problem) -> ConditionalModel:
        network = InvertibleNetwork(
            len(theta_map.loc),
            self.blocks or BLOCKS[self.coupling],
            self.width,
            self.depth,
            self.clamp,
            self.mixing,
            context_dim=len(y_map.loc),
            bins=self.bins if self.coupling == "spline" else 0,
            bound=self.bound,
        )
        return ConditionalModel(theta_map, y_map, network)

    def _train(self, model: ConditionalModel, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
            yield "negative log-likelihood", -model.log_density(*batch).mean()

        return train(model, losses, data, self._settings(), progress)

    def _posterior(self, model: ConditionalModel, history: Mapping[str, Tensor]) -> Posterior:
        return ConditionalINNPosterior(model, history)

"""A mixture density network: a mixture of full Gaussians whose parameters a network reads off the measurement.

    q(theta | y) = sum_k w_k(y) N(real; mu_k(y), L_k(y) L_k(y)^T) |d real / d theta|,   real = the mapped theta
    loss = E[-log q(theta | y)]

Bishop 1994, technical report NCRG/94/004, Aston University; with full covariances as in Kruse et al. 2021,
arXiv:2101.10763. The Cholesky factor is L = (I - A)^-1 diag(s), with A strictly lower triangular and s > 0, so that

    L^-1 (real - mu) = (r - A r) / s,   r = real - mu,   log det L = sum log s

and the likelihood needs neither an inverse nor a solution: s_i is the sd of parameter i given those before it, row i of
A its regression on them (Pourahmadi 1999, Biometrika 86:677, the modified Cholesky decomposition of the precision).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from posterior_bench import HasLogProb, MethodSpec, Posterior, Problem, Progress
from posterior_bench.priors import log_density_in_support
from posterior_bench.training import Standardise, ThetaMap, TrainedMethod, train

ROWS = 2048
"""Pairs of draw and measurement at a time, in drawing and in the density: their matrices A, a few MB, stay in cache."""

SPREAD = 0.5
"""Standard deviation of the components' means at the start, in sd of the prior: equal components would stay equal."""


@dataclass(frozen=True)
class Components:
    """The mixtures of B measurements.

    Args:
        log_weight: log w, (B, K).
        mean: mu, (B, K, D).
        sd: s, (B, K, D): each parameter's sd given those before it.
        regression: A, (B, K, D, D), strictly lower triangular.
    """

    log_weight: Tensor
    mean: Tensor
    sd: Tensor
    regression: Tensor

    def log_prob(self, real: Tensor) -> Tensor:
        """log of the mixture's density, (n, B), in nats, at mapped parameters (n, B, D)."""
        rest = real.transpose(0, 1).unsqueeze(1) - self.mean.unsqueeze(2)  # (B, K, n, D)
        scaled = (rest - rest @ self.regression.transpose(2, 3)) / self.sd.unsqueeze(2)
        log_scale = self.sd.log().sum(-1) + 0.5 * math.log(2 * math.pi) * real.shape[-1]
        each = (self.log_weight - log_scale).unsqueeze(2) - 0.5 * scaled.square().sum(-1)
        return each.logsumexp(1).T

    def draw(self, n: int) -> Tensor:
        """Mapped parameters (n, B, D): for each draw a component, then a draw of its Gaussian."""
        chosen = torch.multinomial(self.log_weight.exp(), n, replacement=True).T  # (n, B)
        row = torch.arange(len(self.mean), device=chosen.device)
        sd, regression = self.sd[row, chosen], self.regression[row, chosen]
        noise = (sd * torch.randn_like(sd)).unsqueeze(-1)
        # unit triangular: the diagonal, which -A lacks, is taken for ones
        rest = torch.linalg.solve_triangular(-regression, noise, upper=False, unitriangular=True)
        return self.mean[row, chosen] + rest.squeeze(-1)


class MixtureNetwork(nn.Module):
    """A fully connected network from standardised y to the components.

    Args:
        y_dim: numbers in a measurement.
        theta_dim: parameters.
        components: K.
        width, depth: of the hidden layers, with ReLU.
        sd_floor: what every s exceeds, in sd of the prior.
    """

    def __init__(self, y_dim: int, theta_dim: int, components: int, width: int, depth: int, sd_floor: float) -> None:
        super().__init__()
        self.shape, self.sd_floor = (components, theta_dim), sd_floor
        sizes = [y_dim, *[width] * depth]
        self.hidden = nn.Sequential(*(part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())))
        self.parts = [components, components * theta_dim, components * theta_dim]
        self.parts.append(components * (theta_dim * (theta_dim - 1) // 2))
        self.head = nn.Linear(sizes[-1], sum(self.parts))
        with torch.no_grad():
            self.head.bias.split(self.parts)[1].normal_(std=SPREAD)
        place = torch.tril_indices(theta_dim, theta_dim, offset=-1)
        self.register_buffer("place", place[0] * theta_dim + place[1], persistent=False)

    def forward(self, y: Tensor) -> Components:
        """The mixtures for standardised measurements (B, M)."""
        count, theta_dim = self.shape
        weight, mean, scale, below = self.head(self.hidden(y)).split(self.parts, dim=1)
        regression = below.new_zeros(len(y), count, theta_dim * theta_dim)
        regression = regression.index_copy(
            2, self.get_buffer("place"), below.reshape(len(y), count, theta_dim * (theta_dim - 1) // 2)
        )
        return Components(
            weight.log_softmax(1),
            mean.reshape(len(y), count, theta_dim),
            softplus(scale).view(len(y), count, theta_dim) + self.sd_floor,
            regression.view(len(y), count, theta_dim, theta_dim),
        )


class MixtureModel(nn.Module):
    """The network with the maps around it: theta and y in their own units outside."""

    def __init__(self, theta_map: ThetaMap, y_map: Standardise, network: MixtureNetwork) -> None:
        super().__init__()
        self.theta_map, self.y_map, self.network = theta_map, y_map, network


class MixturePosterior(Posterior, HasLogProb):
    """Independent draws from the mixture, and its density."""

    def __init__(self, model: MixtureModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        standard = self.model.y_map(y)
        draws = standard.new_empty(n, len(y), len(self.model.theta_map.loc))
        with torch.no_grad():
            for part in torch.arange(len(y), device=y.device).split(max(1, ROWS // n)):
                components = self.model.network(standard[part])
                for rows in torch.arange(n, device=y.device).split(ROWS):
                    real = components.draw(len(rows))
                    draws[rows[0] : rows[-1] + 1, part] = self.model.theta_map.inverse(real)
        return draws

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and y (B, *y_shape); -inf outside the support."""
        theta_map, standard = self.model.theta_map, self.model.y_map(y)
        anchor = theta_map.inverse(torch.zeros_like(theta[0, 0]))
        columns = []
        count = max(1, ROWS // len(theta))
        for at, measured in zip(theta.split(count, dim=1), standard.split(count), strict=True):
            components = self.model.network(measured)

            def density(values: Tensor, components: Components = components) -> Tensor:
                return components.log_prob(theta_map(values)) + theta_map.log_abs_det(values)

            rows = [log_density_in_support(theta_map.prior, part, anchor, density) for part in at.split(ROWS)]
            columns.append(torch.cat(rows))
        return torch.cat(columns, dim=1)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}


@dataclass(frozen=True)
class MixtureDensityNetwork(TrainedMethod[MixtureModel]):
    """A mixture of full Gaussians in mapped theta, by maximum likelihood.

    Args:
        components: K, Gaussians in the mixture.
        width, depth: of the hidden layers, and their number.
        sd_floor: smallest sd of a parameter given the others, in sd of the prior; it is approached softly. Without it
            the likelihood of a deterministic simulator has no maximum.

    Raises:
        ValueError: where a setting is impossible.
    """

    components: int = 8
    width: int = 200
    depth: int = 3
    sd_floor: float = 1e-3

    spec: ClassVar[MethodSpec] = MethodSpec("mdn", 1, "Bishop 1994, NCRG/94/004", label="MDN")
    quick: ClassVar[Mapping[str, object]] = {
        "components": 3,
        "width": 48,
        "depth": 2,
        "steps": 300,
        "batch_size": 200,
        "learning_rate": 3e-3,
    }

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components is {self.components}; expected at least 1")
        if not self.sd_floor > 0:
            raise ValueError(f"sd_floor is {self.sd_floor}; expected a positive sd, such as 0.001")

    def _model(self, theta_map: ThetaMap, y_map: Standardise, problem: Problem) -> MixtureModel:
        sizes = len(y_map.loc), len(theta_map.loc), self.components, self.width, self.depth
        return MixtureModel(theta_map, y_map, MixtureNetwork(*sizes, self.sd_floor))

    def _train(self, model: MixtureModel, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
            yield "negative log-likelihood", -model.network(batch[1]).log_prob(batch[0].unsqueeze(0)).mean()

        return train(model, losses, data, self._settings(), progress)

    def _posterior(self, model: MixtureModel, history: Mapping[str, Tensor]) -> Posterior:
        return MixturePosterior(model, history)

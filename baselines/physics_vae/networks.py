"""The networks of the physics VAE: diagonal Gaussians given y, cleansing, and the correction inside the solver.

    q(z_A | y) = N(g_A(y)),     q(z_P | y) = N(g_P2(u)),     u = g_P1(y, E[z_A | y]),

each a diagonal Gaussian. u is what y would look like under the known physics alone. It rests on the mean of q(z_A | y),
as in the authors' code, so that given y z_P and z_A are independent. Sizes and activation (ELU) are that code's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDEST = 4.0
"""Log variance that no Gaussian exceeds, 7 sd of the prior: what a network says far from all it was trained on must
not overflow."""


def layers(*sizes: int) -> nn.Sequential:
    """Fully connected layers of these sizes, inputs first, with ELU between them."""
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ELU()]
    return nn.Sequential(*parts[:-1])


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A diagonal Gaussian of K variables for each of N rows: mean and log variance, (N, K) each; K may be 0."""

    mean: Tensor
    log_variance: Tensor

    def draw(self) -> Tensor:
        """One draw a row (N, K), through which gradients flow."""
        return self.mean + torch.exp(0.5 * self.log_variance) * torch.randn_like(self.mean)

    def divergence(self) -> Tensor:
        """KL from N(0, I), (N,), in nats (Kingma & Welling 2014, appendix B)."""
        return 0.5 * (self.log_variance.exp() + self.mean**2 - 1 - self.log_variance).sum(1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density (..., N), in nats, at ``value`` (..., N, K)."""
        square = (value - self.mean) ** 2 * torch.exp(-self.log_variance)
        return -0.5 * (square + self.log_variance + math.log(2 * math.pi)).sum(-1)

    def repeat(self, count: int) -> Gaussian:
        """The same rows ``count`` times over, (count N, K)."""
        return Gaussian(self.mean.repeat(count, 1), self.log_variance.repeat(count, 1))


class GaussianNetwork(nn.Module):
    """Features of the input, and of them mean and log variance, each by a network of its own.

    Args:
        inputs, outputs: numbers of inputs, and of variables K.
        feature_width, features: width of the two hidden layers before the features, and number of features.
        head_width: width of the first hidden layer after them; the second is half as wide.
    """

    def __init__(self, inputs: int, outputs: int, feature_width: int, features: int, head_width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(layers(inputs, feature_width, feature_width, features), nn.ELU())
        self.mean = layers(features, head_width, head_width // 2, outputs)
        self.log_variance = layers(features, head_width, head_width // 2, outputs)

    def forward(self, values: Tensor) -> Gaussian:
        """The Gaussians (N, K) for inputs (N, M)."""
        features = self.features(values)
        return Gaussian(self.mean(features), WIDEST - functional.softplus(WIDEST - self.log_variance(features)))


@dataclass(frozen=True, eq=False)
class Code:
    """What the encoders say of N measurements.

    Args:
        inside, outside: q(z_A1 | y) and q(z_A2 | y), (N, K1) and (N, K2).
        physics: q(z_P | y), (N, D), of theta mapped to the reals; ``None`` where the model has no physics.
        cleansed: u (N, M), standardised as y is; ``None`` where there is no cleansing.
    """

    inside: Gaussian
    outside: Gaussian
    physics: Gaussian | None
    cleansed: Tensor | None

    def divergence(self) -> Tensor:
        """KL of all latent variables from N(0, I), (N,), in nats."""
        total = self.inside.divergence() + self.outside.divergence()
        return total if self.physics is None else total + self.physics.divergence()


class Encoder(nn.Module):
    """g_A for z_A1 and z_A2, g_P1 and g_P2; what has no variables has no network.

    Args:
        y_dim: M.
        theta_dim: D; 0 for a model without physics.
        inside_dim, outside_dim: K1 and K2.
        cleansing: width of the two hidden layers of g_P1; 0 for none, g_P2 then looks at y itself.
        feature_width, features, head_width: see ``GaussianNetwork``.
    """

    def __init__(
        self,
        y_dim: int,
        theta_dim: int,
        inside_dim: int,
        outside_dim: int,
        cleansing: int,
        feature_width: int,
        features: int,
        head_width: int,
    ) -> None:
        super().__init__()

        def network(outputs: int) -> GaussianNetwork | None:
            return GaussianNetwork(y_dim, outputs, feature_width, features, head_width) if outputs else None

        self.inside, self.outside, self.physics = network(inside_dim), network(outside_dim), network(theta_dim)
        self.cleansing = None
        if self.physics is not None and cleansing:
            self.cleansing = layers(y_dim + inside_dim + outside_dim, cleansing, cleansing, y_dim)

    def forward(self, y: Tensor) -> Code:
        """The code of standardised measurements y (N, M)."""
        inside, outside = (self._latent(network, y) for network in (self.inside, self.outside))
        if self.physics is None:
            return Code(inside, outside, None, None)
        if self.cleansing is None:
            return Code(inside, outside, self.physics(y), None)
        cleansed = y + self.cleansing(torch.cat([y, inside.mean, outside.mean], dim=1))
        return Code(inside, outside, self.physics(cleansed), cleansed)

    @staticmethod
    def _latent(network: GaussianNetwork | None, y: Tensor) -> Gaussian:
        if network is None:
            return Gaussian(y.new_zeros(len(y), 0), y.new_zeros(len(y), 0))
        return network(y)


class Correction(nn.Module):
    """f_A1: what is added to those rows of d state / dt that unknown physics may enter.

    Args:
        latent_dim: K1.
        correctable: one bool a row of the state (S).
        width: of the two hidden layers.
        time_as: how it is told the time t: ``"number"``, as t, or ``"angle"``, as sin t and cos t.
    """

    place: Tensor

    def __init__(self, latent_dim: int, correctable: tuple[bool, ...], width: int, time_as: str) -> None:
        super().__init__()
        self.latent_dim, self.state_dim, self.time_as = latent_dim, len(correctable), time_as
        self.network = layers(
            latent_dim + len(correctable) + (2 if time_as == "angle" else 1), width, width, sum(correctable)
        )
        rows = torch.eye(len(correctable))[:, torch.tensor(correctable)]
        self.register_buffer("place", rows, persistent=False)

    def forward(self, latent: Tensor) -> Callable[[Tensor, float], Tensor]:
        """The correction for z_A1 (N, K1): from the state (N, S) and t to (N, S), exactly 0 in the other rows.

        What does not change along the way, the part of z_A1 in the first layer and the placing of the last, is worked
        out once, and the state is never joined with z_A1: a solver calls the function hundreds of times.
        """
        first, second, last = (layer for layer in self.network if isinstance(layer, nn.Linear))
        of_latent, of_state, of_time = first.weight.split(
            [self.latent_dim, self.state_dim, first.in_features - self.latent_dim - self.state_dim], dim=1
        )
        offset, of_state, of_time = functional.linear(latent, of_latent, first.bias), of_state.T, of_time.T
        weight, bias = self.place @ last.weight, self.place @ last.bias

        def correction(state: Tensor, time: float) -> Tensor:
            clock = [math.sin(time), math.cos(time)] if self.time_as == "angle" else [time]
            hidden = torch.addmm(offset + state.new_tensor(clock) @ of_time, state, of_state)
            hidden = functional.elu(second(functional.elu(hidden, inplace=True)), inplace=True)
            return functional.linear(hidden, weight, bias)

        return correction

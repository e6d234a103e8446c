"""The invertible network with the maps around it, and the posterior that it gives.

    f([theta, known, free]) = [u, z],      theta = g(u, z),  u ~ q(u | y),  z ~ N(0, I)

The pads beside theta are either known, one value a simulation, or free: fresh N(0, I) at every pass. Where y is a
function of theta and of known pads that hold all its noise, f can be an exact bijection: see ``method``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from posterior_bench import HasLatent, Posterior
from posterior_bench.training import Standardise, ThetaMap

from .coupling import InvertibleNetwork
from .losses import MeasurementNoise

ROWS = 2048
"""Backward passes made at a time when drawing: the activations of a layer, 1 MB, stay in the processor's cache."""


class INNModel(nn.Module):
    """Theta and y in their own units outside, unbounded and unit scale inside.

    Args:
        theta_map, y_map: from the units of theta and y.
        noise: q(u | y).
        network: f.
        known: number of known pads; those that are left beside theta are free.
    """

    def __init__(
        self,
        theta_map: ThetaMap,
        y_map: Standardise,
        noise: MeasurementNoise,
        network: InvertibleNetwork,
        known: int = 0,
    ) -> None:
        super().__init__()
        self.theta_map, self.y_map, self.noise, self.network = theta_map, y_map, noise, network
        self.theta_dim, self.y_dim, self.known = len(theta_map.loc), len(y_map.loc), known

    @property
    def latent_dim(self) -> int:
        """K, dimensions of z."""
        return self.network.dim - self.y_dim

    @property
    def free(self) -> int:
        """Number of free pads."""
        return self.network.dim - self.theta_dim - self.known

    def forward_pass(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u (N, M), z (N, K) and log|det J| (N,) for mapped parameters and known pads side by side (N, D + known)."""
        pads = torch.randn(len(inputs), self.free, dtype=inputs.dtype, device=inputs.device)
        out, log_det = self.network(torch.cat([inputs, pads], dim=1))
        return out[:, : self.y_dim], out[:, self.y_dim :], log_det

    def backward_pass(self, y: Tensor) -> Tensor:
        """Mapped parameters and known pads (N, D + known) for standardised y (N, M), with fresh u and z."""
        z = torch.randn(len(y), self.latent_dim, dtype=y.dtype, device=y.device)
        return self.invert(self.noise.sample(y), z)

    def invert(self, u: Tensor, z: Tensor) -> Tensor:
        """g: mapped parameters and known pads (N, D + known) for u (N, M) and z (N, K)."""
        return self.network.inverse(torch.cat([u, z], dim=1))[:, : self.theta_dim + self.known]

    def log_prob(self, u: Tensor, z: Tensor, log_det: Tensor, y: Tensor) -> Tensor:
        """log q(theta, pads | y), (N,), in nats, of what ``forward_pass`` returned, given standardised y (N, M)."""
        log_normal = -0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi) * z.shape[1]
        return self.noise.log_prob(u, y) + log_normal + log_det


class INNPosterior(Posterior, HasLatent):
    """Draws by backward passes of a trained network."""

    def __init__(self, model: INNModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    @property
    def latent_dim(self) -> int:
        """K, dimensions of z."""
        return self.model.latent_dim

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        model = self.model

        def draw(standard: Tensor) -> Tensor:
            return model.backward_pass(standard)[:, : model.theta_dim]

        return model.theta_map.draws(draw, model.y_map(y), n, ROWS)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Parameters (n, B, D) for z (n, B, K) and measurements y (B, *y_shape), at the mean of q(u | y)."""
        with torch.no_grad():
            mean = self.model.noise(self.model.y_map(y))[0].expand(len(z), -1, -1).flatten(0, 1)
            parts = zip(mean.split(ROWS), z.flatten(0, 1).split(ROWS), strict=True)
            real = torch.cat([self.model.invert(*part)[:, : self.model.theta_dim] for part in parts])
            return self.model.theta_map.inverse(real).view(*z.shape[:2], -1)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}

"""The posterior of the physics' parameters, and the signals that the model makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from posterior_bench import HasLogProb, HasSignals, Posterior
from posterior_bench.priors import log_density_in_support

from .model import PhysicsVAEModel
from .networks import Gaussian

ROWS = 4_000
"""Signals made at a time: few enough that a solution of the solver stays small."""


class PhysicsVAEPosterior(Posterior, HasLogProb, HasSignals):
    """q(z_P | y), and signals of the model under it.

    As q(z_P | y) rests on the mean of q(z_A | y), averaging over q(z_A | y) leaves it as it is: a diagonal Gaussian in
    mapped theta. In theta's own units it lies within the prior's support, with a density and without atoms. A model
    without physics infers nothing of theta; its posterior is the prior.
    """

    def __init__(self, model: PhysicsVAEModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        with torch.no_grad():
            code = self._physics(y)
            if code is None:
                return self.model.theta_map.prior.sample(torch.Size((n, len(y)))).to(y)
            noise = torch.randn(n, *code.mean.shape, dtype=y.dtype, device=y.device)
            return self.model.theta_map.inverse(code.mean + torch.exp(0.5 * code.log_variance) * noise)

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and y (B, *y_shape); -inf outside the support."""
        theta_map, code = self.model.theta_map, self._physics(y)
        anchor = theta_map.inverse(torch.zeros_like(theta[0, 0]))

        def density(values: Tensor) -> Tensor:
            if code is None:
                return theta_map.prior.log_prob(values)
            return code.log_prob(theta_map(values)) + theta_map.log_abs_det(values)

        return log_density_in_support(theta_map.prior, theta, anchor, density)

    def reconstruct(self, y: Tensor, n: int) -> Tensor:
        """Draws of the signal behind each measurement, without noise: (n, B, *y_shape) for y (B, *y_shape)."""
        return self.extrapolate(y, n, y.shape[-1])

    def extrapolate(self, y: Tensor, n: int, horizon: int) -> Tensor:
        """The same for ``horizon`` times from the first one on: (n, B, *y_shape), its last axis of that length.

        f_A2 ends with the measured times. Beyond them physics and f_A1 go on alone.
        """
        return self._signals(y, n, horizon, None)

    def intervene(self, y: Tensor, n: int, theta: Tensor) -> Tensor:
        """Draws of the signal each measurement would have had with other parameters, (n, B, *y_shape).

        Args:
            y: measurements (B, *y_shape), of which all latent variables but z_P are inferred.
            n: number of draws.
            theta: (B, D) or, for all the same, (D,): the parameters in place of z_P. They may leave the prior's
                support.
        """
        return self._signals(y, n, y.shape[-1], theta.expand(len(y), -1))

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}

    def _physics(self, y: Tensor) -> Gaussian | None:
        return self.model.encode(y).physics

    def _signals(self, y: Tensor, n: int, steps: int, theta: Tensor | None) -> Tensor:
        def draws(part: Tensor) -> Tensor:
            rows = y[part]
            given = None if theta is None else theta[part]
            return self.model.reconstruct(self.model.encode(rows), rows, steps, given)

        with torch.no_grad():
            parts = (torch.arange(n * len(y), device=y.device) % len(y)).split(ROWS)
            return torch.cat([draws(part) for part in parts]).unflatten(0, (n, len(y)))

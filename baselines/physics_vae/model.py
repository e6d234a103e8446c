"""Encoders, decoder and the maps around them, and the passes that training and inference make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from posterior_bench.training import Standardise, ThetaMap

from .decoder import Decoder
from .networks import Code, Encoder


@dataclass(frozen=True, eq=False)
class Branches:
    """All signals that the loss compares, (N, *y_shape) each, without noise.

    Args:
        code: what the encoders say of the measurements.
        full: x_PAB, the reconstruction from one draw of all latent variables.
        with_inside: x_PA, without f_A2.
        reduced: x_P, from the same z_P without f_A1 and f_A2; ``None`` where the model has no physics.
        simulated: pairs of theta* (N, D) and its signals under the known physics alone, without gradients; or ``None``.
    """

    code: Code
    full: Tensor
    with_inside: Tensor
    reduced: Tensor | None
    simulated: tuple[Tensor, Tensor] | None


class PhysicsVAEModel(nn.Module):
    """The physics VAE.

    theta is mapped to the reals by ``theta_map``, where its prior is N(0, I): for a product of known marginals exactly,
    else as nearly as mean and sd make it. y is standardised by one location and one scale for all of its numbers, which
    keeps the shape of a signal.

    Args:
        theta_map: from theta to the reals.
        theta_scale: theta standardised under the prior, for f_A2.
        y_map: from the units of y.
        encoder, decoder: the networks.
    """

    def __init__(
        self, theta_map: ThetaMap, theta_scale: Standardise, y_map: Standardise, encoder: Encoder, decoder: Decoder
    ) -> None:
        super().__init__()
        self.theta_map, self.theta_scale, self.y_map = theta_map, theta_scale, y_map
        self.encoder, self.decoder = encoder, decoder

    def encode(self, y: Tensor) -> Code:
        """The code of measurements y (N, *y_shape)."""
        return self.encoder(self.y_map(y))

    def branches(self, y: Tensor, augmentation: Tensor | None, spread_by_bound: bool = True) -> Branches:
        """All branches for measurements y (N, *y_shape), by one pass of the solver.

        Args:
            y: (N, *y_shape).
            augmentation: theta* (N, D), parameters to simulate the known physics with, from the same initial states.
            spread_by_bound: whether gradients reach the spread of q(z_P | y) from here.
        """
        code = self.encode(y)
        if code.physics is not None and not spread_by_bound:
            code = replace(code, physics=replace(code.physics, log_variance=code.physics.log_variance.detach()))
        inside, outside = code.inside.draw(), code.outside.draw()
        theta = self._draw_theta(code)
        handed, initial = self.decoder.handed(theta), self.decoder.dynamics.initial_state(y)
        corrected = self.decoder.inside is not None
        known = self.decoder.physics != "none"
        parts = [handed] if corrected or not known else []
        if known:
            parts.append(handed)
            if augmentation is not None:
                parts.append(augmentation)
        signals = self.decoder.solve(
            torch.cat(parts), initial.repeat(len(parts), 1), inside if corrected else None, y.shape[-1]
        ).split(len(y))
        with_inside = signals[0]
        full = self._with_residual(with_inside, theta, inside, outside)
        if not known:
            return Branches(code, full, with_inside, None, None)
        simulated = None if augmentation is None else (augmentation, signals[-1].detach())
        return Branches(code, full, with_inside, signals[1] if corrected else with_inside, simulated)

    def reconstruct(self, code: Code, y: Tensor, steps: int, theta: Tensor | None = None) -> Tensor:
        """One draw of the signal behind each measurement, (N, *y_shape with ``steps`` times), without noise.

        Args:
            code: of the measurements.
            y: (N, *y_shape), for the initial state.
            steps: from the first time on. f_A2 knows the times of y alone; later there is no correction outside.
            theta: (N, D) in place of the draws of z_P, or ``None``.
        """
        inside, outside = code.inside.draw(), code.outside.draw()
        theta = self._draw_theta(code) if theta is None else theta
        initial = self.decoder.dynamics.initial_state(y)
        latent = None if self.decoder.inside is None else inside
        signal = self.decoder.solve(self.decoder.handed(theta), initial, latent, steps)
        return self._with_residual(signal, theta, inside, outside)

    def _draw_theta(self, code: Code) -> Tensor:
        """Draws of theta (N, D) in its own units; without physics the prior's mean, which nothing rests on."""
        if code.physics is not None:
            return self.theta_map.inverse(code.physics.draw())
        return self.theta_scale.loc.expand(len(code.inside.mean), -1)

    def _with_residual(self, signal: Tensor, theta: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
        residual = self.decoder.residual(self.theta_scale(theta), inside, outside)
        if residual is None:
            return signal
        times = residual.numel() // signal[..., 0].numel()
        residual = (residual * self.y_map.scale).reshape(*signal.shape[:-1], times)[..., : signal.shape[-1]]
        return signal + pad(residual, (0, signal.shape[-1] - residual.shape[-1]))

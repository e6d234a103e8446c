"""The decoder of the physics VAE: known physics and its corrections, inside the solver and outside.

    d state / dt = f_P(z_P, state, t) + f_A1(z_A1, state, t),     state(0) from the first values of y
    y_hat = observe(state) + f_A2(z_P, z_A1, z_A2)

f_A1 enters only those rows of the derivative that unknown physics may enter. Without physics the other rows are kept:
that an angle's derivative is the velocity is known to every model. (The authors' "NN+solver" loses it, and its solver
never moves the angle.)
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .networks import Correction

if TYPE_CHECKING:
    from posterior_bench import HasDynamics


def with_solver(dynamics: HasDynamics, solver: str, substeps: int) -> HasDynamics:
    """The same dynamics with another solver, where it has the options ``solver`` and ``substeps``; else itself."""
    if solver == "simulator" or not dataclasses.is_dataclass(dynamics) or isinstance(dynamics, type):
        return dynamics
    if not {"solver", "substeps"} <= {field.name for field in dataclasses.fields(dynamics)}:
        return dynamics
    changed: HasDynamics = dataclasses.replace(dynamics, solver=solver, substeps=substeps)
    return changed


class Decoder(nn.Module):
    """From parameters, latent variables and an initial state to a signal without noise.

    Args:
        dynamics: the known physics with its solver.
        physics: ``"known"``; ``"permuted"``, which hands each row the parameters of another, as a control; or
            ``"none"``, which keeps of the derivative only what is not correctable.
        inside: f_A1 or ``None``.
        outside: f_A2, from [z_P, z_A1, z_A2] to (N, M), or ``None``.
    """

    kinematic: Tensor

    def __init__(
        self, dynamics: HasDynamics, physics: str, inside: Correction | None, outside: nn.Sequential | None
    ) -> None:
        super().__init__()
        self.dynamics, self.physics, self.inside, self.outside = dynamics, physics, inside, outside
        self.register_buffer("kinematic", 1 - torch.tensor(dynamics.correctable).float(), persistent=False)

    def solve(self, theta: Tensor, initial: Tensor, latent: Tensor | None, steps: int) -> Tensor:
        """Signals (R, *y_shape with ``steps`` times) of R rows in one pass of the solver.

        Args:
            theta: (R, D), parameters in their own units; any value where there is no physics.
            initial: (R, S).
            latent: z_A1 (N, K1) of the first N <= R rows; the others are solved without f_A1. ``None`` for N = 0.
            steps: T.
        """
        correction = None if self.inside is None or latent is None else self.inside(latent)
        count = 0 if latent is None else len(latent)
        rest = len(initial) - count
        if correction is None and self.physics == "none":
            # nothing acts: the authors' network without a solver, which still starts from what was seen first
            return self.dynamics.observe(initial[:, None].expand(-1, steps, -1))

        def derivative(state: Tensor, time: float) -> Tensor:
            known = self.dynamics.derivative(theta, state, time)
            if self.physics == "none":
                known = known * self.kinematic
            if correction is None:
                return known
            if rest == 0:
                return known + correction(state, time)
            return known + pad(correction(state[:count], time), (0, 0, 0, rest))

        return self.dynamics.observe(self.dynamics.solve(derivative, initial, steps))

    def residual(self, theta: Tensor, inside: Tensor, outside: Tensor) -> Tensor | None:
        """f_A2 (N, M) for standardised parameters (N, D), z_A1 (N, K1) and z_A2 (N, K2); ``None`` without it."""
        if self.outside is None:
            return None
        known = [] if self.physics == "none" else [theta]
        return self.outside(torch.cat([*known, inside, outside], dim=1))

    def handed(self, theta: Tensor) -> Tensor:
        """The parameters (N, D) that the physics gets: theta itself or, in the control, those of other rows."""
        return theta[torch.randperm(len(theta), device=theta.device)] if self.physics == "permuted" else theta

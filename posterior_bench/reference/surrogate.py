"""A surrogate of a dear likelihood: log N(y; m(r), diag s(r)^2), m and s networks fitted to simulations without noise.

It guides importance sampling to where the posterior is, at little cost. Its draws are then weighted by

    w = p(y | theta) / N(y; m, s),   Z = Z_surrogate E[w],

two stages as in delayed acceptance (Christen & Fox 2005, J. Comput. Graph. Stat. 14:795), so that how good it is shows
in the effective size of w, and not in the result. What it rules out no weight brings back: route two does not use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..contracts import HasNoise, Progress, Simulator
from ..priors import is_whole
from ..runtime import scope
from ..training import Standardise, ThetaMap, Training, train
from .settings import Settings

AT_A_TIME = 10_000
"""Simulations in one call."""

LEAST_SCALE = 1e-6
"""Of the noise, against a logarithm of zero where a number of y has none."""


class Surrogate(nn.Module):
    """Mean and standard deviation of each number of y at mapped parameters r."""

    def __init__(self, mean_map: Standardise, scale_map: Standardise, dim: int, width: int) -> None:
        super().__init__()
        self.mean_map, self.scale_map = mean_map, scale_map
        size = len(mean_map.loc)
        self.network = nn.Sequential(
            nn.Linear(dim, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2 * size),
        )

    def log_likelihood(self, real: Tensor, y: Tensor) -> Tensor:
        """log N(y; m(r), diag s(r)^2), (n, B), for real (n, B, D) and y (B, M)."""
        with torch.no_grad():
            mean, scale = self.network(real.float()).double().chunk(2, -1)
        mean, log_scale = self.mean_map.inverse(mean), self.scale_map.inverse(scale)
        residual = (y - mean) * (-log_scale).exp()
        return (-0.5 * residual.square() - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)


def fit_surrogate(
    simulator: Simulator, theta_map: ThetaMap, settings: Settings, seed: int, progress: Progress
) -> Surrogate:
    """Simulate with the noise at 0 and at 1, and fit m to the first, log s to the logarithm of their difference.

    Raises:
        TypeError: where the noise does not enter each number of y on its own, or a parameter is a whole number.
    """
    if any(is_whole(marginal) for marginal in theta_map.marginals or ()):
        raise TypeError(
            f"surrogate_simulations is given, and a parameter of simulator {simulator.spec.name!r} is a whole number, "
            "which no smooth surrogate serves: leave the surrogate out"
        )
    if not isinstance(simulator, HasNoise) or len(simulator.spec.y_shape) != 1:
        raise TypeError(
            f"surrogate_simulations is given, and simulator {simulator.spec.name!r} does not derive from HasNoise with "
            "measurements that are vectors; expected noise of its own for each number of y: leave the surrogate out"
        )
    size = simulator.spec.y_shape[0]
    if simulator.noise_dim != size:
        raise TypeError(
            f"surrogate_simulations is given, and simulator {simulator.spec.name!r} has {simulator.noise_dim} noise "
            f"variables for {size} numbers of y; expected one each: leave the surrogate out"
        )
    with scope(seed, theta_map.loc.device):
        theta = simulator.prior().sample(torch.Size([settings.surrogate_simulations]))
        outcomes = torch.cat([_mean_and_log_scale(simulator, part, size) for part in theta.split(AT_A_TIME)])
        valid = torch.isfinite(outcomes).all(-1)
        real, (mean, log_scale) = theta_map(theta[valid]).float(), outcomes[valid].chunk(2, -1)
        mean_map, scale_map = Standardise.of(mean), Standardise.of(log_scale)
        network = Surrogate(mean_map, scale_map, real.shape[1], settings.surrogate_width).to(real.device)
        target = torch.cat([mean_map(mean), scale_map(log_scale)], -1).float()

        def losses(batch: tuple[Tensor, ...], _: float) -> Iterator[tuple[str, Tensor]]:
            yield "squared error", (network.network(batch[0]) - batch[1]).square().mean()

        train(network, losses, (real, target), Training(steps=settings.surrogate_steps, weight_decay=0.0), progress)
    return network


def _mean_and_log_scale(simulator: HasNoise, theta: Tensor, size: int) -> Tensor:
    """y at noise 0, and the logarithm of how far noise 1 moves each number of it, (N, 2 M)."""
    with torch.no_grad():
        still = simulator.simulate_from(theta, theta.new_zeros(len(theta), size))
        moved = simulator.simulate_from(theta, theta.new_ones(len(theta), size))
    return torch.cat([still, (moved - still).abs().clamp_min(LEAST_SCALE).log()], -1)

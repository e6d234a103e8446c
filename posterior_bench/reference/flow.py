"""A conditional neural spline flow q(r | y) fitted by maximum likelihood: E[-log q(r | y)] over simulated pairs.

Durkan et al. 2019 (arXiv:1906.04032), by zuko, which is imported on first use. Its draws are a first proposal for all
measurements at once; what it gets wrong, weights put right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..contracts import Progress, Simulator
from ..problem import check_simulated
from ..records import Simulations
from ..runtime import scope
from ..training import Standardise, ThetaMap, Training, train
from .settings import Settings

ROWS = 2**14
"""Rows of a pass of the flow: its activations then stay near the processor."""


@dataclass(frozen=True, eq=False)
class Flow:
    """A fitted flow in mapped parameters; draws and densities in float64.

    Args:
        network: zuko's flow, in float32.
        y_map: standardises measurements.
    """

    network: Any
    y_map: Standardise

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for y (B, *y_shape)."""
        context, size = self._context(y), max(1, ROWS // len(y))
        counts = [min(size, n - start) for start in range(0, n, size)]
        with torch.no_grad():
            return torch.cat([self.network(context).sample((count,)) for count in counts]).double()

    def log_prob(self, real: Tensor, y: Tensor) -> Tensor:
        """log q(r | y), (n, B), for real (n, B, D) and y (B, *y_shape)."""
        context = self._context(y)
        with torch.no_grad():
            parts = [self.network(context).log_prob(part.float()) for part in real.split(max(1, ROWS // len(y)))]
        # beyond the range of float32 the flow has no density worth telling
        return torch.cat(parts).double().nan_to_num(nan=-torch.inf)

    def _context(self, y: Tensor) -> Tensor:
        return self.y_map(y.float())


def fit_flow(simulator: Simulator, theta_map: ThetaMap, settings: Settings, seed: int, progress: Progress) -> Flow:
    """Simulate ``settings.simulations`` pairs and fit the flow to the valid ones."""
    zuko = _zuko()
    device = theta_map.loc.device
    with scope(seed, device):
        theta = simulator.prior().sample(torch.Size([settings.simulations]))
        pairs = Simulations(theta, check_simulated(simulator.simulate(theta), theta, simulator)).only_valid()
        real, y_map = theta_map(pairs.theta).float(), Standardise.of(pairs.y)
        y = y_map(pairs.y)
        network: nn.Module = zuko.flows.NSF(
            features=real.shape[1],
            context=y.shape[1],
            transforms=settings.flow_transforms,
            bins=settings.flow_bins,
            hidden_features=(settings.flow_width, settings.flow_width),
        ).to(device)

        def losses(batch: tuple[Tensor, ...], _: float) -> Iterator[tuple[str, Tensor]]:
            yield "negative log density", -network(batch[1]).log_prob(batch[0]).mean()

        train(network, losses, (real, y), Training(steps=settings.flow_steps, epochs=100), progress)
    return Flow(network, y_map)


def _zuko() -> Any:
    """zuko; importing it switches off torch's checks of distribution arguments, which are put back."""
    checks = Distribution._validate_args
    import zuko

    Distribution.set_default_validate_args(checks)
    return zuko

"""The noise behind a measurement, estimated from simulations alone.

    y = T(eps; theta),   eps ~ N(0, I):     eps = T^-1(y; theta),   -log p(y | theta) = |eps|^2 / 2 - log|det| + const

T is a conditional flow, fitted by likelihood: noise outsourcing (Kallenberg 2002, Foundations of Modern Probability,
theorem 6.10), with as many eps as y has numbers. [theta, eps] determines y, so that [theta, eps] -> [y, z] can be an
exact bijection although the simulator shows nothing of its noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from posterior_bench import Progress
from posterior_bench.training import Training, train

from .coupling import InvertibleNetwork

FLOOR = 0.01
"""Sd of the noise that y is given once, in sd of y: without it the likelihood of a deterministic simulator, or of a
discrete measurement, has no maximum."""

BLOCKS, WIDTH, DEPTH = 4, 128, 2
"""Of the flow: it fits a scatter about a mean, which is easier than f's task."""


def outsource(real: Tensor, y: Tensor, settings: Training, progress: Progress) -> tuple[Tensor, Tensor]:
    """The measurements with their small noise, and eps behind them, (N, M) each.

    Args:
        real: mapped parameters (N, D).
        y: standardised measurements (N, M).
        settings: of the flow's training.
        progress: told how far it is.
    """
    y = y + FLOOR * torch.randn_like(y)
    flow = InvertibleNetwork(y.shape[1], BLOCKS, WIDTH, DEPTH, context_dim=real.shape[1]).to(y.device)

    def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
        eps, log_det = flow(batch[1], batch[0])
        yield "negative log-likelihood of y", (0.5 * eps.square().sum(1) - log_det).mean()

    train(flow, losses, (real, y), settings, progress)
    rows = torch.arange(len(y), device=y.device).split(10 * settings.batch_size)
    return y, torch.cat([flow(y[part], real[part])[0] for part in rows])

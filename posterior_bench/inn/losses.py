"""The losses of the INN, and the noise that stands between a measurement and the network's side of it.

f([theta, pads]) = [u, z] with g = f^-1, and per batch of (theta, y):

    L_y = mean |f_u(theta) - y|^2                          the forward process, fitted
    L_z = MMD^2([f_u, f_z], [u, z])                        z ~ N(0, I), independent of u; no gradient into f_u
    L_x = MMD^2(g_theta(u, z), theta)                      the backward pass gives the prior back

Ardizzone et al. 2018, arXiv 1808.04730. Two parts are this package's own, not the paper's:

- u is not y but drawn from a learned q(u | y), see ``MeasurementNoise``.
- ``kernel_score`` is added to L_x. The authors' released code can weight the kernel of L_x by the closeness of the
  measurements; in the limit of a narrow weight only pairs of one measurement are left, and L_x becomes the mean over
  measurements of MMD^2(q(theta | y), delta(theta*)). That is the kernel score, which is strictly proper (Gneiting &
  Raftery 2007, JASA 102:359): it is least where q(theta | y) is the posterior. In 13 dimensions and more the MMD of a
  batch hardly sees the width of a posterior, and without this term the draws come out too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .mmd import mmd2


class MeasurementNoise(nn.Module):
    """q(u | y) = N(y + m(y), diag(s(y)^2)): what a noisy measurement says of the network's side u of it.

    Where the simulator is noisy, y is no function of theta, and what f can predict of it is a value u that y merely
    scatters about. Feeding y itself to g would claim to know u exactly. Both m and s are learned with the network.

    Args:
        dim: M, dimensions of the (standardised) measurement.
        width: hidden units of the two layers of the network of m and log s.
        start: s at the beginning.
        floor: smallest s.
        learned: else m is 0 and s is ``floor``.
    """

    def __init__(
        self, dim: int, width: int = 64, start: float = 0.2, floor: float = 0.01, learned: bool = True
    ) -> None:
        super().__init__()
        self.learned = learned
        if learned:
            last = nn.Linear(width, 2 * dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.network = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)
        if not 0 < floor < start:
            raise ValueError(f"found start {start} and floor {floor}; expected 0 < floor < start")
        self.log_floor, self.log_above = math.log(floor), math.log(start - floor)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of u, each (N, M), for y (N, M)."""
        if not self.learned:
            return y, torch.full_like(y, self.log_floor)
        shift, raw = self.network(y).chunk(2, dim=1)
        # s = floor + (start - floor) exp(raw), in logarithms
        return y + shift, self.log_floor + nn.functional.softplus(raw + self.log_above - self.log_floor)

    def sample(self, y: Tensor) -> Tensor:
        """One u (N, M) for each y (N, M), differentiable in the network's weights."""
        mean, log_sd = self(y)
        return mean + log_sd.exp() * torch.randn_like(y)

    def log_prob(self, u: Tensor, y: Tensor) -> Tensor:
        """log q(u | y), (N,), for u and y (N, M)."""
        mean, log_sd = self(y)
        white = (u - mean) * torch.exp(-log_sd)
        return -0.5 * white.square().sum(1) - log_sd.sum(1) - 0.5 * math.log(2 * math.pi) * u.shape[1]


def forward_loss(u: Tensor, y: Tensor) -> Tensor:
    """L_y: squared error of the forward pass u (N, M) against y (N, M), summed over dimensions."""
    return (u - y).square().sum(1).mean()


def latent_loss(u: Tensor, z: Tensor, target: Tensor, bandwidths: Sequence[float], unbiased: bool = True) -> Tensor:
    """L_z: MMD^2 between [u, z] (N, M + K) of the forward pass and [target, fresh z]; only z receives a gradient.

    Rows i of both samples share a measurement, so the unbiased estimator leaves these pairs out as well.
    """
    found = torch.cat([u.detach(), z], dim=1)
    wanted = torch.cat([target.detach(), torch.randn_like(z)], dim=1)
    return mmd2(found, wanted, scaled(bandwidths, found.shape[1]), unbiased, paired=unbiased)


def backward_loss(draws: Tensor, inputs: Tensor, bandwidths: Sequence[float], unbiased: bool = True) -> Tensor:
    """L_x: MMD^2 between backward passes (N, D), one a measurement, and what the batch has in their place (N, D)."""
    return mmd2(draws, inputs, scaled(bandwidths, inputs.shape[1]), unbiased, paired=unbiased)


def kernel_score(first: Tensor, second: Tensor, theta: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """L_x given y: E k(g, g') / 2 - E k(g, theta*) + const of two backward passes (N, D) a measurement.

    The kernel is the mean of one on all D parameters and of one on each parameter alone, so that the marginals are
    resolved too: in many dimensions distances hardly tell where one coordinate lies.
    """
    total = theta.new_zeros(())
    dim = theta.shape[1]
    pairs = [(first, second, 0.5), (first, theta, -0.5), (second, theta, -0.5)]
    for one, other, sign in pairs:
        squared = (one - other).square()
        joint = squared.sum(1, keepdim=True)
        for h, wide in zip(bandwidths, scaled(bandwidths, dim), strict=True):
            whole = (1 + joint / wide**2).reciprocal().mean()
            alone = (1 + squared / h**2).reciprocal().mean()
            total = total + sign * (whole + alone) / 2
    return total + len(bandwidths) / 2


def scaled(bandwidths: Sequence[float], dim: int) -> tuple[float, ...]:
    """Bandwidths per dimension, for points of ``dim`` dimensions: distances grow with its square root."""
    return tuple(h * math.sqrt(dim) for h in bandwidths)

"""What a latent vector z ~ N(0, I_K) does to the parameters theta = g(z, y) of a posterior that is a function of it.

With z and z' independent, and z^(k) equal to z but for its coordinate k, which is that of z',

    effect_kd  = sqrt E[(g_d(z, y) - g_d(z^(k), y))^2] / sd_prior_d
    spread_d   = sqrt E_y[Var(theta_d | y)] / sd_prior_d
    S_kd       = effect_kd^2 / (2 spread_d^2) = E_y[E[Var(theta_d | z without z_k, y)]] / E_y[Var(theta_d | y)]

S_kd is the total-effect index of coordinate k on parameter d, the variances averaged over measurements y: between 0
(the coordinate does nothing) and 1. Over the coordinates of a parameter they sum to 1 where these act apart from each
other, to more where they act together. The estimator is that of Jansen 1999, Comput. Phys. Commun. 117:35, as compared
in Saltelli et al. 2010, Comput. Phys. Commun. 181:259. The planes are those of Ardizzone et al. 2018, arXiv:1808.04730.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts import HasLatent
from .results import Latent

MEASUREMENTS, DRAWS = 64, 32
"""Measurements, and pairs (z, z') for each: an index of a linear map is then known to about 3 % of itself."""

PLANES = 4
"""Measurements whose latent planes are kept."""

GRID, END = 101, 3.0
"""Points of a plane along each of its axes, which run from -END to END."""

ROWS = 2048
"""Vectors that are decoded at a time."""


def latent_of(posterior: HasLatent, y: Tensor, prior_sd: Tensor, kept: int) -> Latent:
    """The effects of all latent coordinates, and the planes of the two that do most; draws from torch's generator.

    Args:
        posterior: whose draws are a function of z.
        y: (T, *y_shape), the test measurements.
        prior_sd: (D,), standard deviation of the prior.
        kept: how many of the first measurements figures may show.

    Raises:
        ValueError: where ``decode`` breaks its contract (n, B, D), or ``latent_dim`` is not at least 1.
        ArithmeticError: where decoded parameters are not finite.
    """
    dim = posterior.latent_dim
    if dim < 1:
        raise ValueError(f"{type(posterior).__name__}.latent_dim is {dim}; expected at least 1")
    effect, spread = effects(posterior, y[:MEASUREMENTS], prior_sd)
    places = different(y[:kept])
    nothing = torch.empty(0)
    without = Latent(places, nothing.long(), nothing, effect.cpu().float(), spread.cpu().float())
    if dim == 1:
        return without
    pair = torch.arange(2) if dim == 2 else without.order[:2]
    planes = [plane(posterior, y[place], pair.tolist()).cpu().float() for place in places]
    return Latent(places, pair, torch.stack(planes), without.effect, without.spread)


def effects(posterior: HasLatent, y: Tensor, prior_sd: Tensor) -> tuple[Tensor, Tensor]:
    """``effect`` (K, D) and ``spread`` (D,), in sd of the prior, averaged over measurements y (B, *y_shape)."""
    z, other = torch.randn(2, DRAWS, len(y), posterior.latent_dim, dtype=y.dtype, device=y.device)
    theta = _decode(posterior, z, y)
    variance = torch.cat([theta, _decode(posterior, other, y)]).var(0).mean(0)
    squares = []
    for k in range(posterior.latent_dim):
        moved = z.clone()
        moved[..., k] = other[..., k]
        squares.append((theta - _decode(posterior, moved, y)).square().mean((0, 1)))
    return torch.stack(squares).sqrt() / prior_sd, variance.sqrt() / prior_sd


def plane(posterior: HasLatent, y: Tensor, coordinates: list[int]) -> Tensor:
    """theta (S, S, D) over the plane of two latent coordinates, the others 0, for one measurement y (*y_shape)."""
    ticks = torch.linspace(-END, END, GRID, dtype=y.dtype, device=y.device)
    up, across = torch.meshgrid(ticks, ticks, indexing="ij")
    z = torch.zeros(GRID * GRID, 1, posterior.latent_dim, dtype=y.dtype, device=y.device)
    z[:, 0, coordinates[0]], z[:, 0, coordinates[1]] = across.flatten(), up.flatten()
    return _decode(posterior, z, y[None]).view(GRID, GRID, -1)


def different(y: Tensor) -> Tensor:
    """Places (P,) of the first measurements of y (B, *y_shape) that differ, at most ``PLANES``."""
    found: dict[tuple[float, ...], int] = {}
    for place, row in enumerate(y.detach().flatten(1).tolist()):
        found.setdefault(tuple(row), place)
    return torch.tensor(list(found.values())[:PLANES], device="cpu")


def _decode(posterior: HasLatent, z: Tensor, y: Tensor) -> Tensor:
    """theta (n, B, D) in double precision for z (n, B, K), checked."""
    parts = []
    for part in z.split(max(1, ROWS // len(y))):
        with torch.no_grad():
            theta = posterior.decode(part, y)
        if theta.ndim != 3 or theta.shape[:2] != part.shape[:2]:
            raise ValueError(
                f"{type(posterior).__name__}.decode returned shape {tuple(theta.shape)} for z of shape "
                f"{tuple(part.shape)}; expected ({len(part)}, {len(y)}, D): draws lead, then measurements"
            )
        parts.append(theta.double())
    whole = torch.cat(parts)
    broken = int((~torch.isfinite(whole)).any(-1).sum())
    if broken:
        raise ArithmeticError(f"{broken} of {whole.shape[0] * whole.shape[1]} decoded parameters are not finite")
    return whole

"""Light in a stack of plane layers by adding-doubling: the transport equation, deterministically and in batches.

    R(b), T(b) of a homogeneous layer  ->  R(2b), T(2b)  -> ... ->  a stack of layers between Fresnel boundaries

References:
    van de Hulst (1980), Multiple Light Scattering, vol. 1 (adding and doubling).
    Prahl, van Gemert, Welch (1993), Determining the optical properties of turbid media by using the adding-doubling
    method, Appl. Opt. 32:559 (quadrature with total reflection, boundaries).
    Wiscombe (1977), The delta-M method, J. Atmos. Sci. 34:1408 (forward peaks).

The matrices act on v_i = c_i I_i, where I_i is the radiance at the quadrature cosine mu_i and c_i = sqrt(2 mu_i w_i).
In these units the total flux is c . v, and reciprocity makes R and T of a homogeneous layer symmetric.

Doubling starts from a layer 32 times thicker than usual. With f = down + up and j = down - up a layer obeys
f' = -Y j, j' = -X f with symmetric N x N matrices X, Y, so its scattering matrices follow from a matrix exponential,
which a diagonal Pade approximant of high order gives in a few products. The common diamond start is the approximant
of order 1 and takes five doublings more for less accuracy. All arithmetic is float64 and differentiable.
"""

from __future__ import annotations

from functools import lru_cache
from math import factorial, sqrt
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

PADE_ORDER = 9
"""Order of the approximant of the first layer. Its even and its odd part take one product each, as those of order 6."""

FIRST_THICKNESS = 32.0
"""Largest optical thickness of the first layer in units of the smallest quadrature cosine. In the colon model this
costs 6e-9 of R (rms, relative; at most 4e-7) against a start 32 times thinner; 12 directions cost 1e-3."""

CHUNK = 256
"""Stacks solved together on a CPU, so that the matrices of a step stay in the second-level cache."""


class Fluxes(NamedTuple):
    """What a stack sends back and lets through, as fractions of the incident power, each (B,).

    ``diffuse_reflectance`` and ``transmittance`` are for a normal beam, without the specular reflection at the top;
    the two others are for diffuse light from the same side, surface reflection included.
    """

    diffuse_reflectance: Tensor
    transmittance: Tensor
    reflectance_of_diffuse: Tensor
    transmittance_of_diffuse: Tensor


@lru_cache(maxsize=64)
def quadrature(points: int, refractive_index: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (N,), ascending, the last one exactly 1, and weights (N,) for integrals over [0, 1].

    With a refractive index above 1, half of the points are Gauss points below the critical cosine and half are Radau
    points above it, since the radiance jumps there (Prahl et al. 1993); otherwise all are Radau points.

    Raises:
        ValueError: where the number of points is odd or below 4, or the refractive index is below 1.
    """
    if points < 4 or points % 2:
        raise ValueError(
            f"found {points} quadrature points; expected an even number of at least 4, best a multiple of 4"
        )
    if refractive_index < 1:
        raise ValueError(f"found refractive index {refractive_index}; expected at least 1, that of the air outside")
    if refractive_index == 1:
        mu, weight = _radau(points)
        return mu, weight
    critical = sqrt(1 - 1 / refractive_index**2)
    below, weight_below = legendre.leggauss(points // 2)
    above, weight_above = _radau(points // 2)
    mu = np.concatenate([critical * (1 + below) / 2, critical + (1 - critical) * above])
    return mu, np.concatenate([critical * weight_below / 2, (1 - critical) * weight_above])


def _radau(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Radau cosines and weights on [0, 1] with 1 among them: the zeros of P_(N-1) - P_N on [-1, 1]."""
    polynomial = np.zeros(points + 1)
    polynomial[-2:] = 1, -1
    nodes = np.sort(legendre.legroots(polynomial).real)
    slope = legendre.legder(polynomial)
    for _ in range(3):  # the eigenvalues behind legroots lose a few digits
        nodes -= legendre.legval(nodes, polynomial) / legendre.legval(nodes, slope)
    nodes[-1] = 1.0
    previous = legendre.legval(nodes, np.eye(points)[-1])
    return (1 + nodes) / 2, (1 + nodes) / (points * previous) ** 2 / 2


def boundary_reflectance(mu: Tensor, refractive_index: float, slide_index: float | None = None) -> Tensor:
    """Fresnel reflectance of unpolarised light that leaves the medium for air with cosine ``mu`` inside, like ``mu``.

    A clear glass slide between the medium and the air reflects at both faces; multiple reflections within it add up to
    (r1 + r2 - 2 r1 r2) / (1 - r1 r2).
    """

    def fresnel(cos_in: Tensor, n_in: float, n_out: float) -> tuple[Tensor, Tensor]:
        sin_squared = (n_in / n_out) ** 2 * (1 - cos_in**2)
        cos_out = (1 - sin_squared).clamp(min=0).sqrt()
        s = (n_in * cos_in - n_out * cos_out) / (n_in * cos_in + n_out * cos_out)
        p = (n_out * cos_in - n_in * cos_out) / (n_out * cos_in + n_in * cos_out)
        return torch.where(sin_squared < 1, (s**2 + p**2) / 2, 1.0), cos_out

    if slide_index is None:
        return fresnel(mu, refractive_index, 1.0)[0]
    first, mu_slide = fresnel(mu, refractive_index, slide_index)
    second = fresnel(mu_slide, slide_index, 1.0)[0]
    both = first * second
    return torch.where(both < 1, (first + second - 2 * both) / (1 - both), 1.0)


def layer_matrices(
    albedo: Tensor, thickness: Tensor, anisotropy: Tensor, mu: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Reflection and transmission of homogeneous layers without boundaries, each (B, N, N) and symmetric.

    Args:
        albedo: (B,), scattering over extinction coefficient, in [0, 1].
        thickness: (B,), optical: extinction coefficient times length.
        anisotropy: (B,), mean cosine g of the Henyey-Greenstein phase function, in (-1, 1).
        mu, weight: (N,), the quadrature.
    """
    peak = anisotropy ** len(mu)  # delta-M: this part of the light counts as unscattered
    doublings = torch.log2((thickness * (1 - albedo * peak)).detach() / (FIRST_THICKNESS * mu[0])).ceil().clamp(min=0)
    # Thick layers first: those that need further doublings are then the front of the batch in every step.
    doublings, order = doublings.sort(descending=True)
    first = thickness[order] / 2**doublings
    reflection, transmission = _first_layer(*_transport(albedo[order], first, anisotropy[order], mu, weight))
    finished = []
    for step in range(int(doublings[0])):
        left = int((doublings > step).sum())
        finished.append((reflection[left:], transmission[left:]))
        reflection, transmission = _double(reflection[:left], transmission[:left])
    finished.append((reflection, transmission))
    back = torch.argsort(order)
    reflection, transmission = (torch.cat(parts[::-1])[back] for parts in zip(*finished, strict=True))
    return reflection, transmission


def _transport(
    albedo: Tensor, thickness: Tensor, anisotropy: Tensor, mu: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """X, Y (B, N, N) of f' = -Y j, j' = -X f, times the optical thickness, after delta-M scaling.

    X = 1/mu - a' sum_even k, Y = 1/mu - a' sum_odd k of (2k + 1) chi_k p_k p_k^T, p_k = P_k(mu) sqrt(w / mu), where
    f = g^N, chi_k = (g^k - f) / (1 - f), a' = a (1 - f) / (1 - a f), thickness' = (1 - a f) thickness.
    """
    points = len(mu)
    degree = torch.arange(points, device=mu.device)
    peak = anisotropy[:, None] ** points
    moments = (anisotropy[:, None] ** degree - peak) * (2 * degree + 1)  # (1 - f) cancels against that of a'
    scattering = -(albedo * thickness)[:, None] * moments
    extinction = (1 - albedo * peak[:, 0]) * thickness
    vander = torch.as_tensor(legendre.legvander(mu.cpu().numpy(), points - 1), device=mu.device)
    p = vander.mT * (weight / mu).sqrt()
    outer = (p[:, :, None] * p[:, None, :]).flatten(1)
    streaming = torch.diag(1 / mu).flatten()[None]
    x, y = (
        (torch.cat([extinction[:, None], scattering[:, k::2]], 1) @ torch.cat([streaming, outer[k::2]])) for k in (0, 1)
    )
    return x.unflatten(1, (points, points)), y.unflatten(1, (points, points))


def _first_layer(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """R and T of layers with X and Y already multiplied by their thickness.

    The two sides being alike, the symmetric and the antisymmetric illumination separate. With the approximant
    exp(z) ~ (E + z V) / (E - z V), E and V polynomials in z^2, which becomes X Y where it acts on j and Y X on f,
    T + R = 2 (E + V X)^-1 E - 1 and T - R = 2 (E^T + V^T Y)^-1 E^T - 1.
    """
    k = PADE_ORDER
    c = [
        factorial(2 * k - i) * factorial(k) / (factorial(2 * k) * factorial(i) * factorial(k - i)) for i in range(k + 1)
    ]
    one = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    z2 = x @ y
    z4 = z2 @ z2
    low = (torch.add(c[i] * one, z2, alpha=c[i + 2]) for i in (0, 1))
    high = (torch.add(torch.add(c[i] * one, z2, alpha=c[i + 2]), z4, alpha=c[i + 4]) for i in (4, 5))
    even, odd = (torch.baddbmm(first, z4, rest) for first, rest in zip(low, high, strict=True))
    plus = torch.linalg.solve_ex(torch.baddbmm(even, odd, x), even)[0]  # (T + R + 1) / 2
    minus = torch.linalg.solve_ex(torch.baddbmm(even.mT, odd.mT, y), even.mT)[0]  # (T - R + 1) / 2
    return plus - minus, plus + minus - one


def _double(reflection: Tensor, transmission: Tensor) -> tuple[Tensor, Tensor]:
    """R and T of two equal layers: R + T R D and T D, with D = (1 - R R)^-1 T the light between them going down."""
    one = torch.eye(reflection.shape[-1], dtype=reflection.dtype, device=reflection.device)
    down = torch.linalg.solve_ex(one - reflection @ reflection, transmission.mT)[0]  # symmetric, in LAPACK's order
    return torch.baddbmm(reflection, transmission, reflection @ down), transmission @ down


def fluxes(
    albedo: Tensor,
    thickness: Tensor,
    anisotropy: Tensor,
    refractive_index: float = 1.0,
    points: int = 12,
    slide_index: float | None = None,
) -> Fluxes:
    """Reflected and transmitted power of stacks of L layers, the first on top, in air.

    Where an input is not finite or not physical, or the arithmetic breaks down, the result is NaN. A semi-infinite
    medium is a thick layer, of 1e5, say; a thick one without any absorption is ill-conditioned.

    Args:
        albedo: (B, L), scattering over extinction coefficient, in [0, 1].
        thickness: (B, L), optical: extinction coefficient times length, 0 for a clear layer.
        anisotropy: (B, L), mean cosine g of the Henyey-Greenstein phase function, in (-1, 1).
        refractive_index: of all layers.
        points: quadrature points per hemisphere.
        slide_index: refractive index of clear slides on both sides, ``None`` for bare surfaces.

    Returns:
        Fluxes, each (B,), float64.
    """
    if not albedo.shape == thickness.shape == anisotropy.shape or albedo.ndim != 2:
        raise ValueError(
            "albedo, thickness and anisotropy need one shape (B, L); "
            f"found {tuple(albedo.shape)}, {tuple(thickness.shape)} and {tuple(anisotropy.shape)}"
        )
    mu, weight = (torch.as_tensor(part, device=albedo.device) for part in quadrature(points, refractive_index))
    surface = boundary_reflectance(mu, refractive_index, slide_index)
    optics = torch.stack([albedo, thickness, anisotropy], -1).double()
    size = CHUNK if albedo.device.type == "cpu" else 64 * CHUNK
    if not len(optics):
        return Fluxes(*optics.new_empty(4, 0))
    parts = [_stack(part, mu, weight, surface, refractive_index) for part in optics.split(size)]
    return Fluxes(*torch.cat(parts).unbind(-1))


def _stack(optics: Tensor, mu: Tensor, weight: Tensor, surface: Tensor, refractive_index: float) -> Tensor:
    """The four fluxes (B, 4) of stacks with ``optics`` (B, L, 3)."""
    albedo, thickness, anisotropy = optics.unbind(-1)
    physical = (albedo >= 0) & (albedo <= 1) & (thickness >= 0) & thickness.isfinite() & (anisotropy.abs() < 1)
    optics = torch.where(physical[..., None], optics, 0.0)  # a NaN would also spoil the gradient of its neighbours
    batch, layers, _ = optics.shape
    albedo, thickness, anisotropy = optics.transpose(0, 1).flatten(0, 1).unbind(-1)
    matrices = layer_matrices(albedo, thickness, anisotropy, mu, weight)
    reflections, transmissions = (matrix.unflatten(0, (layers, batch)) for matrix in matrices)
    one = torch.eye(len(mu), dtype=mu.dtype, device=mu.device)
    flux = (2 * mu * weight).sqrt()
    escape = flux * (1 - surface)

    below = torch.diag(surface).expand(batch, -1, -1)  # reflection of all that lies below, seen from above
    through = escape.expand(batch, 1, -1)  # power that leaves at the bottom for each unit going down
    for layer in reversed(range(layers)):
        reflection, transmission = reflections[layer], transmissions[layer]
        down = torch.linalg.solve_ex(one - reflection @ below, transmission.mT)[0]  # symmetric; LAPACK's memory order
        below = reflection + transmission @ (below @ down)
        through = through @ down

    normal = torch.where(mu == 1, escape / flux**2, 0.0)
    diffuse = refractive_index**2 * escape  # the radiance of diffuse light grows by n^2 on entry
    entering = torch.stack([normal, diffuse], -1).expand(batch, -1, -1)
    down = torch.linalg.solve_ex(one - surface[:, None] * below, entering)[0]
    reflected = (escape @ (below @ down)).unbind(-1)
    transmitted = (through @ down)[:, 0].unbind(-1)
    outside = 1 - flux @ diffuse  # of diffuse light, reflected by the surface
    result = torch.stack([reflected[0], transmitted[0], outside + reflected[1], transmitted[1]], -1)
    balanced = (reflected[0] >= 0) & (reflected[0] + transmitted[0] <= 1 + 1e-6)  # False for NaN
    return torch.where((physical.all(-1) & balanced)[:, None], result, torch.nan)

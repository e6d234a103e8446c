"""Mixtures of multivariate Student t distributions, one a measurement, fitted to weighted draws.

    q(r) = sum_k c_k t(r; m_k, S_k, nu)

Expectation-maximisation as in Peel & McLachlan 2000 (Stat. Comput. 10:339), on weighted draws as in adaptive importance
sampling (Cappé et al. 2008, arXiv:0710.4242). All measurements are fitted at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .weights import effective_size, gather, systematic

DEGREES = 8.0
"""nu: tails heavier than a posterior's, so that weights stay bounded in practice; the bulk is still near the normal."""

ENTRIES = 2**22
"""Numbers in a table draws x measurements x components x parameters at a time; 32 MiB."""


@dataclass(frozen=True, eq=False)
class StudentMixture:
    """Mixtures for B measurements.

    Args:
        log_shares: (B, K), log c_k.
        means: (B, K, D).
        roots: (B, K, D, D), lower triangular roots of S_k.
    """

    log_shares: Tensor
    means: Tensor
    roots: Tensor

    def select(self, index: Tensor) -> StudentMixture:
        """Those of the measurements ``index`` (b,) alone."""
        return StudentMixture(*(getattr(self, field.name)[index] for field in fields(self)))

    def updated(self, index: Tensor, other: StudentMixture) -> StudentMixture:
        """A copy that has ``other``'s b mixtures at the measurements ``index`` (b,)."""
        return StudentMixture(
            *(getattr(self, field.name).index_copy(0, index, getattr(other, field.name)) for field in fields(self))
        )

    def sample(self, n: int) -> Tensor:
        """Draws (n, B, D)."""
        dim = self.means.shape[-1]
        index = torch.multinomial(self.log_shares.exp(), n, replacement=True)  # (B, n)
        normal = torch.randn(*index.shape, dim, 1, dtype=self.means.dtype, device=self.means.device)
        half = torch.full(index.shape, DEGREES / 2, dtype=self.means.dtype, device=self.means.device)
        chi_square = 2 * torch.distributions.Gamma(half, torch.ones_like(half)).sample()
        rows = torch.arange(len(index), device=index.device)[:, None]
        step = (self.roots[rows, index] @ normal)[..., 0] * (DEGREES / chi_square).sqrt()[..., None]
        return (self.means[rows, index] + step).transpose(0, 1).contiguous()

    def log_prob(self, real: Tensor) -> Tensor:
        """log q, (n, B), at real (n, B, D)."""
        size = max(1, ENTRIES // self.roots[..., 0].numel())
        return torch.cat([self._terms(part)[1].logsumexp(-1) for part in real.split(size)])

    def _terms(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Squared Mahalanobis distances and log c_k t(r; m_k, S_k), each (n, B, K), at real (n, B, D)."""
        dim = real.shape[-1]
        eye = torch.eye(dim, dtype=real.dtype, device=real.device)
        inverse = torch.linalg.solve_triangular(self.roots, eye.expand_as(self.roots), upper=False)
        offset = (inverse @ self.means[..., None])[..., 0]  # (B, K, D)
        rows = inverse.flatten(1, 2).mT  # (B, D, K D): one product for all components
        white = torch.bmm(real.transpose(0, 1), rows).unflatten(-1, offset.shape[1:]) - offset[:, None]
        squares = white.square().sum(-1).transpose(0, 1)
        constant = math.lgamma((DEGREES + dim) / 2) - math.lgamma(DEGREES / 2) - 0.5 * dim * math.log(DEGREES * math.pi)
        log_det = self.roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return squares, self.log_shares + constant - log_det - 0.5 * (DEGREES + dim) * torch.log1p(squares / DEGREES)


def fit_mixture(real: Tensor, log_weights: Tensor, components: int, steps: int = 20) -> StudentMixture:
    """The mixtures of largest penalised likelihood for draws (n, B, D) with weights (n, B).

    In the axes where the draws have unit covariance, each S_k is drawn towards K^(-2 / D) I, the size at which K
    components fill that volume, with the strength of D + 2 draws; the mean weight counts as one of ESS draws.
    """
    dim = real.shape[-1]
    size = effective_size(log_weights)
    weights = torch.softmax(log_weights, 0).T.contiguous()  # (B, n)
    points = real.transpose(0, 1)
    centre = (weights[..., None] * points).sum(1, keepdim=True)
    axes = _root(_covariance(points - centre, weights[:, None])[:, 0])  # (B, D, D)
    white = torch.linalg.solve_triangular(axes, (points - centre).mT, upper=False).mT
    by_draw = white.transpose(0, 1)
    weights = weights * size[:, None]

    eye = torch.eye(dim, dtype=real.dtype, device=real.device)
    width = components ** (-2 / dim)
    means = gather(by_draw, systematic(log_weights, components)).transpose(0, 1).contiguous()
    shape = torch.Size([len(points), components])
    mixture = StudentMixture(
        torch.full(shape, -math.log(components), dtype=real.dtype, device=real.device),
        means,
        (math.sqrt(width) * eye).expand(*shape, dim, dim),
    )
    for _ in range(steps):
        squares, terms = mixture._terms(by_draw)
        share = torch.softmax(terms, -1).permute(1, 2, 0) * weights[:, None]  # (B, K, n)
        count = share.sum(-1)
        pull = share * ((DEGREES + dim) / (DEGREES + squares)).permute(1, 2, 0)
        means = (pull @ white) / pull.sum(-1, keepdim=True).clamp_min(1e-12)
        scatter = _covariance(white, pull) - pull.sum(-1)[..., None, None] * means[..., None] * means[..., None, :]
        covariance = (scatter + (dim + 2) * width * eye) / (count + dim + 2)[..., None, None]
        log_shares = torch.log_softmax((count + 1 / components).log(), -1)
        mixture = StudentMixture(log_shares, means, _root(covariance))
    means = (axes[:, None] @ mixture.means[..., None])[..., 0] + centre
    return StudentMixture(mixture.log_shares, means, axes[:, None] @ mixture.roots)


def _covariance(points: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_ki x_i x_i^T, (B, K, D, D), for points (B, n, D) and weights (B, K, n)."""
    dim = points.shape[-1]
    products = (points[..., None] * points[..., None, :]).flatten(-2)
    return (weights @ products).unflatten(-1, (dim, dim))


def _root(covariance: Tensor) -> Tensor:
    """Lower triangular roots of matrices (..., D, D), which rounding may have made singular."""
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    lift = 1e-8 * diagonal.mean(-1, keepdim=True) + 1e-20
    return torch.linalg.cholesky(covariance + torch.diag_embed(lift.expand_as(diagonal)))

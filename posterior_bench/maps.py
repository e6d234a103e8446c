"""The maps around every network: of y to unit scale, and of theta to the reals."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, biject_to

from .priors import dequantised_cdf, is_whole, known_marginals


class Standardise(nn.Module):
    """The map of y to mean 0 and standard deviation 1 a dimension; a constant dimension keeps scale 1."""

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @classmethod
    def of(cls, values: Tensor) -> Standardise:
        """The map for the sample ``values`` (N, *shape), flattened to (N, dim)."""
        flat = values.flatten(1)
        module = cls(flat.shape[1])
        module.loc = flat.mean(0)
        sd = flat.std(0) if len(flat) > 1 else torch.zeros_like(module.loc)
        # rounding leaves a constant column with an sd of about eps * |mean|: that is not a scale
        constant = ~(sd > 1e-6 * module.loc.abs())
        module.scale = torch.where(constant, torch.ones_like(sd), sd)
        return module

    def forward(self, values: Tensor) -> Tensor:
        """(N, *shape) -> (N, dim), standardised."""
        return (values.flatten(1) - self.loc) / self.scale

    def inverse(self, values: Tensor) -> Tensor:
        """(N, dim) -> (N, dim), back in the units of the sample."""
        return values * self.scale + self.loc


class ThetaMap(nn.Module):
    """A bijection of theta to the reals, so that a network needs to know nothing of bounds.

    Where the prior is a product of known marginals F_i, real_i = Phi^-1(F_i(theta_i)): the prior becomes N(0, I).
    Else ``biject_to(prior.support)``, standardised on the simulations.

    A parameter that is a whole number k is dequantised to a place in (k, k + 1) at random, once for all steps of a
    training; what lies between two whole numbers is taken as it is. On the way back numbers are floored.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, prior: Distribution) -> None:
        super().__init__()
        self.prior = prior
        self.marginals = known_marginals(prior)
        dim = prior.event_shape[0]
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @classmethod
    def of(cls, prior: Distribution, theta: Tensor) -> ThetaMap:
        """The map for a prior, with scales from the sample ``theta`` (N, D) where they are not known."""
        module = cls(prior)
        if module.marginals is None:
            real = biject_to(prior.support).inv(theta)
            module.loc, module.scale = real.mean(0), real.std(0).clamp_min(1e-8)
        return module

    def forward(self, theta: Tensor) -> Tensor:
        """theta (..., D) -> real (..., D). Values within 1e-12 of a bound's probability are moved inside."""
        if self.marginals is None:
            return (biject_to(self.prior.support).inv(theta) - self.loc) / self.scale
        columns = []
        for marginal, column in zip(self.marginals, theta.double().unbind(-1), strict=True):
            if isinstance(marginal, Normal):
                columns.append((column - marginal.loc) / marginal.scale)
            else:
                columns.append(torch.special.ndtri(dequantised_cdf(marginal, column).clamp(1e-12, 1 - 1e-12)))
        return torch.stack(columns, dim=-1).to(theta.dtype)

    def inverse(self, real: Tensor) -> Tensor:
        """real (..., D) -> theta (..., D), always inside the support: whole numbers are whole again."""
        if self.marginals is None:
            return biject_to(self.prior.support)(real * self.scale + self.loc)
        columns = []
        for marginal, column in zip(self.marginals, real.double().unbind(-1), strict=True):
            if isinstance(marginal, Normal):
                columns.append(column * marginal.scale + marginal.loc)
            else:
                columns.append(marginal.icdf(torch.special.ndtr(column).clamp(1e-12, 1 - 1e-12)))
        return torch.stack(columns, dim=-1).to(real.dtype)

    def draws(self, draw: Callable[[Tensor], Tensor], y: Tensor, n: int, rows: int) -> Tensor:
        """``n`` draws of theta for each measurement, made some rows at a time, without gradients.

        Args:
            draw: one draw of mapped parameters (R, D) for each of the standardised measurements (R, M).
            y: standardised measurements (B, M).
            n: draws a measurement.
            rows: R at most: so few that a network's activations stay in the processor's cache.

        Returns:
            (n, B, D), in theta's own units.
        """
        with torch.no_grad():
            parts = torch.arange(n * len(y), device=y.device).split(rows)
            found = torch.cat([self.inverse(draw(y[part % len(y)])) for part in parts])
        return found.view(n, len(y), -1)

    def log_abs_det(self, theta: Tensor) -> Tensor:
        """log |d real / d theta|, (...,), at theta (..., D), of a whole number at k + v: real's density to theta's."""
        real = self(theta)
        if self.marginals is None:
            transform = biject_to(self.prior.support)
            raw = real * self.scale + self.loc
            jacobian = transform.log_abs_det_jacobian(raw, theta)
            return -_sum_last(jacobian, theta) - self.scale.log().sum()
        # d Phi^-1(F(t)) / dt = p(t) / phi(Phi^-1(F(t)))
        log_phi = -0.5 * real**2 - 0.5 * math.log(2 * math.pi)
        columns = zip(self.marginals, theta.unbind(-1), strict=True)
        densities = [m.log_prob(t.floor() if is_whole(m) else t) for m, t in columns]
        return torch.stack(densities, dim=-1).sum(-1) - log_phi.sum(-1)


def _sum_last(values: Tensor, like: Tensor) -> Tensor:
    return values.sum(-1) if values.shape == like.shape else values

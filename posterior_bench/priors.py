"""Priors that torch lacks: independent parameters with different marginals, and the truncated normal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, Uniform, biject_to, constraints
from torch.types import _size

NODES = 8
"""Of the quadrature over the unit interval that stands for a whole number, see ``log_density_in_support``."""


class TruncatedNormal(Distribution):
    """Normal(loc, scale) restricted to (low, high) and renormalised; elementwise.

    Unlike clipping it puts no atom at the edges. Density, distribution function and quantiles follow from those of
    the normal: F(v) = (Phi(a_v) - Phi(a_low)) / (Phi(a_high) - Phi(a_low)), a_v = (v - loc) / scale.

    >>> TruncatedNormal(0.0, 1.0, 0.0, math.inf).icdf(torch.tensor(0.5))
    tensor(0.6745)
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012 - torch's own form
    has_rsample = True

    def __init__(self, loc: float | Tensor, scale: float | Tensor, low: float, high: float = math.inf) -> None:
        self.loc, self.scale = torch.broadcast_tensors(torch.as_tensor(loc), torch.as_tensor(scale))
        if not low < high:
            raise ValueError(f"a truncated normal needs low < high; found low {low} and high {high}")
        self.low, self.high = float(low), float(high)
        super().__init__(self.loc.shape)
        self._cdf_low = self._phi(torch.as_tensor(self.low))
        self._mass = self._phi(torch.as_tensor(self.high)) - self._cdf_low

    @property
    def support(self) -> constraints.Constraint:
        """The interval [low, high]."""
        if math.isinf(self.high):
            return constraints.greater_than_eq(self.low)
        return constraints.interval(self.low, self.high)

    def _phi(self, value: Tensor) -> Tensor:
        # torch.special.ndtr is 0 below -9 sd, where erfc still has all its digits
        return 0.5 * torch.special.erfc((self.loc.double() - value.double()) / (self.scale.double() * math.sqrt(2)))

    def cdf(self, value: Tensor) -> Tensor:
        """P(theta <= value)."""
        return ((self._phi(value) - self._cdf_low) / self._mass).clamp(0, 1).to(value.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile at probability ``value``."""
        inner = torch.special.ndtri(self._cdf_low + value.double() * self._mass)
        return (self.loc + self.scale * inner).clamp(self.low, self.high).to(value.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density; -inf outside the interval."""
        inside = (value >= self.low) & (value <= self.high)
        z = (value - self.loc) / self.scale
        density = -0.5 * z**2 - self.scale.log() - 0.5 * math.log(2 * math.pi) - self._mass.log().to(value.dtype)
        return torch.where(inside, density, torch.full_like(density, -math.inf))

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - torch's own default
        """Draws by inversion."""
        return self.icdf(torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype))


class Product(Distribution):
    """Independent parameters, one scalar distribution each.

    >>> prior = Product([Uniform(0.0, 1.0), Normal(3.0, 2.0)])
    >>> prior.event_shape, prior.sample((5,)).shape
    (torch.Size([2]), torch.Size([5, 2]))
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own form

    def __init__(self, marginals: Sequence[Distribution]) -> None:
        self.marginals = tuple(marginals)
        for i, marginal in enumerate(self.marginals):
            if marginal.batch_shape or marginal.event_shape:
                raise ValueError(
                    f"marginal {i} of a product has shape {tuple(marginal.batch_shape + marginal.event_shape)}; "
                    "expected one scalar distribution a parameter, such as Uniform(0.0, 1.0)"
                )
        super().__init__(torch.Size(), torch.Size([len(self.marginals)]))

    @property
    def support(self) -> constraints.Constraint:
        """Where every marginal has support."""
        return constraints.cat([_support(m) for m in self.marginals], dim=-1, lengths=[1] * len(self.marginals))

    @property
    def mean(self) -> Tensor:
        """(D,)"""
        return torch.stack([m.mean for m in self.marginals])

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - torch's own default
        """Draws (*sample_shape, D)."""
        return torch.stack([m.sample(sample_shape) for m in self.marginals], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Sum of the marginals' log densities; -inf outside the support."""
        parts = []
        for marginal, column in zip(self.marginals, value.unbind(-1), strict=True):
            inside = _support(marginal).check(column)
            # torch raises outside the support when arguments are checked: evaluate where there is a density
            anchor = marginal.icdf(torch.full_like(column, 0.5))
            density = marginal.log_prob(torch.where(inside, column, anchor))
            parts.append(torch.where(inside, density, torch.full_like(density, -math.inf)))
        return torch.stack(parts, dim=-1).sum(-1)


def _bijection_of_mixture(support: constraints.Constraint) -> torch.distributions.Transform:
    """A mixture lives where its components do; torch knows no bijection for the support that it gives one."""
    return biject_to(support.base_constraint)  # type: ignore[attr-defined]


biject_to.register(constraints.MixtureSameFamilyConstraint, _bijection_of_mixture)


def known_marginals(prior: Distribution) -> tuple[Distribution, ...] | None:
    """The scalar marginals of ``prior`` where it is a product of distributions with known quantiles, else ``None``."""
    if isinstance(prior, Product):
        marginals = prior.marginals
    elif isinstance(prior, Independent) and isinstance(prior.base_dist, Normal | Uniform):
        base = prior.base_dist
        if len(base.batch_shape) != 1:
            return None
        names = ("low", "high") if isinstance(base, Uniform) else ("loc", "scale")
        columns = [getattr(base, name).unbind(0) for name in names]
        marginals = tuple(type(base)(*values) for values in zip(*columns, strict=True))
    else:
        return None
    return marginals if all(_has_quantiles(m) for m in marginals) else None


def _support(distribution: Distribution) -> constraints.Constraint:
    support = distribution.support
    if support is None:
        raise ValueError(f"{type(distribution).__name__} does not say its support; a prior must")
    return support


def is_whole(marginal: Distribution) -> bool:
    """Whether the draws of a scalar distribution are whole numbers."""
    return bool(_support(marginal).is_discrete)


def dequantised_cdf(marginal: Distribution, values: Tensor) -> Tensor:
    """The distribution function of a marginal at ``values``, any shape.

    Where its draws are whole numbers, it is that of k + U(0, 1), which rises evenly from F(k - 1) at k to F(k) at
    k + 1: at a random place between where ``values`` are whole themselves.
    """
    if not is_whole(marginal):
        return marginal.cdf(values)
    k = values.detach().floor()  # a step has no slope, and not every distribution function can be differentiated
    share = torch.where(values == k, torch.rand_like(values), values - k)
    return marginal.cdf(k) - (1 - share) * marginal.log_prob(k).exp()


def _whole_columns(prior: Distribution) -> list[int]:
    """Indices of the parameters that are whole numbers under the prior."""
    marginals = prior.marginals if isinstance(prior, Product) else known_marginals(prior)
    return [i for i, marginal in enumerate(marginals or ()) if is_whole(marginal)]


def _has_quantiles(marginal: Distribution) -> bool:
    try:
        marginal.cdf(marginal.icdf(torch.tensor(0.5)))
    except NotImplementedError:
        return False
    return True


def in_support(prior: Distribution, theta: Tensor) -> Tensor:
    """Whether each theta (..., D) lies in the support of the prior: (...), bool. NaN lies outside."""
    inside = _support(prior).check(theta)  # a product of constraints answers a column at a time
    if inside.shape == theta.shape:
        inside = inside.all(-1)
    return inside & torch.isfinite(theta).all(-1)


def log_density_in_support(
    prior: Distribution, theta: Tensor, anchor: Tensor, log_density: Callable[[Tensor], Tensor]
) -> Tensor:
    """``log_density(theta)``, and -inf where theta (..., D) lies outside the prior's support: (...).

    Outside, the maps around a network have no value: ``log_density`` is given ``anchor`` (D,), any point inside, there.

    Where a parameter is a whole number k, ``log_density`` is that of k + v with v in (0, 1), as a network knows it, and
    what is returned is the log of its integral over v: the probability of k, a density in the other parameters. The
    integral is by 8 Gauss-Legendre nodes for each such parameter, so that ``log_density`` is called 8 times for one
    of them. A density that is much narrower in v than the nodes are apart, an eighth, is not resolved.
    """
    inside = in_support(prior, theta.detach())
    safe = torch.where(inside.unsqueeze(-1), theta, anchor)
    whole = _whole_columns(prior)
    found = _log_integral(safe, whole, log_density) if whole else log_density(safe)
    return torch.where(inside, found, -math.inf)


def _log_integral(theta: Tensor, whole: list[int], log_density: Callable[[Tensor], Tensor]) -> Tensor:
    """Log of the integral of a density over the unit intervals above the columns ``whole`` of theta (..., D): (...)."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)  # on (-1, 1)
    terms = []
    for chosen in product(range(NODES), repeat=len(whole)):
        place = theta.new_zeros(theta.shape[-1])
        place[whole] = torch.as_tensor((nodes[list(chosen)] + 1) / 2).to(place)
        terms.append(log_density(theta + place) + math.log(np.prod(weights[list(chosen)] / 2)))
    return torch.stack(terms).logsumexp(0)

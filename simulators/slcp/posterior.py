"""The posterior of four points of the plane, drawn without a chain, and its normalising constant.

Of four points only their mean c and their scatter A = sum_j (y_j - c)(y_j - c)' say anything of theta:

    p(y | theta) = g(S) N(c; m, S / 4),    g(S) = 1 / (4 (2 pi)^3) |S|^(-3/2) exp(-tr(S^-1 A) / 2)

The prior is flat, so (theta3, theta4, theta5) has a density proportional to g(S) P(S), where P is the probability that
a point m ~ N(c, S / 4) lies in the square, and given these m is that normal distribution cut to the square. The first
three are drawn by rejection, then m is; the signs of theta3 and theta4 are tossed.

For the rejection, g P is bounded in each cell of a grid by its largest value at the corners, times ``MARGIN`` for what
may lie between them. The cells lie evenly in theta5 and in a = arsinh(|theta| / 0.03), in which the density changes
over about 0.2 whatever the spread is. The grid is laid anew, finer, over the part of it that holds all but e^-25 of the
density. Its sum by Simpson's rule gives the constant.
"""

from __future__ import annotations

import math

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.special import ndtr, ndtri

from .covariance import BOUND, JITTER, POINTS, cholesky, determinant

CORE = 0.03
"""Below it the jitter rules, (1e-6)^(1/4) = 0.032, and the density is flat in theta3 and theta4."""

COARSE = (41, 41, 17)
FINE = (65, 65, 33)
"""Nodes in theta3, theta4 and theta5; odd, for Simpson's rule."""

DEPTH = 25.0
MARGIN = 1.1
INTERVALS = 128
"""Of theta1 where it is drawn."""

ABSCISSAE = 32
"""Of the Gauss-Legendre sum over theta1 for P."""

ROWS = 4096
"""Sums at a time: few enough to stay in a core's cache."""

REACH = 7.0
"""Standard deviations of theta1 about c within which that sum is taken."""


def sample_posterior(points: Tensor, n: int) -> Tensor:
    """Exact draws (n, B, 5) for measurements (B, 8), float64.

    Raises:
        ValueError: where no theta of the prior explains a measurement.
    """
    return torch.stack([_Grid(row).sample(n) for row in points.double()], dim=1)


def log_evidence(points: Tensor) -> Tensor:
    """log p(y), (B,), in nats, for measurements (B, 8): of the mean of the likelihood under the prior, float64."""
    return torch.stack([_Grid(row).log_evidence() for row in points.double()])


class _Grid:
    """log g P of one measurement (8,), with the change of variables, at nodes of (a, a, theta5)."""

    def __init__(self, measurement: Tensor) -> None:
        self.y = measurement
        points = measurement.view(POINTS, 2)
        self.centre = points.mean(0)
        self.scatter = (points - self.centre).T @ (points - self.centre)
        edge = math.asinh(BOUND / CORE)
        self.box = torch.tensor([[0.0, edge], [0.0, edge], [-BOUND, BOUND]]).to(measurement)
        self._lay(COARSE, -math.inf)
        mode = self.log_mass.max()
        if not mode > -math.inf:
            raise ValueError(
                f"a measurement is {[round(v, 3) for v in self.y.tolist()]}, which no theta in "
                f"[-{BOUND:g}, {BOUND:g}]^5 explains. It does not come from this simulator, or it was standardised"
            )
        self.box = torch.stack([self._held(axis) for axis in range(3)])
        self._lay(FINE, float(mode) - DEPTH)

    def _lay(self, sizes: tuple[int, int, int], floor: float) -> None:
        """Lay the grid over the box; where it is known to lie below ``floor``, the density is left out."""
        self.axes = [
            low + (high - low) * torch.linspace(0, 1, size, dtype=low.dtype, device=low.device)
            for (low, high), size in zip(self.box, sizes, strict=True)
        ]
        first, second, slope = self.axes
        mass = self._log_g(first[:, None, None], second[:, None], slope)
        places = (mass > floor).nonzero(as_tuple=True)
        self.log_mass = torch.full_like(mass, -math.inf)
        at = [nodes[place] for nodes, place in zip(self.axes, places, strict=True)]
        self.log_mass[places] = mass[places] + self._log_square(*at)

    def _held(self, axis: int) -> Tensor:
        """The ends (2,) of that part of an axis which holds what is denser than e^-25 of the mode, a node wider."""
        others = [other for other in range(3) if other != axis]
        held = (self.log_mass.amax(others) > self.log_mass.max() - DEPTH).nonzero()[:, 0]
        nodes = self.axes[axis]
        return nodes[torch.stack([held[0] - 1, held[-1] + 1]).clamp(0, len(nodes) - 1)]

    def _log_g(self, first: Tensor, second: Tensor, slope: Tensor) -> Tensor:
        """Log of g and of the change of variables at a, a and theta5 of shapes that broadcast."""
        third, fourth = CORE * first.sinh(), CORE * second.sinh()
        size = determinant(third, fourth, slope)
        (a, b), (_, c) = self.scatter
        product = slope.tanh() * (third * fourth) ** 2
        trace = ((fourth**4 + JITTER) * a - 2 * product * b + (third**4 + JITTER) * c) / size
        change = (CORE**2 * first.cosh() * second.cosh()).log()
        return -1.5 * size.log() - 0.5 * trace + change - math.log(POINTS * (2 * math.pi) ** 3)

    def _mean_root(self, first: Tensor, second: Tensor, slope: Tensor) -> list[Tensor]:
        """The entries (1, 1), (2, 1), (2, 2), each (k,), of the root of S / 4 at a, a and theta5 (k,)."""
        return [part / math.sqrt(POINTS) for part in cholesky(CORE * first.sinh(), CORE * second.sinh(), slope)]

    def _sides(self, centre: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """The square's edges, in standard deviations from a centre."""
        return (-BOUND - centre) / sd, (BOUND - centre) / sd

    def _log_square(self, *at: Tensor) -> Tensor:
        """log P, (k,), at a, a and theta5 (k,)."""
        parts = zip(*(values.split(ROWS) for values in at), strict=True)
        return torch.cat([self._log_square_of(*part) for part in parts])

    def _log_square_of(self, first: Tensor, second: Tensor, slope: Tensor) -> Tensor:
        sd, below, last = (part[:, None] for part in self._mean_root(first, second, slope))
        low, high = (side.clamp(-REACH, REACH) for side in self._sides(self.centre[0], sd))
        nodes, weights = (torch.as_tensor(part).to(sd) for part in leggauss(ABSCISSAE))
        z = 0.5 * (low + high) + 0.5 * (high - low) * nodes
        density = self._first_density(z, below, last).exp() / math.sqrt(2 * math.pi)
        return (0.5 * (high - low)[:, 0] * (density @ weights)).log()

    def _first_density(self, z: Tensor, below: Tensor, last: Tensor) -> Tensor:
        """Log density (k, M), not normalised, of theta1, z (k, M) standard deviations from c, as theta2 is cut too."""
        bottom, top = self._sides(self.centre[1] + below * z, last)
        start, end, _ = _tail(bottom, top)
        return (end - start).log() - 0.5 * z**2

    def log_evidence(self) -> Tensor:
        """log p(y), ()."""
        mass = self.log_mass
        for axis, nodes in enumerate(self.axes):
            mass = mass + _simpson(nodes).log().view([-1 if k == axis else 1 for k in range(3)])
        return mass.flatten().logsumexp(0) + math.log(4) - 5 * math.log(2 * BOUND)  # four signs; the prior's density

    def sample(self, n: int) -> Tensor:
        """Draws (n, 5)."""
        bound = torch.nn.functional.max_pool3d(self.log_mass[None], 2, stride=1)[0]
        chances = (bound - bound.max()).exp().flatten()
        found = torch.empty(3, 0, dtype=bound.dtype, device=bound.device)
        while found.shape[1] < n:
            cells = chances.multinomial(2 * n, replacement=True)
            places = torch.unravel_index(cells, bound.shape)
            at = torch.stack([
                nodes[place] + (nodes[1] - nodes[0]) * torch.rand_like(nodes[place])
                for nodes, place in zip(self.axes, places, strict=True)
            ])  # fmt: skip
            ratio = self._log_g(*at) + self._log_square(*at) - bound[places] - math.log(MARGIN)
            found = torch.cat([found, at[:, torch.rand_like(ratio).log() < ratio]], dim=1)
        found = found[:, :n]
        signs = torch.where(torch.rand(2, n, device=found.device) < 0.5, -1.0, 1.0)
        return torch.stack([*self._means(found), *(signs * CORE * found[:2].sinh()), found[2]], dim=1)

    def _means(self, at: Tensor) -> Tensor:
        """Draws (2, k) of m given a, a and theta5 (3, k): theta1 by rejection within intervals, theta2 given it."""
        sd, below, last = (part[:, None] for part in self._mean_root(*at))
        low, high = (side.clamp(-REACH, REACH) for side in self._sides(self.centre[0], sd))
        width = (high - low) / INTERVALS
        edges = low + width * torch.arange(INTERVALS + 1, device=at.device)
        bound = self._first_density(edges, below, last)
        bound = torch.maximum(bound[:, 1:], bound[:, :-1])
        z, pending = torch.empty_like(low), torch.arange(at.shape[1], device=at.device)
        while len(pending):
            place = bound[pending].softmax(1).multinomial(1)
            tried = low[pending] + width[pending] * (place + torch.rand_like(low[pending]))
            density = self._first_density(tried, below[pending], last[pending])
            ratio = (density - bound[pending].gather(1, place))[:, 0] - math.log(MARGIN)
            kept = torch.rand_like(ratio).log() < ratio
            z[pending[kept]] = tried[kept]
            pending = pending[~kept]
        second = self.centre[1] + below * z
        second = second + last * _cut_normal(*self._sides(second, last))
        return torch.cat([self.centre[0] + sd * z, second], dim=1).T.clamp(-BOUND, BOUND)


def _tail(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The normal distribution function at both ends, and whether they were mirrored: no two numbers near one differ."""
    flip = low > 0
    return ndtr(torch.where(flip, -high, low)), ndtr(torch.where(flip, -low, high)), flip


def _cut_normal(low: Tensor, high: Tensor) -> Tensor:
    """Standard normal draws between low and high."""
    start, end, flip = _tail(low, high)
    draws = ndtri(start + (end - start) * torch.rand_like(low))
    return torch.where(flip, -draws, draws)


def _simpson(nodes: Tensor) -> Tensor:
    """Weights (K,) of Simpson's rule for an odd number of nodes (K,)."""
    weights = torch.full_like(nodes, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights * (nodes[1] - nodes[0]) / 3

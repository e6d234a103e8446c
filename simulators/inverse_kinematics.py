"""Inverse kinematics of a planar arm: which offset and joint angles put the hand where it was seen?

Three links of lengths l = (0.5, 0.5, 1.0) hang on a slider at (0, theta1). With the cumulative angles
a = theta2, b = theta2 + theta3, c = theta2 + theta3 + theta4 the hand is at

    y1 = l1 cos a + l2 cos b + l3 cos c                (horizontal)
    y2 = theta1 + l1 sin a + l2 sin b + l3 sin c       (vertical)

with theta1 ~ N(0, 0.25^2) and each angle ~ N(0, 0.5^2). There is no noise.

The problem is that of Ardizzone et al. 2019 (arXiv:1808.04730). Two sign conventions are in use: re-implementations of
the paper mostly write l2 sin(x3 - x2) and l3 sin(x4 - x2 - x3). Here the angles accumulate, as in the authors' later
public code of toy problems (https://github.com/vislearn/inn_toy_data, kinematics.py); Kruse et al. 2021
(arXiv:2101.10763) compare architectures on this problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import max_pool2d, softplus

from posterior_bench import Differentiable, HasNoise, HasPicture, HasReference, Parameter, Simulator, Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTHS = (0.5, 0.5, 1.0)
OFFSET_SD = 0.25
ANGLE_SD = 0.5
REACH = sum(LENGTHS)
"""The hand is never farther than this from the vertical through the slider, on either side."""

TOLERANCE = 1e-5
"""How far beyond REACH a measurement may lie and still pass as rounded."""


@dataclass(frozen=True)
class InverseKinematics(Simulator, HasNoise, HasReference, Differentiable, HasPicture):
    """A planar arm of three links on a vertical slider; see the module's docstring for formulas and sources."""

    @property
    def spec(self) -> Spec:
        """Four parameters, two numbers a measurement."""
        return Spec(
            name="inverse_kinematics",
            version=1,
            reference="Ardizzone et al. 2019, arXiv:1808.04730; Kruse et al. 2021, arXiv:2101.10763",
            parameters=(
                Parameter("offset", symbol=r"\theta_1"),
                Parameter("angle_1", "rad", r"\theta_2"),
                Parameter("angle_2", "rad", r"\theta_3"),
                Parameter("angle_3", "rad", r"\theta_4"),
            ),
            y_shape=(2,),
            y_names=("horizontal", "vertical"),
            description="Where a planar arm of three links ends, given the offset of its base and its joint angles",
        )

    def prior(self) -> Distribution:
        """Independent normals of mean 0 and sd (0.25, 0.5, 0.5, 0.5)."""
        scale = torch.tensor([OFFSET_SD, ANGLE_SD, ANGLE_SD, ANGLE_SD])
        return Independent(Normal(torch.zeros(4), scale), 1)

    @property
    def noise_dim(self) -> int:
        """0: the process is deterministic."""
        return 0

    def simulate(self, theta: Tensor) -> Tensor:
        """Positions of the hand (N, 2), horizontal and vertical, for theta (N, 4)."""
        return joints(theta)[:, -1]

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """The same as ``simulate``; ``noise`` is (N, 0)."""
        return self.simulate(theta)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Exact draws (n, B, 4) for positions y (B, 2); see ``_Fibre``.

        Raises:
            ValueError: where a position is out of reach, so that it has no posterior.
        """
        far = ~(y[:, 0].abs() <= REACH + TOLERANCE) | ~torch.isfinite(y[:, 1])
        if far.any():
            first = int(far.nonzero()[0, 0])
            raise ValueError(
                f"measurement {first} is {y[first].tolist()}, where the hand cannot be: expected finite numbers, the "
                f"first between -{REACH} and {REACH}. It does not come from this simulator"
            )
        chunks = [_Fibre(chunk.double()).sample(n) for chunk in y.split(16)]
        return torch.cat(chunks, dim=1).to(y.dtype)

    def picture(self, axes: Axes, theta: Tensor, y: Tensor) -> None:
        """Draw the arms theta (n, 4), the first one highlighted, and the target y (2,)."""
        arms = joints(theta.detach().cpu())[:500].numpy()
        faint = min(1.0, 8 / len(arms))
        colours = ("tab:blue", "tab:orange", "tab:green")
        for link, colour in enumerate(colours):
            ends = arms[:, link : link + 2]
            axes.plot(ends[..., 0].T, ends[..., 1].T, color=colour, alpha=faint, linewidth=1, rasterized=True)
        axes.plot(
            arms[0, :, 0], arms[0, :, 1], color="black", linewidth=1.5, marker="o", markersize=4, label="one draw"
        )
        axes.plot(0, arms[0, 0, 1], color="black", marker="s", markersize=7)
        axes.axvline(0, color="grey", linewidth=0.5, linestyle=":")
        horizontal, vertical = y.detach().cpu().tolist()
        axes.plot(horizontal, vertical, color="tab:red", marker="x", markersize=10, linestyle="", label="target")
        axes.set_aspect("equal")
        axes.set_xlabel("horizontal position [arm units]")
        axes.set_ylabel("vertical position [arm units]")
        axes.legend(loc="best", frameon=False)


def joints(theta: Tensor) -> Tensor:
    """Positions (N, 4, 2), horizontal and vertical, of slider, two joints and hand for theta (N, 4)."""
    angles = theta[:, 1:].cumsum(1)
    lengths = torch.tensor(LENGTHS, dtype=theta.dtype, device=theta.device)
    steps = torch.stack([lengths * angles.cos(), lengths * angles.sin()], dim=-1)
    start = torch.stack([torch.zeros_like(theta[:, 0]), theta[:, 0]], dim=-1)[:, None]
    return torch.cat([start, start + steps.cumsum(1)], dim=1)


class _Fibre:
    """The arms that reach given positions y (B, 2), in coordinates in which their density stays bounded.

    theta1 = y2 - V with V = l1 sin a + l2 sin b + l3 sin c, so what is left is a surface in (a, b, c):

        p(a, b, c | y) ~ p(theta2, theta3, theta4) N(y2 - V; 0, 0.25^2) delta(y1 - l1 cos a - l2 cos b - l3 cos c).

    Solving the delta for one angle leaves 1 / |sin| of it, which is unbounded and, as an importance weight, has
    infinite variance. Both factors disappear in the coordinates (psi, tau), here with l1 = l2 = 1/2, l3 = 1:

    1. For the last link let rho = 2 - |y1|, the slack of the arm, and sin(c / 2) = sqrt(rho / 2) sin psi with
       |psi| < pi / 2 (for y1 < 0 everything is turned by pi: c -> c + pi). This covers the orientations from which
       the two short links can still reach, dc = sqrt(2 rho) cos psi / sqrt(1 - rho / 2 sin^2 psi) dpsi, and that
       factor is at most sqrt(2 rho). The short links must cover the horizontal distance
       r = y1 - cos c = sign(y1) (1 - rho cos^2 psi).
    2. For these, alpha = (a + b) / 2 and beta = (a - b) / 2 turn the constraint into cos alpha cos beta = r. Let
       sin beta = R sin tau with R^2 = 1 - r^2 and tau in [0, 2 pi), over which both branches of the elbow lie. Then
       sin alpha cos beta = R cos tau, and da db delta(r - cos alpha cos beta) = 2 dtau / cos beta.

    The height of the hand over the slider is V = R cos tau + sin c. What is left, 1 / cos beta, is large only where the
    elbow is folded flat, theta3 = -2 beta = +-pi, where the prior is 3e-9 of its maximum. It is capped at ``FOLDED``:
    the product with the prior stays below 0.003 of the maximum, and the prior mass of the capped region is below 1e-14.

    Angles are known up to turns of 2 pi. The density above sums the prior over them; a draw then picks one.

    Draws are made by rejection: cells of a grid are chosen in proportion to an upper bound of the density in each (the
    maximum over its corners, edges and centre, raised by ``MARGIN``), a point in the cell at random, and the point is
    kept with probability density / bound. The draws are independent, and exact where the bound holds: at every point
    tried for measurements from the prior predictive. It fails beside a folded elbow when y1 is nearly -1, a position
    of prior predictive density below 1e-5, and there for less than 1e-4 of the posterior's mass.
    """

    CELLS = (64, 128)
    MARGIN = 0.1  # of the log density; between the nodes, 0.025 apart, its maxima rise by about 0.02 over the nodes
    FOLDED = 1e-6

    def __init__(self, y: Tensor) -> None:
        self.y = y
        self.rho = (REACH - y[:, 0].abs()).clamp_min(0)
        self.turned = y[:, 0] < 0
        rows, columns = self.CELLS
        index = torch.arange(len(y), device=y.device)[:, None, None]
        psi, tau = self._place(torch.arange(2 * rows + 1)[:, None] / 2, torch.arange(2 * columns + 1)[None] / 2)
        nodes = self.log_density(index, psi, tau)
        self.bound = (max_pool2d(nodes[:, None], 3, stride=2) + self.MARGIN).flatten(1)
        mass = (self.bound - self.bound.amax(1, keepdim=True)).exp()
        self.cumulative = mass.cumsum(1) / mass.sum(1, keepdim=True)

    def _place(self, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """psi and tau at fractional rows and columns of the grid."""
        row, column = row.to(self.y), column.to(self.y)
        return (row / self.CELLS[0] - 0.5) * math.pi, column / self.CELLS[1] * (2 * math.pi)

    def _angles(self, index: Tensor, psi: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """alpha, beta, c, the height V and cos(beta) for measurements ``index`` at psi, tau (broadcast)."""
        rho, turned = self.rho[index], self.turned[index]
        c = 2 * torch.asin((rho / 2).sqrt() * psi.sin()) + turned * math.pi
        slack = rho * psi.cos() ** 2
        r = (1 - slack) * torch.where(turned, -1.0, 1.0)
        radius = (slack * (2 - slack)).clamp_min(0).sqrt()
        side, height = radius * tau.sin(), radius * tau.cos()
        cos_beta = (r**2 + height**2).sqrt()
        alpha = torch.atan2(height, r.expand_as(height))
        return alpha, torch.atan2(side, cos_beta), c, height + c.sin(), cos_beta

    def log_density(self, index: Tensor, psi: Tensor, tau: Tensor) -> Tensor:
        """Log density of (psi, tau) for measurements ``index``, up to a constant of each measurement."""
        alpha, beta, c, height, cos_beta = self._angles(index, psi, tau)
        cos_psi = psi.cos().clamp_min(1e-30)
        # 1 - rho / 2 sin^2 psi, written so that it does not cancel
        stretch = cos_psi.log() - 0.5 * (cos_psi**2 + (1 - self.rho[index] / 2) * psi.sin() ** 2).log()
        prior = _log_wrapped(alpha + beta) + _log_wrapped(-2 * beta) + _log_wrapped(c - alpha + beta)
        offset = (self.y[index, 1] - height) / OFFSET_SD
        return stretch - cos_beta.clamp_min(self.FOLDED).log() + prior - 0.5 * offset**2

    def sample(self, n: int) -> Tensor:
        """Draws (n, B, 4)."""
        count = len(self.y)
        pending = torch.arange(n * count, device=self.y.device)
        found = torch.empty(n * count, 2, dtype=self.y.dtype, device=self.y.device)
        # measurement k occupies [k, k + 1) of one increasing sequence, so that one search serves all
        steps = (self.cumulative + torch.arange(count, device=self.y.device)[:, None]).flatten()
        while len(pending) > 0:
            index = pending % count
            u = torch.rand(4, len(pending), dtype=self.y.dtype, device=self.y.device)
            cell = torch.searchsorted(steps, index + u[0], right=True) - index * self.cumulative.shape[1]
            cell = cell.clamp(0, self.cumulative.shape[1] - 1)
            psi, tau = self._place(cell // self.CELLS[1] + u[1], cell % self.CELLS[1] + u[2])
            kept = u[3].log() < self.log_density(index, psi, tau) - self.bound[index, cell]
            found[pending[kept]] = torch.stack([psi, tau], dim=1)[kept]
            pending = pending[~kept]
        index = torch.arange(n * count, device=self.y.device) % count
        alpha, beta, c, height, _ = self._angles(index, found[:, 0], found[:, 1])
        angles = [_pick_turn(alpha + beta), _pick_turn(-2 * beta), _pick_turn(c - alpha + beta)]
        return torch.stack([self.y[index, 1] - height, *angles], dim=1).reshape(n, count, 4)


def _wrap(angle: Tensor) -> Tensor:
    """The angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _log_odds_of_next_turn(wrapped: Tensor) -> Tensor:
    """log p(the equal angle on the other side of zero) / p(wrapped); a third one is e^-150 times less likely still."""
    return -2 * math.pi * (math.pi - wrapped.abs()) / ANGLE_SD**2


def _log_wrapped(angle: Tensor) -> Tensor:
    """Log density of N(0, ANGLE_SD^2) summed over turns of 2 pi, up to a constant."""
    wrapped = _wrap(angle)
    return -0.5 * (wrapped / ANGLE_SD) ** 2 + softplus(_log_odds_of_next_turn(wrapped))


def _pick_turn(angle: Tensor) -> Tensor:
    """One of the angles that equal ``angle`` up to turns of 2 pi, with its probability under N(0, ANGLE_SD^2)."""
    wrapped = _wrap(angle)
    other = torch.rand_like(wrapped) < torch.sigmoid(_log_odds_of_next_turn(wrapped))
    return torch.where(other, wrapped - 2 * math.pi * torch.where(wrapped < 0, -1.0, 1.0), wrapped)

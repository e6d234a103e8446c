"""Inverse ballistics: how was an object thrown that hit the ground where it was found?

It leaves (x1, x2), x2 above level ground, at angle x3 from the horizontal with speed x4, against the air's drag -k v.
With v1 = x4 cos x3, v2 = x4 sin x3 and the time T = m / k in which drag uses up a velocity, it is at time t at

    horizontal position   x1 + v1 T (1 - exp(-t / T))
    height                x2 + (g T^2 + v2 T) (1 - exp(-t / T)) - g T t

and y is the horizontal position at the latest t with height zero; g = 9.81 m/s^2, k = 0.25 kg/s, m = 0.2 kg. The prior:
x1 ~ N(0, 0.5^2), x2 ~ N(1.5, 0.5^2) truncated at the ground, x3 ~ U(0.05 pi, 0.45 pi), x4 ~ Poisson(15). No noise.

The problem is that of Kruse et al. 2021 (arXiv:2101.10763). Constants and prior are those of the authors' public code
(https://github.com/vislearn/inn_toy_data, ballistics.py), with these differences:

- That code clips x2 at 0, which puts an atom of probability 0.0013 there, so that x2 has no density. The paper does not
  clip (unconfirmed), and then some throws never land. Here the normal is truncated: no atom, and every throw lands.
- That code looks for the impact on a grid of times, which makes y stepwise by 0.01 to 0.03 m, and drops throws that do
  not land within 6 s. Here the time is the root, to the precision of doubles, and no row is dropped.

The authors' code gives no units; its numbers are read as SI units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, Uniform, constraints
from torch.types import _size

from posterior_bench import Differentiable, HasNoise, HasPicture, HasReference, Parameter, Simulator, Spec
from posterior_bench.priors import Product, TruncatedNormal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRAVITY = 9.81
DRAG = 0.25
MASS = 0.2
RELAXATION = MASS / DRAG
"""T above, in seconds: 0.8."""

POSITION_SD = 0.5
HEIGHT_MEAN, HEIGHT_SD = 1.5, 0.5
ANGLES = (0.05 * math.pi, 0.45 * math.pi)
SPEED_MEAN = 15.0

IMPACTS = (-5.0, 50.0)
"""In m. Outside, the prior predictive has a mass of about 1e-18, and draws of the reference become slow."""

NEWTON_STEPS = 100
"""At most. Throws of the prior take about ten; halving down to a double root, the slowest case, takes sixty."""


@dataclass(frozen=True)
class InverseBallistics(Simulator, HasNoise, HasReference, Differentiable, HasPicture):
    """A throw against air resistance; see the module's docstring for formulas and sources.

    Args:
        integer_speed: whether the speed is a whole number, as published. Otherwise it is dequantised: a Poisson number
            plus U(0, 1), with a mean of 15.5 m/s, so that every parameter has a density.
    """

    integer_speed: bool = True

    @property
    def spec(self) -> Spec:
        """Four parameters, one number a measurement."""
        return Spec(
            name="inverse_ballistics",
            version=1,
            reference="Kruse et al. 2021, arXiv:2101.10763",
            parameters=(
                Parameter("position", "m", r"\theta_1"),
                Parameter("height", "m", r"\theta_2"),
                Parameter("angle", "rad", r"\theta_3"),
                Parameter("speed", "m/s", r"\theta_4"),
            ),
            y_shape=(1,),
            y_names=("impact",),
            description="Where an object hits the ground, given where, at which angle and how fast it was thrown"
            + ("" if self.integer_speed else " (speed dequantised)"),
        )

    def prior(self) -> Distribution:
        """Independent position, height, angle and speed, as the module's docstring says."""
        return Product(
            [
                Normal(torch.tensor(0.0), torch.tensor(POSITION_SD)),
                TruncatedNormal(HEIGHT_MEAN, HEIGHT_SD, 0.0),
                Uniform(torch.tensor(ANGLES[0]), torch.tensor(ANGLES[1])),
                PoissonSpeed(SPEED_MEAN, self.integer_speed),
            ]
        )

    @property
    def noise_dim(self) -> int:
        """0: the process is deterministic."""
        return 0

    def simulate(self, theta: Tensor) -> Tensor:
        """Horizontal positions of the impact (N, 1) in m for theta (N, 4), computed in double precision.

        Any speed is taken, whole or not. A row fails where theta is not finite, the throw points downward, or it starts
        below ground and never rises to it. None of this has prior mass. A throw that starts below ground and rises
        above it hits the ground where it comes down.
        """
        position, height, angle, speed = theta.double().unbind(1)
        y = position + flight_range(height, speed * angle.cos(), speed * angle.sin())
        return torch.where(torch.isfinite(y), y, torch.nan).unsqueeze(1).to(theta.dtype)

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """The same as ``simulate``; ``noise`` is (N, 0)."""
        return self.simulate(theta)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Independent, exact draws (n, B, 4) for impacts y (B, 1); see ``_Throws``.

        Raises:
            ValueError: where a measurement is not finite, or so far off (see ``IMPACTS``) that no simulation gives it.
        """
        wrong = ~((y[:, 0] >= IMPACTS[0]) & (y[:, 0] <= IMPACTS[1]))
        if wrong.any():
            first = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"measurement {first} is {y[first].tolist()}; expected the position of the impact, between "
                f"{IMPACTS[0]} and {IMPACTS[1]} m. It is a failed simulation, or was standardised"
            )
        throws = _Throws(self.integer_speed, y.device)
        # rounded to y's precision before the position is computed, so that a draw hits y to that precision
        drawn = torch.stack([throws.sample(target, n) for target in y[:, 0].double()], dim=1).to(y.dtype)
        height, angle, speed = drawn.double().unbind(-1)
        position = y[:, 0].double() - flight_range(height, speed * angle.cos(), speed * angle.sin())
        return torch.cat([position.to(y.dtype).unsqueeze(-1), drawn], dim=-1)

    def picture(self, axes: Axes, theta: Tensor, y: Tensor) -> None:
        """Draw the throws theta (n, 4) with their impacts, the first one highlighted, and the target y (1,)."""
        paths = trajectory(theta.detach().cpu()[:500], 60).numpy()
        target = float(y.detach().cpu()[0])
        faint = min(1.0, 8 / len(paths))
        axes.axhline(0, color="grey", linewidth=0.5, linestyle=":")
        axes.plot(paths[..., 0].T, paths[..., 1].T, color="tab:blue", alpha=faint, linewidth=1, rasterized=True)
        axes.plot(
            paths[:, -1, 0],
            paths[:, -1, 1],
            color="tab:orange",
            linestyle="",
            marker="o",
            markersize=4,
            markeredgewidth=0,
            label="impact",
            rasterized=True,
        )
        axes.plot(
            paths[0, :, 0],
            paths[0, :, 1],
            color="black",
            linewidth=1.5,
            marker="o",
            markevery=[0],
            markersize=4,
            label="one draw",
        )
        axes.plot(target, 0, color="tab:red", marker="x", markersize=10, linestyle="", label="target")
        axes.set_aspect("equal")
        axes.set_xlabel("horizontal position [m]")
        axes.set_ylabel("height [m]")
        axes.legend(loc="upper right", frameon=False)


class PoissonSpeed(Distribution):
    """A Poisson number k, or k + U(0, 1), with the quantiles that torch's Poisson distribution lacks.

    Args:
        rate: mean of k.
        whole: whether it is k itself.
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own form

    LARGEST = 80
    """Quantiles end here: at a rate of 15 larger k have a probability of 1e-31."""

    def __init__(self, rate: float, whole: bool) -> None:
        self.rate, self.whole = rate, whole
        super().__init__()

    @property
    def support(self) -> constraints.Constraint:
        """The whole numbers from 0 on, or all numbers from 0 on."""
        return constraints.nonnegative_integer if self.whole else constraints.nonnegative

    def _below(self, k: Tensor) -> Tensor:
        """P(Poisson < k) for whole k >= 0, in double precision."""
        below = torch.special.gammaincc(k.double().clamp_min(1), torch.tensor(self.rate).to(k.device).double())
        return torch.where(k > 0, below, 0.0)

    def _log_mass(self, k: Tensor) -> Tensor:
        return k * math.log(self.rate) - self.rate - torch.lgamma(k + 1)

    def cdf(self, value: Tensor) -> Tensor:
        """P(speed <= value); its slope is that within a step, which ``gammaincc`` itself could not give."""
        k = value.detach().double().floor().clamp_min(0)
        within = 1.0 if self.whole else value.double() - k
        found = self._below(k) + self._log_mass(k).exp() * within
        return torch.where(value < 0, 0.0, found.clamp(0, 1)).to(value.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile at probability ``value``: of a whole speed, the least k with P(speed <= k) >= value."""
        numbers = torch.arange(self.LARGEST + 1, dtype=torch.double, device=value.device)
        steps = self._below(numbers + 1)
        probability = value.double().contiguous()
        k = torch.searchsorted(steps, probability).clamp_max(self.LARGEST).double()
        if not self.whole:
            k = k + ((probability - self._below(k)) / self._log_mass(k).exp()).clamp(0, 1)
        return k.to(value.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of a whole speed, or log density; -inf outside the support."""
        inside = self.support.check(value)
        k = torch.where(inside, value, 0.0).floor()
        return torch.where(inside, self._log_mass(k), -torch.inf)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - torch's own default
        """Draws of the given shape."""
        k = torch.poisson(torch.full(self._extended_shape(torch.Size(sample_shape)), self.rate))
        return k if self.whole else k + torch.rand_like(k)


def flight_time(height: Tensor, upward: Tensor) -> Tensor:
    """Seconds until a throw from ``height`` in m with ``upward`` velocity in m/s hits the ground: (...), double.

    With s = t / T, b = height / (g T^2) and a = 1 + u, u = upward / (g T), the latest root of

        f(s) = b + a (1 - exp(-s)) - s.

    f is concave with its apex at log a, and f(a + b) < 0: the latest root lies in [log a, a + b], and Newton's steps
    from the upper end come down to it without passing it, each tangent being above f. A row stops where rounding ends
    the descent, so that it does not depend on the others. One step more carries the gradient: with s held fixed, its
    derivative by b and u is that of the implicit function theorem, -(df/db) / (df/ds).

    NaN where the throw is not finite, points downward, or never rises to the ground.
    """
    start = height.double() / (GRAVITY * RELAXATION**2)
    rise = upward.double() / (GRAVITY * RELAXATION)
    start, rise = torch.broadcast_tensors(start, rise)
    lands = torch.isfinite(start + rise) & (rise >= 0)
    lands = lands & ((start >= 0) | (start + rise - rise.log1p() >= 0))
    start, rise = torch.where(lands, start, 1.0), torch.where(lands, rise, 0.0)  # any that land
    with torch.no_grad():
        apex, s = rise.log1p(), 1 + rise + start
        for _ in range(NEWTON_STEPS):
            value, slope = _fall(s, start, rise)
            lower = torch.maximum(s - value / slope, apex)
            descends = lower < s
            if not descends.any():
                break
            s = torch.where(descends, lower, s)
        slope = _fall(s, start, rise)[1].clamp_max(-1e-12)  # zero where a throw only grazes the ground
    s = s - _fall(s, start, rise)[0] / slope
    return torch.where(lands, RELAXATION * s, torch.nan)


def _fall(s: Tensor, start: Tensor, rise: Tensor) -> tuple[Tensor, Tensor]:
    """f and its derivative by s (see ``flight_time``), written so that neither cancels for small s and rise."""
    used = -torch.expm1(-s)
    return start + rise * used + (used - s), rise * (1 - used) - used


def flight_range(height: Tensor, forward: Tensor, upward: Tensor) -> Tensor:
    """Horizontal distance in m that a throw from ``height`` in m with these velocities in m/s covers: (...), double."""
    return forward.double() * RELAXATION * -torch.expm1(-flight_time(height, upward) / RELAXATION)


def trajectory(theta: Tensor, points: int) -> Tensor:
    """Horizontal positions and heights in m of throws theta (N, 4), (N, points, 2), from start to impact, double."""
    position, height, angle, speed = (column.unsqueeze(1) for column in theta.double().unbind(1))
    upward = speed * angle.sin()
    share = torch.linspace(0, 1, points, dtype=torch.double, device=theta.device)
    time = flight_time(height, upward) * share
    used = -torch.expm1(-time / RELAXATION)
    horizontal = position + speed * angle.cos() * RELAXATION * used
    vertical = height + (GRAVITY * RELAXATION**2 + upward * RELAXATION) * used - GRAVITY * RELAXATION * time
    return torch.stack([horizontal, vertical], dim=-1)


class _Throws:
    """Height, angle and speed of the throws behind an impact y, by rejection from cells of their prior.

    The position enters y as a sum, so that it is what is left, x1 = y - R(x2, x3, x4), and

        p(x2, x3, x4 | y) ~ p(x2) p(x3) p(x4) exp(-(y - R)^2 / (2 * 0.5^2)).

    The prior is cut into cells. R rises with height and with both components of the velocity, of which the horizontal
    one falls with the angle and the vertical one rises: taken at opposite ends of the cell they bound R from below and
    from above. So the last factor is at most its value at the number between the bounds that is nearest to y. A cell is
    chosen in proportion to that value times its prior mass, a throw is drawn from the prior within it, and kept with
    probability factor / bound. Draws are independent and exact, and those for a rare y cost little more.

    Heights above 10 m, 17 sd off, and speeds above 80 have prior masses below 1e-30 and are left out.
    """

    HEIGHTS = 16  # cells of 0.25 m, and one for the rest
    ANGLES = 64

    def __init__(self, integer_speed: bool, device: torch.device) -> None:
        self.integer_speed = integer_speed
        self.height = TruncatedNormal(HEIGHT_MEAN, HEIGHT_SD, 0.0)
        self.heights = torch.linspace(0, 4.25, self.HEIGHTS + 2, dtype=torch.double, device=device)
        self.heights[-1] = 10
        self.below = self.height.cdf(self.heights)
        # the ends as the prior rounds them, so that no draw lies outside
        low, high = (float(torch.tensor(end)) for end in ANGLES)
        self.angles = torch.linspace(low, high, self.ANGLES + 1, dtype=torch.double, device=device)
        speeds = torch.arange(PoissonSpeed.LARGEST + 1, dtype=torch.double, device=device)
        mass = PoissonSpeed(SPEED_MEAN, whole=True).log_prob(speeds)
        self.shape = (self.HEIGHTS + 1, self.ANGLES, len(speeds))
        height, cos, sin = self.heights[:, None, None], self.angles.cos()[:, None], self.angles.sin()[:, None]
        fastest = speeds if integer_speed else speeds + 1
        self.least = flight_range(height[:-1], speeds * cos[1:], speeds * sin[:-1]).flatten()
        self.most = flight_range(height[1:], fastest * cos[:-1], fastest * sin[1:]).flatten()
        self.log_prior = (self.below.diff().log()[:, None, None] + mass).expand(self.shape).flatten()

    def log_bound(self, y: Tensor) -> Tensor:
        """Upper bound of the log of the last factor in each cell, (cells,), for the impact y ()."""
        gap = torch.maximum(self.least - y, y - self.most).clamp_min(0)
        return -0.5 * (gap / POSITION_SD) ** 2

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, 3) of height, angle and speed for the impact y ()."""
        bound = self.log_bound(y)
        cumulative = (self.log_prior + bound).softmax(0).cumsum(0)
        kept, missing = [], n
        while missing > 0:
            # 0.3 to 0.9 are kept; a throw too many is left out unseen, which leaves the others independent
            u = torch.rand(5, 2 * missing + 50, dtype=y.dtype, device=y.device)
            cell = torch.searchsorted(cumulative, u[0] * cumulative[-1], right=True).clamp_max(len(bound) - 1)
            throw = self._throw(cell, u[1:4])
            height, angle, speed = throw.unbind(1)
            position = y - flight_range(height, speed * angle.cos(), speed * angle.sin())
            likely = u[4].log() < -0.5 * (position / POSITION_SD) ** 2 - bound[cell]
            kept.append(throw[likely][:missing])
            missing -= len(kept[-1])
        return torch.cat(kept)

    def _throw(self, cell: Tensor, u: Tensor) -> Tensor:
        """Throws (k, 3) at fractions u (3, k) of the prior's mass in each ``cell`` (k,)."""
        row, column, number = torch.unravel_index(cell, self.shape)
        height = self.height.icdf(self.below[row].lerp(self.below[row + 1], u[0]))
        height = height.clamp(self.heights[row], self.heights[row + 1])  # rounding alone could leave the cell
        angle = self.angles[column].lerp(self.angles[column + 1], u[1])
        speed = number.to(u) if self.integer_speed else number + u[2]
        return torch.stack([height, angle.clamp(self.angles[0], self.angles[-1]), speed], dim=1)

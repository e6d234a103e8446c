"""Advection and diffusion of which diffusion alone is known: how fast does a profile spread?

Reality ("full") is a profile T(s, t) on a line, which spreads and is carried along,

    dT/dt = a d^2T/ds^2 + b dT/ds,     T(s, 0) = c sin(pi s / L),     T = 0 outside the line

and the known, incomplete physics is its first term. y is T at 20 points 0.1 apart (L = 1.9) and t = 0, dt, ..., with
noise N(0, 0.001^2). theta is the diffusion coefficient a; the speed b and the height c are nuisances, drawn from their
population inside ``simulate``. The posterior under the full process is

    p(a | y) ~ p(a) int p(y | a, b, c) p(b, c) d(b, c).

Derivatives are central differences of neighbours, the value beyond either end being 0: that system of 20 equations,
not its continuous limit, is the process.

The problem is that of Takeishi & Kalousis 2021 (arXiv:2102.13156); grid, ranges, noise and times are those of the
authors' code (https://github.com/n-takeishi/phys-vae, data/advdif). The sign of the advection is that of its data: the
profile moves towards s = 0. The code reads -b dT/ds, but its convolution turns the difference around. The other sign
is the mirror image of the same problem, with the same posterior of a.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform
from torch.nn.functional import pad
from torch.special import log_ndtr

from posterior_bench import HasDynamics, HasPicture, HasReferenceDensity, HasTrajectory, Parameter, Simulator, Spec
from posterior_bench.dynamics import Derivative, integrate, require_solver

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 20
SPACING = 0.1

Range = tuple[float, float]


@dataclass(frozen=True)
class Population:
    """Uniform ranges of a [length^2/time], b [length/time] and c [1], as published."""

    diffusion: Range = (0.01, 0.1)
    speed: Range = (0.01, 0.1)
    height: Range = (0.5, 1.5)


OFF: Range = (0.0, 0.0)

PROCESSES: Mapping[str, Population] = {
    "incomplete": Population(speed=OFF),
    "wide": Population((0.005, 0.2), speed=OFF),
    "full": Population(),
    "slow": Population((0.005, 0.01)),
    "fast": Population((0.1, 0.2)),
    "strong_advection": Population(speed=(0.1, 0.2)),
}
"""``incomplete`` is the known physics alone, and thereby also the test set with the discrepancy off. ``wide`` is the
same over the range that the authors' training covers. Below ``full`` stand the shifted test sets, each outside one
range of the published population."""


@dataclass(frozen=True)
class AdvectionDiffusion(Simulator, HasTrajectory, HasReferenceDensity, HasDynamics, HasPicture):
    """A profile on a line seen over time; see the module's docstring for formulas and sources.

    Args:
        process: which one of ``PROCESSES``: the known physics alone, the full process, or a shifted one.
        steps: number of profiles in a measurement; 50 as published.
        time_step: time between two profiles.
        noise_sd: standard deviation of the noise of a point.
        solver: ``"rk4"`` (classical Runge-Kutta) or ``"euler"``.
        substeps: steps of the solver from one profile to the next. With 1 of ``"rk4"`` a point is off by less than 5e-5
            up to a = 0.1, and by 6e-4 at worst, beside the ends of the first profiles, at a = 0.2; it is stable while
            0.0069 substeps / a exceeds the time step. The authors train through 2 steps of ``"euler"``.

    Raises:
        ValueError: on an unknown process or solver, or a number out of range.
    """

    process: str = "incomplete"
    steps: int = 50
    time_step: float = 0.02
    noise_sd: float = 0.001
    solver: str = "rk4"
    substeps: int = 1

    state_dim = POINTS
    """Of the known physics: the profile."""

    correctable = (True,) * POINTS
    """Which rows of the derivative unknown physics may enter."""

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise ValueError(f"found process {self.process!r}; expected one of {', '.join(map(repr, PROCESSES))}")
        require_solver(self.solver, self.substeps)
        if self.steps < 1 or not min(self.time_step, self.noise_sd) > 0:
            raise ValueError(
                f"found steps {self.steps}, time_step {self.time_step} and noise_sd {self.noise_sd}; expected positive "
                "numbers"
            )

    @property
    def spec(self) -> Spec:
        """One parameter; 20 points a time, points first, as published."""
        return Spec(
            name="advection_diffusion",
            version=1,
            reference="Takeishi & Kalousis 2021, arXiv:2102.13156",
            parameters=(Parameter("diffusion", "length^2/time", "a"),),
            y_shape=(POINTS, self.steps),
            description=f"How fast a profile spreads, given its course over time (process {self.process!r})",
        )

    @property
    def population(self) -> Population:
        """The ranges of the process."""
        return PROCESSES[self.process]

    def prior(self) -> Distribution:
        """a, uniform over the population's range."""
        low, high = self.population.diffusion
        return Independent(Uniform(torch.tensor([low]), torch.tensor([high])), 1)

    @property
    def noise_dim(self) -> int:
        """One a nuisance that varies, then one a number of y."""
        return len(self._free_nuisances) + POINTS * self.steps

    @property
    def _free_nuisances(self) -> list[int]:
        return [i for i, (low, high) in enumerate(astuple(self.population)[1:]) if low < high]

    def nuisances(self, noise: Tensor) -> Tensor:
        """Speed and height (N, 2) behind noise (N, noise_dim), by their quantiles."""
        low, high = torch.tensor(astuple(self.population)[1:], dtype=noise.dtype, device=noise.device).T
        u = torch.zeros(len(noise), 2, dtype=noise.dtype, device=noise.device)
        free = self._free_nuisances
        u[:, free] = torch.special.ndtr(noise[:, : len(free)])
        return low + (high - low) * u

    def simulate(self, theta: Tensor) -> Tensor:
        """Profiles (N, 20, steps) for theta (N, 1)."""
        noise = torch.randn(len(theta), self.noise_dim, dtype=theta.dtype, device=theta.device)
        return self.simulate_from(theta, noise)

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Profiles (N, 20, steps) for theta (N, 1) and noise (N, noise_dim). A solution that diverges fails."""
        y = self.trajectory(theta, self.nuisances(noise), self.steps)
        y = y + self.noise_sd * noise[:, -POINTS * self.steps :].reshape(y.shape)
        return torch.where(torch.isfinite(y).flatten(1).all(1)[:, None, None], y, torch.nan)

    def signal(self, theta: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Profiles without noise (N, 20, steps) for theta (N, 1) and noise (N, noise_dim), for any number of steps."""
        return self.trajectory(theta, self.nuisances(noise), steps)

    def trajectory(self, theta: Tensor, nuisances: Tensor, steps: int) -> Tensor:
        """Profiles without noise (N, 20, steps) for theta (N, 1), nuisances (N, 2) and any number of steps.

        Whatever the process, the speed is that of ``nuisances``; zero is the known physics alone.
        """
        speed, height = nuisances[:, :1], nuisances[:, 1:]

        def derivative(state: Tensor, time: float) -> Tensor:
            padded = pad(state, (1, 1))
            slope = (padded[:, 2:] - padded[:, :-2]) / (2 * SPACING)
            return self.derivative(theta, state, time) + speed * slope

        place = torch.linspace(0, math.pi, POINTS, dtype=theta.dtype, device=theta.device)
        return self.observe(self.solve(derivative, height * torch.sin(place), steps))

    def derivative(self, theta: Tensor, state: Tensor, time: float) -> Tensor:
        """d state / dt (N, 20) of the known physics for theta (N, 1) and states (N, 20)."""
        padded = pad(state, (1, 1))
        return theta / SPACING**2 * (padded[:, 2:] - 2 * state + padded[:, :-2])

    def initial_state(self, y: Tensor) -> Tensor:
        """The state (N, 20) from which the authors' models start: the first profile of y (N, 20, steps), with noise."""
        return y[..., 0]

    def observe(self, states: Tensor) -> Tensor:
        """The profiles (N, 20, T) of states (N, T, 20)."""
        return states.mT

    def solve(self, derivative: Derivative, initial: Tensor, steps: int) -> Tensor:
        """States (N, steps, S) at t = 0, dt, ..., of d state / dt = derivative(state, t) from ``initial`` (N, S)."""
        return integrate(derivative, initial, steps, self.time_step, self.substeps, self.solver)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Independent draws (n, B, 1) of p(a | y) for profiles y (B, 20, steps); see ``_Marginal`` for their error."""
        return (
            torch.stack([_Marginal(self, row).sample(n) for row in self._checked(y)], dim=1).unsqueeze(-1).to(y.dtype)
        )

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(a | y), (n, B), in nats for theta (n, B, 1) and y (B, 20, steps); -inf farther than 6 sd out."""
        columns = theta[..., 0].double().unbind(1)
        values = [_Marginal(self, row).log_prob(a) for a, row in zip(columns, self._checked(y), strict=True)]
        return torch.stack(values, dim=1).to(theta.dtype)

    def _checked(self, y: Tensor) -> Tensor:
        if y.shape[1:] != (POINTS, self.steps) or not torch.isfinite(y).all():
            raise ValueError(
                f"found measurements of shape {tuple(y.shape)}, or not finite; expected finite ones of shape "
                f"(B, {POINTS}, {self.steps}). They are failed simulations, or of a simulator with other options"
            )
        return y.detach().double()

    def picture(self, axes: Axes, theta: Tensor, y: Tensor) -> None:
        """Draw the known physics' last profiles for theta (n, 1), from the first one of y (20, steps), and y's own."""
        theta, y = theta.detach().cpu()[:200], y.detach().cpu()
        initial = self.initial_state(y[None]).to(theta.dtype).expand(len(theta), POINTS)
        last = self.observe(self.solve(partial(self.derivative, theta), initial, self.steps))[..., -1].numpy()
        places = (torch.arange(POINTS) * SPACING).numpy()
        faint = min(1.0, 8 / len(theta))
        axes.plot(places, last.T, color="tab:blue", alpha=faint, linewidth=1, rasterized=True)
        axes.plot(places, last[0], color="black", linewidth=1.5, label="known physics at the end, one draw")
        axes.plot(places, y[:, 0].numpy(), color="0.6", marker=".", linestyle="", label="measurement at the start")
        axes.plot(places, y[:, -1].numpy(), color="tab:red", marker=".", linestyle="", label="measurement at the end")
        axes.set_xlabel("place [length]")
        axes.set_ylabel("T")
        axes.legend(loc="best", frameon=False)


class _Marginal:
    """p(a | y) of one measurement y (20, M) by quadrature.

    Profiles are linear in c: T = c h(a, b). So c is integrated in closed form, with the least-squares height
    c^ = y.h / |h|^2 of precision r^2 = |h|^2 / sd^2:

        int p(y | a, b, c) p(c) dc ~ exp(-|y - c^ h|^2 / (2 sd^2)) / r (Phi(r (c_high - c^)) - Phi(r (c_low - c^))).

    Gauss-Newton steps find the mode and the sd of (a, b). b is integrated by Gauss-Legendre quadrature over 6 sd of
    b given a on either side, within the prior's range; a has ``NODES`` equidistant nodes over 6 sd on either side,
    within its range. Between the nodes the density is taken as linear, which makes draws wider by 0.3 % at most; the
    rest is below 0.1 %.
    """

    NODES = 81
    SPEEDS = 16
    REACH = 6.0
    ITERATIONS = 8

    def __init__(self, simulator: AdvectionDiffusion, y: Tensor) -> None:
        self.simulator, self.y = simulator, y.flatten()
        population = simulator.population
        self.low, self.high = population.diffusion
        self.speeds, self.heights = population.speed, population.height
        (a, b), curvature = self._mode()
        if self.speeds[0] == self.speeds[1]:
            curvature[0, 1] = curvature[1, 0] = 0
            curvature[1, 1] = math.inf
        sd = float(1 / (curvature[0, 0] - curvature[0, 1] ** 2 / curvature[1, 1]).sqrt())
        edges = max(self.low, float(a) - self.REACH * sd), min(self.high, float(a) + self.REACH * sd)
        if not edges[0] < edges[1]:
            raise ValueError(
                f"a measurement has its likelihood at a = {float(a):.3g}, more than {self.REACH:.0f} sd of {sd:.1g} "
                f"outside the range {self.low} to {self.high} of process {simulator.process!r}; expected one of its "
                "simulations. It comes from another process, or was standardised"
            )
        self.nodes = torch.linspace(*edges, self.NODES, dtype=y.dtype, device=y.device)
        log_density = self._over_speeds(b - curvature[0, 1] / curvature[1, 1] * (self.nodes - a), curvature[1, 1])
        density = (log_density - log_density.max()).exp()
        areas = (density[1:] + density[:-1]) / 2 * self.nodes.diff()
        self.density = density / areas.sum()
        self.cumulative = areas.cumsum(0) / areas.sum()

    def _profiles(self, a: Tensor, b: Tensor) -> Tensor:
        """h (P, 20 M) at a and b (P,): profiles of height 1."""
        nuisances = torch.stack([b, torch.ones_like(b)], dim=1)
        return self.simulator.trajectory(a[:, None], nuisances, self.simulator.steps).flatten(1)

    def _mode(self) -> tuple[Tensor, Tensor]:
        """Mode (2,) of the likelihood in a and b, c being at its best, and its curvature (2, 2), of -log."""
        at = self.y.new_tensor([(self.low + self.high) / 2, sum(self.speeds) / 2])
        free = [0] if self.speeds[0] == self.speeds[1] else [0, 1]
        difference = 1e-6
        for _ in range(self.ITERATIONS):
            points = at + difference * torch.cat([torch.zeros(1, 2), torch.eye(2)]).to(at)
            base, *others = self._profiles(*points.T)
            height = self.y @ base / (base @ base)
            slopes = torch.stack([height * (other - base) / difference for other in others])
            slopes = slopes - torch.outer(slopes @ base / (base @ base), base)  # what c cannot take up
            curvature = slopes @ slopes.T / self.simulator.noise_sd**2
            slope = slopes @ (self.y - height * base) / self.simulator.noise_sd**2
            step = torch.zeros_like(at)
            step[free] = torch.linalg.solve(curvature[free][:, free], slope[free])
            # half-way at most to a = 0, where diffusion would turn around, and no farther than is stable
            diffusion = torch.maximum(at[0] + step[0], at[0] / 2).clamp_max(2 * self.high)
            at = torch.stack([diffusion, at[1] + step[1].clamp(-0.2, 0.2)])
        return at, curvature

    def _over_speeds(self, centre: Tensor, curvature: Tensor) -> Tensor:
        """log of the likelihood integrated over b and c (NODES,), b lying about ``centre`` (NODES,) given a."""
        if self.speeds[0] == self.speeds[1]:
            return self._over_heights(self.nodes, torch.full_like(self.nodes, self.speeds[0]))
        reach = self.REACH / curvature.sqrt()
        low, high = ((centre + sign * reach).clamp(*self.speeds) for sign in (-1, 1))
        places, weights = (torch.from_numpy(array).to(self.y) for array in np.polynomial.legendre.leggauss(self.SPEEDS))
        b = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * places
        value = self._over_heights(self.nodes.repeat_interleave(self.SPEEDS), b.flatten()).reshape(b.shape)
        return (value + weights.log()).logsumexp(1) + (high - low).log()

    def _over_heights(self, a: Tensor, b: Tensor) -> Tensor:
        """log of the likelihood integrated over c (P,), up to a constant."""
        h = self._profiles(a, b)
        square = (h * h).sum(1)
        height = h @ self.y / square
        precision = square.sqrt() / self.simulator.noise_sd
        misfit = ((self.y - height[:, None] * h) ** 2).sum(1) / self.simulator.noise_sd**2
        edges = [precision * (edge - height) for edge in self.heights]
        return -0.5 * misfit - precision.log() + _log_mass(*edges)

    def sample(self, n: int) -> Tensor:
        """Draws (n,), by inversion."""
        u = torch.rand(n, dtype=self.y.dtype, device=self.y.device)
        cell = torch.searchsorted(self.cumulative, u).clamp_max(self.NODES - 2)
        left, right = self.density[cell], self.density[cell + 1]
        # a linear density from left to right: the fraction x of the cell that holds the fraction v of its mass
        v = torch.rand(n, dtype=self.y.dtype, device=self.y.device)
        x = v * (left + right) / (left + (left**2 + v * (right**2 - left**2)).sqrt())
        return self.nodes[cell] + x * (self.nodes[cell + 1] - self.nodes[cell])

    def log_prob(self, a: Tensor) -> Tensor:
        """Log density (n,) at a (n,)."""
        cell = (torch.searchsorted(self.nodes, a.contiguous()) - 1).clamp(0, self.NODES - 2)
        x = (a - self.nodes[cell]) / (self.nodes[cell + 1] - self.nodes[cell])
        value = (self.density[cell] * (1 - x) + self.density[cell + 1] * x).log()
        return torch.where((x >= 0) & (x <= 1), value, -math.inf)


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) for low < high, without cancellation in either tail."""
    upper = low > 0
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    return log_ndtr(high) + torch.log1p(-(log_ndtr(low) - log_ndtr(high)).exp())

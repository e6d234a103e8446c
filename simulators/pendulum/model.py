"""Forced damped pendulum of which gravity alone is known: how fast would it swing on its own?

Reality ("full") is a pendulum with friction and a force, released at rest,

    angle'' = -w^2 sin(angle) - g angle' + A w^2 cos(2 pi f t),     angle(0) = angle_0,  angle'(0) = 0

and the known, incomplete physics is its first term. y is the angle at t = 0, dt, ..., with noise N(0, 0.01^2). theta is
the angular frequency w; angle_0, friction g, force A and its frequency f are nuisances, drawn from their population
inside ``simulate``. The posterior under the full process is

    p(w | y) ~ p(w) int p(y | w, angle_0, g, A, f) p(angle_0, g, A, f) d(angle_0, g, A, f).

The force carries w^2, so that w acts in the unknown part too.

The problem is that of Takeishi & Kalousis 2021 (arXiv:2102.13156); equation, ranges, noise and times are those of the
authors' code (https://github.com/n-takeishi/phys-vae, data/pendulum). That code makes its data with a fine solver and
trains through explicit Euler steps of dt, which raise the amplitude of a swing by sqrt(1 + (w dt)^2) a step: times 1.82
at w = 3.14 over the horizon. Here both use Runge-Kutta steps; ``solver="euler", substeps=1`` is the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform

from posterior_bench import HasDynamics, HasPicture, HasReferenceDensity, HasTrajectory, Parameter, Simulator, Spec
from posterior_bench.dynamics import Derivative, integrate, require_solver

from .importance import Importance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Range = tuple[float, float]


@dataclass(frozen=True)
class Population:
    """Uniform ranges of w [rad/s], angle_0 [rad], friction [1/s], force [1] and its frequency [Hz], as published."""

    frequency: Range = (0.785, 3.14)
    initial_angle: Range = (-1.57, 1.57)
    friction: Range = (0.0, 0.8)
    force: Range = (0.0, 40.0)
    force_frequency: Range = (3.14, 6.28)


OFF: Range = (0.0, 0.0)

PROCESSES: Mapping[str, Population] = {
    "incomplete": Population(friction=OFF, force=OFF, force_frequency=OFF),
    "wide": Population((0.392, 3.53), friction=OFF, force=OFF, force_frequency=OFF),
    "full": Population(),
    "slow": Population((0.2, 0.785)),
    "fast": Population((3.14, 4.0)),
    "strong_friction": Population(friction=(0.8, 1.6)),
    "strong_force": Population(force=(40.0, 80.0)),
}
"""``incomplete`` is the known physics alone, and thereby also the test set with the discrepancy off. ``wide`` is the
same over the range that the authors' training covers. Below ``full`` stand the shifted test sets, each outside one
range of the published population."""


@dataclass(frozen=True)
class Pendulum(Simulator, HasTrajectory, HasReferenceDensity, HasDynamics, HasPicture):
    """A pendulum seen as a series of angles; see the module's docstring for formulas and sources.

    Args:
        process: which one of ``PROCESSES``: the known physics alone, the full process, or a shifted one.
        steps: number of angles in a measurement; 50 as published.
        time_step: time between two angles in s.
        noise_sd: standard deviation of an angle's noise in rad.
        solver: ``"rk4"`` (classical Runge-Kutta) or ``"euler"``.
        substeps: steps of the solver from one angle to the next. With 2 of ``"rk4"`` an angle is off by less than
            1e-3 rad in the published ranges, with the fastest force, and by twice that under the strong one.

    Raises:
        ValueError: on an unknown process or solver, or a number out of range.
    """

    process: str = "incomplete"
    steps: int = 50
    time_step: float = 0.05
    noise_sd: float = 0.01
    solver: str = "rk4"
    substeps: int = 2

    state_dim = 2
    """Of the known physics: angle and angular velocity."""

    correctable = (False, True)
    """Which rows of the derivative unknown physics may enter: that the angle's derivative is the velocity is known."""

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
        """One parameter; one angle a time."""
        return Spec(
            name="pendulum",
            version=1,
            reference="Takeishi & Kalousis 2021, arXiv:2102.13156",
            parameters=(Parameter("frequency", "rad/s", r"\omega"),),
            y_shape=(self.steps,),
            y_names=tuple(f"angle_{step}" for step in range(self.steps)),
            description=f"The frequency of a pendulum, given its angle over time (process {self.process!r})",
        )

    @property
    def population(self) -> Population:
        """The ranges of the process."""
        return PROCESSES[self.process]

    def prior(self) -> Distribution:
        """w, uniform over the population's range."""
        low, high = self.population.frequency
        return Independent(Uniform(torch.tensor([low]), torch.tensor([high])), 1)

    @property
    def noise_dim(self) -> int:
        """One a nuisance that varies, then one an angle."""
        return len(self._free_nuisances) + self.steps

    @property
    def _free_nuisances(self) -> list[int]:
        return [i for i, (low, high) in enumerate(astuple(self.population)[1:]) if low < high]

    def nuisances(self, noise: Tensor) -> Tensor:
        """angle_0, friction, force and its frequency (N, 4) behind noise (N, noise_dim), by their quantiles."""
        low, high = torch.tensor(astuple(self.population)[1:], dtype=noise.dtype, device=noise.device).T
        u = torch.zeros(len(noise), 4, dtype=noise.dtype, device=noise.device)
        free = self._free_nuisances
        u[:, free] = torch.special.ndtr(noise[:, : len(free)])
        return low + (high - low) * u

    def simulate(self, theta: Tensor) -> Tensor:
        """Angles (N, steps) in rad for theta (N, 1)."""
        return self.simulate_from(
            theta, torch.randn(len(theta), self.noise_dim, dtype=theta.dtype, device=theta.device)
        )

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Angles (N, steps) in rad for theta (N, 1) and noise (N, noise_dim). A solution that diverges fails."""
        y = self.trajectory(theta, self.nuisances(noise), self.steps) + self.noise_sd * noise[:, -self.steps :]
        return torch.where(torch.isfinite(y).all(1, keepdim=True), y, torch.nan)

    def signal(self, theta: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Angles without noise (N, steps) in rad for theta (N, 1) and noise (N, noise_dim), for any number of steps."""
        return self.trajectory(theta, self.nuisances(noise), steps)

    def trajectory(self, theta: Tensor, nuisances: Tensor, steps: int) -> Tensor:
        """Angles without noise (N, steps) in rad, for theta (N, 1), nuisances (N, 4) and any number of steps.

        Whatever the process, friction and force are those of ``nuisances``; zero is the known physics alone.
        """
        initial = torch.stack([nuisances[:, 0], torch.zeros_like(nuisances[:, 0])], dim=1)
        _, friction, force, force_frequency = nuisances.unbind(1)

        def derivative(state: Tensor, time: float) -> Tensor:
            pull = force * theta[:, 0] ** 2 * torch.cos(2 * math.pi * time * force_frequency)
            unknown = pull - friction * state[:, 1]
            return self.derivative(theta, state, time) + torch.stack([torch.zeros_like(unknown), unknown], dim=1)

        known = not (friction.any() or force.any())
        return self.observe(self.solve(partial(self.derivative, theta) if known else derivative, initial, steps))

    def derivative(self, theta: Tensor, state: Tensor, time: float) -> Tensor:
        """d state / dt (N, 2) of the known physics for theta (N, 1) and states (N, 2), in rad/s and rad/s^2."""
        angle, velocity = state.unbind(1)
        return torch.stack([velocity, -(theta[:, 0] ** 2) * torch.sin(angle)], dim=1)

    def initial_state(self, y: Tensor) -> Tensor:
        """The state (N, 2) from which the authors' models start: the first angle of y (N, steps), noise and all."""
        return torch.stack([y[:, 0], torch.zeros_like(y[:, 0])], dim=1)

    def observe(self, states: Tensor) -> Tensor:
        """The angles (N, T) of states (N, T, 2)."""
        return states[..., 0]

    def solve(self, derivative: Derivative, initial: Tensor, steps: int) -> Tensor:
        """States (N, steps, S) at t = 0, dt, ..., of d state / dt = derivative(state, t) from ``initial`` (N, S)."""
        return integrate(derivative, initial, steps, self.time_step, self.substeps, self.solver)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, 1) of p(w | y) for angles y (B, steps), by resampling ``weighted_reference``.

        Their error is that of importance sampling: a posterior mean is off by about sd / sqrt(effective sample size),
        and a draw may occur more than once.
        """
        parameters, log_weights = self.weighted_reference(y, max(1000, 8 * n))
        chosen = torch.multinomial(log_weights.softmax(0).T, n, replacement=True).T
        return parameters[..., 0].gather(0, chosen).unsqueeze(-1).to(y.dtype)

    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(w | y), (n, B), in nats for theta (n, B, 1) and y (B, steps): a kernel estimate, from 4000 weights.

        Against a grid it is off by less than 0.2 nats wherever the density exceeds a seventh of its maximum; the error
        grows outward. Averaged over draws of the posterior, what smoothing takes in the middle it gives outside.
        """
        parameters, log_weights = self.weighted_reference(y, 4000)
        omega, weights = parameters[..., 0], log_weights.softmax(0)
        mean = (weights * omega).sum(0)
        spread = (weights * (omega - mean) ** 2).sum(0).sqrt()
        width = 1.06 * spread * (weights**2).sum(0) ** 0.2  # the normal rule, at the effective sample size
        low, high = self.population.frequency
        at = theta[..., 0].double()
        log_weights = log_weights.log_softmax(0) - width.log() - 0.5 * math.log(2 * math.pi)
        density = torch.stack([(log_weights - 0.5 * ((row - omega) / width) ** 2).logsumexp(0) for row in at])
        inside = torch.special.ndtr((high - at) / width) - torch.special.ndtr((low - at) / width)
        return torch.where((at >= low) & (at <= high), density - inside.log(), -math.inf).to(theta.dtype)

    def weighted_reference(self, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Weighted draws of all that is unknown; see ``Importance``.

        Args:
            y: (B, steps), measurements in rad.
            size: how many weights a measurement.

        Returns:
            w, angle_0, friction, force and its frequency, (size, B, 5), and log weights (size, B), in nats, whose
            effective sample size is (sum exp)^2 / sum exp^2.

        Raises:
            ValueError: where a measurement is not finite, or of another shape.
        """
        if y.shape[1:] != (self.steps,) or not torch.isfinite(y).all():
            raise ValueError(
                f"found measurements of shape {tuple(y.shape)}, or not finite; expected finite ones of shape "
                f"(B, {self.steps}). They are failed simulations, or of a simulator with other options"
            )
        with torch.no_grad():
            parts = [Importance(self, chunk.double()).sample(size) for chunk in y.split(25)]
        return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=1)

    def picture(self, axes: Axes, theta: Tensor, y: Tensor) -> None:
        """Draw the known physics' swings of theta (n, 1), from the first angle of y (steps,), and the angles y."""
        theta, y = theta.detach().cpu()[:200], y.detach().cpu()
        initial = self.initial_state(y[None]).to(theta.dtype).expand(len(theta), 2)
        swings = self.observe(self.solve(partial(self.derivative, theta), initial, self.steps))
        times = torch.arange(self.steps) * self.time_step
        faint = min(1.0, 8 / len(theta))
        axes.plot(times.numpy(), swings.T.numpy(), color="tab:blue", alpha=faint, linewidth=1, rasterized=True)
        axes.plot(times.numpy(), swings[0].numpy(), color="black", linewidth=1.5, label="known physics, one draw")
        axes.plot(
            times.numpy(), y.numpy(), color="tab:red", marker=".", markersize=4, linestyle="", label="measurement"
        )
        axes.set_xlabel("time [s]")
        axes.set_ylabel("angle [rad]")
        axes.legend(loc="best", frameon=False)

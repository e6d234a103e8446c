"""Both routes over many measurements, in parts of them, each part with a random stream of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from ..contracts import Progress, Simulator
from ..runtime import scope, seed_for
from ..training import Stage
from .flow import Flow, fit_flow
from .importance import FIT_POINTS, ImportanceResult, sample_corrected, sample_importance
from .mixture import fit_mixture
from .settings import Settings
from .surrogate import Surrogate, fit_surrogate
from .target import Target
from .tempered import sample_tempered

Network = TypeVar("Network")


@dataclass(frozen=True, eq=False)
class SecondRoute:
    """What route two says of B measurements.

    Args:
        importance: draws and log Z by importance sampling from mixtures that begin with the particles.
        tempered: (R, B), log Z by tempering alone, a repetition a row.
        temperatures: (B,), between prior and posterior.
        acceptance: (B,), rate of the Metropolis moves at the posterior.
    """

    importance: ImportanceResult
    tempered: Tensor
    temperatures: Tensor
    acceptance: Tensor


@dataclass(frozen=True, eq=False)
class Routes:
    """A simulator with its recipe.

    Args:
        simulator: whose posteriors are wanted.
        settings: the recipe.
        progress: told how far a route is.
    """

    simulator: Simulator
    settings: Settings
    progress: Progress

    @property
    def options(self) -> dict[str, object]:
        """The simulator's options by name."""
        simulator = self.simulator
        if not dataclasses.is_dataclass(simulator):
            return {}
        return {field.name: getattr(simulator, field.name) for field in fields(simulator) if field.init}

    def seed(self, *names: object) -> int:
        """The seed of a stream of this simulator."""
        spec = self.simulator.spec
        return seed_for("reference", spec.name, spec.version, self.options, *names)

    def flow(self, device: torch.device) -> Flow | None:
        """The flow fitted to simulations, or ``None`` where the recipe has none."""
        return self._fitted("flow", fit_flow, device) if self.settings.flow_steps else None

    def surrogate(self, device: torch.device) -> Surrogate | None:
        """The surrogate of the likelihood, or ``None`` where the recipe has none."""
        return self._fitted("surrogate", fit_surrogate, device) if self.settings.surrogate_simulations else None

    def first(
        self, y: Tensor, n: int, flow: Flow | None, stream: str, surrogate: Surrogate | None = None
    ) -> ImportanceResult:
        """Importance sampling for y (B, *y_shape), n draws each."""
        sample = sample_importance if surrogate is None else sample_corrected
        found = []
        for start, part in self._parts(y):
            with self._scope(stream, start, part):
                target = dataclasses.replace(Target.of(self.simulator, part), surrogate=surrogate)
                found.append(sample(target, flow, n, self.settings))
            self.progress.update(start + len(part), len(y), f"importance sampling, {stream}")
        return _joined(found)

    def second(self, y: Tensor, n: int, stream: str) -> SecondRoute:
        """Tempered Monte Carlo, then importance sampling that begins with it, for y (B, *y_shape), n draws each."""
        found, walked = [], []
        for start, part in self._parts(y):
            with self._scope(stream, start, part):
                target = Target.of(self.simulator, part)
                result = sample_tempered(target, self.settings)
                particles = result.real.flatten(0, 1)
                particles = particles[torch.randperm(len(particles), device=part.device)[:FIT_POINTS]]
                mixture = fit_mixture(particles, torch.zeros_like(particles[..., 0]), self.settings.components)
                found.append(sample_importance(target, None, n, self.settings, mixture))
            walked.append((result.log_evidence, result.temperatures, result.acceptance))
            self.progress.update(start + len(part), len(y), "tempered Monte Carlo")
        tempered, temperatures, acceptance = (torch.cat(column, dim=-1).cpu() for column in zip(*walked, strict=True))
        return SecondRoute(_joined(found), tempered, temperatures, acceptance)

    def _fitted(self, name: str, fit: Callable[..., Network], device: torch.device) -> Network:
        """What ``fit`` makes of simulations, with the random stream of its name."""
        seed = self.seed(name)
        with scope(seed, device, torch.float64):
            theta_map = Target.of(self.simulator, torch.empty(0, device=device)).theta_map
        return fit(self.simulator, theta_map, self.settings, seed, Stage(self.progress, 0, 1, f"{name}: "))

    def _parts(self, y: Tensor) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(y), self.settings.part):
            yield start, y[start : start + self.settings.part]

    @contextmanager
    def _scope(self, stream: str, start: int, part: Tensor) -> Iterator[None]:
        """The random stream of a part, in double precision; an error says among which measurements it came up."""
        try:
            with scope(self.seed(stream, start), part.device, torch.float64):
                yield
        except (ArithmeticError, ValueError) as error:
            raise type(error)(f"measurements {start} to {start + len(part) - 1}: {error}") from error


def _joined(results: Sequence[ImportanceResult]) -> ImportanceResult:
    """Results of parts of the measurements as one."""
    columns = {field.name: [getattr(result, field.name) for result in results] for field in fields(ImportanceResult)}
    theta = torch.cat(columns.pop("theta"), dim=1)
    return ImportanceResult(theta, **{name: torch.cat(values) for name, values in columns.items()})

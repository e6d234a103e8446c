"""Checks of a method that is fitted for one measurement and spends its budget itself."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..contracts import HasLogProb, Method, Posterior
from ..problem import Problem
from ..records import Need, Simulations
from ..runtime import load_tensors, save_tensors, scope
from .findings import Failure
from .trial import LINEAR, Silent, Trial


class SequentialTrial:
    """A method with its quick settings, fitted for the first measurement of the trials."""

    def __init__(self, method: Method, budget: int) -> None:
        self.method = dataclasses.replace(method, **method.quick)  # type: ignore[type-var] # checked to be a dataclass
        self.common = Trial(method, budget)
        self.budget = budget
        self._posterior: Posterior | None = None

    @property
    def y(self) -> Tensor:
        """(1, 4), the measurement."""
        return self.common.y[:1]

    def problem(self) -> Problem:
        """A fresh problem with the measurement and the whole budget."""
        return self.common.problem(LINEAR, self.y[0])

    def fit(self) -> tuple[Posterior, Problem]:
        """The posterior, and the problem with what was spent; always under one seed."""
        problem = self.problem()
        simulations = self.common.simulations(LINEAR)
        if Need.SIMULATE in self.method.spec.needs:
            simulations = Simulations(simulations.theta[:0], simulations.y[:0])
        with scope(2):
            return self.method.fit(simulations, problem, Silent()), problem

    @property
    def posterior(self) -> Posterior:
        """Fitted on first use."""
        if self._posterior is None:
            self._posterior = self.fit()[0]
        return self._posterior


def sequential_checks(method: Method, budget: int) -> list[partial[str]]:
    """The checks; the first two are basic."""
    trial = SequentialTrial(method, budget)
    checks = (_fit, _sample, _another_measurement, _repeatable, _restore, _log_prob)
    return [partial(check, trial) for check in checks]


def _fit(trial: SequentialTrial) -> str:
    posterior, problem = trial.fit()
    if not isinstance(posterior, Posterior):
        raise Failure(f"a {type(posterior).__name__} from fit()", "a Posterior", "Return an object derived from it.")
    if Need.SIMULATE in trial.method.spec.needs and problem.calls == 0:
        raise Failure("no simulation spent", "some of the budget", "Call problem.simulate(theta).")
    return f"returns a {type(posterior).__name__} after {problem.calls} of {trial.budget} simulations"


def _sample(trial: SequentialTrial) -> str:
    for n in (7, 1):
        draws = trial.posterior.sample(trial.y, n)
        if tuple(draws.shape) != (n, 1, 2) or not torch.isfinite(draws).all() or draws.requires_grad:
            raise Failure(
                f"draws of shape {tuple(draws.shape)}, not finite, or with a gradient",
                f"finite plain numbers of shape {(n, 1, 2)}",
                "Draws lead, then the one measurement, then parameters; sample under torch.no_grad().",
            )
    return "draws (n, 1, D), finite, without a gradient"


def _another_measurement(trial: SequentialTrial) -> str:
    for y in (trial.common.y[1:2], trial.common.y):
        try:
            trial.posterior.sample(y, 2)
        except (ValueError, NotImplementedError):
            continue
        raise Failure(
            "draws for a measurement that the posterior was not fitted for",
            "a ValueError",
            "Keep the measurement, and raise where y is another: such draws would be taken for its posterior.",
        )
    return "any other measurement is refused"


def _repeatable(trial: SequentialTrial) -> str:
    draws = []
    for posterior in (trial.posterior, trial.posterior, trial.fit()[0]):
        with scope(3):
            draws.append(posterior.sample(trial.y, 20))
    # of two fits but for rounding: in what order a library sums may rest on where in memory its numbers lie
    if not torch.equal(draws[0], draws[1]) or not torch.allclose(draws[0], draws[2], rtol=1e-3, atol=1e-4):
        raise Failure("other draws under the same seeds", "the same", "Draw from the global generators.")
    return "the same seed gives the same posterior and draws"


def _restore(trial: SequentialTrial) -> str:
    tensors, settings = trial.posterior.state()
    json.dumps(settings, allow_nan=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_tensors(path, tensors, settings)
        problem = trial.common.problem(LINEAR, trial.y[0], budget=0)
        restored = trial.method.restore(*load_tensors(path), problem)
    draws = []
    for posterior in (trial.posterior, restored):
        with scope(4):
            draws.append(posterior.sample(trial.y, 20))
    if not torch.allclose(draws[0], draws[1], rtol=1e-3, atol=1e-4):
        raise Failure("other draws from the restored posterior", "the same", "state() must hold all sample() uses.")
    return "state() and restore() give the same draws, without a simulation"


def _log_prob(trial: SequentialTrial) -> str:
    posterior = trial.posterior
    if not isinstance(posterior, HasLogProb):
        return "the posterior offers no density"
    value = posterior.log_prob(posterior.sample(trial.y, 6), trial.y)
    if tuple(value.shape) != (6, 1) or not torch.isfinite(value).all():
        raise Failure(f"shape {tuple(value.shape)}, or values that are not finite", "finite ones, (n, 1)", "")
    return "finite at its own draws"

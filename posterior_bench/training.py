"""What every trained method shares: the one training loop, and the way from fit to restore.

The maps around networks, from ``maps``, are public here as well.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn

from .contracts import Method, Posterior, Progress
from .maps import Standardise, ThetaMap
from .records import Simulations
from .runtime import scope, seed_for

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["Losses", "Stage", "Standardise", "ThetaMap", "TrainedMethod", "Training", "train"]

Model = TypeVar("Model", bound=nn.Module)

Losses = Callable[[tuple[Tensor, ...], float], Iterator[tuple[str, Tensor]]]
"""``losses(batch, fraction)`` yields named, weighted terms, whose sum is the loss; ``fraction`` in [0, 1] is how much
of the training has passed, for ramps. Each term is differentiated before the next is asked for, so that a generator
can do one pass of a network at a time and never holds two graphs."""


@dataclass(frozen=True)
class Training:
    """Settings of the training loop; the defaults suit small networks on standardised data.

    Args:
        steps: gradient steps at most; with a cosine schedule the learning rate ends at 1 % of its start.
        batch_size: pairs a step; fewer where pairs are few, so that a pass over them has at least 20 steps.
        learning_rate: of AdamW (Loshchilov & Hutter 2019), at the start.
        weight_decay: of AdamW.
        betas: of AdamW, decay of the mean gradient and of its square; a first of 0 for none, as games need it.
        clip_norm: the gradient's norm is clipped here.
        held_out: fraction of the pairs that is kept for the choice of the best weights and for stopping.
        epochs: passes over the pairs at most, which shortens ``steps`` where pairs are few, so that the learning rate
            has come down before a network knows its pairs by heart. ``None`` for no such limit.
        check_every: steps between looks at the held-out pairs; there are at least 20 looks.
        patience: training stops after ``patience * check_every`` steps without a better held-out loss.
        settle: fraction of the steps before which it neither stops nor keeps weights, for losses that are ramped.
        average: looks, and the weights that are kept, are those of an exponential moving average of the weights with
            this decay a step (Polyak & Juditsky 1992, SIAM J. Control Optim. 30:838, with forgetting); 0 for none.
    """

    steps: int = 4000
    batch_size: int = 500
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 10.0
    held_out: float = 0.05
    epochs: int | None = None
    check_every: int = 200
    patience: int = 10
    settle: float = 0.0
    average: float = 0.0


def train(
    module: nn.Module, losses: Losses, data: tuple[Tensor, ...], settings: Training, progress: Progress
) -> dict[str, Tensor]:
    """Train ``module`` in place by AdamW and leave it with the weights of the lowest held-out loss, in eval mode.

    Stops by steps and held-out loss, never by the clock, so that a run repeats.

    Args:
        module: whose parameters are trained.
        losses: the terms of the loss, see ``Losses``.
        data: tensors with the same number of rows; a batch has the same rows of each.
        settings: see ``Training``.
        progress: told the step and the held-out loss.

    Returns:
        Curves for display, one value a look: ``step``, each term's mean since the last look, and ``held_out``.

    Raises:
        ValueError: on fewer than 10 pairs.
        FloatingPointError: where a term or the gradient is not finite.
    """
    rows = len(data[0])
    if rows < 10:
        raise ValueError(f"{rows} valid simulations are too few to train on; expected at least 10: raise the budget")
    order = torch.randperm(rows, device=data[0].device)
    n_held = max(1, min(round(settings.held_out * rows), 5 * settings.batch_size))
    held = tuple(t[order[:n_held]] for t in data)
    kept = tuple(t[order[n_held:]] for t in data)
    batch_size = min(settings.batch_size, max(32, len(kept[0]) // 20), len(kept[0]))
    steps = settings.steps
    if settings.epochs is not None:
        steps = max(1, min(steps, settings.epochs * (len(kept[0]) // batch_size)))
    check_every = max(1, min(settings.check_every, steps // 20))

    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, settings.learning_rate, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps, eta_min=0.01 * settings.learning_rate)
    curves: dict[str, list[float]] = {"step": [], "held_out": []}
    sums: dict[str, float] = {}
    best, best_state, best_step = math.inf, None, 0
    batches = _batches(kept, batch_size)
    mean = _MovingAverage(module, settings.average)
    module.train()
    for step in range(1, steps + 1):
        optimiser.zero_grad(set_to_none=True)
        for name, term in losses(next(batches), (step - 1) / steps):
            value = term.item()
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"loss term {name!r} is {value} at step {step}; lower the learning rate or the clip_norm"
                )
            term.backward()
            sums[name] = sums.get(name, 0.0) + value
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient is not finite at step {step}; lower the learning rate")
        optimiser.step()
        schedule.step()
        mean.update()
        if step % check_every == 0 or step == steps:
            since = step % check_every or check_every
            curves["step"].append(step)
            for name, total in sums.items():
                curves.setdefault(name, []).append(total / since)
            sums = {}
            mean.swap()
            value = _held_out_loss(module, losses, held, batch_size)
            curves["held_out"].append(value)
            progress.update(step, steps, f"held-out loss {value:.4g}")
            if step >= settings.settle * steps:
                if value < best:
                    best, best_step = value, step
                    best_state = {k: v.detach().clone() for k, v in module.state_dict().items()}
                elif step - best_step >= settings.patience * settings.check_every:
                    break
            mean.swap()
    if best_state is not None:
        module.load_state_dict(best_state)
    module.eval()
    module.requires_grad_(False)
    return {name: torch.tensor(values) for name, values in curves.items()}


@dataclass(frozen=True)
class Stage:
    """Progress of one of several trainings that follow each other.

    Args:
        whole: told how far they all are.
        index, count: which one this is, and their number.
        label: what is put before a message.
    """

    whole: Progress
    index: int
    count: int
    label: str = ""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Say that ``done`` of ``total`` steps of this training are taken."""
        self.whole.update(self.index * total + done, self.count * total, self.label + message)


class _MovingAverage:
    """An exponential moving average of a module's parameters, to be swapped with them; its weights start at the first.

    With a decay of 0 it does nothing.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"average is {decay}; expected a decay a step of at least 0 and below 1, such as 0.999")
        self.decay, self.steps = decay, 0
        self.current = [p for p in module.parameters() if p.requires_grad] if decay else []
        self.mean = [p.detach().clone() for p in self.current]

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters of this step in; early on with more weight, so that the start is soon forgotten."""
        if self.mean:
            self.steps += 1
            decay = min(self.decay, self.steps / (self.steps + 10))
            for mean, current in zip(self.mean, self.current, strict=True):
                mean.lerp_(current, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their average."""
        for current, mean in zip(self.current, self.mean, strict=True):
            held = current.detach().clone()
            current.copy_(mean)
            mean.copy_(held)


def _batches(data: tuple[Tensor, ...], size: int) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches, each epoch in a new order; the short rest of an epoch is left out."""
    rows = len(data[0])
    while True:
        order = torch.randperm(rows, device=data[0].device)
        for start in range(0, rows - size + 1, size):
            index = order[start : start + size]
            yield tuple(t[index] for t in data)


def _held_out_loss(module: nn.Module, losses: Losses, held: tuple[Tensor, ...], batch_size: int) -> float:
    """The loss at the end of all ramps, with the same random numbers at every look, so that looks compare."""
    module.eval()
    total, rows = 0.0, len(held[0])
    size = min(batch_size, rows)
    with torch.no_grad(), scope(seed_for("held-out"), device=held[0].device, dtype=torch.get_default_dtype()):
        starts = range(0, rows - size + 1, size)
        for start in starts:
            batch = tuple(t[start : start + size] for t in held)
            total += sum(term.item() for _, term in losses(batch, 1.0))
    module.train()
    value = total / len(starts)
    return value if math.isfinite(value) else math.inf


@dataclass(frozen=True)
class TrainedMethod(Method, Generic[Model]):
    """A method that trains one module and keeps its weights; a method adds its architecture and its loss.

    Args:
        steps, epochs, batch_size, learning_rate, weight_decay, patience, average: see ``Training``.
    """

    steps: int = 4000
    epochs: int | None = 30
    batch_size: int = 500
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    patience: int = 10
    average: float = 0.0

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """Train on the valid simulations."""
        pairs = simulations.only_valid()
        theta_map = ThetaMap.of(problem.prior, pairs.theta)
        model = self._model(theta_map, Standardise.of(pairs.y), problem).to(pairs.theta.device)
        data = [theta_map(pairs.theta), model.get_submodule("y_map")(pairs.y)]
        if pairs.noise is not None:
            data.append(pairs.noise)
        return self._posterior(model, self._train(model, tuple(data), progress))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior with these weights."""
        y_map = Standardise(torch.Size(problem.y_shape).numel())
        model = self._model(ThetaMap(problem.prior), y_map, problem)
        model.load_state_dict(tensors)
        model.to(next(iter(tensors.values())).device).eval().requires_grad_(False)
        return self._posterior(model, {})

    @abstractmethod
    def _model(self, theta_map: ThetaMap, y_map: Standardise, problem: Problem) -> Model:
        """The untrained module, which holds both maps, as ``theta_map`` and ``y_map``, and its networks."""

    @abstractmethod
    def _train(self, model: Model, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        """Train ``model`` in place and return its curves.

        Args:
            model: what ``_model`` returned.
            data: mapped parameters (N, D), standardised measurements (N, M) and, for a method that declared that it
                needs it, the noise (N, noise_dim) behind them.
            progress: told how far it is.
        """

    @abstractmethod
    def _posterior(self, model: Model, history: Mapping[str, Tensor]) -> Posterior:
        """The posterior of a trained module."""

    def _settings(self, settle: float = 0.0) -> Training:
        return Training(
            steps=self.steps,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            average=self.average,
            settle=settle,
        )

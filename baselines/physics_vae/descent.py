"""The training loop of the physics VAE: Adam with clipped gradient values, as its authors have it.

The loop that all other methods share does not fit. It takes batches of a twentieth of the data at most, 45 of 1000
series, where a step through the solver costs nearly the same for 200; it chooses weights by the loss, where the authors
do by the error of reconstruction; and its optimiser lacks their large ``eps``. That matters here: multiplied by the
variance of the noise, gradients of an encoder's log variance are far below 0.001, so that ``eps`` sets their pace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posterior_bench import Progress
from posterior_bench.runtime import scope, seed_for


@dataclass(frozen=True)
class Descent:
    """Settings of the loop.

    Args:
        steps: gradient steps.
        batch_size: measurements a step, fewer where there are fewer.
        learning_rate: of Adam, at the start.
        final_rate: fraction of it that is left at the end, by a cosine; 1 for a constant rate.
        epsilon: of Adam, added to the root of the mean squared gradient.
        weight_decay: of Adam, added to the gradient.
        clip_value: each number of the gradient is clipped to this size.
        held_out: fraction of the measurements that is kept for the choice of the best weights.
        check_every: steps between looks at them; there are at least 20 looks.
    """

    steps: int
    batch_size: int
    learning_rate: float
    final_rate: float
    epsilon: float
    weight_decay: float
    clip_value: float
    held_out: float
    check_every: int


def descend(
    module: nn.Module,
    losses: Callable[[Tensor], Mapping[str, Tensor]],
    error: Callable[[Tensor], Tensor],
    y: Tensor,
    settings: Descent,
    progress: Progress,
) -> dict[str, Tensor]:
    """Train ``module`` in place and leave it with the weights of the lowest held-out error, in eval mode.

    Args:
        module: whose parameters are trained.
        losses: the weighted terms of the loss of a batch (N, *y_shape), by name.
        error: of held-out measurements (N, *y_shape), by which weights are chosen; it may draw random numbers, which
            are the same at every look.
        y: all measurements (R, *y_shape).
        settings: see ``Descent``.
        progress: told the step and the held-out error.

    Returns:
        Curves for display, one value a look: ``step``, each term's mean since the last look, and ``held_out``.

    Raises:
        ValueError: on fewer than 10 measurements.
        FloatingPointError: where the loss or its gradient is not finite.
    """
    if len(y) < 10:
        raise ValueError(f"{len(y)} unlabelled measurements are too few to train on; expected at least 10")
    order = torch.randperm(len(y), device=y.device)
    count = max(1, round(settings.held_out * len(y)))
    held, kept = y[order[:count]], y[order[count:]]
    check_every = max(1, min(settings.check_every, settings.steps // 20))
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(
        parameters, settings.learning_rate, eps=settings.epsilon, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, T_max=settings.steps, eta_min=settings.final_rate * settings.learning_rate
    )
    curves: dict[str, list[float]] = {"step": [], "held_out": []}
    sums: dict[str, float] = {}
    best, best_state = math.inf, None
    batches = _batches(kept, min(settings.batch_size, len(kept)))
    module.train()
    for step in range(1, settings.steps + 1):
        optimiser.zero_grad(set_to_none=True)
        terms = losses(next(batches))
        loss = torch.stack(list(terms.values())).sum()
        if not math.isfinite(loss.item()):
            found = {name: term.item() for name, term in terms.items()}
            raise FloatingPointError(f"the loss is not finite at step {step}: {found}; lower the learning rate")
        loss.backward()
        nn.utils.clip_grad_value_(parameters, settings.clip_value)
        optimiser.step()
        schedule.step()
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item()
        if step % check_every == 0 or step == settings.steps:
            since = step % check_every or check_every
            curves["step"].append(step)
            for name, total in sums.items():
                curves.setdefault(name, []).append(total / since)
            sums = {}
            value = _held_out_error(module, error, held)
            curves["held_out"].append(value)
            progress.update(step, settings.steps, f"held-out error {value:.4g}")
            if value < best:
                best, best_state = value, {k: v.detach().clone() for k, v in module.state_dict().items()}
    if best_state is None:
        raise FloatingPointError("no look at the held-out measurements gave a finite error; lower the learning rate")
    module.load_state_dict(best_state)
    module.eval()
    module.requires_grad_(False)
    return {name: torch.tensor(values) for name, values in curves.items()}


def _batches(y: Tensor, size: int) -> Iterator[Tensor]:
    """Endless batches, each epoch in a new order; the short rest of an epoch is left out."""
    while True:
        order = torch.randperm(len(y), device=y.device)
        for start in range(0, len(y) - size + 1, size):
            yield y[order[start : start + size]]


def _held_out_error(module: nn.Module, error: Callable[[Tensor], Tensor], held: Tensor) -> float:
    module.eval()
    with torch.no_grad(), scope(seed_for("held-out"), device=held.device, dtype=torch.get_default_dtype()):
        value = float(error(held))
    module.train()
    return value if math.isfinite(value) else math.inf

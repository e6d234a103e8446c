"""The one training loop, and the maps that surround every network: of y to unit scale, of theta to the reals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, biject_to

from .contracts import Progress
from .priors import known_marginals
from .runtime import scope, seed_for

Losses = Callable[[tuple[Tensor, ...], float], Iterator[tuple[str, Tensor]]]
"""``losses(batch, fraction)`` yields named, weighted terms, whose sum is the loss; ``fraction`` in [0, 1] is how much
of the training has passed, for ramps. Each term is differentiated before the next is asked for, so that a generator
can do one pass of a network at a time and never holds two graphs."""


class Standardise(nn.Module):
    """The map of y to mean 0 and standard deviation 1 a dimension; a constant dimension keeps scale 1."""

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @classmethod
    def of(cls, values: Tensor) -> Standardise:
        """The map for the sample ``values`` (N, *shape), flattened to (N, dim)."""
        flat = values.flatten(1)
        module = cls(flat.shape[1])
        module.loc = flat.mean(0)
        sd = flat.std(0) if len(flat) > 1 else torch.zeros_like(module.loc)
        # rounding leaves a constant column with an sd of about eps * |mean|: that is not a scale
        constant = ~(sd > 1e-6 * module.loc.abs())
        module.scale = torch.where(constant, torch.ones_like(sd), sd)
        return module

    def forward(self, values: Tensor) -> Tensor:
        """(N, *shape) -> (N, dim), standardised."""
        return (values.flatten(1) - self.loc) / self.scale

    def inverse(self, values: Tensor) -> Tensor:
        """(N, dim) -> (N, dim), back in the units of the sample."""
        return values * self.scale + self.loc


class ThetaMap(nn.Module):
    """A bijection of theta to the reals, so that a network needs to know nothing of bounds.

    Where the prior is a product of known marginals F_i, real_i = Phi^-1(F_i(theta_i)): the prior becomes N(0, I).
    Else ``biject_to(prior.support)``, standardised on the simulations.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, prior: Distribution) -> None:
        super().__init__()
        self.prior = prior
        self.marginals = known_marginals(prior)
        dim = prior.event_shape[0]
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @classmethod
    def of(cls, prior: Distribution, theta: Tensor) -> ThetaMap:
        """The map for a prior, with scales from the sample ``theta`` (N, D) where they are not known."""
        module = cls(prior)
        if module.marginals is None:
            real = biject_to(prior.support).inv(theta)
            module.loc, module.scale = real.mean(0), real.std(0).clamp_min(1e-8)
        return module

    def forward(self, theta: Tensor) -> Tensor:
        """theta (..., D) -> real (..., D). Values within 1e-12 of a bound's probability are moved inside."""
        if self.marginals is None:
            return (biject_to(self.prior.support).inv(theta) - self.loc) / self.scale
        columns = []
        for marginal, column in zip(self.marginals, theta.double().unbind(-1), strict=True):
            if isinstance(marginal, Normal):
                columns.append((column - marginal.loc) / marginal.scale)
            else:
                columns.append(torch.special.ndtri(marginal.cdf(column).clamp(1e-12, 1 - 1e-12)))
        return torch.stack(columns, dim=-1).to(theta.dtype)

    def inverse(self, real: Tensor) -> Tensor:
        """real (..., D) -> theta (..., D), always inside the support."""
        if self.marginals is None:
            return biject_to(self.prior.support)(real * self.scale + self.loc)
        columns = []
        for marginal, column in zip(self.marginals, real.double().unbind(-1), strict=True):
            if isinstance(marginal, Normal):
                columns.append(column * marginal.scale + marginal.loc)
            else:
                columns.append(marginal.icdf(torch.special.ndtr(column).clamp(1e-12, 1 - 1e-12)))
        return torch.stack(columns, dim=-1).to(real.dtype)

    def log_abs_det(self, theta: Tensor) -> Tensor:
        """log |d real / d theta|, (...,), at theta (..., D): what turns a density of real into one of theta."""
        real = self(theta)
        if self.marginals is None:
            transform = biject_to(self.prior.support)
            raw = real * self.scale + self.loc
            jacobian = transform.log_abs_det_jacobian(raw, theta)
            return -_sum_last(jacobian, theta) - self.scale.log().sum()
        # d Phi^-1(F(t)) / dt = p(t) / phi(Phi^-1(F(t)))
        log_phi = -0.5 * real**2 - 0.5 * math.log(2 * math.pi)
        densities = [m.log_prob(t) for m, t in zip(self.marginals, theta.unbind(-1), strict=True)]
        return torch.stack(densities, dim=-1).sum(-1) - log_phi.sum(-1)


def _sum_last(values: Tensor, like: Tensor) -> Tensor:
    return values.sum(-1) if values.shape == like.shape else values


@dataclass(frozen=True)
class Training:
    """Settings of the training loop; the defaults suit small networks on standardised data.

    Args:
        steps: gradient steps at most; with a cosine schedule the learning rate ends at 1 % of its start.
        batch_size: pairs a step; fewer where pairs are few, so that a pass over them has at least 20 steps.
        learning_rate: of AdamW (Loshchilov & Hutter 2019), at the start.
        weight_decay: of AdamW.
        clip_norm: the gradient's norm is clipped here.
        held_out: fraction of the pairs that is kept for the choice of the best weights and for stopping.
        epochs: passes over the pairs at most, which shortens ``steps`` where pairs are few, so that the learning rate
            has come down before a network knows its pairs by heart. ``None`` for no such limit.
        check_every: steps between looks at the held-out pairs; there are at least 20 looks.
        patience: training stops after ``patience * check_every`` steps without a better held-out loss.
        settle: fraction of the steps before which it neither stops nor keeps weights, for losses that are ramped.
    """

    steps: int = 4000
    batch_size: int = 500
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    clip_norm: float = 10.0
    held_out: float = 0.05
    epochs: int | None = None
    check_every: int = 200
    patience: int = 10
    settle: float = 0.0


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
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps, eta_min=0.01 * settings.learning_rate)
    curves: dict[str, list[float]] = {"step": [], "held_out": []}
    sums: dict[str, float] = {}
    best, best_state, best_step = math.inf, None, 0
    batches = _batches(kept, batch_size)
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
        if step % check_every == 0 or step == steps:
            since = step % check_every or check_every
            curves["step"].append(step)
            for name, total in sums.items():
                curves.setdefault(name, []).append(total / since)
            sums = {}
            value = _held_out_loss(module, losses, held, batch_size)
            curves["held_out"].append(value)
            progress.update(step, steps, f"held-out loss {value:.4g}")
            if step >= settings.settle * steps:
                if value < best:
                    best, best_step = value, step
                    best_state = {k: v.detach().clone() for k, v in module.state_dict().items()}
                elif step - best_step >= settings.patience * settings.check_every:
                    break
    if best_state is not None:
        module.load_state_dict(best_state)
    module.eval()
    module.requires_grad_(False)
    return {name: torch.tensor(values) for name, values in curves.items()}


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

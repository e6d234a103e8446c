"""Two populations u = (u1, u2) of which each changes the other's rate of growth.

    d log u1 / dt = g1 + c1 u2,   d log u2 / dt = g2 + c2 u1

with rates of growth g and of contact c: predators and prey where c1 < 0 < c2 (Lotka 1925, Volterra 1926), and an
epidemic where, besides, the susceptible u1 do not grow (Kermack & McKendrick 1927). In the logarithms, populations stay
positive and exponential growth and decay are straight lines, so that only what is curved costs steps.

Solved by the pair of orders 5 and 4 of Dormand & Prince (1980, J. Comput. Appl. Math. 6), each row with its own steps,
all rows at once. A row whose solution escapes to infinity, or takes more than ``STEPS`` steps, fails.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""Weights of the changes found so far in the place of the next; the last one is the solution of order 5."""

ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Weights of the seven changes in the difference of the two orders."""

TOLERANCE = 3e-8
"""Of a step's error in log u. Along trajectories of the priors here it adds up to less than 1e-5."""

FIRST_STEP = 0.01
STEPS = 1000
"""In each interval between two times. Trajectories of the priors here take at most about 600 in all."""

LARGEST = 200.0
"""Of log u in a rate: what a step that was too long tried is then finite, and rejected."""


def trajectories(growth: Tensor, contact: Tensor, start: tuple[float, float], times: tuple[float, ...]) -> Tensor:
    """Logarithms of the populations, (T, 2, N); NaN in all of a row that fails. Gradients flow to the rates.

    Args:
        growth: (2, N), rates of growth, in double precision.
        contact: (2, N), rates of change for each member of the other population.
        start: populations at the first time.
        times: T times in increasing order.
    """
    valid = torch.isfinite(growth).all(0) & torch.isfinite(contact).all(0)
    growth, contact = (torch.where(valid, rates, 0.0) for rates in (growth, contact))
    state = torch.tensor(start, dtype=growth.dtype, device=growth.device).log()[:, None].expand_as(growth)
    step = torch.full_like(growth[0], FIRST_STEP).detach()
    states = [state]
    for before, after in pairwise(times):
        remaining = torch.where(valid, after - before, torch.zeros_like(step))
        state, step, finished = _advance(growth, contact, state, step, remaining)
        valid = valid & finished
        states.append(state)
    return torch.where(valid, torch.stack(states), torch.nan)


def _advance(
    growth: Tensor, contact: Tensor, state: Tensor, step: Tensor, remaining: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """State (2, N) after the times ``remaining`` (N,), the next steps (N,), and which rows got there (N,)."""
    for _ in range(STEPS):
        taken = torch.minimum(step, remaining)
        proposed, error = _try_step(growth * taken, contact * taken, state)
        accepted = error <= 1
        adapted = taken * (0.9 * error.clamp(1e-4, 1e3) ** -0.2)  # by factors between 0.23 and 5.7
        # a step cut short at the end says nothing against the one that was planned
        step = torch.where(accepted & (taken < step), step, adapted)
        remaining = torch.where(accepted, remaining - taken, remaining)
        state = torch.where(accepted, proposed, state)
        pending = remaining > 0
        count = int(pending.sum())
        if count == 0:
            break
        if count <= len(pending) // 2:  # the slow rows go on alone
            rows = pending.nonzero()[:, 0]
            rest = _advance(growth[:, rows], contact[:, rows], state[:, rows], step[rows], remaining[rows])
            finished = (~pending).index_copy(0, rows, rest[2])
            return state.index_copy(1, rows, rest[0]), step.index_copy(0, rows, rest[1]), finished
    return state, step, remaining <= 0


def _try_step(growth: Tensor, contact: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The state (2, N) a step on, and the error (N,) in units of the tolerance. The rates are those for each step."""
    changes = [_change(growth, contact, state)]
    place = state
    for weights in STAGES:
        place = _weighted(state, weights, changes)
        changes.append(_change(growth, contact, place))
    with torch.no_grad():
        error = _weighted(torch.zeros_like(state), ERROR, changes).abs().amax(0) / TOLERANCE
    return place, error


def _weighted(total: Tensor, weights: tuple[float, ...], changes: list[Tensor]) -> Tensor:
    for weight, change in zip(weights, changes, strict=True):
        if weight:
            total = total.add(change, alpha=weight)
    return total


def _change(growth: Tensor, contact: Tensor, state: Tensor) -> Tensor:
    """(2, N), by how much log u changes in a step at this slope."""
    return torch.addcmul(growth, contact, state.clamp(max=LARGEST).exp().flip(0))

"""Ordinary differential equations by steps of fixed size, all rows at once; gradients flow through them.

    d state / dt = f(state, t),   t_k = k h

    euler   state_{k+1} = state_k + h f(state_k, t_k)                              error in proportion to h
    rk4     state_{k+1} = state_k + h (f_1 + 2 f_2 + 2 f_3 + f_4) / 6              to h^4

with f_1 = f(state_k, t_k), f_2 and f_3 half a step on, f_4 a step on (Kutta 1901; Hairer, Nørsett & Wanner 1993,
Solving Ordinary Differential Equations I, section II.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SOLVERS = ("rk4", "euler")
"""Classical Runge-Kutta, and explicit Euler."""

Derivative = Callable[[Tensor, float], Tensor]
"""``derivative(state, time)``: d state / dt (N, S) at states (N, S)."""


def require_solver(solver: str, substeps: int) -> None:
    """Raise ``ValueError`` where ``integrate`` does not know the solver, or takes no step from one time to the next."""
    if solver not in SOLVERS:
        raise ValueError(f"found solver {solver!r}; expected {' or '.join(map(repr, SOLVERS))}")
    if substeps < 1:
        raise ValueError(f"found substeps {substeps}; expected 1 or more from one time to the next")


def integrate(
    derivative: Derivative, initial: Tensor, steps: int, time_step: float, substeps: int, solver: str
) -> Tensor:
    """States at t = 0, ``time_step``, ..., of d state / dt = derivative(state, t).

    Args:
        derivative: d state / dt (N, S) in units of the state over that of time, at states (N, S) and a time.
        initial: (N, S), the state at t = 0.
        steps: T, number of states returned, the initial one among them.
        time_step: from one of them to the next.
        substeps: steps of the solver from one of them to the next.
        solver: one of ``SOLVERS``.

    Returns:
        (N, T, S).

    Raises:
        ValueError: on an unknown solver, or fewer than one substep.

    >>> def decay(state, time):
    ...     return -state
    >>> integrate(decay, torch.ones(1, 1), steps=3, time_step=0.5, substeps=4, solver="rk4").flatten()
    tensor([1.0000, 0.6065, 0.3679])
    """
    require_solver(solver, substeps)
    h = time_step / substeps
    states = [initial]
    for index in range((steps - 1) * substeps):
        if index % substeps == 0:
            states.append(states[-1])
        states[-1] = _advance(derivative, states[-1], index * h, h, solver)
    return torch.stack(states, dim=1)


def _advance(derivative: Derivative, state: Tensor, time: float, h: float, solver: str) -> Tensor:
    """The state a step h after ``time``."""
    first = derivative(state, time)
    if solver == "euler":
        return torch.add(state, first, alpha=h)
    # sums with a factor are one operation each: an autograd graph through the solver is made of these lines
    second = derivative(torch.add(state, first, alpha=h / 2), time + h / 2)
    third = derivative(torch.add(state, second, alpha=h / 2), time + h / 2)
    fourth = derivative(torch.add(state, third, alpha=h), time + h)
    slope = torch.add(first + fourth, second + third, alpha=2)
    return torch.add(state, slope, alpha=h / 6)

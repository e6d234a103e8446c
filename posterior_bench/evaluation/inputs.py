"""What every metric asks of the draws and the truth before it scores them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..records import Draws, Truth
from .arithmetic import chunks, sort


def check(draws: Draws, truth: Truth) -> None:
    """Raise ``ValueError`` where draws and truth do not belong together or hold numbers that cannot be scored.

    Non-finite draws raise here, in every metric but ``Leakage``, which counts them: a mean over the draws that
    happened to be finite would flatter the method that lost the others.
    """
    check_shapes(draws, truth)
    if draws.theta.requires_grad:
        raise ValueError("the draws carry gradients; call sample() under torch.no_grad()")
    if len(draws.theta) < 3:
        raise ValueError(f"found {len(draws.theta)} draws a measurement; the fair scores need at least 3")
    finite = torch.isfinite(draws.theta).all(-1)
    if not finite.all():
        lost = (~finite).any(0).nonzero()
        raise ValueError(
            f"{int((~finite).sum())} of {finite.numel()} draws are not finite, the first for measurement "
            f"{int(lost[0])} ({len(lost)} measurements in all); a posterior must return finite draws. Likely cures: "
            "a lower learning rate, a bounded scale in the last layer, or early stopping on a finite loss"
        )
    if not torch.isfinite(truth.theta).all():
        raise ValueError(
            "the true parameters hold NaN or infinity; the test set must come from valid draws of the prior"
        )
    scale = truth.prior_sd
    if not (scale > 0).all():
        index = int((~(scale > 0)).nonzero()[0])
        raise ValueError(
            f"parameter {truth.parameters[index].name!r} has spread {float(scale[index])} under the prior; expected a "
            "positive one, since scores are in units of it. A constant is no parameter: leave it out of the simulator"
        )


def check_shapes(draws: Draws, truth: Truth) -> None:
    """Raise ``ValueError`` unless the draws are (n, T, D) for a truth (T, D) with D named parameters."""
    if draws.theta.ndim != 3 or draws.theta.shape[1:] != truth.theta.shape or not len(draws.theta):
        raise ValueError(
            f"found draws of shape {tuple(draws.theta.shape)} for true parameters of shape "
            f"{tuple(truth.theta.shape)}; expected (n, T, D) for (T, D): draws lead, then measurements"
        )
    if truth.theta.shape[1] != len(truth.parameters):
        raise ValueError(f"theta has {truth.theta.shape[1]} columns and there are {len(truth.parameters)} parameters")


def names(truth: Truth) -> list[str]:
    """The parameters' names, in the order of theta's columns."""
    return [parameter.name for parameter in truth.parameters]


def whole_numbers(theta: Tensor) -> Tensor:
    """Which of the D columns of theta (..., D) hold whole numbers only: (D,), bool."""
    return (theta == theta.round()).flatten(0, -2).all(0)


def fingerprints(draws: Tensor, first: int = 0) -> Tensor:
    """A number a draw, (n, T) for draws (n, T, D), equal for equal draws of a measurement alone.

    A draw that appears again is one draw, not two: importance sampling repeats those of large weight, and rejection
    with replacement any. Where all parameters are whole numbers, equal draws mean nothing: there the numbers only
    count, from ``first``.
    """
    n, total, dim = draws.shape
    if whole_numbers(draws).all():
        return (first + torch.arange(n, dtype=torch.float64, device=draws.device))[:, None].expand(n, total)
    weights = torch.arange(1, dim + 1, dtype=torch.float64, device=draws.device).sqrt()
    return torch.cat([(draws[:, part].double() * weights).sum(-1) for part in chunks(total, n * dim)], dim=1)


def first_of_equals(draws: Tensor) -> Tensor:
    """Which draws are the first of those equal to them, (n, T), bool, for draws (n, T, D): all where none repeats."""
    ordered, order = fingerprints(draws).sort(dim=0, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return torch.zeros_like(first).scatter_(0, order, first)


def multiplicities(draws: Tensor) -> Tensor:
    """How often each draw appears among those of its measurement, itself included: (n, T) for draws (n, T, D)."""
    marks = fingerprints(draws).T.contiguous()
    ordered = sort(marks)
    found = torch.searchsorted(ordered, marks, right=True) - torch.searchsorted(ordered, marks)
    return found.T.to(draws.dtype)

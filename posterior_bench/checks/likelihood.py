"""Checks of a likelihood: that it is the normalised density of what ``simulate`` draws."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..priors import in_support
from .findings import Failure
from .statistics import normalisation, weights_off_one

LIMIT = 5.0
"""Standard errors beyond which a mean is off: two-sided 6e-7 for a normal, generous for heavier tails."""


def likelihood_checks(simulator: Any, simulations: int) -> list[partial[str]]:
    """The checks of ``log_likelihood``."""
    return [
        partial(check, simulator, simulations) for check in (_likelihood, _likelihood_ratio, _likelihood_normalisation)
    ]


def measured(simulator: Any, count: int) -> tuple[Tensor, Tensor]:
    """Valid pairs of theta and y, at most ``count``."""
    theta = simulator.prior().sample((count,))
    y = simulator.simulate(theta)
    valid = torch.isfinite(y.flatten(1)).all(1)
    return theta[valid], y[valid]


def _likelihood(simulator: Any, simulations: int) -> str:
    theta, y = measured(simulator, simulations)
    value = simulator.log_likelihood(theta, y)
    if tuple(value.shape) != (len(theta),):
        raise Failure(f"shape {tuple(value.shape)}", f"({len(theta)},), one number a row", "Sum over the axes of y.")
    if not torch.isfinite(value).all():
        raise Failure(
            f"{int((~torch.isfinite(value)).sum())} of {len(value)} values at simulated pairs that are not finite",
            "finite ones: what was simulated is possible",
            "Check the support and the scale of the likelihood.",
        )
    return "finite at simulated pairs"


def _likelihood_ratio(simulator: Any, simulations: int) -> str:
    """E[p(y | theta') / p(y | theta)] = 1 for y simulated at theta: catches what depends on theta, such as a scale."""
    told = 0
    for _ in range(4):
        pair = simulator.prior().sample((2,))
        theta = pair[:1].expand(simulations, -1)
        y = simulator.simulate(theta)
        if not torch.isfinite(y).all():
            continue  # what is left after failures is no longer drawn from the likelihood
        if (y == y[:1]).all():
            continue  # one value, as of a discrete y: the weights are constant, and say nothing of the values not seen
        base = simulator.log_likelihood(theta, y)
        step = 0.01
        for _ in range(4):
            other = pair[:1] + step * (pair[1:] - pair[:1])
            if not in_support(simulator.prior(), other).all():
                break
            weights = simulator.log_likelihood(other.expand(simulations, -1), y) - base
            spread = float(weights.double().square().mean().sqrt())
            # it grows with the step; above 0.3, rare large weights that the sample lacks can rule the mean
            if 0.1 < spread < 0.3 or (step == 1.0 and spread < 0.3):
                off = weights_off_one(weights)
                told += off is not None
                if off is not None and abs(off) > LIMIT:
                    raise Failure(
                        f"E[p(y | theta') / p(y | theta)] off 1 by {off:+.1f} standard errors for y simulated at theta",
                        "1",
                        "The likelihood is not that of simulate(): check sd against variance, and terms that depend on "
                        "theta, such as the logarithm of a scale.",
                    )
                break
            step = min(1.0, step * 0.2 / max(spread, 1e-6))
    return f"agrees with simulate() at {told} pairs of theta" if told else "could not be told from these samples"


def _likelihood_normalisation(simulator: Any, simulations: int) -> str:
    """E[g(y) / p(y | theta)] = 1 for any density g: catches constants that ratios cancel. For continuous y."""
    told = 0
    for _ in range(3):
        theta = simulator.prior().sample((1,))
        y = simulator.simulate(theta.expand(2 * simulations, -1))
        flat = y.flatten(1)
        if not torch.isfinite(flat).all() or bool((flat == flat.round()).any(0).any()):
            continue  # counts have probabilities, not densities; for failures see above
        shape = simulator.spec.y_shape

        def claimed(values: Tensor, theta: Tensor = theta, shape: tuple[int, ...] = shape) -> Tensor:
            return simulator.log_likelihood(theta.expand(len(values), -1), values.reshape(-1, *shape))

        off = normalisation(flat, claimed)
        told += off is not None
        if off is not None and abs(off) > LIMIT:
            raise Failure(
                f"a likelihood whose integral over y is off 1 by {off:+.1f} standard errors",
                "1",
                "Check its constants, such as log sqrt(2 pi) for each number of a measurement, and its scale.",
            )
    return f"integrates to 1 at {told} of 3 theta" if told else "could not be told from samples of this y"

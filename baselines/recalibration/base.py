"""What all recalibrations share: the posterior they start from, seen through its moments, and the labelled pairs.

    t_1 .. t_n ~ q_base(t | y), draws of mapped theta t = T(theta), have mean m(y) and sd s(y)

A correction is fitted in mapped theta, where the prior is N(0, I) or its support is at least the reals, so that what
comes out lies in the support of the simulator's prior and has a proper density. It learns from labelled pairs alone
how far m(y) is off and how wide the posterior should be, and keeps no part of the posterior it starts from.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import StudentT

from posterior_bench import HasLogProb, Method, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.priors import in_support, log_density_in_support
from posterior_bench.runtime import scope, seed_for
from posterior_bench.training import ThetaMap

NEEDS = frozenset({Need.POSTERIOR, Need.LABELLED})

SMALLEST_SD = 1e-6
"""Of draws of mapped theta: below it they are one point, but for rounding."""


class Moments(NamedTuple):
    """Of the draws of mapped theta for each of B measurements."""

    mean: Tensor
    """(B, D)"""
    sd: Tensor
    """(B, D), at least ``SMALLEST_SD``."""


class Base:
    """The posterior that is corrected, seen through its moments.

    Args:
        posterior: of another method, fitted.
        theta_map: from theta to the reals.
        draws: from which the moments of one measurement are estimated.
    """

    def __init__(self, posterior: Posterior, theta_map: ThetaMap, draws: int) -> None:
        self.posterior, self.theta_map, self.draws = posterior, theta_map, draws
        self._known: dict[bytes, Tensor] = {}

    def moments(self, y: Tensor) -> Moments:
        """Moments for measurements y (B, *y_shape): the same ones for a measurement whenever it is asked for.

        Draws are made for one measurement at a time, with the same random numbers for each: then a density does not
        depend on what else is in the batch, and the error of a moment is much the same for all, so that the
        correction takes it out. A posterior that rests on a whole batch cannot be corrected in this way.
        """
        rows = []
        for row in y.detach():
            key = hashlib.blake2b(row.cpu().contiguous().numpy().tobytes(), digest_size=16).digest()
            if key not in self._known:
                self._known[key] = self._measure(row.unsqueeze(0))
            rows.append(self._known[key])
        dim = self.theta_map.loc.shape[0]
        return Moments(*(torch.stack(rows) if rows else y.new_zeros(0, 2, dim)).unbind(1))

    def _measure(self, y: Tensor) -> Tensor:
        """Mean and sd, (2, D), for one measurement (1, *y_shape)."""
        with torch.no_grad(), scope(seed_for("moments of draws"), y.device, torch.get_default_dtype()):
            real = self.theta_map(self.posterior.sample(y, self.draws))[:, 0]
        if not torch.isfinite(real).all():
            raise ValueError(
                f"{type(self.posterior).__name__} gave draws that are not finite, or outside the prior's support; "
                "expected draws that can be mapped to the reals: recalibrate another posterior"
            )
        return torch.stack([real.mean(0), real.std(0).clamp_min(SMALLEST_SD)])


class Recalibrated(Posterior):
    """A posterior that is another one and a correction.

    Args:
        base: the posterior that is corrected.
        correction: what was learned from the labels.
    """

    def __init__(self, base: Base, correction: Mapping[str, Tensor]) -> None:
        self.base, self.correction = base, correction

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The correction alone, with the scales of theta's map; the problem holds the posterior it starts from."""
        scales = {"theta_loc": self.base.theta_map.loc, "theta_scale": self.base.theta_map.scale}
        return scales | dict(self.correction), {}


class RecalibratedStudent(Recalibrated, HasLogProb):
    """Student's t for each mapped parameter, the parameters independent of each other given y."""

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        with torch.no_grad():
            return self.base.theta_map.inverse(self._predictive(y).sample(torch.Size((n,))))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and y (B, *y_shape); -inf outside the support."""
        theta_map, predictive = self.base.theta_map, self._predictive(y)

        def density(at: Tensor) -> Tensor:
            return predictive.log_prob(theta_map(at)).sum(-1) + theta_map.log_abs_det(at)

        anchor = theta_map.inverse(torch.zeros_like(theta[0, 0]))
        return log_density_in_support(theta_map.prior, theta, anchor, density)

    @abstractmethod
    def _predictive(self, y: Tensor) -> StudentT:
        """The distribution of mapped theta, batch_shape (B, D), for measurements y (B, *y_shape)."""


@dataclass(frozen=True)
class Recalibration(Method):
    """Corrects the posterior that the problem gives by labelled pairs of the process behind the measurements.

    Args:
        labels: pairs to learn from: the first so many valid ones of the problem's.
        draws: of the posterior to start from, by which its moments are estimated, for each measurement.
    """

    labels: int = 50
    draws: int = 200

    def __post_init__(self) -> None:
        if self.labels < 4 or self.draws < 3:
            raise ValueError(f"found labels {self.labels} and draws {self.draws}; expected at least 4 and 3")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """Learn the correction from the labelled pairs. The simulations are not used.

        Raises:
            ValueError: where the problem has fewer valid pairs than ``labels``, or some outside the prior's support.
        """
        pairs = first_pairs(problem, self.labels)
        base = Base(problem.posterior, ThetaMap.of(problem.prior, pairs.theta), self.draws)
        base.theta_map.to(pairs.theta.device)
        return self._posterior(base, self._learn(base, pairs, problem))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior with this correction, on top of the posterior that the problem gives."""
        correction = dict(tensors)
        theta_map = ThetaMap(problem.prior)
        theta_map.loc, theta_map.scale = correction.pop("theta_loc"), correction.pop("theta_scale")
        return self._posterior(Base(problem.posterior, theta_map, self.draws), correction)

    @abstractmethod
    def _learn(self, base: Base, pairs: Simulations, problem: Problem) -> dict[str, Tensor]:
        """The correction for a base, from labelled pairs, all valid and in the support."""

    @abstractmethod
    def _posterior(self, base: Base, correction: Mapping[str, Tensor]) -> Posterior:
        """The corrected posterior."""


def first_pairs(problem: Problem, count: int) -> Simulations:
    """The first ``count`` valid labelled pairs of a problem.

    Raises:
        ValueError: where there are fewer, or some outside the prior's support.
    """
    given = problem.labelled
    pairs = given.only_valid()
    if len(pairs) < count:
        raise ValueError(
            f"found {len(pairs)} valid labelled pairs of {len(given)}; expected at least {count}: lower the method's "
            "option labels, or raise the task's"
        )
    pairs = Simulations(pairs.theta[:count], pairs.y[:count])
    outside = int((~in_support(problem.prior, pairs.theta)).sum())
    if outside:
        raise ValueError(
            f"found {outside} of {count} labelled parameters outside the support of the simulator's prior; expected "
            "none: widen the prior, which must hold whatever the process behind the measurements can be"
        )
    return pairs

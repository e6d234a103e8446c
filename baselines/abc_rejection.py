"""Rejection by approximate Bayesian computation: the parameters of the simulations nearest to the measurement.

    q(theta | y*) = mean over the K nearest j of delta(theta - theta_j),   distance |(y_j - y*) / sd(y)|

Pritchard, Seielstad, Perez-Lezaun & Feldman 1999, Molecular Biology and Evolution 16(12); with the nearest K of a fixed
budget in place of a tolerance, as Ardizzone et al. 2019 (arXiv:1808.04730) use it: K = 256 of 50,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_bench import Method, MethodSpec, Posterior, Problem, Progress, Simulations
from posterior_bench.training import Standardise

BLOCK = 2**22
"""Distances held at a time: 16 MB in single precision."""


class NearestSimulations(Posterior):
    """The ``accept`` simulations of a bank that lie nearest to a measurement.

    Draws for different measurements come from one bank, so they may be the same rows: they are not independent between
    measurements.

    Args:
        theta: (N, D), parameters of the bank.
        y: (N, *y_shape), its measurements, all finite.
        accept: number that is accepted, 1 <= accept <= N.
    """

    def __init__(self, theta: Tensor, y: Tensor, accept: int) -> None:
        self.theta = theta
        self.y = y
        self.accept = accept
        self.standardise = Standardise.of(y).to(y.device)
        self._bank = self.standardise(y)

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D): without replacement where n <= accept, else independent ones with replacement."""
        accepted = self.nearest(y)
        if n <= self.accept:
            order = torch.rand(accepted.shape, device=y.device).topk(n, dim=1).indices
        else:
            order = torch.randint(self.accept, (len(y), n), device=y.device)
        return self.theta[accepted.gather(1, order)].transpose(0, 1)

    def nearest(self, y: Tensor) -> Tensor:
        """Rows (B, accept) of the bank that lie nearest to measurements y (B, *y_shape), nearest first.

        Exact: distances are summed squares of differences, not expanded products, and a row that was dropped has
        ``accept`` nearer ones. At most about ``BLOCK`` distances are held at a time.
        """
        rows = max(1, min(len(self._bank), max(self.accept, BLOCK // 64)))
        columns = max(1, BLOCK // (rows + self.accept))
        return torch.cat([self._nearest(part, rows) for part in self.standardise(y).split(columns)])

    def _nearest(self, y: Tensor, rows: int) -> Tensor:
        distance = torch.empty(len(y), 0, dtype=y.dtype, device=y.device)
        index = torch.empty(len(y), 0, dtype=torch.long, device=y.device)
        for start in range(0, len(self._bank), rows):
            bank = self._bank[start : start + rows]
            new = torch.cdist(y, bank, compute_mode="donot_use_mm_for_euclid_dist")
            best = new.topk(min(self.accept, len(bank)), dim=1, largest=False)
            distance = torch.cat([distance, best.values], dim=1)
            index = torch.cat([index, best.indices + start], dim=1)
            kept = distance.topk(min(self.accept, distance.shape[1]), dim=1, largest=False)
            distance, index = kept.values, index.gather(1, kept.indices)
        return index

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The whole bank: there is nothing smaller that says which rows are near a measurement not seen yet."""
        return {"theta": self.theta, "y": self.y}, {"accept": self.accept}


@dataclass(frozen=True)
class ABCRejection(Method):
    """Keep the simulations nearest to the measurement, each dimension of y scaled by its sd over the simulations.

    Args:
        accept: number of simulations that are accepted; all of them where there are fewer.
        quantile: fraction of the valid simulations that is accepted instead, at least one; 0 to accept ``accept``.
    """

    accept: int = 64
    quantile: float = 0.0

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="abc_rejection",
        version=1,
        reference="Pritchard et al. 1999, Molecular Biology and Evolution 16(12)",
        space="native",
        label="ABC rejection",
    )
    quick: ClassVar[dict[str, object]] = {"accept": 32}

    def __post_init__(self) -> None:
        if self.accept < 1:
            raise ValueError(f"accept is {self.accept}; expected 1 or more")
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile is {self.quantile}; expected a fraction of the simulations between 0 and 1")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> NearestSimulations:
        """Keep the valid simulations.

        Raises:
            ValueError: where none is valid.
        """
        bank = simulations.only_valid()
        if len(bank) == 0:
            raise ValueError(f"none of {len(simulations)} simulations is valid; expected at least one to accept")
        accept = self.accept if self.quantile == 0 else max(1, round(self.quantile * len(bank)))
        return NearestSimulations(bank.theta, bank.y, min(accept, len(bank)))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> NearestSimulations:
        """The same bank."""
        return NearestSimulations(tensors["theta"], tensors["y"], settings["accept"])

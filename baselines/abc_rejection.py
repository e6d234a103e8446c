"""Rejection by approximate Bayesian computation: the parameters of the simulations nearest to the measurement.

    q(theta | y*) = mean over the K nearest j of delta(theta - theta_j),   distance |(y_j - y*) / sd(y)|

Pritchard, Seielstad, Perez-Lezaun & Feldman 1999, Molecular Biology and Evolution 16(12); with the nearest K of a fixed
budget in place of a tolerance, as Ardizzone et al. 2019 (arXiv:1808.04730) use it: K = 256 of 50,000. Smoothed, with
t = T(theta) mapped to the reals,

    q(theta | y*) = mean over the K nearest j of N(T(theta); t_j, h^2 I) |dT / dtheta|

as Lueckmann et al. 2021 (arXiv:2101.04653) smooth the best 100, by the bandwidth h that predicts held-out ones best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from posterior_bench import HasLogProb, Method, MethodSpec, Posterior, Problem, Progress, Simulations
from posterior_bench.priors import log_density_in_support
from posterior_bench.runtime import scope, seed_for
from posterior_bench.training import Standardise, ThetaMap

BLOCK = 2**22
"""Distances held at a time: 16 MB in single precision."""

FOLDS = 20
BANDWIDTHS = (0.1, 0.5)
GRID = 10
"""Of the choice of a bandwidth: parts held out in turn, range in standard deviations and points tried, as in the code
of Lueckmann et al. 2021 (https://github.com/sbi-benchmark/sbibm)."""

REFINEMENTS = 2
"""Of the grid, between the neighbours of its best point: the last one has steps of 0.002 standard deviations."""


class NearestSimulations(Posterior):
    """The ``accept`` simulations of a bank that lie nearest to a measurement.

    Draws for different measurements come from one bank, so they may be the same rows: they are not independent between
    measurements.

    Args:
        theta: (N, D), parameters of the bank.
        y: (N, *y_shape), its measurements, all finite.
        accept: number that is accepted, 1 <= accept <= N.
        scaled: whether each number of y is scaled by its sd over the bank.
    """

    def __init__(self, theta: Tensor, y: Tensor, accept: int, scaled: bool = True) -> None:
        self.theta = theta
        self.y = y
        self.accept = accept
        self.standardise = (Standardise.of(y) if scaled else Standardise(y.flatten(1).shape[1])).to(y.device, y.dtype)
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


class SmoothedSimulations(Posterior, HasLogProb):
    """The nearest simulations of a bank, each blurred by a Gaussian kernel: independent draws, with a density.

    The kernel is the same in all directions of the parameters mapped to the reals, where the prior has the same width
    along each, and its bandwidth is found for each measurement anew. It widens the posterior: by up to a half of the
    parameters' pooled standard deviation, and by no less than a tenth, so that modes that lie far apart are blurred.

    Args:
        nearest: the bank and the number K >= 2 that is accepted.
        prior: p(theta), outside of whose support there is no density.
    """

    def __init__(self, nearest: NearestSimulations, prior: Distribution) -> None:
        self.nearest, self.prior = nearest, prior
        theta = nearest.theta
        self.to_real = ThetaMap.of(prior, theta).to(theta.device)
        # whole numbers are mapped to random places, which must be the same ones after ``restore``
        with scope(seed_for("abc_rejection", "smooth"), theta.device, theta.dtype, torch.get_num_threads()):
            self._real = self.to_real(theta)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D), always inside the prior's support."""
        centres, bandwidth = self.kernels(y)
        chosen = torch.randint(centres.shape[1], (len(y), n, 1), device=y.device).expand(-1, -1, centres.shape[2])
        real = centres.gather(1, chosen)
        real = real + bandwidth[:, None, None] * torch.randn_like(real)
        return self.to_real.inverse(real).transpose(0, 1)

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) in its own units; -inf outside the prior's support."""
        centres, bandwidth = self.kernels(y)
        return log_density_in_support(
            self.prior, theta, self.nearest.theta[0], lambda at: self._log_density(at, centres, bandwidth)
        )

    def _log_density(self, theta: Tensor, centres: Tensor, bandwidth: Tensor) -> Tensor:
        real = self.to_real(theta).transpose(0, 1)
        count, dim = centres.shape[1:]
        rows = max(1, BLOCK // (count * real.shape[1]))
        parts = []
        for at, around, width in zip(real.split(rows), centres.split(rows), bandwidth.split(rows), strict=True):
            distance = torch.cdist(at, around, compute_mode="donot_use_mm_for_euclid_dist") / width[:, None, None]
            parts.append((-0.5 * distance**2).logsumexp(2))
        constant = math.log(count) + dim * (bandwidth.log() + 0.5 * math.log(2 * math.pi))
        return (torch.cat(parts) - constant[:, None]).T + self.to_real.log_abs_det(theta)

    def kernels(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (B, K, D) and standard deviations (B,) of the kernels for y (B, *y_shape), mapped to the reals.

        Those of the last measurements are kept: a density is asked for again and again, as by a search for its maximum.
        """
        if self._last is None or not torch.equal(self._last[0], y):
            with torch.no_grad():
                centres = self._real[self.nearest.nearest(y)]
                rows = max(1, BLOCK // centres.shape[1] ** 2)
                bandwidth = torch.cat([cross_validated(part) for part in centres.split(rows)])
            self._last = y.detach().clone(), centres, bandwidth
        return self._last[1:]

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The whole bank; bandwidths follow from it."""
        return self.nearest.state()


def cross_validated(centres: Tensor) -> Tensor:
    """Bandwidths, (B,), of kernel densities about centres (B, K, D), in their units.

    h maximises sum_k log mean_j N(t_k; t_j, h^2 I), j over the centres outside k's own of ``FOLDS`` parts, over
    ``BANDWIDTHS`` in units of the standard deviation, pooled over dimensions about the mean of each.
    """
    count, dim = centres.shape[1:]
    sd = (centres - centres.mean(1, keepdim=True)).square().mean((1, 2)).sqrt().clamp_min(1e-12)
    scaled = centres / sd[:, None, None]
    exponent = -0.5 * torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    fold = torch.arange(count, device=centres.device) * min(FOLDS, count) // count
    exponent = exponent.masked_fill(fold[:, None] == fold, -math.inf)
    low, high = (torch.full_like(sd, edge) for edge in BANDWIDTHS)
    for _ in range(1 + REFINEMENTS):
        grid = low + (high - low) * torch.linspace(0, 1, GRID, dtype=sd.dtype, device=sd.device)[:, None]
        held_out = [(exponent / h[:, None, None] ** 2).logsumexp(2).sum(1) - count * dim * h.log() for h in grid]
        best = torch.stack(held_out).argmax(0, keepdim=True)
        low, high = (grid.gather(0, (best + step).clamp(0, GRID - 1))[0] for step in (-1, 1))
    return sd * grid.gather(0, best)[0]


@dataclass(frozen=True)
class ABCRejection(Method):
    """Keep the simulations nearest to the measurement, each number of y scaled by its sd over the simulations.

    Lueckmann et al. 2021 published ``accept=100, standardise=False, smooth=True``, but for this: they smoothed
    parameters in their own units, so that draws left the prior's support.

    Args:
        accept: number of simulations that are accepted; all of them where there are fewer.
        quantile: fraction of the valid simulations that is accepted instead, at least one; 0 to accept ``accept``.
        standardise: whether y is scaled.
        smooth: whether draws are blurred by a Gaussian kernel, in parameters mapped to the reals, with a bandwidth by
            cross-validation, see ``SmoothedSimulations``. They then have a density. It costs time in proportion to the
            square of the number accepted: for 100 and 1,000 measurements, seconds.
    """

    accept: int = 64
    quantile: float = 0.0
    standardise: bool = True
    smooth: bool = False

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

    def fit(
        self, simulations: Simulations, problem: Problem, progress: Progress
    ) -> NearestSimulations | SmoothedSimulations:
        """Keep the valid simulations.

        Raises:
            ValueError: where none is valid, or fewer than two are accepted that are to be smoothed.
        """
        bank = simulations.only_valid()
        if len(bank) == 0:
            raise ValueError(f"none of {len(simulations)} simulations is valid; expected at least one to accept")
        accept = self.accept if self.quantile == 0 else max(1, round(self.quantile * len(bank)))
        return self._posterior(bank.theta, bank.y, min(accept, len(bank)), problem)

    def _posterior(
        self, theta: Tensor, y: Tensor, accept: int, problem: Problem
    ) -> NearestSimulations | SmoothedSimulations:
        nearest = NearestSimulations(theta, y, accept, self.standardise)
        if not self.smooth:
            return nearest
        if accept < 2:
            raise ValueError(
                f"{accept} simulation of {len(theta)} is accepted; expected at least 2 to smooth: raise accept, "
                "quantile or the budget"
            )
        return SmoothedSimulations(nearest, problem.prior)

    def restore(
        self, tensors: dict[str, Tensor], settings: dict, problem: Problem
    ) -> NearestSimulations | SmoothedSimulations:
        """The same bank."""
        return self._posterior(tensors["theta"], tensors["y"], settings["accept"], problem)

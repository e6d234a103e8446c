"""Sliced Wasserstein distance: SW_2 = (E over directions of W_2^2 of the projections)^(1/2).

Bonneel, Rabin, Peyré & Pfister 2015 (J. Math. Imaging Vis. 51:22). In one dimension W_2^2 of two samples of n is the
mean squared difference of their order statistics. Unlike a kernel's, the distance keeps growing with how far draws are
from the exact ones, in units of the exact posterior's own standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks, sort
from .inputs import check
from .measurements import chosen
from .nulls import mean_band, some_rows, standard_error

DIRECTIONS = 64
"""Directions of projection, the same for every method and measurement, so that comparisons are paired."""

SPLITS = 4
"""Splits of the exact draws into two halves for the null: adds 1/4 to its variance."""


def directions(dim: int, count: int = DIRECTIONS) -> Tensor:
    """Unit vectors (D, count) in all directions alike, always the same; +1 where there is one dimension."""
    if dim == 1:
        return torch.ones(1, 1)
    normal = torch.randn(dim, count, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
    return normal / normal.norm(dim=0)


def projected(draws: Tensor, along: Tensor) -> Tensor:
    """Projections (R, P, n) of draws (n, R, D) along (D, P)."""
    return torch.einsum("nrd,dp->rpn", draws, along).contiguous()


def sliced_wasserstein(first: Tensor, second: Tensor) -> Tensor:
    """Distance SW_2 (R,) of two samples of one size, from their sorted projections (R, P, n)."""
    return ((first - second) ** 2).mean((1, 2)).sqrt()


def distances(draws: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of draws from half of the exact ones, and of the other half from it: the null.

    Args:
        draws: (n, R, D).
        reference: (2 n, R, D), which gives the scale of each measurement and parameter.

    Returns:
        (R,) and (splits, R), in standard deviations of the reference.
    """
    n = len(draws)
    along = directions(draws.shape[-1]).to(draws)
    found, null = draws.new_empty(draws.shape[1]), draws.new_empty(SPLITS, draws.shape[1])
    for part in chunks(draws.shape[1], 3 * n * along.shape[1], limit=2**22):
        exact = reference[:, part]
        scale = exact.std(0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        centre = exact.mean(0)
        points, exact = (projected((sample - centre) / scale, along) for sample in (draws[:, part], exact))
        found[part] = sliced_wasserstein(sort(points), sort(exact[..., :n].contiguous()))
        for k in range(SPLITS):
            order = torch.randperm(2 * n, device=draws.device)
            null[k, part] = sliced_wasserstein(sort(exact[..., order[:n]]), sort(exact[..., order[n:]]))
    return found, null


@dataclass(frozen=True)
class SlicedWasserstein(Metric):
    """``sliced_wasserstein``: mean over the reference measurements of SW_2, in sd of the exact posterior; low is good.

    Two samples of one distribution are not at distance zero; the null band is that of two halves of the exact draws,
    of the size that is compared: half as many as the reference has, or fewer. Nothing where there is no reference.

    Args:
        size: draws compared at most.
        measurements: of those with exact draws, the same for every method; all of them where there are no more.
    """

    name: ClassVar[str] = "sliced_wasserstein"
    version: ClassVar[int] = 1
    single: ClassVar[bool] = True
    size: int = 500
    measurements: int = 200

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """One score, with ``per_measurement`` (R',); which measurements they are is an artefact."""
        if truth.reference is None:
            return
        check(draws, truth)
        reference = truth.reference
        if reference.ndim != 3 or reference.shape[1] > len(truth.theta) or len(reference) < 4:
            raise ValueError(
                f"found a reference of shape {tuple(reference.shape)}; expected (n, R, D) with n >= 4 draws for the "
                f"first R of {len(truth.theta)} measurements"
            )
        if not torch.isfinite(reference).all():
            raise ValueError("the reference holds draws that are not finite; see sample_reference of the simulator")
        n = min(self.size, len(draws.theta), len(reference) // 2)
        which = chosen(truth.y[: reference.shape[1]], self.measurements).sort().values
        points = draws.theta[some_rows(len(draws.theta), n, reference.device)][:, which]
        exact = reference[some_rows(len(reference), 2 * n, reference.device)][:, which]
        each, null = distances(points, exact)
        low, high = mean_band(null.mean(0), null.var(0), SPLITS)
        yield Score(
            self.name,
            float(each.double().mean()),
            standard_error(each),
            low,
            high,
            per_measurement=each,
            artefacts={"measurements": which},
        )

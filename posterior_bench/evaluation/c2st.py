"""Classifier two-sample test: how often does a classifier tell draws from exact draws? 1/2 where it cannot, 1 at most.

Lopez-Paz & Oquab 2017 (arXiv 1610.06545), in the form of Lueckmann et al. 2021 (arXiv 2101.04653): held-out accuracy
over 5 folds, inputs scaled by the exact draws. A value is a lower bound whose tightness depends on the classifier and
on the number of draws N, which therefore stand in its name: ``c2st_mlp_1000`` and ``c2st_rf_1000`` are not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .classifier import at_once, in_groups, train
from .inputs import check
from .nulls import NORMAL_95, some_rows, standard_error

FOLDS = 5

PASSES = 10_000
"""Over the data at most, as in the published benchmark. With N = 10,000 the training loss stops falling long before."""

WIDTH_OF_DIMENSION = 10
"""Units of a hidden layer for each parameter, as in the published benchmark."""

NULL_VARIANCE = 1.6
"""Variance of the accuracy of exact draws in units of that of 2N fair coins. Folds share training examples, so that
their accuracies are correlated: not at all where a network learns each fold by heart, up to a factor of 1.96 where all
that five networks learn is one direction. At D = 2, forty nulls with N = 2,000 gave 1.64, and twelve with N = 1,000
gave 1.35 for the network and 1.15 for the forest."""


def folds(draws: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and held-out examples of five folds, shuffled, for draws and reference (N, R, D), N a multiple of 5.

    Returns:
        Features (R * 5, n, D) and labels (R * 5, n) to train on, then those held out; label 1 is a draw.
    """
    exact, points = reference.transpose(0, 1), draws.transpose(0, 1)
    scale = exact.std(1, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    centre = exact.mean(1, keepdim=True)
    features = torch.cat([(exact - centre) / scale, (points - centre) / scale], dim=1)
    total = features.shape[1]
    order = torch.stack([torch.randperm(total, device=draws.device) for _ in range(len(features))])
    features = features.gather(1, order[:, :, None].expand_as(features))
    labels = (order >= len(reference)).to(features.dtype)
    size = total // FOLDS
    inside = torch.arange(total, device=draws.device)[None] // size != torch.arange(FOLDS, device=draws.device)[:, None]
    kept = torch.stack([row.nonzero().squeeze(1) for row in inside])  # (5, total - size)
    left = torch.stack([(~row).nonzero().squeeze(1) for row in inside])
    return tuple(part[:, rows].flatten(0, 1) for rows in (kept, left) for part in (features, labels))  # type: ignore[return-value]


def network_accuracy(draws: Tensor, reference: Tensor, passes: int = PASSES) -> Tensor:
    """Held-out accuracy (R,) of the benchmark's network, for draws and reference (N, R, D).

    Two hidden layers of 10 D units, each trained until its training loss stops falling, or for as many passes. The 5 R
    networks of all measurements and folds are trained side by side, as many as a cache holds.
    """
    features, labels, held, answers = folds(draws, reference)
    width = WIDTH_OF_DIMENSION * draws.shape[-1]

    def accuracy(part: slice) -> Tensor:
        networks = train(features[part], labels[part], width, passes)
        return ((networks.logits(held[part]) > 0) == (answers[part] > 0.5)).double().mean(1)

    return in_groups(len(features), at_once(width), accuracy).view(-1, FOLDS).mean(1)


def forest_accuracy(draws: Tensor, reference: Tensor) -> Tensor:
    """Held-out accuracy (R,) of scikit-learn's random forest with its defaults, for draws and reference (N, R, D)."""
    from sklearn.ensemble import RandomForestClassifier

    found = []
    for features, labels, held, answers in zip(*(part.cpu().numpy() for part in folds(draws, reference)), strict=True):
        forest = RandomForestClassifier(random_state=int(torch.randint(2**31, ())))
        found.append(float((forest.fit(features, labels).predict(held) == answers).mean()))
    return torch.tensor(found, dtype=torch.float64).view(-1, FOLDS).mean(1)


def _sides(draws: Draws, truth: Truth, size: int) -> tuple[Tensor, Tensor] | None:
    """Draws and exact draws (N, S, D) to be told apart, N a multiple of 5; ``None`` where there are no dense ones."""
    check(draws, truth)
    if draws.dense is None or truth.dense_reference is None:
        return None
    for what, dense in (("dense draws", draws.dense), ("a dense reference", truth.dense_reference)):
        expected = dense.ndim == 3 and dense.shape[1] <= len(truth.theta) and dense.shape[2] == truth.theta.shape[1]
        if not expected or len(dense) < FOLDS or not torch.isfinite(dense).all():
            raise ValueError(
                f"found {what} of shape {tuple(dense.shape)}; expected finite draws (m, S, {truth.theta.shape[1]}) "
                f"with m >= {FOLDS}, for the first S of {len(truth.theta)} measurements"
            )
    count = min(draws.dense.shape[1], truth.dense_reference.shape[1])
    n = min(size, len(draws.dense), len(truth.dense_reference)) // FOLDS * FOLDS
    parts = [d[some_rows(len(d), n, d.device), :count].float() for d in (draws.dense, truth.dense_reference)]
    return parts[0], parts[1]


def null_band(draws: int, measurements: int) -> tuple[float, float]:
    """Central 95 % of the mean accuracy where both sides are draws of one distribution, N of each.

    A held-out fold of m = 2N/5 examples has more of one label by chance, and the others fewer of it, so that a network
    which learns nothing but the commoner label is right on 1/2 - E|a/m - 1/2| = 1/2 - 1 / sqrt(pi N) of them (a is
    hypergeometric): the centre lies between this and 1/2, and the lower edge allows for it.
    """
    half = NORMAL_95 * math.sqrt(NULL_VARIANCE * 0.25 / (2 * draws * measurements))
    return 0.5 - 1 / math.sqrt(math.pi * draws) - half, 0.5 + half


def _score(metric: str, each: Tensor, draws: int) -> Score:
    low, high = null_band(draws, len(each))
    return Score(metric, float(each.mean()), standard_error(each), low, high, per_measurement=each)


@dataclass(frozen=True)
class NetworkTwoSample(Metric):
    """``c2st_mlp_<N>``: mean over S measurements of the accuracy of the benchmark's network; 1/2 is perfect.

    N is the number of draws used of each side; the published values have N = 10,000. Larger is worse. The
    band is that of a classifier that guesses, see ``null_band``. Nothing where there are no dense draws, or no dense
    exact ones.

    With few draws the network, which stops only when its training loss does, learns them by heart: it takes thousands
    of passes, and finds less than there is to find. Ask for 5,000 dense draws at least.

    Args:
        size: draws of each side at most; fewer where method or reference gave fewer.
        passes: over the examples at most. With fewer than the benchmark's 10,000 the score is another one, which says
            so: ``c2st_mlp_<N>_passes_<passes>``. Some 50 suit N = 1,000 and are cheap.
    """

    name: ClassVar[str] = "c2st_mlp"
    version: ClassVar[int] = 1
    single: ClassVar[bool] = True
    size: int = 10_000
    passes: int = PASSES

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """One score, with ``per_measurement`` (S,)."""
        found = _sides(draws, truth, self.size)
        if found is not None:
            ending = "" if self.passes == PASSES else f"_passes_{self.passes}"
            n = len(found[0])
            yield _score(f"{self.name}_{n}{ending}", network_accuracy(*found, self.passes), n)


@dataclass(frozen=True)
class ForestTwoSample(Metric):
    """``c2st_rf_<N>``: the same by scikit-learn's random forest with its defaults, which is what sbi takes by default.

    It finds about half of what the network finds where draws differ smoothly. Its time grows with N, and with 1,000
    draws and one measurement it takes longer than the network with 10,000 in two dimensions.

    Args:
        size: draws of each side at most; fewer where method or reference gave fewer.
        measurements: the first ones that are used, of those with dense draws.
    """

    name: ClassVar[str] = "c2st_rf"
    version: ClassVar[int] = 1
    single: ClassVar[bool] = True
    size: int = 1000
    measurements: int = 5

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """One score, with ``per_measurement`` (S,)."""
        found = _sides(draws, truth, self.size)
        if found is not None:
            theta, exact = (side[:, : self.measurements] for side in found)
            yield _score(f"{self.name}_{len(theta)}", forest_accuracy(theta, exact), len(theta))

"""Local two-sample test: is q(. | y) wrong at this very measurement? t(y) = E_q[(d(theta, y) - 1/2)^2].

L-C2ST (Linhart, Gramfort & Rodrigues 2023, arXiv 2306.03580): one classifier d learns to tell pairs (theta*, y) from
pairs (a draw given y, y) over all measurements, and is then asked at one of them. It needs neither a reference nor a
likelihood. Under an exact posterior truth and draw may be exchanged, pair by pair: classifiers trained after random
exchanges give the null, and all of them are trained side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .classifier import Stack, at_once, in_groups, train
from .inputs import check
from .measurements import chosen, principal_components
from .nulls import some_rows

EXCHANGES = 39
"""Classifiers of the null: the least and the largest of 39 values hold the next one with 95 %."""

COMPONENTS = 10
"""Principal components of y that a classifier sees."""

WIDTH = 32
"""Units of each of two hidden layers."""

PASSES = 30
"""Over the pairs: enough to learn, too few to learn 2,000 pairs by heart."""


def local_statistics(theta: Tensor, pairs: tuple[Tensor, Tensor], context: Tensor, at: Tensor) -> Tensor:
    """Statistics t (1 + exchanges, E): the first row with truths as they are, the others after exchanges.

    Args:
        theta: (k, E, D), draws at the measurements that are asked about.
        pairs: truths (J, D) and draws (J, D), one of each for each measurement to learn from.
        context: (J, K), what is seen of those measurements.
        at: (E, K), what is seen of those asked about.
    """
    truths, drawn = pairs
    count = len(truths)
    swap = torch.rand(1 + EXCHANGES, count, device=theta.device) < 0.5
    swap[0] = False
    features = torch.cat([torch.cat([truths, context], dim=1), torch.cat([drawn, context], dim=1)])
    labels = torch.cat([swap, ~swap], dim=1).to(features.dtype)
    asked = torch.cat([theta, at.expand(len(theta), *at.shape)], dim=-1).flatten(0, 1)

    def statistic(part: slice) -> Tensor:
        answers = labels[part]
        networks: Stack = train(features.expand(len(answers), *features.shape), answers, WIDTH, PASSES)
        probability = networks.logits(asked.expand(len(answers), *asked.shape)).sigmoid()
        return ((probability - 0.5) ** 2).view(len(answers), *theta.shape[:2]).mean(1)

    return in_groups(1 + EXCHANGES, at_once(WIDTH), statistic)


@dataclass(frozen=True)
class LocalTwoSample(Metric):
    """L-C2ST at some measurements, by classifiers trained on others.

    - ``local_c2st``: mean over the measurements of t; larger is worse. The band is the least and the largest of the
      39 exchanges, 95 %.
    - ``local_c2st_rejected``: fraction of measurements at which t is among the two largest of 40, which is 0.05 on
      average for an exact posterior. One classifier speaks for all of them, so that the fraction varies much; its band
      is the least and the largest of the exchanges.

    It sees the prior in place of the posterior. Nothing where there are fewer than 100 measurements.

    Args:
        draws: at each measurement that is asked about.
        asked: measurements asked about, at most a fifth of all.
        learned: measurements to learn from.
    """

    name: ClassVar[str] = "local_c2st"
    version: ClassVar[int] = 1
    draws: int = 100
    asked: int = 100
    learned: int = 2000

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """Two scores, with ``per_measurement`` (E,); artefacts are ``measurements`` and ``p_values`` (E,)."""
        check(draws, truth)
        total = len(truth.theta)
        if total < 100:
            return
        asked = min(self.asked, total // 5)
        # all in one order, in which nothing that follows, not even its rounding, depends on how they came
        order = chosen(truth.y, total)
        which, others = order[:asked], order[asked : asked + self.learned]
        seen = principal_components(truth.y[order], COMPONENTS).to(truth.theta.dtype)
        known = seen[asked : asked + self.learned]
        centre, scale = truth.prior_draws.mean(0), truth.prior_sd
        rows = torch.randint(len(draws.theta), (len(others),), device=which.device)
        pairs = (truth.theta[others] - centre) / scale, (draws.theta[rows, others] - centre) / scale
        some = some_rows(len(draws.theta), self.draws, which.device)
        theta = (draws.theta[some][:, which] - centre) / scale
        found = local_statistics(theta, pairs, known, seen[:asked]).double()
        larger = (found[None] >= found[:, None]).sum(1)  # itself included
        p_values = larger.double() / len(found)
        rejected = (p_values <= 0.05).double()
        for metric, each in ((self.name, found), ("local_c2st_rejected", rejected)):
            means = each.mean(1)
            yield Score(
                metric,
                float(means[0]),
                null_low=float(means[1:].min()),
                null_high=float(means[1:].max()),
                per_measurement=each[0],
                artefacts={"measurements": which, "p_values": p_values[0]},
            )

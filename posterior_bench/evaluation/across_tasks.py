"""Several methods on several tasks: which differences hold from one task to the next.

For two methods with one number d_i a task, their difference, Wilcoxon's signed-rank statistic is

    W = sum over d_i > 0 of rank(|d_i|),    p = P(W as far from its middle | signs are tossed)

with all 2^n signs counted, so that p is exact also with equal |d_i|; zeros are left out (Wilcoxon 1945, Biometrics
Bull. 1:80). The p-values of all pairs are corrected after Holm (1979, Scand. J. Statist. 6:65). The use of both for
methods over data sets is that of Demsar (2006, JMLR 7:1).

With n tasks no p-value is smaller than 2 / 2^n: with fewer than 6 tasks none can be below 0.05, and none is given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import rankdata, wilcoxon

from .intervals import Interval, mean_interval

LEVEL = 0.05
"""Significance level of all pairs together."""

ENUMERATED = 16
"""Tasks up to which the 2^n signs are counted one by one; beyond, the normal approximation is good."""


@dataclass(frozen=True)
class Pair:
    """Two methods over all tasks.

    Args:
        first, second: their ids; the first has the larger mean score.
        difference: mean over tasks of first - second, with Student's 95 % interval over tasks.
        wins, ties, losses: tasks on which the first is ahead by more than the margin, neither is, the second is.
        p_value: of Wilcoxon's signed-rank test, two-sided; ``None`` where no number of it could be below the level.
        adjusted: the same after Holm's correction for all pairs.
        decided: whether the first is ahead: ``adjusted`` is below the level, and the whole interval beyond the margin.
    """

    first: str
    second: str
    difference: Interval
    wins: int
    ties: int
    losses: int
    p_value: float | None
    adjusted: float | None
    decided: bool


@dataclass(frozen=True)
class AcrossTasks:
    """The outcome of ``compare_across_tasks``.

    Args:
        tasks: n.
        mean_ranks: id -> mean over tasks of its rank, 1 for the highest score, equal ones sharing theirs; best first.
        pairs: every two methods, in the order of the mean ranks.
        margin: difference of the score that is of no consequence.
        smallest: smallest p-value that a pair can attain with n tasks, 2 / 2^n.
    """

    tasks: int
    mean_ranks: Mapping[str, float]
    pairs: tuple[Pair, ...]
    margin: float
    smallest: float

    @property
    def smallest_adjusted(self) -> float:
        """The smallest p-value that the foremost of the pairs can attain after Holm's correction."""
        return min(1.0, self.smallest * len(self.pairs))

    def verdict(self, labels: Mapping[str, str] | None = None) -> str:
        """What can be said, in a sentence or two; no method is called better where that is not decided.

        Args:
            labels: id -> name to print; the ids where ``None``.
        """
        names = {key: (labels or {}).get(key, key) for key in self.mean_ranks}
        if self.tasks < minimum_tasks():
            return (
                f"No pair of methods can reach significance: with {self.tasks} tasks the smallest p-value that the "
                f"signed-rank test can attain is 2/2^{self.tasks} = {self.smallest:.3g}. No method is called better."
            )
        ahead = [pair for pair in self.pairs if pair.decided]
        if ahead:
            said = []
            for first in dict.fromkeys(pair.first for pair in ahead):
                beaten = [names[pair.second] for pair in ahead if pair.first == first]
                said.append(f"{names[first]} scores more than {_listed(beaten)}")
            rest = len(self.pairs) - len(ahead)
            left = f" {rest} of {len(self.pairs)} pairs are not decided." if rest else ""
            return f"Over {self.tasks} tasks {'; '.join(said)}, by more than {self.margin:g}.{left}"
        why = ""
        if self.smallest_adjusted > LEVEL:
            why = (
                f" With {self.tasks} tasks and {len(self.pairs)} pairs none could be: the smallest p-value after "
                f"correction is {self.smallest_adjusted:.3g}."
            )
        return (
            f"Over {self.tasks} tasks no method is known to score more than another by more than {self.margin:g}.{why}"
        )


def compare_across_tasks(scores: Mapping[str, Sequence[float]], margin: float = 0.01) -> AcrossTasks:
    """Wilcoxon's signed-rank tests of every pair of methods, with Holm's correction.

    Args:
        scores: id -> one number a task, higher is better, the tasks in the same order for every method.
        margin: difference of the score that is of no consequence.

    Raises:
        ValueError: where there are fewer than 2 methods or tasks, or numbers are missing or not finite.
    """
    sizes = {len(values) for values in scores.values()}
    if len(scores) < 2 or len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            f"found {len(scores)} methods with {sorted(sizes)} scores; expected at least two methods, each with one "
            "score for each of the same tasks, two at least"
        )
    if not all(math.isfinite(value) for values in scores.values() for value in values):
        raise ValueError("some scores are not finite; leave out methods that have none on some task")
    tasks = sizes.pop()
    ranks = rankdata([[-value for value in values] for values in scores.values()], axis=0).mean(1)
    order = sorted(zip(scores, ranks.tolist(), strict=True), key=lambda found: found[1])
    found = []
    for a, b in itertools.combinations([name for name, _ in order], 2):
        if sum(scores[b]) > sum(scores[a]):
            a, b = b, a
        found.append((a, b, [x - y for x, y in zip(scores[a], scores[b], strict=True)]))
    testable = tasks >= minimum_tasks()
    p_values = [signed_rank_p_value(differences) for _, _, differences in found] if testable else []
    adjusted = holm(p_values)
    pairs = []
    for i, (a, b, differences) in enumerate(found):
        interval = mean_interval(torch.tensor([differences], dtype=torch.float64))
        pairs.append(
            Pair(
                a,
                b,
                interval,
                wins=sum(d > margin for d in differences),
                ties=sum(abs(d) <= margin for d in differences),
                losses=sum(d < -margin for d in differences),
                p_value=p_values[i] if testable else None,
                adjusted=adjusted[i] if testable else None,
                decided=testable and adjusted[i] < LEVEL and interval.low > margin,
            )
        )
    return AcrossTasks(tasks, dict(order), tuple(pairs), margin, 2.0 / 2**tasks)


def minimum_tasks() -> int:
    """The smallest number of tasks n for which 2 / 2^n is below the level: 6."""
    return math.floor(math.log2(2 / LEVEL)) + 1


def signed_rank_p_value(differences: Sequence[float]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; zeros are left out, and 1 is returned where nothing is left.

    >>> signed_rank_p_value([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    0.03125
    """
    kept = torch.tensor([d for d in differences if d != 0], dtype=torch.float64)
    if not len(kept):
        return 1.0
    if len(kept) > ENUMERATED:
        return float(wilcoxon(kept.numpy()).pvalue)
    # twice the ranks are whole numbers, also where equal ones share theirs, so that sums compare exactly
    doubled = torch.from_numpy(2 * rankdata(kept.abs().numpy())).round().long()
    sums = torch.zeros(1, dtype=torch.long)
    for rank in doubled:
        sums = torch.cat([sums + rank, sums - rank])
    signed = int((doubled * kept.sign().long()).sum())
    return float((sums.abs() >= abs(signed)).double().mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: in order, the largest so far of (m - i) p_(i), i from 0, and at most 1.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)

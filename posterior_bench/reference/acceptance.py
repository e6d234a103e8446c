"""The written list by which a reference is accepted: each item with its threshold, its reason and its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from scipy.stats import kstest
from torch import Tensor

from ..evaluation.calibration import randomised_ranks

Relation = Literal["at least", "at most", "below"]
Status = Literal["passed", "failed", "not applicable", "missing"]

FEWEST_RANKS = 50
"""Measurements below which ranks tell too little: a shift by half a posterior sd then has a fair chance to pass."""


@dataclass(frozen=True)
class Criterion:
    """One item of the list.

    Args:
        name: what is looked at.
        relation, threshold: what its value must be.
        reason: why it is asked for.
        source: of the threshold.
    """

    name: str
    relation: Relation
    threshold: float
    reason: str
    source: str

    def holds(self, values: Tensor) -> Tensor:
        """Whether each value meets the threshold; NaN does not."""
        if self.relation == "at least":
            return values >= self.threshold
        return values <= self.threshold if self.relation == "at most" else values < self.threshold


EFFECTIVE_SIZE = Criterion(
    "effective size for each draw kept",
    "at least",
    10.0,
    "draws taken without repetition from fewer effective ones look too narrow and are dependent",
    "posteriordb asks for draws without autocorrelation; ten to one leaves sampling without replacement unbiased",
)
PARETO_K = Criterion(
    "Pareto k of the weights",
    "below",
    0.7,
    "a heavier tail makes mean and error of the weights unreliable at any affordable number of proposals",
    "Vehtari et al., arXiv:1507.02646",
)
DUPLICATES = Criterion(
    "repeated draws",
    "at most",
    0.0,
    "a repeated draw is a sign of too few effective ones, and a classifier tells it from a method's draws",
    "a density gives a point twice with probability 0",
)
R_HAT = Criterion(
    "R-hat of chains",
    "below",
    1.01,
    "chains that have not mixed disagree",
    "Vehtari et al. 2021, arXiv:1903.08008",
)
DIFFERENCE = Criterion(
    "difference of log Z between two routes",
    "below",
    0.02,
    "routes that share no proposal do not miss the same part of a posterior; a log score is then off by as little",
    "0.02 nats are 2 % of the posterior's mass, below what scores of single measurements resolve",
)
TEMPERED = Criterion(
    "median difference of log Z to tempering alone",
    "at most",
    0.5,
    "tempering uses no density of a proposal, so that a constant which both routes have wrong shows; its own error is "
    "some tenths of a nat where posteriors have narrow parts",
    "a forgotten Jacobian or constant is mostly larger: log(2 pi) / 2 = 0.92 for a single normal",
)
RANKS = Criterion(
    "p-value of the ranks of pseudo-truths",
    "at least",
    0.01,
    "theta ~ p, y ~ p(. | theta) has uniform ranks among draws of p(theta | y), in each parameter and in likelihood",
    "Talts et al. 2018, arXiv:1804.06788; Modrák et al. 2023, arXiv:2211.02383; Kolmogorov-Smirnov with Bonferroni",
)
CRITERIA = (EFFECTIVE_SIZE, PARETO_K, DUPLICATES, R_HAT, DIFFERENCE, TEMPERED, RANKS)
"""The whole list. A reference is accepted where each item passed or has nothing to say about how it was made."""


@dataclass(frozen=True)
class Check:
    """What an item says of a reference.

    Args:
        criterion: the item.
        status: a check that could have been made and was not is ``missing``, which is not accepted either.
        value: the worst over measurements, or ``None`` where nothing was looked at.
        failed: indices of the measurements that fail.
        note: why it does not apply, or what the value is of.
    """

    criterion: Criterion
    status: Status
    value: float | None = None
    failed: tuple[int, ...] = ()
    note: str = ""

    @property
    def threshold(self) -> float:
        """The item's threshold."""
        return self.criterion.threshold

    @property
    def passed(self) -> bool:
        """Whether this check lets a reference be accepted."""
        return self.status in ("passed", "not applicable")

    def record(self) -> dict:
        """Item and outcome as JSON can hold them; a value that is not finite is written as a word."""
        value = self.value if self.value is None or math.isfinite(self.value) else str(self.value)
        outcome = {"status": self.status, "value": value, "failed": list(self.failed), "note": self.note}
        return asdict(self.criterion) | outcome


def judge(criterion: Criterion, values: Tensor, note: str = "") -> Check:
    """The check of one value a measurement, (B,)."""
    values = values.double().cpu()
    holds = criterion.holds(values)
    broken = values[values.isnan()]
    worst = broken[0] if len(broken) else values.min() if criterion.relation == "at least" else values.max()
    failed = tuple(int(index) for index in (~holds).nonzero()[:, 0])
    return Check(criterion, "failed" if failed else "passed", float(worst), failed, note)


def not_applicable(criterion: Criterion, note: str) -> Check:
    """An item that has nothing to say of how a reference was made."""
    return Check(criterion, "not applicable", note=note)


def missing(criterion: Criterion, note: str) -> Check:
    """An item that was left out."""
    return Check(criterion, "missing", note=note)


def accepted(checks: Sequence[Check]) -> bool:
    """Whether the whole list is there, and every item of it lets the reference pass."""
    return {check.criterion for check in checks} >= set(CRITERIA) and all(check.passed for check in checks)


def repeated(theta: Tensor) -> Tensor:
    """How many of the draws (n, B, D) repeat another of the same measurement, (B,)."""
    return torch.tensor([len(draws) - len(draws.unique(dim=0)) for draws in theta.unbind(1)])


def check_duplicates(theta: Tensor) -> Check:
    """No draw of (n, B, D) twice; parameters that are all whole numbers may well repeat."""
    if bool((theta == theta.floor()).all()):
        return not_applicable(DUPLICATES, "all parameters are whole numbers")
    return judge(DUPLICATES, repeated(theta))


def check_tempered(log_evidence: Tensor, tempered: Tensor) -> Check:
    """Whether log Z (B,) and that of tempering alone, (R, B) in repetitions, agree in the middle."""
    means = tempered.logsumexp(0) - math.log(len(tempered))
    return judge(TEMPERED, (means - log_evidence).median().abs()[None], f"over {len(means)} measurements")


def check_ranks(truth: Tensor, draws: Tensor, likelihoods: Tensor | None = None) -> Check:
    """Whether pseudo-truths rank uniformly.

    Args:
        truth: (T, D), drawn from the prior before its measurement was simulated.
        draws: (n, T, D), of the reference.
        likelihoods: (n + 1, T), of the truth first, then of the draws, or ``None``.
    """
    if len(truth) < FEWEST_RANKS:
        return missing(RANKS, f"{len(truth)} pseudo-truths; expected at least {FEWEST_RANKS}")
    u = randomised_ranks(draws.double(), truth.double())
    if likelihoods is not None:
        u = torch.cat([u, randomised_ranks(likelihoods[1:, :, None], likelihoods[0][:, None])], dim=1)
    smallest = min(float(kstest(column.cpu().numpy(), "uniform").pvalue) for column in u.unbind(1))
    value = torch.tensor([min(1.0, smallest * u.shape[1])])
    found = judge(RANKS, value, f"smallest of {u.shape[1]} quantities times their number, {len(truth)} pseudo-truths")
    return Check(found.criterion, found.status, found.value, (), found.note)  # no single measurement is to blame

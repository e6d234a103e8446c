"""Ranking: first the gate, then skill, and ties where the difference is known to be small.

A posterior that claims more than it knows misleads whoever trusts it, however skilful; so what is over-confident in
any parameter comes after all that is not. A method scored on fewer measurements than the others is judged by the same
gate, and compared with none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..records import Score
from .intervals import Interval, mean_interval, paired_difference

Verdict = Literal["calibrated", "over-confident", "under-confident", "biased"]


@dataclass(frozen=True, eq=False)
class Entry:
    """One method on one task.

    Args:
        method: its id.
        coverage: the ``coverage_bias/<p>`` scores, of all repetitions.
        skill: (R, T), ``energy_skill`` of each repetition and measurement.
        rank: the ``rank_bias/<p>`` scores, of all repetitions.
        anchor: whether it is there for scale (prior, reference) and competes for no place.
    """

    method: str
    coverage: tuple[Score, ...]
    skill: Tensor
    rank: tuple[Score, ...] = ()
    anchor: bool = False


@dataclass(frozen=True)
class Ranked:
    """Where a method stands.

    Args:
        method: its id.
        place: 1 for the best; shared by those tied; ``None`` for an anchor, and for what was scored on fewer
            measurements than others.
        verdict: the gravest of what was found.
        skill, low, high: mean energy skill and its 95 % interval.
        tied_with: methods whose paired difference of skill is known to lie within the margin.
        unresolved_with: methods whose paired difference of skill may be inside the margin or outside of it: these
            measurements and repetitions neither call them equal nor one of the two better.
        over_confident, under_confident, biased: names of the parameters in which it is so.
        measurements: on which it was scored.
    """

    method: str
    place: int | None
    verdict: Verdict
    skill: float
    low: float
    high: float
    tied_with: tuple[str, ...] = ()
    unresolved_with: tuple[str, ...] = ()
    over_confident: tuple[str, ...] = ()
    under_confident: tuple[str, ...] = ()
    biased: tuple[str, ...] = ()
    measurements: int = 0

    @property
    def passes(self) -> bool:
        """The gate: over-confident in no parameter."""
        return not self.over_confident

    @property
    def reason(self) -> str:
        """The verdict with its parameters, such as ``over-confident in sO2, v_hb1``."""
        found = {
            "over-confident": self.over_confident,
            "biased": self.biased,
            "under-confident": self.under_confident,
        }
        return "; ".join(f"{word} in {', '.join(names)}" for word, names in found.items() if names) or "calibrated"


def rank(entries: Sequence[Entry], margin: float = 0.01) -> tuple[Ranked, ...]:
    """The methods in order: those that pass the gate by skill, then those that do not.

    The place of a competitor is 1 plus the number of competitors ahead of it to which it is not tied. Two methods on
    the same side of the gate tie where the 95 % interval of their paired difference lies within ``margin``; ties need
    not be transitive. One is better where that interval lies wholly beyond ``margin``; in between nothing is resolved,
    and places say no more than whose mean is larger. Where there are several repetitions, the gate compares the mean
    over them, value and edge. Methods scored on fewer measurements than the competitor with most come last, without a
    place. None is compared with one that was scored on another number: a skill is in units of the prior's score on the
    same measurements.

    Args:
        entries: one a method, all on one task.
        margin: difference of energy skill that is of no consequence.

    Raises:
        ValueError: where a method comes twice, or without coverage scores and their null edges.
    """
    if len({entry.method for entry in entries}) != len(entries):
        raise ValueError(f"a method comes twice among {[entry.method for entry in entries]}; give one entry each")
    judged = {entry.method: _judge(entry) for entry in entries}
    skills = {entry.method: mean_interval(entry.skill) for entry in entries}
    common = common_measurements(entries)
    order = sorted(
        entries, key=lambda e: (e.skill.shape[1] < common, bool(judged[e.method][0]), -skills[e.method].mean)
    )
    result = []
    for index, entry in enumerate(order):
        over, under, biased = judged[entry.method]
        mine = skills[entry.method]
        fair = [e for e in order if e.skill.shape[1] == mine.measurements == common]
        peers = [e for e in fair if e is not entry and bool(judged[e.method][0]) == bool(over)]
        differences = {e.method: paired_difference(entry.skill, e.skill) for e in peers}
        tied = tuple(name for name, interval in differences.items() if interval.within(margin))
        ahead = [e.method for e in order[:index] if not e.anchor and e.method not in tied]
        placed = not entry.anchor and mine.measurements >= common
        verdict: Verdict = (
            "over-confident" if over else "biased" if biased else "under-confident" if under else "calibrated"
        )
        result.append(
            Ranked(
                entry.method,
                1 + len(ahead) if placed else None,
                verdict,
                mine.mean,
                mine.low,
                mine.high,
                tied_with=tied,
                unresolved_with=tuple(n for n, i in differences.items() if n not in tied and not i.beyond(margin)),
                over_confident=over,
                under_confident=under,
                biased=biased,
                measurements=mine.measurements,
            )
        )
    return tuple(result)


def common_measurements(entries: Sequence[Entry]) -> int:
    """The largest number of measurements on which a competitor was scored; of an anchor where there is no other."""
    competitors = [entry for entry in entries if not entry.anchor]
    return max((entry.skill.shape[1] for entry in competitors or entries), default=0)


def difference_on_common(a: Tensor, b: Tensor) -> Interval:
    """Mean of a - b over the first measurements of the test set, those that both were scored on.

    It is meant for scores that depend on one measurement alone, as the energy score does; the energy skill of a
    measurement holds the prior's mean score over all of them.

    Args:
        a: (R, T), scores of each repetition and measurement, for the first T of the test set.
        b: (R, T') or (1, T'), for the first T' of it.
    """
    shared = min(a.shape[1], b.shape[1])
    return paired_difference(a[:, :shared], b[:, :shared])


def _judge(entry: Entry) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the parameters in which a method is over-confident, under-confident, biased."""
    if not entry.coverage:
        raise ValueError(f"method {entry.method!r} has no coverage_bias scores; the gate cannot be applied to it")
    coverage = list(_sides(entry.method, entry.coverage))
    over = tuple(name for name, side in coverage if side < 0)
    under = tuple(name for name, side in coverage if side > 0)
    return over, under, tuple(name for name, side in _sides(entry.method, entry.rank) if side)


def _sides(method: str, scores: Iterable[Score]) -> Iterable[tuple[str, int]]:
    """Per parameter -1 below its null, 1 above it, 0 inside, by the mean over repetitions."""
    grouped: dict[str, list[Score]] = {}
    for score in scores:
        grouped.setdefault(score.metric.partition("/")[2], []).append(score)
    for name, found in grouped.items():
        low = [score.null_low for score in found if score.null_low is not None]
        high = [score.null_high for score in found if score.null_high is not None]
        if len(low) != len(found) or len(high) != len(found):
            raise ValueError(f"method {method!r} has scores {found[0].metric!r} without null edges; expected both")
        value = sum(score.value for score in found)
        yield name, -1 if value < sum(low) else 1 if value > sum(high) else 0

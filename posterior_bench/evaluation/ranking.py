"""Ranking: first the gate, then skill, and ties where the difference is known to be small.

A posterior that claims more than it knows misleads whoever trusts it, however skilful; so what is over-confident in
any parameter comes after all that is not. The gate looks at coverage in the mean over confidences, where intervals too
narrow in the middle and too wide in the tails cancel: what such a parameter is called comes from the uniformity of its
ranks, and it passes under that name. A method scored on fewer measurements than the others is judged by the same
gate, and compared with none of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..records import Score
from .intervals import Interval, mean_interval, paired_difference

Verdict = Literal["calibrated", "over-confident", "under-confident", "biased", "miscalibrated"]

LEVEL = 0.01
"""Of all parameters together, as that of the gate's edges."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One method on one task.

    Args:
        method: its id.
        coverage: the ``coverage_bias/<p>`` scores, of all repetitions.
        skill: (R, T), ``energy_skill`` of each repetition and measurement.
        rank: the ``rank_bias/<p>`` scores, of all repetitions.
        uniformity: the ``sbc_p_value/<p>`` scores, of all repetitions.
        anchor: whether it is there for scale (prior, reference) and competes for no place.
    """

    method: str
    coverage: tuple[Score, ...]
    skill: Tensor
    rank: tuple[Score, ...] = ()
    uniformity: tuple[Score, ...] = ()
    anchor: bool = False


@dataclass(frozen=True)
class Ranked:
    """Where a method stands.

    Args:
        method: its id.
        place: 1 for the best; shared by those tied; ``None`` for an anchor, and for what was scored on fewer
            measurements than others.
        skill, low, high: mean energy skill and its 95 % interval.
        tied_with: methods whose paired difference of skill is known to lie within the margin.
        unresolved_with: methods whose paired difference of skill may be inside the margin or outside of it: these
            measurements and repetitions neither call them equal nor one of the two better.
        over_confident, under_confident, biased: names of the parameters in which it is so.
        miscalibrated: parameters in which it is none of these, and whose ranks are not uniform all the same: mostly too
            narrow at some confidences and too wide at others.
        measurements: on which it was scored.
    """

    method: str
    place: int | None
    skill: float
    low: float
    high: float
    tied_with: tuple[str, ...] = ()
    unresolved_with: tuple[str, ...] = ()
    over_confident: tuple[str, ...] = ()
    under_confident: tuple[str, ...] = ()
    biased: tuple[str, ...] = ()
    miscalibrated: tuple[str, ...] = ()
    measurements: int = 0

    @property
    def passes(self) -> bool:
        """The gate: over-confident in no parameter."""
        return not self.over_confident

    @property
    def reason(self) -> str:
        """The verdict with its parameters, such as ``over-confident in sO2, v_hb1``."""
        return "; ".join(f"{word} in {', '.join(names)}" for word, names in self.findings.items()) or "calibrated"

    @property
    def findings(self) -> dict[Verdict, tuple[str, ...]]:
        """What was found, the gravest first, with the names of its parameters."""
        found: dict[Verdict, tuple[str, ...]] = {
            "over-confident": self.over_confident,
            "biased": self.biased,
            "miscalibrated": self.miscalibrated,
            "under-confident": self.under_confident,
        }
        return {word: names for word, names in found.items() if names}

    @property
    def verdict(self) -> Verdict:
        """The gravest of what was found."""
        return next(iter(self.findings), "calibrated")


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
    failing = {name: "over_confident" in found for name, found in judged.items()}
    order = sorted(entries, key=lambda e: (e.skill.shape[1] < common, failing[e.method], -skills[e.method].mean))
    result = []
    for index, entry in enumerate(order):
        mine = skills[entry.method]
        fair = [e for e in order if e.skill.shape[1] == mine.measurements == common]
        peers = [e for e in fair if e is not entry and failing[e.method] == failing[entry.method]]
        differences = {e.method: paired_difference(entry.skill, e.skill) for e in peers}
        tied = tuple(name for name, interval in differences.items() if interval.within(margin))
        ahead = [e.method for e in order[:index] if not e.anchor and e.method not in tied]
        placed = not entry.anchor and mine.measurements >= common
        result.append(
            Ranked(
                entry.method,
                1 + len(ahead) if placed else None,
                mine.mean,
                mine.low,
                mine.high,
                tied_with=tied,
                unresolved_with=tuple(n for n, i in differences.items() if n not in tied and not i.beyond(margin)),
                measurements=mine.measurements,
                **judged[entry.method],
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


def _judge(entry: Entry) -> dict[str, tuple[str, ...]]:
    """What a method is, by the names of ``Ranked``, with the parameters in which it is so."""
    if not entry.coverage:
        raise ValueError(f"method {entry.method!r} has no coverage_bias scores; the gate cannot be applied to it")
    coverage = list(_sides(entry.method, entry.coverage))
    found = {
        "over_confident": tuple(name for name, side in coverage if side < 0),
        "under_confident": tuple(name for name, side in coverage if side > 0),
        "biased": tuple(name for name, side in _sides(entry.method, entry.rank) if side),
    }
    known = {name for names in found.values() for name in names}
    found["miscalibrated"] = tuple(name for name in _not_uniform(entry.uniformity) if name not in known)
    return {word: names for word, names in found.items() if names}


def _not_uniform(scores: Iterable[Score]) -> Iterable[str]:
    """Parameters whose p-value, the median over repetitions, is below the level shared among them (Bonferroni)."""
    grouped = _by_parameter(scores)
    for name, found in grouped.items():
        if statistics.median(score.value for score in found) * len(grouped) <= LEVEL:
            yield name


def _by_parameter(scores: Iterable[Score]) -> dict[str, list[Score]]:
    grouped: dict[str, list[Score]] = {}
    for score in scores:
        grouped.setdefault(score.metric.partition("/")[2], []).append(score)
    return grouped


def _sides(method: str, scores: Iterable[Score]) -> Iterable[tuple[str, int]]:
    """Per parameter -1 below its null, 1 above it, 0 inside, by the mean over repetitions."""
    for name, found in _by_parameter(scores).items():
        low = [score.null_low for score in found if score.null_low is not None]
        high = [score.null_high for score in found if score.null_high is not None]
        if len(low) != len(found) or len(high) != len(found):
            raise ValueError(f"method {method!r} has scores {found[0].metric!r} without null edges; expected both")
        value = sum(score.value for score in found)
        yield name, -1 if value < sum(low) else 1 if value > sum(high) else 0

"""What each score flags: exact posteriors with a known defect, beside the exact one and the prior.

A score that has a null band flags what lies outside of it. Which metrics there are is read off the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation import paired_difference
from ..evaluation.nulls import null_distance, power
from .cells import NO_NULL, Cell, band_text
from .contenders import Contender, Number
from .fits import score_matrix
from .style import number, significant
from .summary import INFORMED_MAP_ERROR, TaskSummary
from .tables import Column, Line, Table

AGAINST_EXACT = "energy_skill, less the exact posterior's"
"""The score that has its null from the exact posterior itself: the paired difference of skill, with its interval."""

JOINT = ("coverage_bias", "rank_bias")
"""Metrics whose edges hold for all parameters at once with 99 %, by which the gate decides; others for each alone."""

NO_NORMAL = "p_value"
"""What the name of a score holds that is no mean, and not nearly normal: it has no power in this sense."""


@dataclass(frozen=True)
class _Found:
    """One score of one column: the numbers (name of the parameter, number) of which it is made."""

    parts: tuple[tuple[str, Number], ...]

    @property
    def banded(self) -> tuple[tuple[str, Number, float], ...]:
        """Those with a null band, and how far out each lies in half widths of the band."""
        return tuple(
            (name, one, null_distance(one.value, one.null_low, one.null_high))
            for name, one in self.parts
            if one.null_low is not None and one.null_high is not None
        )

    @property
    def gravest(self) -> tuple[str, Number, float]:
        """The one that lies farthest out."""
        return max(self.banded, key=lambda part: abs(part[2]))


def control_tables(summary: TaskSummary) -> tuple[Table, ...]:
    """Which score flags which control, and with what power; none where the suite has no controls that succeeded."""
    controls = [c for c in summary.controls if c.done]
    if not controls:
        return ()
    anchors = [c for c in (summary.reference, *(c for c in summary.anchors if c.role == "anchor" and c.done)) if c]
    shown = [*anchors, *controls]
    scores = _scores(shown, summary.reference)
    columns = (
        Column("Score", numeric=False),
        *(Column(c.label, "anchors", numeric=False) for c in anchors),
        *(Column(_short(c), "exact posterior with a defect", numeric=False) for c in controls),
    )
    flags, powers = [], []
    for name, found in scores.items():
        cells = [found.get(c.key) for c in shown]
        flags.append(Line((Cell(name), *(_flag(one) for one in cells))))
        if NO_NORMAL not in name and any(one is not None and one.banded for one in cells):
            powers.append(Line((Cell(name), *(_power(one) for one in cells))))
    size = f"T = {summary.measurements:,}" if summary.measurements else "this T"
    dim = len(summary.info.parameters)
    return (
        Table(
            f"{summary.name}-controls",
            f"{summary.title}: what each score flags, at {size}",
            columns,
            tuple(flags),
            (
                "Below or above: outside of the null band, on that side (marked); inside: nothing to see. Each value "
                "is followed by its band. By parameter: how many of all, then the one farthest out in half widths "
                "of its band. The columns of the exact posterior show false alarms: a band of 95 % is left by "
                f"one exact score in twenty, and by at least one of {dim} parameters with up to "
                f"{1 - 0.95**dim:.0%}, save for {' and '.join(JOINT)}, whose edges hold for all at once with 99 %.",
                "Bands of skill, log score, MAP error and information say what a method's own draws claim, so that a "
                "value outside of them is a claim that does not hold. The prior passes every score that asks for "
                "calibration alone; it is told by what it knows: the difference to the exact posterior.",
            ),
        ),
        Table(
            f"{summary.name}-power",
            f"{summary.title}: how far outside, in half widths of the null band, and the power, at {size}",
            columns,
            tuple(powers),
            (
                "Distance d = (v − middle of the band) / half its width; beyond ±1 a score flags. Power: the "
                "probability that a fresh test set of this size flags the same posterior, P = Phi((low − v) / s) + 1 − "
                "Phi((high − v) / s), Phi the standard normal distribution function. It takes the score of a fresh "
                "test set as normal about the value v that was found, with the score's standard error s (where a score "
                "has none, half the band's width / 1.96), and the band (low to high) as the same. A score just at its "
                "edge has a power of one half. By parameter: of the one farthest out, so that the power of flagging "
                "any is at least that, had it been chosen beforehand. p-values are no means and have no power here.",
            ),
        ),
    )


def _scores(shown: Sequence[Contender], reference: Contender | None) -> dict[str, dict[str, _Found]]:
    """Score -> column -> what was found; the difference to the exact posterior first, scores without a band last."""
    found: dict[str, dict[str, _Found]] = {}
    exact = score_matrix(reference.done) if reference is not None else None
    for c in shown:
        own = score_matrix(c.done)
        if exact is not None and own is not None and c is not reference and own.shape[1] == exact.shape[1]:
            gap = paired_difference(own[:1], exact[:1])
            half = (gap.high - gap.low) / 2
            one = Number(gap.mean, std_error=gap.sd_test, null_low=-half, null_high=half)
            found.setdefault(AGAINST_EXACT, {})[c.key] = _Found((("", one),))
    for c in shown:
        families: dict[str, list[tuple[str, Number]]] = {}
        for metric, one in c.scores.items():
            head, _, parameter = metric.partition("/")
            if metric != INFORMED_MAP_ERROR:
                families.setdefault(f"{head} by parameter" if parameter else head, []).append((parameter, one))
        for name, parts in families.items():
            found.setdefault(name, {})[c.key] = _Found(tuple(parts))
    return dict(sorted(found.items(), key=lambda pair: not any(one.banded for one in pair[1].values())))


def _flag(found: _Found | None) -> Cell:
    if found is None:
        return Cell(tone="muted")
    if not found.banded:
        text = significant(found.parts[0][1].value, 3) if len(found.parts) == 1 else ""
        return Cell(NO_NULL, text, "muted")
    sides = [math.copysign(1, distance) for _, _, distance in found.banded if abs(distance) > 1]
    side = "outside" if len(set(sides)) > 1 else "above" if sum(sides) > 0 else "below"
    name, one, _ = found.gravest
    value = f"{significant(one.value)}; {band_text(one, significant)}"
    if len(found.parts) == 1 and not name:
        return Cell(side if sides else "inside", value, "bad" if sides else "")
    text = f"{len(sides)} of {len(found.banded)} {side}" if sides else f"0 of {len(found.banded)}"
    return Cell(text, f"{name} {value}", "bad" if sides else "")


def _power(found: _Found | None) -> Cell:
    if found is None or not found.banded:
        return Cell(tone="muted")
    name, one, distance = found.gravest
    if one.null_low is None or one.null_high is None:
        return Cell(tone="muted")
    chance = power(one.value, one.null_low, one.null_high, one.std_error)
    text = number(distance, 1) if math.isfinite(distance) else "no width"
    known = "> 0.99" if chance > 0.99 else number(chance, 2)
    return Cell(text, f"{name + ', ' if name else ''}power {known}", "bad" if abs(distance) > 1 else "")


def _short(c: Contender) -> str:
    """The entry's name without that of its method: ``shrunk`` for ``control_shrunk``."""
    method = c.jobs[0].rows[0].method
    return c.key.removeprefix(method).lstrip("_.-") or c.label

"""Further scores of a task in one table: joint and local calibration, distances to the exact posterior, density."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .cells import Cell, distance_cell, method_cell, plain_cell, signed_cell
from .contenders import Contender, Number, worst
from .style import percent
from .summary import TaskSummary
from .tables import METHOD, Column, Line, Table

CELLS: tuple[tuple[str, str, str, str, Callable[[Number | None], Cell]], ...] = (
    ("sbc_p_value/log_likelihood", "Likelihood's rank", "joint calibration", "p-value", plain_cell),
    ("hpd_coverage_bias", "Highest density", "joint calibration", "%, null band", signed_cell),
    ("tarp_coverage_bias", "TARP", "joint calibration", "%, null band", signed_cell),
    ("local_c2st_rejected", "L-C2ST rejects", "local calibration", "%, null band", lambda found: _share(found)),
    ("posterior_predictive", "Predictive distance", "re-simulation", "of the truth's", lambda found: _both(found)),
    ("log_score", "Log score", "density", "nats", plain_cell),
    ("regret_nats", "Regret", "density", "nats", distance_cell),
    ("sliced_wasserstein", "Sliced Wasserstein", "distance to the exact posterior", "its sd", distance_cell),
    ("stray_draws/other_landmark", "At a wrong landmark", "stray draws", "%, null band", lambda found: _share(found)),
    ("stray_draws/far", "Far from all", "stray draws", "%, null band", lambda found: _share(found)),
    ("leakage", "Leakage", "outside the prior", "%", lambda found: _share(found)),
)
"""Metric, head, group, unit and cell of each column."""

WORST_BIN = "coverage_worst_bin"

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "Rank statistics (SBC)",
        "Ranks of the truth among the draws, of each parameter and of the log-likelihood, against uniform ranks by "
        "simultaneous bands (Talts et al. 2018; Säilynoja et al. 2022). The likelihood's rank fails the prior too, "
        "which passes all others. Below 0.05 a p-value is wrong once in twenty.",
    ),
    (
        "Highest density, TARP",
        "Signed coverage of highest-density regions, and of balls about random points (Lemos et al. 2023): "
        "below zero is over-confident. Both ask for all parameters at once.",
    ),
    (
        "L-C2ST, worst bin of y",
        "Whether a classifier tells truths from draws at a measurement (Linhart et al. 2023): the share of those "
        "where it does, an exact posterior's being near the level of the test; and the signed coverage within bins of "
        "the measurements' principal components, of which the lowest is shown.",
    ),
    (
        "Predictive distance",
        "Median distance of re-simulated draws from the measurement over that of re-simulations at the truth: 1 for "
        "exact draws, above for too wide ones.",
    ),
    (
        "Log score, regret",
        "Mean log density at the truth, in nats, and what it loses against the exact density.",
    ),
    (
        "Information",
        "E[log q_j(truth | y) − log p_j(truth)] in nats, of each parameter: what a method knows beyond the prior; lost "
        "is what the exact draws gain beyond it.",
    ),
    (
        "Sliced Wasserstein, C2ST",
        "Distance to the exact draws in units of their sd, averaged over directions; and the held-out accuracy of a "
        "classifier, named with its kind and number of draws, that tells draws from exact ones: 0.5 where it cannot.",
    ),
    (
        "Stray draws",
        "Where parameters have landmarks, such as modes: the share of draws nearest to a landmark that the measurement "
        "excludes, and of draws more than 4 sd from all of them.",
    ),
)


def score_table(summary: TaskSummary) -> Table | None:
    """Every method against the scores that the main table leaves out; columns that no method has are left out."""
    shown = [c for c in summary.scored if c.done]
    names = {metric for c in shown for metric in c.scores}
    wanted = [column for column in CELLS if column[0] in names]
    wanted += [
        (metric, metric, "distance to the exact posterior", "0.5 is exact", distance_cell)
        for metric in sorted(name for name in names if name.startswith("c2st_"))
    ]
    bins = any(name.startswith(WORST_BIN) for name in names)
    if not wanted and not bins:
        return None
    columns = [Column("Method", METHOD, numeric=False)]
    columns += [Column("Worst bin of y", "local calibration", "%, null band")] if bins else []
    columns += [Column(head, group, unit) for _, head, group, unit, _ in wanted]
    lines = []
    for c in shown:
        cells = [method_cell(c), *([_worst_bin(c, summary)] if bins else [])]
        cells += [cell(c.score(metric)) for metric, _, _, _, cell in wanted]
        lines.append(Line(tuple(cells), bool(c.role), c.key))
    return Table(
        f"{summary.name}-scores", f"{summary.title}: further scores", tuple(columns), tuple(lines), tuple(_notes(bins))
    )


def _notes(bins: bool) -> Iterator[str]:
    yield (
        "Marked: outside of the null band, on the bad side where a score has one. Each is explained under Definitions; "
        "all numbers, those by parameter too, are in tables/numbers.csv."
    )
    if bins:
        yield (
            "Worst bin of y: the lowest signed coverage of any parameter among the test set's bins; which one is "
            "named. Its band is that of one parameter: of many, some leave it by chance."
        )


def _worst_bin(c: Contender, summary: TaskSummary) -> Cell:
    """The parameter whose least coverage over bins lies lowest."""
    flipped = replace(
        c,
        scores={
            metric: replace(found, value=-found.value)
            for metric, found in c.scores.items()
            if metric.startswith(f"{WORST_BIN}/")
        },
    )
    found = worst(flipped, WORST_BIN, summary.names)
    if found is None:
        return Cell(tone="muted")
    name = found[0]
    own = c.score(f"{WORST_BIN}/{name}")
    cell = signed_cell(own)
    below = own is not None and own.null_low is not None and own.value < own.null_low
    return replace(cell, text=f"{cell.text} {name}", tone="bad" if below else "")


def _share(found: Number | None) -> Cell:
    """A share in per cent; marked where it is above its band."""
    if found is None:
        return Cell(tone="muted")
    high = found.null_high
    detail = "" if high is None else f"to {percent(high, 2)}"
    return Cell(percent(found.value), detail, "bad" if high is not None and found.value > high else "")


def _both(found: Number | None) -> Cell:
    """A ratio; marked where it lies outside of its band on either side."""
    cell = plain_cell(found)
    if found is None or found.null_low is None or found.null_high is None:
        return cell
    return replace(cell, tone="" if found.null_low <= found.value <= found.null_high else "bad")

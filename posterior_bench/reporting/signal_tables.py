"""Two tables of a task: how well its few parameters are known, in their units, and the signals that methods make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ..records import Parameter
from ..running.results import TaskInfo
from .cells import Cell, distance_cell, error_cell, method_cell, plain_cell, signed_cell
from .contenders import Contender, Number
from .style import percent
from .summary import TaskSummary
from .tables import METHOD, Column, Line, Table

MOST = 4
"""Parameters of a task whose errors stand in one table: of more, the tables by parameter tell, and ``numbers.csv``."""

HORIZONS = ("1x", "4x", "12x")

MAKES_SIGNALS = "reconstruction_error"
"""The score that every method has which makes signals."""

DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "Error of the mean, relative error, bias",
        "Mean absolute error of the posterior mean in the parameter's unit; the same over that of the prior mean (1: "
        "nothing was learned); and the mean signed error, above zero where the mean is too large. The band is what the "
        "draws claim: above it, a posterior errs by more than it says.",
    ),
    (
        "CRPS, negative log density",
        "Mean continuous ranked probability score in the parameter's unit, and mean −log q(truth | y) in nats: small "
        "where a posterior is both near the truth and honest about its distance. Their bands are what the draws claim.",
    ),
    (
        "Coverage at 50 and 90 %",
        "Share of the truths in the central intervals of that confidence; below its band the intervals are too narrow.",
    ),
    (
        "Reconstruction, forecast, intervention",
        "Mean absolute error, in the measurement's unit, of one draw of the signal against the measurement (its band "
        "is the error of the true signal: below it, noise is followed); of the mean of 20 draws against the true "
        "signal up to 1, 4 and 12 times the seen times beyond them; and against the true process with other "
        "parameters. Forecast coverage: share of the true values in the draws' central 90 % interval at their time.",
    ),
)


def estimates_table(summary: TaskSummary) -> Table | None:
    """Errors, scores and coverage of each parameter in its unit; ``None`` for more than four, or no rows."""
    parameters = {p.name: p for p in summary.info.parameters}
    names = [name for name in summary.names if any(c.score(f"relative_error/{name}") for c in summary.scored)]
    if not names or len(parameters) > MOST:
        return None
    alone = len(parameters) == 1
    unit = (parameters[names[0]].unit or "its unit") if alone else "its unit"
    columns = [Column("Method", METHOD, numeric=False)]
    columns += [] if alone else [Column("Parameter", METHOD, numeric=False)]
    columns += [
        Column("Relative error", "posterior mean", "of the prior mean's, band claimed"),
        Column("Error", "posterior mean", f"{unit}, band claimed"),
        Column("Bias", "posterior mean", f"{unit}, null band"),
        Column("CRPS", "proper scores", f"{unit}, band claimed"),
    ]
    # density and regret are of all parameters at once
    columns += [Column("−log density", "proper scores", "nats, band claimed")] if alone else []
    columns += [Column("Regret", "proper scores", "nats")] if alone else []
    columns += [
        Column("Coverage, 50 %", "central intervals", "%, null band"),
        Column("Coverage, 90 %", "central intervals", "%, null band"),
        Column("Width, 90 %", "central intervals", "prior sd"),
    ]
    lines = [
        Line(tuple(_estimate(c, parameters[name], alone)), bool(c.role), c.key)
        for name in names
        for c in summary.scored
        if c.score(f"relative_error/{name}")
    ]
    what = "Parameters under incomplete physics" if _make_signals(summary) else "Parameters in their own units"
    notes = (
        "Bands claimed are what a method's own draws say that it should score: an error, CRPS or −log density above "
        "its band (marked) is over-confidence, whatever its size. Each is explained under Definitions.",
    )
    return Table(f"{summary.name}-estimates", f"{summary.title}: {what}", tuple(columns), tuple(lines), notes)


def _estimate(c: Contender, parameter: Parameter, alone: bool) -> Iterator[Cell]:
    name = parameter.name
    yield method_cell(c)
    if not alone:
        yield Cell(f"{name} [{parameter.unit}]" if parameter.unit else name)
    yield error_cell(c.score(f"relative_error/{name}"))
    yield distance_cell(c.score(f"mean_error/{name}"))
    yield _either_side(c.score(f"bias/{name}"))
    yield distance_cell(c.score(f"crps/{name}"))
    if alone:
        yield _surprise(c)
        yield distance_cell(c.score("regret_nats"))
    yield signed_cell(c.score(f"coverage_50/{name}"))
    yield signed_cell(c.score(f"coverage_90/{name}"))
    yield plain_cell(c.score(f"width_90/{name}"))


def signals_table(summary: TaskSummary) -> Table | None:
    """Errors of reconstructed, continued and intervened signals; ``None`` where no method makes signals."""
    if not _make_signals(summary):
        return None
    columns = (
        Column("Method", METHOD, numeric=False),
        Column("Reconstruction", "error of", "band of the true signal"),
        Column("Mean reconstruction", "error of"),
        *(Column(horizon, "forecast error", "band claimed") for horizon in HORIZONS),
        *(Column(horizon, "forecast coverage at 90 %", "%, band claimed") for horizon in HORIZONS),
        Column("Intervention", "error with other parameters", "band claimed"),
    )
    lines = []
    for c in summary.scored:
        if c.score(MAKES_SIGNALS) is None:
            continue
        cells = [
            method_cell(c),
            distance_cell(c.score(MAKES_SIGNALS)),
            distance_cell(c.score("reconstruction_mean_error")),
            *(_unless_diverged(c, f"forecast_error/{h}", f"forecast_diverged/{h}") for h in HORIZONS),
            *(signed_cell(c.score(f"forecast_coverage/{h}")) for h in HORIZONS),
            _unless_diverged(c, "intervention_error", "intervention_diverged"),
        ]
        lines.append(Line(tuple(cells), bool(c.role), c.key))
    notes = (
        f"Mean absolute errors of the {signal_name(summary.info)}, in the measurement's unit. Forecasts up to h times "
        "the seen times beyond them, against the signal without noise; interventions set the parameters to 0.2 to 3 "
        "times the true ones. Above its band (marked) a method errs by more than its draws claim.",
    )
    return Table(f"{summary.name}-signals", f"{summary.title}: Signals", columns, tuple(lines), notes)


def signal_name(info: TaskInfo) -> str:
    """What is measured: the name that its numbers share but for their index, or ``signal``.

    >>> signal_name(TaskInfo("t", 1, "s", {}, "", "", (), ("angle_0", "angle_1")))
    'angle'
    """
    stems = {re.sub(r"[\W_\d]+$", "", name) for name in info.y_names}
    return (stems.pop() if len(stems) == 1 else "") or "signal"


def _make_signals(summary: TaskSummary) -> bool:
    return any(c.score(MAKES_SIGNALS) is not None for c in summary.scored)


def _either_side(found: Number | None) -> Cell:
    """A signed error with its band; marked outside of it on either side."""
    cell = distance_cell(found)
    below = found is not None and found.null_low is not None and found.value < found.null_low
    return replace(cell, tone="bad") if below else cell


def _surprise(c: Contender) -> Cell:
    """The mean negative log density; where some truths have none, it is infinite, and their share is told."""
    found, zero = c.score("log_score"), c.score("log_score_zero_density")
    if zero is not None and zero.value > 0:
        rest = f", else {distance_cell(_negative(found)).text}" if found is not None else ""
        return Cell("infinite", f"no density at {percent(zero.value)} % of truths{rest}", "bad")
    return distance_cell(None if found is None else _negative(found))


def _negative(found: Number | None) -> Number | None:
    if found is None:
        return None
    low = None if found.null_high is None else -found.null_high
    high = None if found.null_low is None else -found.null_low
    return replace(found, value=-found.value, null_low=low, null_high=high)


def _unless_diverged(c: Contender, metric: str, diverged: str) -> Cell:
    """An error, or how many of the draws are not finite, since of the others none is told."""
    gone = c.score(diverged)
    if gone is not None and gone.value > 0:
        return Cell("diverged", f"{percent(gone.value)} % of draws", "bad")
    return distance_cell(c.score(metric))

"""Forecasts of signals with their bands, methods one below the other, and the error of interventions by their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from .contenders import Contender
from .drawing import (
    CROWD,
    WIDTH,
    Illustration,
    band_patch,
    finish,
    group_panels,
    legend_above,
    method_groups,
    panels,
    plain,
    sheet,
)
from .signal_tables import signal_name
from .style import BAND_COLOUR, Look, first_few, methods_text
from .summary import TaskSummary

FORECAST = "forecast_coverage/4x"
"""The score that keeps signals for the figure."""

INTERVENTION = "intervention_error"

WIDE = 20.0
"""Ratio of the largest to the smallest error from which on their axis is logarithmic."""


def signal_figures(summary: TaskSummary, looks: Mapping[str, Look]) -> list[Illustration]:
    """Forecasts and interventions, where methods make signals."""
    found = (forecast_figure(summary, looks), intervention_figure(summary, looks))
    return [figure for figure in found if figure is not None]


def forecast_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """Bands of the first fit of up to six methods on the same measurements; ``None`` where no method has any."""
    able = [c for c in summary.scored if _kept(c, FORECAST, "truth")]
    if not able:
        return None
    shown = sorted(able, key=lambda c: c.position)[:CROWD]  # the suite's order: its main methods come first
    columns = min(len(_kept(c, FORECAST, "truth")[0]) for c in shown)
    with sheet():
        figure = Figure(figsize=(WIDTH, 1.5 * len(shown) + 1.1), layout="constrained")
        grid = figure.subplots(len(shown), columns, sharex=True, sharey="col", squeeze=False)
        for own, c in zip(grid, shown, strict=True):
            for place, axes in enumerate(own):
                _forecast(axes, c, place, looks[c.key])
            own[0].set_title(plain(c.label), loc="left", color=looks[c.key].ink)
        for place, axes in enumerate(grid[-1]):
            axes.set_xlabel(f"measurement {place + 1}")
        figure.supxlabel("time, in multiples of the seen", fontsize="medium")
        figure.supylabel(f"{plain(signal_name(summary.info))} [unit of the measurement]", fontsize="medium")
        colour = looks[shown[0].key].colour
        entries: list[Artist] = [
            band_patch("seen"),
            Line2D([], [], color="#4d4d4d", marker=".", linestyle="", markersize=3, label="measurement"),
            Line2D([], [], color="black", linewidth=0.9, label="truth, without noise"),
            Patch(facecolor=colour, alpha=0.45, edgecolor="none", label="draws, in the method's colour: central 90 %"),
            Line2D([], [], color=colour, linestyle=(0, (4, 1.5)), label="median"),
        ]
        legend_above(figure, entries)
        rest = f" Not drawn: {first_few([c.label for c in able[CROWD:]])}." if able[CROWD:] else ""
        return finish(
            figure,
            f"{summary.name}-forecasts",
            "Forecasts",
            "Signals of each method, a row each, for the same measurements, a column each, up to four times the seen "
            "times beyond them. At each time, an exact posterior's band holds the truth (black) with 90 %; one that "
            "leaves it is over-confident. The axes are those of the truth: a band may go beyond them. Of several "
            f"fits, the first.{rest}",
            f"Forecast bands of {methods_text([c.label for c in shown])} on {columns} measurements of "
            f"{summary.title}, with the true signals.",
        )


def _forecast(axes: Axes, c: Contender, place: int, look: Look) -> None:
    """One method on one measurement; all but the seen part is forecast."""
    truth, low, median, high = (
        _kept(c, FORECAST, name)[0][place].numpy() for name in ("truth", "low", "median", "high")
    )
    artefact = c.done[0].artefact
    if artefact is None:
        raise ValueError(f"the first fit of {c.key!r} has no artefact")
    seen = artefact.y.shape[-1]
    time = np.arange(len(truth)) / seen
    axes.axvspan(0, 1, color=BAND_COLOUR, linewidth=0, zorder=0)
    axes.fill_between(time, low, high, color=look.colour, alpha=0.45, linewidth=0)
    axes.plot(time, median, color=look.colour, linestyle=(0, (4, 1.5)), linewidth=1.2)
    axes.plot(time, truth, color="black", linewidth=0.9)
    if place < len(artefact.y):
        series = artefact.y[place].reshape(-1, seen)[int(_kept(c, FORECAST, "place")[0])]
        axes.plot(time[:seen], series.numpy(), ".", color="#4d4d4d", markersize=2)
    pad = 0.35 * max(float(truth.max() - truth.min()), 1e-12)
    axes.set_ylim(float(truth.min()) - pad, float(truth.max()) + pad)
    axes.set_xlim(0, len(time) / seen)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def intervention_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """Mean error against the factor on the parameters, of all methods; ``None`` where none has it."""
    able = {c.key: _kept(c, INTERVENTION, "errors") for c in summary.scored}
    groups = [[c for c in group if able[c.key]] for group in method_groups(summary.contenders)]
    groups = [group for group in groups if group]
    if not groups:
        return None
    shown = [c for group in groups for c in group]
    values = torch.cat([torch.stack(able[c.key]).mean(0) for c in shown])
    spread = float(values.max()) > WIDE * float(values.min()) > 0
    with sheet():
        if len(groups) == 1:
            figure, row = panels(1, 1, 3.2)
            entries = [
                Line2D(
                    [], [], color=looks[c.key].colour, linestyle=looks[c.key].line, marker=looks[c.key].marker,
                    label=plain(c.label),
                )
                for c in shown
            ]  # fmt: skip
            legend_above(figure, entries)
        else:
            figure, rows = group_panels(1, groups, looks, 3.0, sharey=True, marked=True)
            row = rows[0]
        for axes, group in zip(row, groups, strict=True):
            _interventions(axes, group, looks, able)
            axes.set_xlabel("factor on the true parameters")
            if spread:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            else:
                axes.set_ylim(bottom=0)
        row[0].set_ylabel(f"mean absolute error of the\n{plain(signal_name(summary.info))} [unit of the measurement]")
        several = " Lines are means over fits." if summary.fits > 1 else ""
        return finish(
            figure,
            f"{summary.name}-interventions",
            "What if the parameters were others",
            "Each method infers nuisances and initial state from the measurement, then the parameters are set to a "
            "multiple of the true ones; the error is against the true process with the same change, over the seen "
            "times. At 1 nothing is changed but that the parameters are known. A method that makes no use of its "
            f"parameters errs the more, the larger the change.{several}",
            f"Intervention error against the factor on the parameters on {summary.title}, for "
            f"{methods_text([c.label for c in shown])}.",
        )


def _interventions(
    axes: Axes, group: Sequence[Contender], looks: Mapping[str, Look], errors: Mapping[str, list[Tensor]]
) -> None:
    axes.axvline(1, color=BAND_COLOUR, linewidth=1.2, zorder=0)
    for c in group:
        look, factors = looks[c.key], _kept(c, INTERVENTION, "factors")[0]
        mean = torch.stack(errors[c.key]).mean(0)
        axes.plot(
            factors.numpy(), mean.numpy(), color=look.colour, linestyle=look.line, marker=look.marker, markersize=5
        )


def _kept(c: Contender, metric: str, name: str) -> list[Tensor]:
    """An artefact of a score, of each fit that has it."""
    found = (job.artefact.extra.get(f"{metric}/{name}") for job in c.done if job.artefact is not None)
    return [tensor for tensor in found if tensor is not None]

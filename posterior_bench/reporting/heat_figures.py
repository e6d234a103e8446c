"""Every method against every parameter at a glance: what each knows, and where it is sure of too much or too little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation, Transform

from .contenders import Contender
from .drawing import WIDTH, Illustration, finish, parameter_label, plain, sheet
from .style import Look, number, short
from .summary import TaskSummary

COLOURS = "RdBu"
"""Red below zero, blue above: told apart with any kind of colour vision."""


def skill_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """CRPS skill of each method for each parameter, the reference first: what can be known, and who knows it."""
    shown = _reference_first(summary)
    values = _values(shown, summary.names, "crps_skill")
    if not np.isfinite(values).any():
        return None
    top = max(0.05, float(np.nanmax(values)))
    with sheet():
        figure, axes = _board(shown, summary, looks)
        _fill(axes, values, top, 2, "CRPS skill")
        informed = ", ".join(summary.informed) or "none"
        judge = f" They were told apart by {summary.judge}." if summary.judge else ""
        return finish(
            figure,
            f"{summary.name}-skill",
            "What the data tell of each parameter, and who finds it",
            "CRPS skill for each parameter: 0 is the prior, 1 the truth itself, red is worse than the prior. Left of "
            f"the line the parameters that the data inform ({informed}), right of it the others, for which no method "
            f"can know much more than the prior.{judge} The exact reference, where there is one, stands first: a "
            "method that is paler than it has missed what the data say. Skill above the reference's is chance.",
            f"Table of CRPS skill by method and parameter on {summary.title}.",
        )


def coverage_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """Signed coverage of each method for each parameter: red is over-confident, blue under-confident."""
    left_out, summary = summary.left_out, summary.together
    shown = _reference_first(summary)
    values = 100 * _values(shown, summary.names, "coverage_bias")
    if not np.isfinite(values).any():
        return None
    edges = [c.score(f"coverage_bias/{name}") for c in shown for name in summary.names]
    width = max((100 * edge.null_high for edge in edges if edge is not None and edge.null_high is not None), default=0)
    top = min(float(np.nanmax(np.abs(values))), 6 * width) if width else float(np.nanmax(np.abs(values)))
    with sheet():
        figure, axes = _board(shown, summary, looks)
        _fill(axes, values, max(top, 0.1), 1, "signed coverage [%]")
        for row, c in enumerate(shown):
            for column, name in enumerate(summary.names):
                found = c.score(f"coverage_bias/{name}")
                if found is None or found.null_low is None or found.null_high is None:
                    continue
                if not found.null_low <= found.value <= found.null_high:
                    axes.add_patch(Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, fill=False, linewidth=1.4))
        return finish(
            figure,
            f"{summary.name}-coverage",
            "Calibration at a glance",
            "Signed coverage in per cent: the mean over all confidences of the fraction of truths inside the interval "
            "minus the confidence. Red, below zero: intervals too narrow (over-confident). Blue, above: too wide "
            f"(under-confident). Framed: outside of what an exact posterior keeps to in all parameters at once with "
            f"99 % (about ± {number(width, 1)}), by which the gate decides. Colours end at ± {number(top, 1)}. "
            "Informed parameters stand left of the line; the curves behind these means are in the figures below."
            f"{left_out}",
            f"Table of signed coverage by method and parameter on {summary.title}.",
        )


def _reference_first(summary: TaskSummary) -> list[Contender]:
    """The reference, the methods in the order of their rank, the other anchors."""
    order = {"reference": 0, "": 1, "anchor": 2}
    return sorted(summary.scored, key=lambda c: order[c.role])


def _values(shown: Sequence[Contender], names: Sequence[str], metric: str) -> np.ndarray:
    found = [[c.score(f"{metric}/{name}") for name in names] for c in shown]
    values = [[math.nan if one is None else one.value for one in row] for row in found]
    return np.array(values).reshape(len(shown), len(names))  # also where every job failed


def _board(shown: Sequence[Contender], summary: TaskSummary, looks: Mapping[str, Look]) -> tuple[Figure, Axes]:
    """An empty board, a row a method and a column a parameter."""
    names = summary.names
    symbols = {p.name: parameter_label(p, unit=False) for p in summary.info.parameters}
    width = min(WIDTH, 3.4 + 0.62 * len(names))
    figure = Figure(figsize=(width, 1.3 + 0.29 * len(shown)), layout=ConstrainedLayoutEngine(w_pad=0.1))
    axes = figure.subplots()
    axes.set_yticks(range(len(shown)), [plain(c.label) for c in shown])
    for label, c in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color(looks[c.key].ink)
    texts = [symbols[name].partition(" (")[0] for name in names]
    axes.set_xticks(range(len(names)), texts)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if summary.informed and summary.others:
        axes.axvline(len(summary.informed) - 0.5, color="#1a1a1a", linewidth=2.2)
        for place, text in ((len(summary.informed) / 2, "informed"), (len(names) - len(summary.others) / 2, "others")):
            axes.text(place - 0.5, 1.0, text, transform=_above(figure, axes), ha="center", style="italic", fontsize=8.6)
    return figure, axes


def _above(figure: Figure, axes: Axes) -> Transform:
    """Above the names of the columns: in data across, in points from the top upwards."""
    return axes.get_xaxis_transform() + ScaledTranslation(0, 20 / 72, figure.dpi_scale_trans)


def _fill(axes: Axes, values: np.ndarray, top: float, digits: int, label: str) -> None:
    """Colour the cells and write their values into them; a line parts the informed parameters from the others."""
    image = axes.imshow(values, cmap=COLOURS, vmin=-top, vmax=top, aspect="auto")
    rows, columns = values.shape
    axes.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    for row in range(rows):
        for column in range(columns):
            value = float(values[row, column])
            if math.isfinite(value):
                red, green, blue, _ = mpl.colormaps[COLOURS](0.5 + 0.5 * value / top)
                bright = 0.299 * red + 0.587 * green + 0.114 * blue
                ink = "#1a1a1a" if bright > 0.5 else "white"
                axes.text(column, row, short(value, digits), ha="center", va="center", color=ink, fontsize=8.2)
    figure = axes.get_figure()
    if figure is not None:
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015, label=label)
        bar.ax.set_ylim(max(-top, min(0.0, float(np.nanmin(values)))), top)  # colours that no cell has are left out

"""What the latent vector of a posterior does: planes of two coordinates, and which coordinate moves which parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Annulus, Circle
from matplotlib.patheffects import withStroke
from torch import Tensor

from .. import registry
from ..contracts import HasLandmarks
from ..running.latent import END
from .drawing import WIDTH, Illustration, finish, legend_above, lowest, parameter_label, plain, sheet
from .latent_colours import INNER, Drawn, by_landmarks, by_value, grid
from .posterior_figures import TRUTH
from .style import Look, first_few, methods_text, number
from .summary import TaskSummary

VEIL = 0.65
"""How much white lies over what is outside of the circle that holds 95 % of N(0, I)."""

EFFECTS = "Blues"
"""Colour map of the indices."""

SHOWN = 10
"""Latent coordinates in a table: those with the largest effects."""


def latent_figures(summary: TaskSummary, looks: Mapping[str, Look]) -> list[Illustration]:
    """The planes and the effects of the methods that have a latent vector; none where no method has one."""
    drawn = [
        Drawn(c, job.latent, job.artefact)
        for c in summary.scored
        if (job := c.done[0]).latent is not None and job.artefact is not None
    ]
    if not drawn:
        return []
    spanned = [one for one in drawn if one.latent.coordinates.numel()]
    return ([_planes(summary, spanned, looks)] if spanned else []) + [_effects(summary, drawn, looks)]


def _planes(summary: TaskSummary, drawn: Sequence[Drawn], looks: Mapping[str, Look]) -> Illustration:
    with sheet():
        landmarks, problem = _landmarks(summary, drawn[0].latent.planes.shape[-1])
        found = by_landmarks(drawn, landmarks) if landmarks is not None else by_value(drawn, summary)
        figure, blocks, beside = _blocks(len(drawn), len(drawn[0].latent.places))
        same = len({tuple(one.latent.coordinates.tolist()) for one in drawn}) == 1
        for index, (one, block) in enumerate(zip(drawn, blocks, strict=True)):
            first, second = (f"$z_{{{k + 1}}}$" for k in one.latent.coordinates.tolist())
            for column, axes in enumerate(block):
                axes.imshow(
                    found.images[index][column], extent=(-END, END, -END, END), origin="lower", interpolation="none"
                )
                _mark(axes, found.numbers[index][column], found.levels[index][column])
                name = f"measurement {int(one.latent.places[column])}"
                axes.text(0.0, 1.01, name, transform=axes.transAxes, va="bottom", fontsize=7, color="#4d4d4d")
                if not same or index + beside >= len(drawn):  # the lowest of its column
                    axes.set_xlabel(first, labelpad=1)
            block[0].set_ylabel(second, labelpad=0)
            block[0].set_title(plain(one.contender.label), color=looks[one.contender.key].ink, loc="left", pad=13)
        everything = [axes for block in blocks for axes in block]
        beyond = "max" if landmarks is not None else "both"
        for bar, label, own in zip(found.bars, found.labels, [everything] if found.key else blocks, strict=True):
            figure.colorbar(bar, ax=own, label=label, extend=beyond, fraction=0.05, pad=0.02, aspect=25)
        if found.key:
            legend_above(figure, found.key)
        others = "" if all(one.latent.effect.shape[0] == 2 for one in drawn) else (
            " Of more than two latent coordinates the two with the largest effects are shown, the others being 0."
        )  # fmt: skip
        labels = [one.contender.label for one in drawn]
        return finish(
            figure,
            f"{summary.name}-latent-planes",
            "What the latent space looks like",
            "For a fixed measurement each point of the latent plane is one theta. Points fall on it as N(0, I): 39 % "
            "inside the inner circle (radius 1), 86 % inside the outer (radius 2), and 5 % where it is pale (beyond "
            f"{number(INNER, 2)}).{others} {found.text} First fit of each method.{problem}",
            f"Maps of two latent coordinates of {methods_text(labels)} on {summary.title}, {found.alt}.",
        )


def _landmarks(summary: TaskSummary, dim: int) -> tuple[Tensor | None, str]:
    """(L, D), where the simulator has landmarks, or what is wrong with them: that must not cost the report."""
    try:
        simulator = registry.build("simulators", summary.info.simulator, summary.info.options)
    except registry.PluginError:
        return None, ""
    if not isinstance(simulator, HasLandmarks):
        return None, ""
    try:
        found = simulator.landmarks.detach().cpu().float()
        if found.ndim != 2 or not len(found) or found.shape[1] != dim:
            raise ValueError(f"they have shape {tuple(found.shape)}; expected (L, {dim})")
    except Exception as error:
        return None, f" The simulator's landmarks could not be used ({type(error).__name__}: {error})."
    return found, ""


def _mark(axes: Axes, numbers: Mapping[int, tuple[float, float]], level: np.ndarray | None) -> None:
    """A veil over where few draws come from, circles of 1 and 2 sd, numbers of landmarks, the line of the truth."""
    axes.add_patch(Annulus((0, 0), 2 * END, 2 * END - INNER, facecolor="white", alpha=VEIL, linewidth=0))
    for radius in (1.0, 2.0):
        circle = Circle((0, 0), radius, fill=False, edgecolor="white", linewidth=0.9)
        circle.set_path_effects([withStroke(linewidth=2.0, foreground="#1a1a1a")])
        axes.add_patch(circle)
    for text, (across, up) in numbers.items():
        stroke = [withStroke(linewidth=1.6, foreground="white")]
        axes.text(
            across, up, str(text), ha="center", va="center", fontsize=8, color="#1a1a1a", path_effects=stroke,
            clip_on=True,
        )  # fmt: skip
    if level is not None:
        lines = axes.contour(*grid(len(level)), level, levels=[0.0], colors=TRUTH, linestyles="--", linewidths=1.2)
        lines.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
    axes.set_xticks([-2, 0, 2])
    axes.set_yticks([-2, 0, 2])
    axes.set(xlim=(-END, END), ylim=(-END, END), aspect="equal")


def _blocks(methods: int, measurements: int) -> tuple[Figure, list[list[Axes]], int]:
    """Panels of methods in turn, each with its measurements side by side, and how many methods stand in a row."""
    beside = min(methods, max(1, 4 // measurements))
    rows, columns = -(-methods // beside), beside * measurements
    size = min(2.6, (WIDTH - 1.5) / max(columns, 3))
    shape = (min(WIDTH, size * columns + 2.4), rows * (size + 0.3) + 0.9)
    figure = Figure(figsize=shape, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels[methods * measurements :]:
        axes.remove()
    blocks = [panels[start * measurements : (start + 1) * measurements] for start in range(methods)]
    for axes in lowest([axes for block in blocks for axes in block]):
        axes.tick_params(labelbottom=True)
    return figure, blocks, beside


def _effects(summary: TaskSummary, drawn: Sequence[Drawn], looks: Mapping[str, Look]) -> Illustration:
    names = [p.name for p in summary.info.parameters]
    columns = [names.index(name) for name in summary.names]
    cell = 0.29 if len(names) > 5 else 0.62
    rows = [min(SHOWN, len(one.latent.effect)) for one in drawn]
    beside = max(1, min(len(drawn), int((WIDTH - 0.8) // (cell * len(names) + 0.75))))
    width, height = max(4.0, beside * (cell * len(names) + 0.75) + 1.0), -(-len(drawn) // beside)
    with sheet():
        figure = Figure(figsize=(min(WIDTH, width), height * (0.27 * max(rows) + 1.0) + 0.2), layout="constrained")
        tables = list(figure.subplots(height, beside, squeeze=False).flat)
        colours = mpl.colormaps[EFFECTS]
        for axes, one, shown in zip(tables, drawn, rows, strict=False):
            order = one.latent.order[:shown]
            values = one.latent.total_effect[order][:, columns].numpy()
            _table(axes, values, colours)
            axes.set_yticks(range(shown), [f"$z_{{{k + 1}}}$" for k in order.tolist()])
            symbols = [parameter_label(p, unit=False).partition(" (")[0] for p in summary.info.parameters]
            axes.set_xticks(range(len(columns)), [symbols[i] for i in columns], rotation=90 if len(names) > 5 else 0)
            if summary.informed and summary.others:
                axes.axvline(len(summary.informed) - 0.5, color="#1a1a1a", linewidth=2.2)
            total = len(one.latent.effect)
            part = f", {shown} of {total} coordinates" if shown < total else ""
            axes.set_title(plain(one.contender.label) + part, color=looks[one.contender.key].ink, loc="left")
        for axes in tables[len(drawn) :]:
            axes.remove()
        bar = ScalarMappable(Normalize(0, 1), colours)
        figure.colorbar(bar, ax=tables[: len(drawn)], label="total-effect index", fraction=0.04, pad=0.02, aspect=20)
        labels = [one.contender.label for one in drawn]
        line = (
            f" Left of the line stand the parameters that the data inform ({first_few(summary.informed)})."
            if summary.informed and summary.others
            else ""
        )
        return finish(
            figure,
            f"{summary.name}-latent-effects",
            "What each latent coordinate does to each parameter",
            "Total-effect index: of the variance that the latent vector gives a parameter, mean over test "
            "measurements, the share that would be left if all latent coordinates but this one were known (Jansen "
            "1999; Saltelli et al. 2010). 0: the coordinate does nothing to the parameter; 1: it has a part in all of "
            "the variance. The indices of a parameter add up to 1 where the coordinates act apart from each other, to "
            "more where they act together. Coordinates stand in the order of their mean index. One strong cell in a "
            "row: the coordinate stands for one parameter; an even row: it moves many at once."
            f"{line} First fit of each method.",
            f"Tables of total-effect indices of the latent coordinates of {methods_text(labels)} on {summary.title}.",
        )


def _table(axes: Axes, values: np.ndarray, colours: Colormap) -> None:
    """Cells coloured from 0 to 1, with their values; a dash where a parameter does not vary."""
    axes.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto")
    rows, columns = values.shape
    for row in range(rows):
        for column in range(columns):
            value = float(values[row, column])
            ink = "white" if math.isfinite(value) and value > 0.6 else "#1a1a1a"
            text = number(min(value, 1.0), 2) if math.isfinite(value) else "–"
            size = 6.4 if columns > 5 else 8.2
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

"""What the draws look like, as the simulator itself pictures them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .. import registry
from ..contracts import HasPicture
from ..runtime import scope, seed_for
from .drawing import WIDTH, Illustration, finish, legend_above, lowest, panels, plain, sheet
from .posterior_figures import first_draws
from .style import Look, methods_text
from .summary import TaskSummary

PICTURE_DRAWS = 100
"""Draws that a simulator is asked to picture."""

MEASUREMENTS = 3
"""Different measurements that are pictured where a measurement is a class: one says nothing of the others."""


def picture_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """The simulator's own picture of the draws for one measurement, one panel a method; ``None`` where it has none."""
    drawn = first_draws(summary)
    try:
        simulator = registry.build("simulators", summary.info.simulator, summary.info.options)
    except registry.PluginError:
        return None
    if not isinstance(simulator, HasPicture) or not drawn:
        return None
    shown = sorted((c for c in summary.scored if c.key in drawn), key=lambda c: c.role != "reference")
    first = next(iter(drawn.values()))
    chosen = different_classes(first.y) or [0]
    draws = {c.key: drawn[c.key].draws for c in shown}
    # several measurements of a method stand side by side, and two methods in a row where there are many
    several = len(chosen) > 1
    amount = PICTURE_DRAWS * (4 if several else 1)
    problem = ""
    with sheet(), scope(seed_for("picture", summary.name), threads=torch.get_num_threads()):
        columns, height = _picture_shape(
            simulator, [draws[c.key][:amount, 0] for c in shown], first.y[0], [c.role == "anchor" for c in shown]
        )
        if several:
            figure, all_axes = _blocks(len(shown), len(chosen))
        else:
            figure, all_axes = panels(len(shown), columns, height, sharex=True, sharey=True)
        for index, axes in enumerate(all_axes):
            c, place = shown[index // len(chosen)], chosen[index % len(chosen)]
            problem = _draw_picture(simulator, axes, draws[c.key][:amount, place], first.y[place]) or problem
            named = axes.get_title() or f"measurement {place}"
            title = plain(c.label) if index % len(chosen) == len(chosen) // 2 else ""
            axes.set_title(title, color=looks[c.key].ink, pad=13 if several else None)
            if several:
                axes.text(0.03, 1.0, named, transform=axes.transAxes, va="bottom", fontsize=7, color="#4d4d4d")
        _focus(all_axes, [shown[index // len(chosen)].role == "anchor" for index in range(len(all_axes))])
        lowest(all_axes)
        _share_texts(figure, all_axes)
        failed = f" The simulator could not draw all of them ({problem})." if problem else ""
        what = (
            f"Draws of each method for {len(chosen)} test measurements that differ, side by side, as the simulator "
            "pictures them. A method that draws the same for all of them has not learned what the measurement says; "
            "one that leaves a place empty which the reference fills has lost a mode."
            if several
            else f"{PICTURE_DRAWS} draws of each method for the first test measurement, as the simulator pictures "
            "them. All panels belong to the same measurement."
        )
        return finish(
            figure,
            f"{summary.name}-picture",
            "What the draws look like",
            f"{what} The prior, where shown, is what is possible without the measurement, the exact reference all that "
            f"is possible with it. The axes leave out what lies far outside of the prior, where that is shown.{failed}",
            f"The simulator's picture of posterior draws on {summary.title}, one panel for each of "
            f"{methods_text([c.label for c in shown])}.",
        )


def _blocks(methods: int, measurements: int) -> tuple[Figure, list[Axes]]:
    """Panels of methods in turn, each with its measurements side by side; two methods a row where there are many."""
    beside = 2 if methods > 4 else 1
    rows, columns = -(-methods // beside), beside * measurements
    size = 0.86 * WIDTH / max(columns, 4)
    figure = Figure(figsize=(min(WIDTH, 1.0 + 1.15 * size * columns), 0.7 + rows * (size + 0.28)), layout="constrained")
    widths = ([1.0] * measurements + [0.16]) * beside  # a gap parts the methods of a row
    grid = figure.add_gridspec(rows, len(widths) - 1, width_ratios=widths[:-1])
    found: list[Axes] = []
    for index in range(methods * measurements):
        method, measurement = divmod(index, measurements)
        row, block = divmod(method, beside)
        first = found[0] if found else None
        axes = figure.add_subplot(grid[row, block * (measurements + 1) + measurement], sharex=first, sharey=first)
        axes.tick_params(labelleft=block == measurement == 0, labelbottom=False)
        found.append(axes)
    return figure, found


def different_classes(y: Tensor) -> list[int]:
    """Places of up to three measurements that differ, in y (B, *y_shape), where a measurement is whole numbers.

    Empty where measurements are continuous.
    """
    flat = y.detach().cpu().double().flatten(1)
    if not torch.equal(flat, flat.round()):
        return []
    found: dict[tuple[float, ...], int] = {}
    for place, row in enumerate(flat.tolist()):
        found.setdefault(tuple(row), place)
    return list(found.values())[:MEASUREMENTS]


def _draw_picture(simulator: HasPicture, axes: Axes, theta: Tensor, y: Tensor) -> str:
    """Let the simulator draw; return what went wrong. A picture is decoration: it must not cost the report."""
    try:
        simulator.picture(axes, theta, y)
    except Exception as error:
        axes.text(0.5, 0.5, "no picture", transform=axes.transAxes, horizontalalignment="center")
        return f"{type(error).__name__}: {error}"
    return ""


def _picture_shape(
    simulator: HasPicture, draws: Sequence[Tensor], y: Tensor, of_prior: Sequence[bool]
) -> tuple[int, float]:
    """Panels a row and their height in inches, such that a picture of fixed aspect fills its panel."""
    count, tried = len(draws), [Figure().subplots() for _ in draws]
    for axes, theta in zip(tried, draws, strict=True):
        _draw_picture(simulator, axes, theta, y)
    _focus(tried, of_prior)
    axes = tried[0]
    if axes.get_aspect() == "auto":
        return (3, 3.0) if count <= 6 else (4, 2.3)
    ratio = axes.get_data_ratio() * float(axes.get_aspect())
    columns = 5 if ratio > 1.2 else 4 if ratio > 0.8 else 3
    return columns, min(5.0, max(1.5, 0.25 + ratio * 0.92 * WIDTH / columns))  # a title takes a quarter of an inch


def _focus(all_axes: Sequence[Axes], of_prior: Sequence[bool]) -> None:
    """The same limits for all panels, but stray draws of some methods must not shrink the rest.

    They hold the panels that are at most half as large again as the prior's, which holds all that is possible, or
    without a prior three times the median. Left alone where the simulator sets limits itself.
    """
    if not all(axes.get_autoscalex_on() and axes.get_autoscaley_on() and axes.has_data() for axes in all_axes):
        return
    ends = torch.from_numpy(np.array([axes.dataLim.extents for axes in all_axes]))  # left, bottom, right, top
    if not bool(ends.isfinite().all()):
        return
    span = ends[:, 2:] - ends[:, :2]
    prior = torch.tensor(of_prior)
    largest = 1.5 * span[prior].amax(0) if any(of_prior) else 3 * span.median(0).values
    usual = (span <= largest).all(1)
    if not bool(usual.any()):
        return
    low, high = ends[usual, :2].amin(0), ends[usual, 2:].amax(0)
    pad = 0.05 * (high - low).clamp_min(1e-12)
    (left, bottom), (right, top) = (low - pad).tolist(), (high + pad).tolist()
    for axes in all_axes:
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)


def _share_texts(figure: Figure, all_axes: Sequence[Axes]) -> None:
    """One legend and one label an axis for all panels, where the simulator gave each its own."""
    entries: dict[str, Artist] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
        own = axes.get_legend()
        if own is not None:
            own.remove()
    if entries:
        legend_above(figure, list(entries.values()))
    for axis, write in (("xlabel", figure.supxlabel), ("ylabel", figure.supylabel)):
        texts = {axes.properties()[axis] for axes in all_axes}
        if len(texts) == 1:
            write(texts.pop(), fontsize="medium")
            for axes in all_axes:
                axes.set(**{axis: ""})

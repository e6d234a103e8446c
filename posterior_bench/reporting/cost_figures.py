"""Figures of what a method takes: skill against the time of a fit, and the curves of the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..evaluation import Ranked
from .drawing import Illustration, finish, legend_above, panels, plain, sheet
from .style import DASHES, Look, methods_text, short, significant
from .summary import TaskSummary

HELD_OUT = "#333333"

SHORTEST = 0.01
"""Seconds: a shorter fit is drawn as one of this length."""


def cost_figure(summaries: Sequence[TaskSummary], looks: Mapping[str, Look]) -> Illustration | None:
    """Energy skill against seconds to fit, one panel a task; methods that fail the gate are hollow."""
    tasks: dict[str, list[TaskSummary]] = {}
    for summary in summaries:
        if any(c.ranked is not None and c.cost("fit_seconds") is not None for c in summary.competitors):
            tasks.setdefault(summary.info.name, []).append(summary)
    if not tasks:
        return None
    with sheet():
        crowd = max(len({c.key for s in own for c in s.scored}) for own in tasks.values())
        several = any(len(own) > 1 for own in tasks.values())
        figure, all_axes = panels(len(tasks), 2, max(3.4, 0.25 * crowd))
        for axes, (task, own) in zip(all_axes, tasks.items(), strict=True):
            _cost_panel(axes, own, looks)
            axes.set_title(plain(task))
            axes.set_xlabel("seconds to fit")
        _label_all(figure, all_axes, list(tasks.values()), looks)
        all_axes[0].set_ylabel("energy skill (0: prior, 1: truth)")
        grey = {"color": "#4d4d4d", "marker": "o", "linestyle": ""}
        legend_above(
            figure,
            [
                Line2D([], [], **grey, label="passes the gate"),  # type: ignore[arg-type]
                Line2D([], [], **grey, markerfacecolor="white", label="does not pass"),  # type: ignore[arg-type]
            ],
        )
        budgets = (
            " A line joins the budgets of a method, the largest mark is the largest budget, and its name stands at its "
            "height."
            if several
            else ""
        )
        return finish(
            figure,
            "cost-skill",
            "Skill against cost",
            "Energy skill on the test set against the time of a fit (simulations not counted; at least "
            f"{SHORTEST:g} s), with 95 % intervals. High and to the left is better.{budgets} "
            "Hollow marks do not pass the gate: such skill must not be trusted. A skill far below the prior's is drawn "
            "at the lower edge, with its value beside the name; intervals end at the edges. Horizontal lines are the "
            "anchors. The intervals hold "
            "what all methods share, the choice of test measurements: whether two methods differ is told by the paired "
            "comparison in the verdict, not by whether they overlap.",
            "Energy skill against seconds to fit on " + ", ".join(tasks) + ".",
        )


def _cost_panel(axes: Axes, summaries: Sequence[TaskSummary], looks: Mapping[str, Look]) -> None:
    points: dict[str, list[tuple[float, Ranked]]] = {}
    for c in (c for summary in summaries for c in summary.competitors):
        seconds = c.cost("fit_seconds")
        if c.ranked is not None and seconds is not None:
            points.setdefault(c.key, []).append((max(SHORTEST, seconds), c.ranked))
    times = [seconds for own in points.values() for seconds, _ in own]
    floor, ceiling = _floor(summaries), _ceiling(summaries)
    left, right = min(times) / math.sqrt(10), max(times) * math.sqrt(10)  # at least one decade, so at least one number
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    for c in summaries[-1].anchors:
        if c.ranked is not None:
            axes.axhline(c.ranked.skill, color=looks[c.key].colour, linestyle=looks[c.key].line, linewidth=1.0)
    for key, own in points.items():
        look = looks[key]
        heights = [max(floor, ranked.skill) for _, ranked in own]
        axes.plot([x for x, _ in own], heights, color=look.colour, linestyle=look.line, linewidth=1.0)
        for place, (seconds, ranked) in enumerate(own):
            low, high = (min(ceiling, max(floor, end)) for end in (ranked.low, ranked.high))
            axes.vlines(seconds, low, high, color=look.colour, linewidth=1.0)
            face = look.colour if ranked.passes else "white"
            size = 8.0 if place == len(own) - 1 else 5.0
            height = max(floor, ranked.skill)
            axes.plot(seconds, height, look.marker, color=look.colour, markerfacecolor=face, markersize=size)
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label_all(
    figure: Figure, all_axes: Sequence[Axes], tasks: Sequence[Sequence[TaskSummary]], looks: Mapping[str, Look]
) -> None:
    """The name and mark of each method beside the right edge, at the height of its skill where there is room."""
    for axes, own in zip(all_axes, tasks, strict=True):
        heights: dict[str, float] = {}
        names: dict[str, str] = {}
        faces: dict[str, str] = {}
        for c in (c for summary in own for c in summary.scored):
            if c.ranked is not None:
                floor = _floor(own)
                below = f" (↓ {short(c.ranked.skill, 2)})" if c.ranked.skill < floor else ""
                heights[c.key], names[c.key] = max(floor, c.ranked.skill), plain(c.label) + below
                faces[c.key] = looks[c.key].colour if c.ranked.passes else "white"
        low, high = axes.get_ylim()
        axes.set_ylim(low, high)
        order = sorted(heights, key=lambda key: heights[key])
        rows = -(-len(all_axes) // 2)
        gap = (high - low) * 0.19 / (figure.get_figheight() / rows - 1.0)  # a line of letters takes 0.19 inches
        placed = spread([heights[key] for key in order], gap, low, high)
        transform = axes.get_yaxis_transform()
        for key, height in zip(order, placed, strict=True):
            look = looks[key]
            axes.plot([1.0, 1.03], [heights[key], height], color=look.colour, linewidth=0.9, transform=transform,
                      clip_on=False)  # fmt: skip
            mark = {"color": look.colour, "markerfacecolor": faces[key], "markersize": 6, "clip_on": False}
            axes.plot(1.05, height, look.marker, transform=transform, **mark)  # type: ignore[arg-type]
            axes.text(1.08, height, names[key], color=look.ink, va="center", fontsize=8.8, transform=transform)


def _floor(summaries: Sequence[TaskSummary]) -> float:
    """Where the panel of a task ends below: a method far worse than the prior must not press the others together."""
    skills = [c.ranked.skill for summary in summaries for c in summary.scored if c.ranked is not None]
    return -0.25 * max(max(skills, default=0.0), 0.01)


def _ceiling(summaries: Sequence[TaskSummary]) -> float:
    """Where it ends above: fits of a failing method that differ widely must not press the others together either."""
    ranked = [c.ranked for summary in summaries for c in summary.scored if c.ranked is not None]
    return max((r.high if r.passes else r.skill for r in ranked), default=0.0)


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Sorted heights moved apart to at least ``gap``; a crowd stays centred on its members where the panel allows."""

    def first(crowd: Sequence[float]) -> float:
        half = gap * (len(crowd) - 1) / 2
        return max(low, min(sum(crowd) / len(crowd), high - half) - half)

    crowds: list[list[float]] = []
    for height in heights:
        crowds.append([height])
        while len(crowds) > 1 and first(crowds[-1]) - first(crowds[-2]) < gap * len(crowds[-2]):
            last = crowds.pop()
            crowds[-1] += last
    return [first(crowd) + i * gap for crowd in crowds for i in range(len(crowd))]


def training_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """Curves of the training, one panel a method: each term of its loss, and the held-out loss."""
    trained = [(c, c.done[0].artefact.history) for c in summary.scored if c.done[0].artefact is not None]
    trained = [(c, history) for c, history in trained if len(history.get("step", ())) > 1]
    if not trained:
        return None
    with sheet():
        longest = max(sum(name not in ("step", "held_out") for name in history) for _, history in trained)
        figure, all_axes = panels(len(trained), 3, 2.3 + 0.17 * longest)
        held = False
        for i, (axes, (c, history)) in enumerate(zip(all_axes, trained, strict=True)):
            terms = [name for name in history if name not in ("step", "held_out")]
            step = history["step"].numpy()
            values = {name: history[name].double().numpy() for name in history if name != "step"}
            alone = _of_different_size(list(values.values()))
            for name, dash in zip(terms, DASHES * (1 + len(terms) // len(DASHES)), strict=False):
                look = Look(looks[c.key].colour, dash)
                curve, label = _curve(plain(name), values[name], alone)
                axes.plot(step, curve, color=look.colour, linestyle=look.line, label=label)
            if "held_out" in values:
                curve, _ = _curve("", values["held_out"], alone)
                axes.plot(step, curve, color=HELD_OUT, linewidth=2.2, alpha=0.7)
                held = True
            if not alone:
                _loss_scale(axes, np.concatenate(list(values.values())))
            axes.set_title(plain(c.label), color=looks[c.key].ink)
            axes.set_xlabel("gradient step")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if alone:
                axes.set_ylabel("lowest to highest")
            elif i % 3 == 0:
                axes.set_ylabel("loss")
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=2.5, fontsize=8.6, labelspacing=0.3
            )
        if held:
            legend_above(figure, [Line2D([], [], color=HELD_OUT, linewidth=2.2, alpha=0.7, label="held-out loss")])
        return finish(
            figure,
            f"{summary.name}-training",
            "Training",
            "Terms of each method's loss during training (weighted, means between two looks), and the loss on held-out "
            "simulations (grey), by which the weights were chosen. Losses of different methods are different "
            "quantities and do not compare; what is to be seen is whether a curve has levelled off, and whether the "
            "held-out loss turns up (over-fitting). Where the terms of a method differ much in size, each is drawn "
            "between its lowest and its highest value, and the legend gives its last one."
            + (" First fit of each method." if summary.fits > 1 else ""),
            f"Training curves of {methods_text([c.label for c, _ in trained])} on {summary.title}.",
        )


def _of_different_size(curves: list[np.ndarray]) -> bool:
    """Whether curves on one axis would hide each other's shape: some twenty times as large as others."""
    sizes = [float(np.median(np.abs(curve[np.isfinite(curve)]))) for curve in curves if np.isfinite(curve).any()]
    return len(sizes) > 2 and max(sizes) > 20 * min(sizes)


def _curve(name: str, values: np.ndarray, alone: bool) -> tuple[np.ndarray, str]:
    """A curve as drawn, and its label; ``alone`` scales it from 0 to 1 and tells its last value."""
    if not alone:
        return values, name
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low if high > low else 1.0), f"{name}, {significant(float(values[-1]))} at the end"


def _loss_scale(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic scale where losses span decades; near zero linear, where some are negative."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return
    middle = float(np.median(np.abs(finite)))
    if finite.min() > 0 and finite.max() > 5 * finite.min():
        axes.set_yscale("log")
        if finite.max() > 100 * finite.min():
            axes.yaxis.set_minor_formatter(NullFormatter())
    elif finite.min() <= 0 < middle and finite.max() > 100 * middle:
        axes.set_yscale("symlog", linthresh=middle)

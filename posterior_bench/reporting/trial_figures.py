"""Skill against cost where methods stand under many settings: a panel a method, a mark a setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..evaluation import Ranked
from .contenders import Contender
from .cost_figures import SHORTEST, spread
from .drawing import Illustration, finish, legend_above, panels, plain, sheet
from .style import MARKERS, Look
from .summary import TaskSummary

LEGIBLE = 20
"""Contenders of a task that one panel can name."""

LETTERS = 0.09
"""Height of a line of letters as a part of a panel's."""


def trials_figure(summaries: Sequence[TaskSummary], looks: Mapping[str, Look]) -> Illustration | None:
    """Energy skill against seconds to fit, one panel a method and task, each with scales of its own."""
    groups: dict[tuple[str, str], list[Contender]] = {}
    best = {
        s.name: max((c.ranked.skill for c in s.together.competitors if c.ranked and c.ranked.passes), default=math.nan)
        for s in summaries
    }
    for summary in summaries:
        for c in sorted(summary.competitors, key=lambda c: c.position):
            if c.ranked is not None and c.cost("fit_seconds") is not None:
                groups.setdefault((summary.name, c.done[0].rows[0].method), []).append(c)
    if not groups:
        return None
    with sheet():
        figure, all_axes = panels(len(groups), 4, 2.35)
        for axes, ((task, method), own) in zip(all_axes, groups.items(), strict=True):
            _panel(axes, method, own, looks, best[task])
            title = _common(own, method) + (f"\n{task}" if len(summaries) > 1 else "")
            axes.set_title(plain(title), color=looks[own[0].key].ink)
        figure.supxlabel("seconds to fit", fontsize="medium")
        figure.supylabel("energy skill (0: prior, 1: truth)", fontsize="medium")
        grey = {"color": "#4d4d4d", "marker": "o", "linestyle": ""}
        legend_above(
            figure,
            [
                Line2D([], [], **grey, label="passes the gate"),  # type: ignore[arg-type]
                Line2D([], [], **grey, markerfacecolor="white", label="does not pass"),  # type: ignore[arg-type]
                Line2D([], [], color="#4d4d4d", linestyle=":", label="highest skill of all that pass"),
            ],
        )
        return finish(
            figure,
            "cost-skill",
            "Skill against cost, setting by setting",
            "Energy skill on the test set against the time of a fit (simulations not counted; at least "
            f"{SHORTEST:g} s), with 95 % intervals, one panel a method and one mark a setting. Names stand beside "
            "the panel in the order of their skill. High and to the left is better. Hollow marks do not pass the "
            "gate. Each panel has scales of its own: the dotted line, where it is in reach, is the highest skill of "
            "all methods that pass. The intervals hold what all settings share, the choice of test measurements.",
            f"Energy skill against seconds to fit, one panel for each of {len(groups)} methods.",
        )


def _panel(axes: Axes, method: str, own: Sequence[Contender], looks: Mapping[str, Look], best: float) -> None:
    points: list[tuple[float, Ranked, Contender]] = []
    for c in own:
        seconds = c.cost("fit_seconds")
        if c.ranked is not None and seconds is not None:
            points.append((max(SHORTEST, seconds), c.ranked, c))
    look = looks[own[0].key]
    axes.set_xscale("log")
    points.sort(key=lambda point: point[1].skill)
    times = [seconds for seconds, _, _ in points]
    axes.set_xlim(min(times) / math.sqrt(10), max(times) * math.sqrt(10))
    marks = {c.key: MARKERS[i % len(MARKERS)] for i, c in enumerate(own)}
    axes.vlines(times, [r.low for _, r, _ in points], [r.high for _, r, _ in points], color=look.colour, linewidth=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    heights = spread([ranked.skill for _, ranked, _ in points], (high - low) * LETTERS, low, high)
    beside = axes.get_yaxis_transform()
    for (seconds, ranked, c), height in zip(points, heights, strict=True):
        face = look.colour if ranked.passes else "white"
        mark = {"marker": marks[c.key], "color": look.colour, "markerfacecolor": face, "linestyle": ""}
        axes.plot(seconds, ranked.skill, markersize=7, **mark)  # type: ignore[arg-type]
        axes.plot(1.05, height, markersize=5.5, transform=beside, clip_on=False, **mark)  # type: ignore[arg-type]
        name = plain(c.key.removeprefix(method).lstrip("._") or c.key)
        axes.text(1.09, height, name, transform=beside, va="center", fontsize=8.8, color=look.ink)
    if low < best < high:
        axes.axhline(best, color="#4d4d4d", linestyle=":", linewidth=1.0)
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _common(own: Sequence[Contender], method: str) -> str:
    """The method's label without what tells its settings apart."""
    return own[0].label.removesuffix(f" {own[0].key.removeprefix(method)}")

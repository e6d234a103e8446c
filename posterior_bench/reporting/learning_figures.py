"""Skill and calibration against the number of simulations, where a task was run with several budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from .contenders import Contender, Number
from .drawing import Illustration, finish, group_panels, legend_above, method_groups, plain, sheet
from .fits import by_metric
from .style import BAND_COLOUR, Look
from .summary import TaskSummary


def learning_figure(summaries: Sequence[TaskSummary], looks: Mapping[str, Look]) -> Illustration | None:
    """Energy skill and calibration against budget, for the summaries of one task; ``None`` for a single budget."""
    left_out = next((s.left_out for s in reversed(summaries) if s.left_out), "")
    summaries = [s.together for s in summaries if any(c.done for c in s.together.competitors)]
    if len(summaries) < 2:
        return None
    most = summaries[-1]
    methods: dict[str, Contender] = {}
    for s in summaries:
        methods |= {c.key: c for c in s.contenders if c.done or c.key not in methods}
    groups = method_groups(methods.values())
    first = most.informed[0] if most.informed else None
    rows: list[tuple[str, Callable[[Contender], Number | None], str, float]] = [
        ("energy skill\n(0: prior, 1: truth)", lambda c: c.score("energy_skill"), "energy_skill", 1.0)
    ]
    if first:
        metric = f"calibration_error/{first}"
        rows.append((f"calibration error\nof {first} [%]", lambda c: c.score(metric), metric, 100.0))
    rows.append(("worst calibration\nerror of all [%]", lambda c: _largest(c, most), "", 100.0))
    with sheet():
        figure, panels = group_panels(len(rows), groups, looks, 2.1, sharey="row", marked=True)
        for (label, of, metric, factor), own in zip(rows, panels, strict=True):
            own[0].set_ylabel(label)
            for axes, group in zip(own, groups, strict=True):
                _panel(axes, summaries, group, looks, of, metric, factor)
                if metric != "energy_skill":
                    axes.set_yscale("log")
                    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                    axes.yaxis.set_minor_formatter(NullFormatter())
        for axes in panels[-1]:
            axes.set_xlabel("simulations")
        anchors = [
            Line2D([], [], color=looks[c.key].colour, linestyle=looks[c.key].line, label=plain(c.label))
            for c in most.anchors
            if c.done
        ]
        grey = {"color": "#4d4d4d", "marker": "o", "linestyle": ""}
        hollow = Line2D([], [], **grey, markerfacecolor="white", label="does not pass the gate")  # type: ignore[arg-type]
        legend_above(figure, [*anchors, hollow])
        counts = "; ".join(f"{s.budget:,} simulations: up to {s.fits}" for s in summaries)
        return finish(
            figure,
            f"{most.info.name}-learning",
            "What more simulations buy",
            f"Means over fits (number of fits at {counts}); small dots are single fits, bars the 95 % interval of the "
            "skill (fit and test set) and the standard deviation over fits elsewhere. Hollow marks do not pass the "
            "gate. Horizontal lines are the anchors, whose posteriors need no simulations here; grey is where an exact "
            "posterior scores with 95 %. The worst calibration error is that of the parameter in which a method does "
            "worst, so that even an exact posterior has a larger one than for a single parameter. Methods are moved "
            f"a little apart sideways.{left_out}",
            f"Energy skill and calibration error against the number of simulations on {most.info.name}, methods in "
            f"{len(groups)} columns.",
        )


def _panel(
    axes: Axes,
    summaries: Sequence[TaskSummary],
    group: Sequence[Contender],
    looks: Mapping[str, Look],
    of: Callable[[Contender], Number | None],
    metric: str,
    factor: float,
) -> None:
    """One quantity of one group: a mark with its error a budget, a dot a fit, lines of the anchors."""
    axes.set_xscale("log")
    for anchor in summaries[-1].anchors:
        known = of(anchor) if anchor.done else None
        if known is not None:
            look = looks[anchor.key]
            axes.axhline(factor * known.value, color=look.colour, linestyle=look.line, linewidth=1.0)
    if metric.startswith("calibration_error"):
        known_bands = (of(other) for s in summaries for other in s.competitors)
        bands = [b for b in known_bands if b is not None and b.has_null]
        if bands:
            low, high = min(b.null_low or 0.0 for b in bands), max(b.null_high or 0.0 for b in bands)
            axes.axhspan(factor * low, factor * high, color=BAND_COLOUR, linewidth=0, zorder=0)
    for i, key in enumerate([c.key for c in group]):
        look, line = looks[key], []
        aside = 1.06 ** (i - (len(group) - 1) / 2)
        for s in summaries:
            own = [c for c in s.competitors if c.key == key and c.done]
            found = of(own[0]) if own else None
            if found is None:
                continue
            c = own[0]
            x, y, ranked = s.budget * aside, factor * found.value, c.ranked
            line.append((x, y))
            fits = [by_metric(job).get(metric) for job in c.done] if found.fits > 1 else []
            values = [factor * row.value for row in fits if row is not None and row.value is not None]
            axes.plot([x] * len(values), values, ".", color=look.colour, markersize=3.5, alpha=0.6)
            if metric == "energy_skill" and ranked is not None:
                axes.vlines(x, ranked.low, ranked.high, color=look.colour, linewidth=1.0)
            elif found.spread is not None:
                axes.vlines(x, max(y - factor * found.spread, 0.3 * y), y + factor * found.spread, color=look.colour)
            face = look.colour if ranked is not None and ranked.passes else "white"
            axes.plot(x, y, look.marker, color=look.colour, markerfacecolor=face, markersize=6, zorder=3)
        axes.plot([x for x, _ in line], [y for _, y in line], color=look.colour, linestyle=look.line, linewidth=1.1)
    budgets = [s.budget for s in summaries]
    axes.xaxis.set_major_locator(FixedLocator(budgets))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(budgets) / 1.6, max(budgets) * 1.6)


def _largest(c: Contender, summary: TaskSummary) -> Number | None:
    """The largest calibration error of any parameter: the mean over fits of each fit's."""
    fits = []
    for rows in map(by_metric, c.done):
        found = [rows[name].value for p in summary.names if (name := f"calibration_error/{p}") in rows]
        if known := [value for value in found if value is not None]:
            fits.append(max(known))
    if not fits:
        return None
    mean = sum(fits) / len(fits)
    spread = (sum((f - mean) ** 2 for f in fits) / (len(fits) - 1)) ** 0.5 if len(fits) > 1 else None
    return Number(mean, len(fits), spread)

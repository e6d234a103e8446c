"""Figures of single posteriors: marginals against prior and truth, two parameters together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from ..running.results import Artefact
from .arviz_bridge import density_curve
from .contenders import Contender
from .drawing import (
    Illustration,
    band_patch,
    finish,
    group_panels,
    legend,
    legend_above,
    lowest,
    method_groups,
    panels,
    parameter_label,
    plain,
    sheet,
)
from .style import BAND_COLOUR, REFERENCE_COLOUR, Look
from .summary import TaskSummary

MEASUREMENTS = 3
"""Measurements whose marginals are shown: the first ones of the test set, chosen by nobody."""

COLUMNS = 5
"""Parameters whose marginals are shown: at most four informed ones, then others."""

TRUTH = "#b2182b"


def marginal_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """Posterior marginals of a few measurements, all methods over the prior, with the truth."""
    drawn = first_draws(summary)
    if not drawn:
        return None
    order = {p.name: i for i, p in enumerate(summary.info.parameters)}
    names = [*summary.informed[:4], *summary.others][:COLUMNS]
    first = next(iter(drawn.values()))
    scored = [c for c in summary.scored if c.key in drawn and not looks_like_prior(summary, c.key)]
    groups = [[c for c in group if c.key in drawn] for group in method_groups(summary.contenders)]
    anchors = [c for c in scored if c.role]
    zoomed = False

    def draw(axes: Axes, row: int, name: str, shown: Sequence[Contender]) -> None:
        nonlocal zoomed
        column = order[name]
        samples = {c.key: drawn[c.key].draws[:, row, column] for c in shown}
        zoomed |= _marginal(axes, samples, first.prior[:, column], float(first.truth[row, column]), looks)

    with sheet():
        extra = [band_patch("prior"), Line2D([], [], color=TRUTH, linestyle="--", label="truth")]
        if len(groups) == 1:
            rows = min(MEASUREMENTS, len(first.truth))
            figure, all_axes = panels(rows * len(names), len(names), 1.75)
            for index, axes in enumerate(all_axes):
                row, name = index // len(names), names[index % len(names)]
                draw(axes, row, name, scored)
                if row == rows - 1:
                    axes.set_xlabel(parameter_label(summary.info.parameters[order[name]]))
                if row == 0 and name in summary.informed:
                    axes.set_title("informed", fontsize="small", color="#4d4d4d", style="italic")
                if index % len(names) == 0:
                    axes.set_ylabel(f"measurement {row}\ndensity")
            legend(figure, scored, looks, extra)
        else:
            names = [*summary.informed[:3], *summary.others][:4]
            rows = min(2, len(first.truth))
            cells = [(row, name) for row in range(rows) for name in names]
            figure, grid = group_panels(len(cells), groups, looks, 1.25, sharex=False)
            for (row, name), own in zip(cells, grid, strict=True):
                kind = "informed" if name in summary.informed else "other"
                own[0].set_ylabel(f"measurement {row}\n{kind}\ndensity", fontsize=8.2)
                for axes, group in zip(own, groups, strict=True):
                    draw(axes, row, name, [*group, *anchors])
                    axes.set_xlabel(parameter_label(summary.info.parameters[order[name]]), labelpad=1)
                _align(own)
            legend(figure, anchors, looks, extra)
        zoom = " Where posteriors are much narrower than the prior, the axis shows their range alone." if zoomed else ""
        return finish(
            figure,
            f"{summary.name}-marginals",
            "Posterior marginals",
            f"Marginal posteriors of the first {rows} test measurements, over the prior (grey) and the true "
            "parameter (dashed red); kernel density estimates by ArviZ, first fit of each method. A good posterior "
            "lies on the exact reference, where there is one (black). One truth says nothing of calibration: it may "
            f"well lie in a tail.{zoom}",
            f"Marginal posterior densities of {', '.join(names)} for {rows} measurements of {summary.title}.",
        )


def _align(row: Sequence[Axes]) -> None:
    """Panels of one quantity with the same axes, so that groups of methods can be compared."""
    ends = [axes.get_xlim() for axes in row]
    for axes in row:
        axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
        axes.set_ylim(0, max(axes.get_ylim()[1] for axes in row))


def looks_like_prior(summary: TaskSummary, key: str) -> bool:
    """Whether a method is an anchor without skill: the grey area shows it already."""
    c = next(c for c in summary.scored if c.key == key)
    found = c.score("energy_skill")
    return c.role == "anchor" and found is not None and abs(found.value) < 0.02


def _marginal(
    axes: Axes, samples: Mapping[str, Tensor], prior: Tensor, truth: float, looks: Mapping[str, Look]
) -> bool:
    """One panel; returns whether its axis is narrower than the prior."""
    edges = torch.tensor([0.005, 0.995], dtype=prior.dtype)
    low, high = prior.quantile(edges).tolist()
    ends = torch.stack([sample.quantile(edges) for sample in samples.values()]) if samples else torch.empty(0, 2)
    inner = [*ends.flatten().tolist(), truth]
    zoom = bool(samples) and max(inner) - min(inner) < 0.2 * (high - low)
    span = (min(inner), max(inner)) if zoom else (min(low, truth), max(high, truth))
    pad = (0.5 if zoom else 0.05) * (span[1] - span[0] or 1.0)
    peaks, exact = [], 0.0
    bounds = _bounds(prior)
    prior_curve = density_curve(prior, bounds)
    if prior_curve is not None:
        axes.fill_between(*prior_curve, color=BAND_COLOUR, linewidth=0)
        peaks.append(float(prior_curve[1].max()))
    for key, sample in reversed(list(samples.items())):
        curve = density_curve(sample, bounds)
        if curve is None:
            axes.axvline(float(sample[0]), color=looks[key].colour, linestyle=looks[key].line)
        else:
            width = 3.0 if looks[key].colour == REFERENCE_COLOUR else 1.6  # it is seen beneath a method that equals it
            axes.plot(*curve, color=looks[key].colour, linestyle=looks[key].line, linewidth=width)
            peaks.append(float(curve[1].max()))
            exact = peaks[-1] if looks[key].colour == REFERENCE_COLOUR else exact
    axes.axvline(truth, color=TRUTH, linestyle="--", linewidth=1.2)
    axes.set_xlim(span[0] - pad, span[1] + pad)
    # one collapsed posterior must not flatten the others
    tallest = max(peaks, default=0.9) if len(peaks) < 3 else min(max(peaks), 2.5 * sorted(peaks)[len(peaks) // 2])
    axes.set_ylim(0, 1.1 * max(tallest, exact))
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)
    return zoom


def _bounds(prior: Tensor) -> tuple[float | None, float | None]:
    """The prior's bounds, from its draws (P,): an end is one where 1 % of the draws lie within 5 % of their range.

    Next to a uniform end that part is 1 % of the range, next to the tail of a normal distribution 20 %.
    """
    low, first, last, high = prior.quantile(torch.tensor([0.0, 0.01, 0.99, 1.0], dtype=prior.dtype)).tolist()
    near = 0.05 * (last - first)
    return low if first - low < near else None, high if high - last < near else None


def joint_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """Draws of the two best known parameters together, one panel a method, over those of the reference."""
    drawn = {key: a for key, a in first_draws(summary).items() if not looks_like_prior(summary, key)}
    names = [*summary.informed, *summary.others][:2]
    if len(names) < 2 or not drawn:
        return None
    order = {p.name: i for i, p in enumerate(summary.info.parameters)}
    names.sort(key=lambda name: order[name])
    pair = [order[name] for name in names]
    first = next(iter(drawn.values()))
    reference = summary.reference
    exact = drawn[reference.key].draws[:, 0, pair] if reference is not None and reference.key in drawn else None
    known = [c for c in summary.scored if c.key in drawn]
    shown = [c for c in known if c is not reference] or known
    with sheet():
        figure, all_axes = panels(len(shown), 4, 2.6, sharex=True, sharey=True)
        for i, (axes, c) in enumerate(zip(all_axes, shown, strict=True)):
            points = drawn[c.key].draws[:, 0, pair]
            if exact is not None:
                _dots(axes, exact, "black", 0.45)
            _dots(axes, points, looks[c.key].colour, 0.6)
            axes.plot(*first.truth[0, pair], marker="+", color=TRUTH, markersize=13, markeredgewidth=2)
            axes.set_title(plain(c.label), color=looks[c.key].ink)
            if i % 4 == 0:
                axes.set_ylabel(parameter_label(summary.info.parameters[pair[1]]))
            axes.locator_params(nbins=5)
        for axes in lowest(all_axes):
            axes.set_xlabel(parameter_label(summary.info.parameters[pair[0]]))
        sound = [c for c in shown if c.ranked is not None and c.ranked.passes]
        _focus(
            all_axes, [drawn[c.key].draws[:, 0, pair] for c in sound or shown] + ([exact] if exact is not None else [])
        )
        dot = {"linestyle": "", "marker": "o", "markersize": 4}
        handles: list[Artist] = [Line2D([], [], color=TRUTH, marker="+", markersize=11, linestyle="", label="truth")]
        if exact is not None and reference is not None:
            handles.insert(0, Line2D([], [], color="black", label=plain(reference.label), **dot))  # type: ignore[arg-type]
        legend_above(figure, handles)
        return finish(
            figure,
            f"{summary.name}-joint",
            "Two parameters together",
            f"Draws of {names[0]} and {names[1]} for the first test measurement, each method's in its colour"
            + (
                "; those of the exact posterior in black. Black that shows is what a method misses, colour without "
                "black beneath is what it makes up."
                if exact is not None
                else "."
            )
            + " The axes hold the draws of the methods that pass the gate, where there are such. Calibrated marginals "
            "say nothing of how parameters hang together; this does, for one measurement.",
            f"Scatter of posterior draws of {names[0]} against {names[1]} on {summary.title}, one panel a method.",
        )


def _dots(axes: Axes, points: Tensor, colour: str, alpha: float) -> None:
    """Draws (n, 2) as dots, as an image inside the figure: thousands of shapes would make it slow."""
    axes.plot(
        points[:, 0], points[:, 1], "o", markersize=2.4, markeredgewidth=0, color=colour, alpha=alpha, rasterized=True
    )


def _focus(all_axes: Sequence[Axes], samples: Sequence[Tensor]) -> None:
    """Limits that hold 99.5 % of each method's draws: a few stray ones must not shrink the rest."""
    edges = torch.tensor([0.0025, 0.9975], dtype=samples[0].dtype)
    ends = torch.stack([sample.quantile(edges, dim=0) for sample in samples])
    low, high = ends.amin((0, 1)), ends.amax((0, 1))
    pad = 0.08 * (high - low).clamp_min(1e-12)
    for axes in all_axes:
        axes.set_xlim(float((low - pad)[0]), float((high + pad)[0]))
        axes.set_ylim(float((low - pad)[1]), float((high + pad)[1]))


def first_draws(summary: TaskSummary) -> dict[str, Artefact]:
    """The artefact of each method's first fit that left draws, of as many measurements as are shown of the others."""
    found = {c.key: c.done[0].artefact for c in summary.scored}
    left = {key: a for key, a in found.items() if a is not None and a.draws.numel()}
    needed = min(MEASUREMENTS, max((a.draws.shape[1] for a in left.values()), default=0))
    left = {key: a for key, a in left.items() if a.draws.shape[1] >= needed}
    shared = min((a.draws.shape[1] for a in left.values()), default=0)
    cut = slice(0, shared)
    return {key: replace(a, draws=a.draws[:, cut], truth=a.truth[cut], y=a.y[cut]) for key, a in left.items()}

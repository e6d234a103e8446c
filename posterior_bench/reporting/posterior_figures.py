"""Figures of single posteriors: marginals against prior and truth, two parameters together, the simulator's picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from .. import registry
from ..contracts import HasPicture
from ..running.results import Artefact
from ..runtime import scope, seed_for
from .arviz_bridge import density_curve
from .drawing import (
    WIDTH,
    Illustration,
    band_patch,
    finish,
    legend,
    legend_above,
    lowest,
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

PICTURE_DRAWS = 100
"""Draws that a simulator is asked to picture."""

TRUTH = "#b2182b"


def marginal_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """Posterior marginals of a few measurements, all methods over the prior, with the truth."""
    drawn = _drawn(summary)
    if not drawn:
        return None
    order = {p.name: i for i, p in enumerate(summary.info.parameters)}
    names = [*summary.informed[:4], *summary.others][:COLUMNS]
    first = next(iter(drawn.values()))
    rows = min(MEASUREMENTS, len(first.truth))
    zoomed = False
    with sheet():
        figure, all_axes = panels(rows * len(names), len(names), 1.75)
        for index, axes in enumerate(all_axes):
            row, name = index // len(names), names[index % len(names)]
            column = order[name]
            samples = {key: a.draws[:, row, column] for key, a in drawn.items()}
            prior, truth = first.prior[:, column], float(first.truth[row, column])
            priors = [key for key in samples if looks_like_prior(summary, key)]
            zoomed |= _marginal(axes, {k: v for k, v in samples.items() if k not in priors}, prior, truth, looks)
            parameter = summary.info.parameters[column]
            if row == rows - 1:
                axes.set_xlabel(parameter_label(parameter))
            if row == 0 and name in summary.informed:
                axes.set_title("informed", fontsize="small", color="#4d4d4d", style="italic")
            if index % len(names) == 0:
                axes.set_ylabel(f"measurement {row}\ndensity")
        shown = [c for c in summary.scored if c.key in drawn and not looks_like_prior(summary, c.key)]
        truth_line = Line2D([], [], color=TRUTH, linestyle="--", label="truth")
        legend(figure, shown, looks, [band_patch("prior"), truth_line])
        zoom = " Where posteriors are much narrower than the prior, the axis shows their range alone." if zoomed else ""
        return finish(
            figure,
            f"{summary.name}-marginals",
            "Posterior marginals",
            f"Marginal posteriors of the first {rows} test measurements (rows), over the prior (grey) and the true "
            "parameter (dashed red); kernel density estimates by ArviZ, first fit of each method. A good posterior "
            "lies on the exact reference, where there is one (black). One truth says nothing of calibration: it may "
            f"well lie in a tail.{zoom}",
            f"Marginal posterior densities of {', '.join(names)} for {rows} measurements of {summary.title}.",
        )


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
    peaks = []
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
    axes.axvline(truth, color=TRUTH, linestyle="--", linewidth=1.2)
    axes.set_xlim(span[0] - pad, span[1] + pad)
    # one collapsed posterior must not flatten the others
    tallest = max(peaks, default=0.9) if len(peaks) < 3 else min(max(peaks), 2.5 * sorted(peaks)[len(peaks) // 2])
    axes.set_ylim(0, 1.1 * tallest)
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
    drawn = {key: a for key, a in _drawn(summary).items() if not looks_like_prior(summary, key)}
    names = [*summary.informed, *summary.others][:2]
    if len(names) < 2 or not drawn:
        return None
    order = {p.name: i for i, p in enumerate(summary.info.parameters)}
    pair = [order[name] for name in names]
    first = next(iter(drawn.values()))
    reference = summary.reference
    exact = drawn[reference.key].draws[:, 0, pair] if reference is not None and reference.key in drawn else None
    shown = [c for c in summary.scored if c.key in drawn and c is not reference] or list(summary.scored)
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
        _focus(all_axes, [drawn[c.key].draws[:, 0, pair] for c in shown] + ([exact] if exact is not None else []))
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
            + " Calibrated marginals say nothing of how parameters hang together; this does, for one measurement.",
            f"Scatter of posterior draws of {names[0]} against {names[1]} on {summary.title}, one panel a method.",
        )


def _dots(axes: Axes, points: Tensor, colour: str, alpha: float) -> None:
    """Draws (n, 2) as dots, as an image inside the figure: thousands of shapes would make it slow."""
    axes.plot(
        points[:, 0], points[:, 1], "o", markersize=2.4, markeredgewidth=0, color=colour, alpha=alpha, rasterized=True
    )


def picture_figure(summary: TaskSummary, looks: Mapping[str, Look]) -> Illustration | None:
    """The simulator's own picture of the draws for one measurement, one panel a method; ``None`` where it has none."""
    drawn = _drawn(summary)
    try:
        simulator = registry.build("simulators", summary.info.simulator, summary.info.options)
    except registry.PluginError:
        return None
    if not isinstance(simulator, HasPicture) or not drawn:
        return None
    shown = [c for c in summary.scored if c.key in drawn]
    y = next(iter(drawn.values())).y[0]
    draws = {c.key: drawn[c.key].draws[:PICTURE_DRAWS, 0] for c in shown}
    problem = ""
    with sheet(), scope(seed_for("picture", summary.name), threads=torch.get_num_threads()):
        columns, height = _picture_shape(simulator, torch.cat(list(draws.values())), y)
        figure, all_axes = panels(len(shown), columns, height, sharex=True, sharey=True)
        for axes, c in zip(all_axes, shown, strict=True):
            problem = _draw_picture(simulator, axes, draws[c.key], y) or problem
            axes.set_title(plain(c.label), color=looks[c.key].ink)
        lowest(all_axes)
        _share_texts(figure, all_axes)
        failed = f" The simulator could not draw all of them ({problem})." if problem else ""
        return finish(
            figure,
            f"{summary.name}-picture",
            "What the draws look like",
            f"{PICTURE_DRAWS} draws of each method for the first test measurement, as the simulator pictures them. All "
            "panels belong to the same measurement; the prior, where shown, is what is possible without it, the exact "
            f"reference all that is possible with it.{failed}",
            f"The simulator's picture of posterior draws on {summary.title}, one panel for each of "
            f"{', '.join(c.label for c in shown)}.",
        )


def _draw_picture(simulator: HasPicture, axes: Axes, theta: Tensor, y: Tensor) -> str:
    """Let the simulator draw; return what went wrong. A picture is decoration: it must not cost the report."""
    try:
        simulator.picture(axes, theta, y)
    except Exception as error:
        axes.text(0.5, 0.5, "no picture", transform=axes.transAxes, horizontalalignment="center")
        return f"{type(error).__name__}: {error}"
    return ""


def _picture_shape(simulator: HasPicture, theta: Tensor, y: Tensor) -> tuple[int, float]:
    """Panels a row and their height in inches, such that a picture of fixed aspect fills its panel."""
    axes = Figure().subplots()
    _draw_picture(simulator, axes, theta, y)
    if axes.get_aspect() == "auto":
        return 3, 3.0
    ratio = axes.get_data_ratio() * float(axes.get_aspect())
    columns = 5 if ratio > 1.2 else 4 if ratio > 0.8 else 3
    return columns, min(5.0, max(1.5, ratio * 0.85 * WIDTH / columns))


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


def _focus(all_axes: Sequence[Axes], samples: Sequence[Tensor]) -> None:
    """Limits that hold 99.5 % of each method's draws: a few stray ones must not shrink the rest."""
    edges = torch.tensor([0.0025, 0.9975], dtype=samples[0].dtype)
    ends = torch.stack([sample.quantile(edges, dim=0) for sample in samples])
    low, high = ends.amin((0, 1)), ends.amax((0, 1))
    pad = 0.08 * (high - low).clamp_min(1e-12)
    for axes in all_axes:
        axes.set_xlim(float((low - pad)[0]), float((high + pad)[0]))
        axes.set_ylim(float((low - pad)[1]), float((high + pad)[1]))


def _drawn(summary: TaskSummary) -> dict[str, Artefact]:
    """The artefact of each method's first fit that left draws."""
    found = {}
    for c in summary.scored:
        artefact = c.done[0].artefact
        if artefact is not None and artefact.draws.numel():
            found[c.key] = artefact
    return found

"""Calibration curves against their null band, and the ranks of the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..records import Parameter
from .contenders import Contender
from .drawing import Illustration, band_patch, curve_panels, finish, sheet
from .style import BAND_COLOUR, Look, methods_text
from .summary import TaskSummary

KOLMOGOROV_95 = 1.358
"""95 % quantile of sqrt(T) sup |F_T - F| for large T (Kolmogorov 1933)."""


STRETCHED = (
    " The vertical axis is linear within the null band and logarithmic outside it, so that small and large errors are "
    "both seen."
)
"""What a caption says of the scale that ``_stretch`` sets."""


def calibration_figures(summary: TaskSummary, looks: Mapping[str, Look]) -> list[Illustration]:
    """Signed calibration curves: of the informed parameters, and of the others."""
    left_out, summary = summary.left_out, summary.together
    found = []
    for names, suffix, which in (
        (summary.informed, "calibration", "parameters that the data inform"),
        (summary.others, "calibration-others", "other parameters"),
    ):
        chosen = [p for name in names for p in summary.info.parameters if p.name == name]
        curves = {
            c.key: {p.name: _extra(c, f"calibration_error/{p.name}/curve") for p in chosen} for c in summary.scored
        }
        if chosen and any(kept for of in curves.values() for kept in of.values()):
            found.append(_calibration(summary, looks, chosen, curves, suffix, which, left_out))
    return found


def _calibration(
    summary: TaskSummary,
    looks: Mapping[str, Look],
    chosen: Sequence[Parameter],
    curves: Mapping[str, Mapping[str, list[Tensor]]],
    suffix: str,
    which: str,
    left_out: str,
) -> Illustration:
    bands = {p.name: _band(summary, p.name) for p in chosen}
    largest = max((float(v.abs().max()) for of in curves.values() for kept in of.values() for v in kept), default=0.0)
    width = max((float(high.max()) for _, high in filter(None, bands.values())), default=0.0)
    stretched = width > 0 and largest > 6 * width
    extra = [band_patch("null band, 95 % at each c")] if any(band is not None for band in bands.values()) else []

    def draw(axes: Axes, parameter: Parameter, shown: Sequence[Contender]) -> None:
        band = bands[parameter.name]
        if band is not None:
            level = _levels(len(band[0]))
            axes.fill_between(level, 100 * band[0], 100 * band[1], color=BAND_COLOUR, linewidth=0)
        axes.axhline(0, color="#4d4d4d", linewidth=0.8)
        for c in reversed(shown):
            _curves(axes, [100 * kept for kept in curves[c.key][parameter.name]], looks[c.key])
        axes.set_xlim(0, 1)
        if stretched:
            _stretch(axes, 100 * width, 100 * largest)
        else:
            top = 115 * max(largest, width)
            axes.set_ylim(-top, top)
        _name_sides(axes)

    with sheet():
        figure = curve_panels(summary, looks, chosen, ("confidence c", "e(c) [%]"), extra, draw)
        scale = STRETCHED if stretched else ""
        missing = "" if extra else " No null band is known here: small deviations cannot be judged."
        several = " The line is the mean over fits, the shade their range." if summary.fits > 1 else ""
        return finish(
            figure,
            f"{summary.name}-{suffix}",
            f"Calibration of the {which}",
            "For each confidence c, the fraction of test measurements whose truth lies in the central interval of that "
            "confidence, minus c. Zero is exact. Below zero the intervals are too narrow (over-confident), above too "
            "wide (under-confident). Grey: where an exact posterior stays with 95 % at each c."
            f"{scale}{missing}{several}{left_out}",
            f"Calibration curves of {_names(summary.scored)} on {summary.title}, one panel for each of "
            f"{', '.join(p.name for p in chosen)}.",
        )


def rank_figure(summary: TaskSummary, looks: Mapping[str, Look], draws: int) -> Illustration | None:
    """Empirical distribution of the truth's rank minus the uniform one: shows a shift, which central intervals hide."""
    left_out, summary = summary.left_out, summary.together
    order = {p.name: i for i, p in enumerate(summary.info.parameters)}
    chosen = [summary.info.parameters[order[name]] for name in summary.informed or summary.others[:4]]
    ranks = {c.key: _extra(c, "calibration_error/ranks") for c in summary.scored}
    total = max((len(kept[0]) for kept in ranks.values() if kept), default=0)
    if not total:
        return None
    grid = np.linspace(0, 1, 101)
    edge = 100 * KOLMOGOROV_95 / math.sqrt(total)
    curves = {
        c.key: {p.name: [_rank_curve(kept[:, order[p.name]], draws, grid) for kept in ranks[c.key]] for p in chosen}
        for c in summary.scored
    }
    largest = max([edge, *(float(v.abs().max()) for of in curves.values() for kept in of.values() for v in kept)])
    stretched = largest > 6 * edge

    def draw(axes: Axes, parameter: Parameter, shown: Sequence[Contender]) -> None:
        axes.axhspan(-edge, edge, color=BAND_COLOUR, linewidth=0)
        axes.axhline(0, color="#4d4d4d", linewidth=0.8)
        for c in reversed(shown):
            _curves(axes, curves[c.key][parameter.name], looks[c.key], grid)
        axes.set_xlim(0, 1)
        if stretched:
            _stretch(axes, edge, largest)
        else:
            axes.set_ylim(-1.1 * largest, 1.1 * largest)

    with sheet():
        band = [band_patch("null band, 95 % for a whole curve")]
        figure = curve_panels(summary, looks, chosen, ("rank u of the truth", "F(u) − u [%]"), band, draw)
        return finish(
            figure,
            f"{summary.name}-ranks",
            "Ranks of the truth among the draws",
            "Distribution function of the rank of the true parameter among its posterior draws, minus the uniform one. "
            "Zero is exact. A curve that stays above zero says that the draws lie too high, below that they lie too "
            "low; an S that first rises says that they are too narrow, one that first falls that they are too wide. "
            "Grey: a curve of an exact posterior stays inside with 95 % (Kolmogorov)."
            + (STRETCHED if stretched else "")
            + left_out,
            f"Rank curves of {_names(summary.scored)} on {summary.title}.",
        )


def _name_sides(axes: Axes) -> None:
    """Write beside a panel which sign means what."""
    box = {"facecolor": "white", "alpha": 0.75, "pad": 1, "linewidth": 0}
    for place, anchor, text in ((0.99, "top", "under-confident"), (0.01, "bottom", "over-confident")):
        axes.text(
            0.02,
            place,
            text,
            transform=axes.transAxes,
            verticalalignment=anchor,
            style="italic",
            fontsize="small",
            color="#4d4d4d",
            bbox=box,
        )


def _stretch(axes: Axes, threshold: float, largest: float) -> None:
    """A scale that is linear within the null band and logarithmic outside."""
    axes.set_yscale("symlog", linthresh=threshold, linscale=0.8)
    ticks = [t for t in (0.1, 0.3, 1, 3, 10, 30, 100) if 0.6 * threshold < t < 1.3 * largest]
    both = [-t for t in reversed(ticks)] + [0] + ticks
    axes.set_yticks(both, [f"{t:g}".replace("-", "−") for t in both])
    axes.minorticks_off()
    axes.set_ylim(-1.6 * largest, 1.6 * largest)


def _curves(axes: Axes, curves: Sequence[Tensor], look: Look, level: np.ndarray | None = None) -> None:
    """The mean of curves (points,) over fits, with their range as a shade."""
    if not curves:
        return
    x = _levels(len(curves[0])) if level is None else level
    together = torch.stack(list(curves))
    if len(curves) > 1:
        axes.fill_between(x, together.amin(0), together.amax(0), color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(x, together.mean(0), color=look.colour, linestyle=look.line)


def _levels(count: int) -> np.ndarray:
    """Confidences i / (count + 1)."""
    return np.arange(1, count + 1) / (count + 1)


def _rank_curve(ranks: Tensor, draws: int, grid: np.ndarray) -> Tensor:
    """100 (F(u) - u) on the grid, for ranks 0..n of the truth among n draws."""
    u = (ranks.double().sort().values + 0.5) / (draws + 1)
    level = torch.from_numpy(grid)
    return 100 * (torch.searchsorted(u, level, right=True).double() / len(u) - level)


def _extra(contender: Contender, name: str) -> list[Tensor]:
    """An artefact of each fit that left it."""
    return [
        job.artefact.extra[name] for job in contender.done if job.artefact is not None and name in job.artefact.extra
    ]


def _band(summary: TaskSummary, parameter: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The widest of the methods' null bands."""
    lows, highs = (
        [band for c in summary.scored for band in _extra(c, f"calibration_error/{parameter}/{name}")]
        for name in ("curve_low", "curve_high")
    )
    if not lows or not highs:
        return None
    return torch.stack(lows).amin(0).numpy(), torch.stack(highs).amax(0).numpy()


def _names(contenders: Sequence[Contender]) -> str:
    return methods_text([c.label for c in contenders])

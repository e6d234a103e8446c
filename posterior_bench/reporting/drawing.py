"""What every figure needs: panels with one legend outside, text that cannot be misread, files that repeat."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import Patch
from PIL import Image, ImageChops

from ..records import Parameter
from .contenders import Contender
from .style import BAND_COLOUR, Look, rc
from .summary import TaskSummary

WIDTH = 10.0
"""Width of a figure in inches; it fills the page."""

LARGEST_SVG = 300_000
"""Characters above which a figure is kept as PNG alone: a browser draws it faster, and loads less."""


SMALL_PNG = 120_000
"""Bytes below which an image is left as it is."""

CROWD = 6
"""Methods that one panel may hold; where a task has more, they are drawn in groups, one beside the other."""


@dataclass(frozen=True, eq=False)
class Illustration:
    """A figure as files, with what is said of it.

    Args:
        name: fit for a file name.
        title: its heading.
        caption: what is seen and how it is read.
        alt: the same for those who cannot see it.
        svg, png: the files' contents.
        inches: its width.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes
    inches: float = WIDTH

    @property
    def pixels(self) -> int:
        """Width on the page; the same letters are then of one size in every figure."""
        return round(110 * self.inches)

    @property
    def light(self) -> bool:
        """Whether the SVG is small enough to be of use."""
        return len(self.svg) <= LARGEST_SVG

    @property
    def data_uri(self) -> str:
        """The figure as an address that holds it. As an image its ids and scripts stay apart from the page's."""
        if not self.light:
            return "data:image/png;base64," + base64.b64encode(self.png).decode()
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@contextmanager
def sheet() -> Iterator[None]:
    """Settings for all drawing inside the block; none is left behind, and pyplot is not used."""
    settings: Any = {k: v for k, v in mpl.rcParamsDefault.items() if k not in ("backend", "interactive")}
    with mpl.rc_context(settings | rc(WIDTH)):
        yield


def panels(
    count: int, columns: int, height: float, sharey: bool = False, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels in rows of ``columns``, each ``height`` inches high; call inside ``sheet``."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    # few panels would be stretched over the page: keep them near 4:3, and no wider than the page
    width = min(WIDTH, columns * height * 1.75 + (2.0 if columns == 1 else 0.0))
    figure = Figure(figsize=(width, rows * height + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    flat = [axes for row in grid for axes in row]
    for axes in flat[count:]:
        axes.remove()
    return figure, flat[:count]


def legend(
    figure: Figure, contenders: Iterable[Contender], looks: Mapping[str, Look], extra: Sequence[Artist] = ()
) -> None:
    """One legend above the panels, in the order of the ranking."""
    entries: list[Artist] = [
        Line2D([], [], color=looks[c.key].colour, linestyle=looks[c.key].line, label=plain(c.label)) for c in contenders
    ]
    legend_above(figure, [*entries, *extra])


def legend_above(figure: Figure, entries: Sequence[Artist]) -> None:
    """A legend outside the panels: above them in as few rows as it takes, or beside a single column."""
    if figure.get_figwidth() < 0.6 * WIDTH:
        figure.legend(handles=list(entries), loc="outside right upper", handlelength=2.2)
        return
    lengths = [0.58 + 0.078 * len(str(entry.get_label())) for entry in entries]  # inches of a handle and of letters
    for rows in range(1, len(entries) + 1):
        columns = -(-len(entries) // rows)
        widths = [max(lengths[start : start + rows]) for start in range(0, len(entries), rows)]  # filled by columns
        if sum(widths) <= figure.get_figwidth():
            break
    figure.legend(handles=list(entries), loc="outside upper center", ncols=columns, handlelength=2.2, columnspacing=1.4)


def method_groups(contenders: Iterable[Contender]) -> list[list[Contender]]:
    """Methods in groups small enough for one panel: all in one, or families side by side, in the suite's order.

    Args:
        contenders: all of a task, so that a method stands in the same group in every figure; anchors, which every
            panel has, and methods without a fit that succeeded are left out of the groups.
    """
    rivals = sorted((c for c in contenders if not c.role), key=lambda c: c.position)
    if len(rivals) <= CROWD:
        return [[c for c in rivals if c.done]]
    families: dict[str, list[Contender]] = {}
    for c in rivals:
        families.setdefault(c.family, []).append(c)
    found: list[list[Contender]] = []
    for family in families.values():
        for start in range(0, len(family), CROWD):
            part = family[start : start + CROWD]
            if found and len(found[-1]) + len(part) < CROWD:
                found[-1] += part
            else:
                found.append(part)
    found = [[c for c in group if c.done] for group in found]
    return [group for group in found if group]


def curve_panels(
    summary: TaskSummary,
    looks: Mapping[str, Look],
    chosen: Sequence[Parameter],
    texts: tuple[str, str],
    extra: Sequence[Artist],
    draw: Callable[[Axes, Parameter, Sequence[Contender]], None],
) -> Figure:
    """Panels of curves: one a parameter; with many methods a row a parameter and a column a group of methods.

    Args:
        summary: the task.
        looks: of each method.
        chosen: the parameters.
        texts: labels of the horizontal and the vertical axis.
        extra: further entries of the legend.
        draw: draws the curves of some methods for a parameter into a panel.
    """
    groups = method_groups(summary.contenders)
    across, up = texts
    if len(groups) == 1:
        figure, all_axes = panels(len(chosen), 4, 2.5, sharey=True, sharex=True)
        for i, (axes, parameter) in enumerate(zip(all_axes, chosen, strict=True)):
            draw(axes, parameter, summary.scored)
            axes.set_title(parameter_label(parameter, unit=False))
            if i % 4 == 0:
                axes.set_ylabel(up)
        for axes in lowest(all_axes):
            axes.set_xlabel(across)
        legend(figure, summary.scored, looks, extra)
        return figure
    figure, rows = group_panels(len(chosen), groups, looks, 1.45, sharey=True)
    for own, parameter in zip(rows, chosen, strict=True):
        for axes, group in zip(own, groups, strict=True):
            draw(axes, parameter, [*group, *(c for c in summary.anchors if c.done)])
        own[0].set_ylabel(f"{parameter_label(parameter, unit=False)}\n{up}")
    for axes in rows[-1]:
        axes.set_xlabel(across)
    legend(figure, [c for c in summary.anchors if c.done], looks, extra)
    return figure


def group_panels(
    rows: int,
    groups: Sequence[Sequence[Contender]],
    looks: Mapping[str, Look],
    height: float,
    sharey: bool | Literal["row"] = False,
    sharex: bool | Literal["row"] = True,
    marked: bool = False,
) -> tuple[Figure, list[list[Axes]]]:
    """Rows of panels, a column a group of methods, each column with a legend of its own; call inside ``sheet``."""
    tallest = max(len(group) for group in groups)
    figure = Figure(figsize=(WIDTH, rows * height + 1.1 + 0.19 * tallest), layout="constrained")
    grid = figure.subplots(rows, len(groups), sharex=sharex, sharey=sharey, squeeze=False)
    for axes, group in zip(grid[0], groups, strict=True):
        entries = [
            Line2D(
                [],
                [],
                color=looks[c.key].colour,
                linestyle=looks[c.key].line,
                marker=looks[c.key].marker if marked else None,
                label=plain(c.label),
            )
            for c in group
        ]
        axes.legend(
            handles=entries, loc="lower left", bbox_to_anchor=(0, 1.02), handlelength=2.6, fontsize=8.6,
            borderaxespad=0.2, labelspacing=0.3,
        )  # fmt: skip
    return figure, [list(row) for row in grid]


def lowest(all_axes: Sequence[Axes]) -> list[Axes]:
    """The lowest panel of each column, made to show its numbers: the last row may be incomplete."""
    found: dict[int, Axes] = {}
    for axes in all_axes:
        spec = axes.get_subplotspec()
        if spec is not None:
            found[spec.colspan.start] = axes
    for axes in found.values():
        axes.tick_params(labelbottom=True)
        axes.xaxis.label.set_visible(True)
    return list(found.values())


def band_patch(label: str) -> Patch:
    """The entry of a grey band in a legend."""
    return Patch(facecolor=BAND_COLOUR, edgecolor="none", label=label)


def plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def parameter_label(parameter: Parameter, unit: bool = True) -> str:
    """Symbol, name and unit; the symbol is left out where it is no valid formula."""
    head = parameter.name
    if parameter.symbol and parameter.symbol != parameter.name and _is_formula(f"${parameter.symbol}$"):
        head = f"${parameter.symbol}$ ({parameter.name})"
    return f"{head} [{plain(parameter.unit)}]" if unit and parameter.unit else head


def _is_formula(text: str) -> bool:
    try:
        MathTextParser("path").parse(text)
    except (ValueError, RuntimeError):
        return False
    return True


def finish(figure: Figure, name: str, title: str, caption: str, alt: str) -> Illustration:
    """The figure as SVG and PNG, the same bytes whenever it is the same figure; call inside ``sheet``."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # both files have the positions that were found for the first
    figure.savefig(png, format="png", dpi=140, metadata={"Software": None})
    return Illustration(name, title, caption, alt, svg.getvalue(), _small(png), float(figure.get_figwidth()))


def _small(png: io.BytesIO) -> bytes:
    """The image with 256 colours, a third of the size, where nobody could see the difference; else with all."""
    if len(png.getvalue()) < SMALL_PNG:
        return png.getvalue()
    out = io.BytesIO()
    with Image.open(png) as image:
        full = image.convert("RGB")
        few = full.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
        difference = ImageChops.difference(full, few.convert("RGB")).convert("L").histogram()
        seen = sum(difference[20:]) / sum(difference)
        (few if seen < 1e-4 else full).save(out, format="png", optimize=True)
    return out.getvalue()

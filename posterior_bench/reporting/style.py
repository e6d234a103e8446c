"""How methods, numbers and figures look: the same method has the same colour in every figure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#332288", "#999933")
"""Six colours of Okabe & Ito's set for colour-blind readers (Wong, Nature Methods 8, 441, 2011), and three of Tol's.
Its yellow is too faint on white; black and grey are kept for the anchors."""

DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (5, 1.5, 1.5, 1.5))
"""Dash patterns (points on, points off) of the laps through the palette; the first is solid."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "h")
"""Markers, one a colour in each lap through the palette, so that colour is never the only sign."""

ANCHOR_DASHES: tuple[tuple[float, ...], ...] = ((4, 2), (1, 1.5), (7, 2, 1.5, 2), (9, 3))
"""Dash patterns of the anchors other than the reference."""

REFERENCE_COLOUR, ANCHOR_COLOUR, BAND_COLOUR = "#000000", "#767676", "#d9d9d9"

_SALT = 46063
"""Chosen so that methods which are often compared start from different colours. It says nothing else."""

MISSING = "–"


@dataclass(frozen=True)
class Look:
    """Colour, dash pattern and marker of a method."""

    colour: str
    dash: tuple[float, ...] = ()
    marker: str = "o"

    @property
    def line(self) -> Literal["-"] | tuple[float, tuple[float, ...]]:
        """The dash pattern as matplotlib takes it."""
        return (0, self.dash) if self.dash else "-"

    @property
    def ink(self) -> str:
        """The colour darkened for letters, so that they are legible on white."""
        parts = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return "#" + "".join(f"{round(0.62 * part):02x}" for part in parts)


def looks(methods: Iterable[str], reference: Iterable[str] = (), other_anchors: Iterable[str] = ()) -> dict[str, Look]:
    """The look of each method of a report.

    A method's place in the palette is a hash of its id, so that reports agree. Where two of one report meet, the one
    named later takes the next free colour; when no colour is free, its own colour with the next dash pattern.

    Args:
        methods: ids in the order of the report.
        reference: ids among them that are the exact posterior: black.
        other_anchors: ids of the other anchors: grey, dashed.
    """
    reference, other_anchors = set(reference), set(other_anchors)
    found: dict[str, Look] = {}
    taken: set[tuple[int, int]] = set()
    for method in methods:
        if method in reference:
            found[method] = Look(REFERENCE_COLOUR, (), "*")
            continue
        if method in other_anchors:
            greys = sum(look.colour == ANCHOR_COLOUR for look in found.values())
            found[method] = Look(ANCHOR_COLOUR, ANCHOR_DASHES[greys % len(ANCHOR_DASHES)], "p")
            continue
        wish = int(hashlib.sha256(f"{_SALT}:{method}".encode()).hexdigest()[:8], 16) % len(PALETTE)
        slots = [(lap, (wish + step) % len(PALETTE)) for lap in range(len(DASHES)) for step in range(len(PALETTE))]
        lap, place = next((slot for slot in slots if slot not in taken), (0, wish))
        taken.add((lap, place))
        found[method] = Look(PALETTE[place], DASHES[lap], MARKERS[(place + 4 * lap) % len(MARKERS)])
    return found


def rc(width: float = 10.0) -> dict[str, Any]:
    """Settings for ``matplotlib.rc_context``: legible where a figure ``width`` inches wide fills a page of 1,000 px."""
    size = 0.95 * width
    return {
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": 0.9 * size,
        "ytick.labelsize": 0.9 * size,
        "legend.fontsize": 0.95 * size,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#4d4d4d",
        "axes.linewidth": 0.8,
        "axes.titleweight": "normal",
        "axes.unicode_minus": True,
        "lines.linewidth": 1.6,
        "text.color": "#1a1a1a",
        "axes.labelcolor": "#1a1a1a",
        "xtick.color": "#333333",
        "ytick.color": "#333333",
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "mathtext.fontset": "dejavusans",
        "svg.fonttype": "path",
        "svg.hashsalt": "posterior_bench",
        "path.simplify": True,
    }


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals and a true minus sign; a dash where there is none.

    >>> number(-0.02), number(None), number(1234.5, 0)
    ('−0.020', '–', '1,234')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def significant(value: float | None, digits: int = 2) -> str:
    """A number with at least ``digits`` significant digits, in powers of ten where it is very large or small.

    >>> significant(0.01234), significant(123.4), significant(2.5e6), significant(4e-7)
    ('0.012', '123', '2.5e6', '4.0e−7')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if -5 < power < 6:
        return number(value, max(0, digits - 1 - power))
    return f"{number(value / 10.0**power, digits - 1)}e{str(power).replace('-', '−')}"


def short(value: float, digits: int) -> str:
    """A number for little room: with ``digits`` decimals, from a hundred on with two significant digits.

    >>> short(-0.944, 2), short(-30035.4, 2)
    ('−0.94', '−3.0e4')
    """
    if abs(value) < 100:
        return number(value, digits)
    power = math.floor(math.log10(abs(value)))
    return f"{number(value / 10.0**power, 1)}e{power}"


def percent(value: float | None, digits: int | None = None) -> str:
    """A fraction as per cent without the sign; two decimals below 10 %, one above.

    >>> percent(0.00341), percent(-0.125)
    ('0.34', '−12.5')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    places = digits if digits is not None else (2 if abs(value) < 0.1 else 1)
    return number(100 * value, places)


def interval(low: float | None, high: float | None, digits: int = 3, factor: float = 1.0) -> str:
    """``low to high`` with ``digits`` decimals, or an empty text where an end is missing.

    >>> interval(0.0021, 0.0090, 2, 100)
    '0.21 to 0.90'
    """
    if low is None or high is None:
        return ""
    return f"{number(factor * low, digits)} to {number(factor * high, digits)}"


def some_of(names: Sequence[str], total: int, most: int = 5) -> str:
    """Names in a line: all of ``total`` in one word, and of many only the first.

    >>> some_of(["a", "b"], 3), some_of(["a", "b", "c"], 3), some_of(list("abcdefgh"), 9, 2)
    ('a, b', 'all 3 parameters', 'a, b and 6 more')
    """
    if len(names) == total > 2:
        return f"all {total} parameters"
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return ", ".join(names)


def first_few(names: Sequence[str], between: str = ", ", last: str = " and ", most: int = 5) -> str:
    """A list of names for a sentence; of many only the first, and how many more.

    >>> first_few(["a", "b", "c"]), first_few(list("abcd"), most=2)
    ('a, b and c', 'a, b and 2 more')
    """
    if len(names) > most + 1:
        return f"{between.join(names[:most])}{between if between != ', ' else ' '}and {len(names) - most} more"
    return between.join(names[:-1]) + last + names[-1] if len(names) > 1 else "".join(names)


def methods_text(labels: Sequence[str]) -> str:
    """Methods in the description of a figure: their names, or of more than six their number.

    >>> methods_text(["a", "b"]), methods_text(list("abcdefg"))
    ('a, b', '7 methods')
    """
    return ", ".join(labels) if len(labels) <= 6 else f"{len(labels)} methods"

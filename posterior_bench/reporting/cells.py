"""What a cell of a table says of a number, and what stands beside it: a null band, an interval, a scale."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

from .contenders import Contender, Number
from .style import MISSING, interval, number, percent, significant, some_of

NO_NULL = "no null band"


@dataclass(frozen=True)
class Cell:
    """A cell: what it says, what places it (null band, interval), and how it is marked."""

    text: str = MISSING
    detail: str = ""
    tone: Literal["", "good", "warn", "bad", "muted"] = ""


def calibration_cell(found: Number | None) -> Cell:
    """A calibration error in per cent with its null band; marked where it lies outside."""
    if found is None:
        return Cell(tone="muted")
    if not found.has_null or found.null_high is None:
        return Cell(percent(found.value), NO_NULL)
    tone: Literal["", "bad"] = "bad" if found.value > found.null_high else ""
    return Cell(percent(found.value), interval(found.null_low, found.null_high, 2, 100), tone)


def signed_cell(found: Number | None) -> Cell:
    """A signed fraction in per cent with the edges that hold for all parameters at once."""
    if found is None:
        return Cell(tone="muted")
    if found.null_low is None or found.null_high is None:
        return Cell(percent(found.value), NO_NULL)
    outside = not found.null_low <= found.value <= found.null_high
    return Cell(percent(found.value), band_text(found, lambda value: percent(value, 2)), "bad" if outside else "")


def plain_cell(found: Number | None, scale: str = "") -> Cell:
    """A number with what places it: ``scale`` where one is given, else its null band, else its error."""
    return _placed(found, number, scale)


def error_cell(found: Number | None) -> Cell:
    """An error in prior sd with the band of what its own draws claim; marked where it is larger."""
    return _above(found, _placed(found, number))


def distance_cell(found: Number | None) -> Cell:
    """A distance to the reference, which spans orders of magnitude, with its null band; marked where above it."""
    return _above(found, _placed(found, significant))


def knowledge_cell(found: Number | None) -> Cell:
    """A skill with the band of what its own draws claim; marked where it knows less than that."""
    cell = _placed(found, number)
    short = found is not None and found.null_low is not None and found.value < found.null_low
    return replace(cell, tone="bad") if short else cell


def band_text(found: Number, text: Callable[[float | None], str]) -> str:
    """The null band: its ends, or one half width where it lies about zero."""
    if found.null_high is not None and found.null_low == -found.null_high:
        return f"0 ± {text(found.null_high)}"
    return f"{text(found.null_low)} to {text(found.null_high)}"


def _above(found: Number | None, cell: Cell) -> Cell:
    outside = found is not None and found.null_high is not None and found.value > found.null_high
    return replace(cell, tone="bad") if outside else cell


def _placed(found: Number | None, text: Callable[[float | None], str], scale: str = "") -> Cell:
    if found is None:
        return Cell(tone="muted")
    if scale:
        return Cell(text(found.value), scale)
    if found.has_null:
        return Cell(text(found.value), band_text(found, text))
    errors = [f"± {text(found.std_error)}"] if found.std_error is not None else []
    errors += [f"± {text(found.spread)} over fits"] if found.spread is not None else []
    return Cell(text(found.value), ", ".join(errors) or NO_NULL)


def verdict_cell(contender: Contender, parameters: int) -> Cell:
    """What the gate says, and of which of so many parameters; what else was found stands behind it."""
    ranked = contender.ranked
    if contender.role == "flawed":
        return Cell(contender.trouble or "wrong on purpose", tone="muted")
    if ranked is None:
        return Cell(contender.trouble or "not ranked", tone="bad" if "failed" in contender.trouble else "muted")
    named = ranked.findings
    tone: Literal["good", "warn", "bad"] = "bad" if not ranked.passes else "warn" if named else "good"
    details = [some_of(named.pop(ranked.verdict, ()), parameters)]
    details += [f"{word}: {some_of(names, parameters)}" for word, names in named.items()]
    return Cell(ranked.verdict, "; ".join(detail for detail in details if detail), tone)


def skill_cell(contender: Contender) -> Cell:
    """Energy skill with its interval."""
    ranked = contender.ranked
    if ranked is None:
        return plain_cell(contender.score("energy_skill"))
    return Cell(number(ranked.skill), interval(ranked.low, ranked.high))


def place_cell(contender: Contender, rivals: Collection[str]) -> Cell:
    """The place among the methods, or that it is an anchor.

    ``=`` stands after it where it is tied with one of its ``rivals``, ``?`` where it is not decided against one.
    """
    ranked = contender.ranked
    if contender.role:
        return Cell("anchor")
    if ranked is None or ranked.place is None:
        return Cell(tone="muted")
    marks = (("=", ranked.tied_with), ("?", ranked.unresolved_with))
    return Cell(" ".join([str(ranked.place), *(mark for mark, others in marks if set(rivals) & set(others))]))


def method_cell(contender: Contender) -> Cell:
    """The method, with how many of its fits are missing where others are there."""
    return Cell(contender.label, contender.trouble if contender.done else "")

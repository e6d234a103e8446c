"""What the ranking says, in words: who can be trusted, who cannot, and what is not decided."""

from __future__ import annotations

from dataclasses import dataclass

from ..evaluation import Ranked
from ..evaluation.ranking import difference_on_common
from .contenders import INFORMED, Contender
from .fits import score_matrix
from .style import first_few, interval, number, some_of
from .summary import MARGIN, TaskSummary


@dataclass(frozen=True)
class Verdict:
    """A task's outcome: who can be trusted, who cannot, what is not decided, and what casts doubt on all of it."""

    trusted: str
    distrusted: str
    undecided: str
    doubt: str

    @property
    def text(self) -> str:
        """All of it as one paragraph."""
        return " ".join(part for part in (self.doubt, self.trusted, self.distrusted, self.undecided) if part)


DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "Gate",
        "Signed coverage (mean over c of e(c)) of each parameter against the edges that an exact posterior keeps to in "
        "all parameters at once with 99 %. Below the lower edge in any parameter a method is over-confident and does "
        "not pass. Under-confident and biased methods pass, and are named; so is one whose mean is right and whose "
        "ranks are not uniform (miscalibrated: mostly too narrow at some confidences and too wide at others; "
        "simultaneous test of the ranks' distribution, 1 % for all parameters together).",
    ),
    (
        "Calibration error",
        "For confidences c = i/101 the fraction f(c) of truths inside the central interval, e(c) = f(c) − c; the "
        "median over c of |e(c)| (Ardizzone et al. 2019). An exact posterior does not score zero: its 95 % band, "
        "the null band, is printed with each value, from draws in place of the truth.",
    ),
    (
        "Energy skill",
        "1 − ES / ES of the prior, ES the fair energy score of the draws in units of the prior's standard deviation: 0 "
        "for the prior, 1 for the truth itself. What is reachable is what the exact reference scores. CRPS skill is "
        "the same for one parameter.",
    ),
    (
        "Ties",
        f"Two methods tie where the 95 % interval of their paired difference of skill lies within {MARGIN:g}. One is "
        f"better where the interval lies wholly beyond {MARGIN:g}. In between nothing is decided, and none is named.",
    ),
    (
        "Informed parameters",
        "Those for which the exact reference (without one, the best method that passes the gate) has a CRPS skill "
        f"above {INFORMED:g}.",
    ),
    (
        "MAP error",
        "Root mean square over the test set of (MAP estimate − truth) in units of the prior's standard deviation; the "
        "mode of the draws by the same mean shift for every method. The reference's is the floor.",
    ),
    (
        "MAP re-simulation error, simulation noise",
        "Root mean square of (simulation at the MAP estimate − measurement) / sd of y, and the same with the truth in "
        "place of the estimate: what exact draws reach. A MAP below it is no merit.",
    ),
    (
        "Err_post, Err_resim",
        "Kruse et al. 2021: unbiased squared MMD between draws and exact draws, standardised, null band from exact "
        "draws; mean squared error of re-simulated draws, in units of y squared. Err_resim alone rewards collapse onto "
        "one mode.",
    ),
    (
        "Intervals",
        "95 %, from the variance over the test set and, with several fits, over fits, which the table of fits tells "
        "apart. With one fit they say nothing of another fit.",
    ),
)


def verdict(summary: TaskSummary) -> Verdict:
    """The outcome of a task in a few sentences."""
    judged = [c for c in summary.competitors if c.ranked is not None]
    ranked = [c for c in judged if _rank(c).place is not None]
    passed = [c for c in ranked if _rank(c).passes]
    return Verdict(
        trusted=_trusted(summary, passed, bool(ranked)),
        distrusted=_distrusted([c for c in judged if not _rank(c).passes], len(summary.info.parameters)),
        undecided=_undecided(summary, passed),
        doubt=_doubt(summary),
    )


def _trusted(summary: TaskSummary, passed: list[Contender], any_ranked: bool) -> str:
    if not passed:
        if not any_ranked:
            return "No method has scores that could be ranked."
        return "No method passes the gate: each is over-confident in at least one parameter, and none can be trusted."
    best, parameters = passed[0], len(summary.info.parameters)
    mine = _rank(best)
    # a method that is wide enough in every parameter and still misleads: its draws are farther off than the prior's
    useless = [c for c in passed[1:] if _rank(c).high < 0]
    known = [c for c in passed[1:] if c not in useless]
    level = [c for c in known if c.key in (*mine.tied_with, *mine.unresolved_with)]
    ignorant = [c for c in known if c not in level and _rank(c).low <= 0]
    rest = [c for c in known if c not in level and c not in ignorant]
    behind = [c for c in rest if not _misplaced(_rank(c))]
    crooked = [c for c in rest if _misplaced(_rank(c))]
    passes = f"{best.label} {'can be trusted' if _deserves_trust(mine) else 'passes the gate'}"
    measured = f"{number(mine.skill)} ({interval(mine.low, mine.high)}{_against_prior(mine)})"
    flaws = _flaws(mine, parameters)
    flawed = f", though {flaws}" if flaws else ""
    if level:
        equals = first_few([f"{c.label} ({_skill_and_flaws(c, parameters)})" for c in level])
        too = "So can" if all(_deserves_trust(_rank(c)) for c in (best, *level)) else "On a level with it:"
        text = (
            f"{passes}, over-confident in no parameter, with an energy skill of {measured}{flawed}"
            f"{_against_reference(summary, mine)}. {too} {equals}; none of these is known to have more skill than "
            f"{best.label} or less by more than {MARGIN:g}, and no best one is named."
        )
    else:
        others = rest or ignorant or useless
        claim = "has the highest energy skill of those" if others else "has an energy skill of"
        comma = ", " if others else " "
        text = (
            f"{passes}: it is over-confident in no parameter and {claim}{comma}{measured}{flawed}"
            f"{_against_reference(summary, mine)}."
        )
    tied = [c.label for c in level if c.key in mine.tied_with]
    if tied:
        text += f" Tied with {best.label}: {first_few(tied)}."
    for some, claim in (
        (behind, f"To be trusted{' as well' if _deserves_trust(mine) else ''}, with less skill"),
        (crooked, "Passing the gate with less skill, and not calibrated"),
        (ignorant, "Passing the gate, and not known to have more skill than the prior"),
        (useless, "Over-confident in no parameter, yet worse than the prior"),
    ):
        if some:
            names = first_few([f"{c.label} ({_skill_and_flaws(c, parameters)})" for c in some])
            text += f" {claim}: {names}."
    return text


def _deserves_trust(ranked: Ranked) -> bool:
    """Whether a method that passes the gate is right in place and shape too, and known to have learned anything."""
    return not _misplaced(ranked) and ranked.low > 0


def _misplaced(ranked: Ranked) -> bool:
    """Whether its draws lie wrongly in some parameter, which no width makes good."""
    return bool(ranked.biased or ranked.miscalibrated)


def _against_prior(ranked: Ranked) -> str:
    if ranked.low > 0:
        return ""
    return "; worse than the prior" if ranked.high < 0 else "; not known to be more than the prior's"


def _against_reference(summary: TaskSummary, mine: Ranked) -> str:
    reference = summary.reference
    if reference is None or reference.ranked is None or reference.ranked.measurements != mine.measurements:
        return ""
    exact = reference.ranked.skill
    if reference.key in mine.tied_with:
        return f"; the exact posterior has {number(exact)}, the same within {MARGIN:g}"
    if reference.key in mine.unresolved_with:
        return (
            f"; the exact posterior has {number(exact)}, and whether they differ by more than {MARGIN:g} is not decided"
        )
    side = "more" if exact > mine.skill else "less"
    return f"; the exact posterior has {number(exact)}, {number(abs(exact - mine.skill))} {side}"


def _skill_and_flaws(contender: Contender, parameters: int) -> str:
    ranked = _rank(contender)
    flaws = _flaws(ranked, parameters)
    return number(ranked.skill) + (f", {flaws}" if flaws else "")


def _flaws(ranked: Ranked, parameters: int) -> str:
    """What does not hinder trust, and must be known."""
    named = {word: names for word, names in ranked.findings.items() if word != "over-confident"}
    return " and ".join(f"{word} in {some_of(names, parameters)}" for word, names in named.items())


def _distrusted(failed: list[Contender], parameters: int) -> str:
    if not failed:
        return ""
    named = [f"{c.label} (over-confident in {some_of(_rank(c).over_confident, parameters)})" for c in failed]
    return f"Not to be trusted: {first_few(named, '; ', '; ')}."


def _undecided(summary: TaskSummary, passed: list[Contender]) -> str:
    open_points = []
    if passed:
        rivals = [c.label for c in passed[1:] if c.key in _rank(passed[0]).unresolved_with]
        if rivals:
            open_points.append(f"whether {passed[0].label} or {first_few(rivals, last=' or ')} has more skill")
    if summary.apart:
        names = first_few([c.label for c in summary.apart])
        open_points.append(f"where {names} would stand on all {summary.measurements:,} measurements")
    if summary.fits <= 1:
        open_points.append("whether another fit of the same methods would rank alike (one fit each)")
    if summary.reference is None:
        open_points.append("how far the best method is from the exact posterior (there is no reference)")
    if summary.judge and summary.others:
        hidden = some_of(summary.others, len(summary.info.parameters))
        open_points.append(f"who knows more of {hidden}, which the data hardly inform")
    missing = [f"{c.label} ({c.trouble})" for c in summary.contenders if c.trouble]
    if missing:
        open_points.append(f"how well {first_few(missing)} would have done")
    return f"Not decided: {'; '.join(open_points)}." if open_points else ""


def _doubt(summary: TaskSummary) -> str:
    # where measurements come from another process or from a file, their parameters need not be draws of the prior
    drawn = not (summary.info.reality or summary.info.test_set)
    exact = [c for c in summary.anchors if c.role == "reference" or drawn]
    wrong = [c for c in exact if c.ranked is not None and c.ranked.reason != "calibrated"]
    if not wrong:
        return ""
    named = first_few([f"{c.label} is called {_rank(c).reason}" for c in wrong], "; ", "; ")
    return (
        f"Beware: {named}. An exact anchor meets this by chance about three times in a hundred; else the anchor, "
        "and with it every verdict on this task, is in doubt."
    )


def apart_text(summary: TaskSummary) -> list[str]:
    """On each method that was scored on fewer measurements: what can be compared, on those that are common."""
    placed = [c for c in summary.competitors if c.ranked is not None and c.ranked.place is not None]
    best = score_matrix(placed[0].done, "energy_score") if placed else None
    found = []
    for c in summary.apart:
        text = (
            f"{c.label} was scored on the first {c.measurements:,} of {summary.measurements:,} measurements alone: it "
            "has no place, and none of its numbers compares with those of the others."
        )
        # a skill is in units of the prior's score on all measurements of its own; the score itself has no such unit
        own = score_matrix(c.done, "energy_score")
        if own is not None and best is not None:
            fits = min(len(own), len(best))
            gap = difference_on_common(own[:fits], best[:fits])
            text += (
                f" On these its energy score (in prior sd, low is good) less that of {placed[0].label} is "
                f"{number(gap.mean)} ({interval(gap.low, gap.high)}, paired)."
            )
        found.append(text)
    return found


def _rank(contender: Contender) -> Ranked:
    if contender.ranked is None:
        raise ValueError(f"{contender.key!r} is not ranked")
    return contender.ranked

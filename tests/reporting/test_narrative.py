from __future__ import annotations

import pytest
from gaussian_results import make_job

from posterior_bench import Parameter
from posterior_bench.evaluation import Ranked
from posterior_bench.reporting.cells import place_cell
from posterior_bench.reporting.contenders import Contender, Role
from posterior_bench.reporting.narrative import verdict
from posterior_bench.reporting.summary import TaskSummary
from posterior_bench.running.results import TaskInfo


def _contender(name: str, ranked: Ranked | None, role: Role = "", status: str = "ok") -> Contender:
    return Contender(
        name, name.upper(), 0 if role else 100, role, (make_job("t", name, None, status=status),), {}, ranked
    )


def _ranked(name: str, place: int | None, skill: float, **rest: tuple[str, ...]) -> Ranked:
    return Ranked(name, place, skill, skill - 0.02, skill + 0.02, **rest)  # type: ignore[arg-type]


def _summary(*contenders: Contender, fits: int = 2, judge: str = "EXACT") -> TaskSummary:
    info = TaskInfo("t", 1, "t", {}, "", "", (Parameter("a"), Parameter("b")), ())
    return TaskSummary(info, 100, 1, contenders, ("a",), ("b",), judge, fits)


EXACT = _contender("exact", _ranked("exact", None, 0.65), "reference")


def test_the_best_that_passes_is_named_with_its_distance_to_the_exact() -> None:
    text = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), EXACT)).text
    assert text.startswith("GOOD can be trusted")
    assert "0.600 (0.580 to 0.620); the exact posterior has 0.650, 0.050 more." in text
    assert "one fit each" not in text


def test_ties_and_open_comparisons_are_told_apart_and_no_best_one_is_named() -> None:
    best = _ranked("good", 1, 0.6, tied_with=("twin", "exact"), unresolved_with=("open",))
    others = [_contender(name, _ranked(name, 1, 0.59)) for name in ("twin", "open", "behind")]
    found = verdict(_summary(_contender("good", best), *others, EXACT))
    assert "the same within 0.01" in found.trusted
    assert "So can TWIN (0.590) and OPEN (0.590); none of these is known to have more skill" in found.trusted
    assert "no best one is named" in found.trusted
    assert "highest" not in found.trusted
    assert "Tied with GOOD: TWIN." in found.trusted
    assert "with less skill: BEHIND (0.590)" in found.trusted
    assert "whether GOOD or OPEN has more skill" in found.undecided


@pytest.mark.parametrize("relation", ["tied_with", "unresolved_with"])
def test_the_highest_skill_is_claimed_only_where_all_others_are_known_to_be_behind(relation: str) -> None:
    other = _contender("other", _ranked("other", 2, 0.59))
    clear = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), other, EXACT)).trusted
    assert "has the highest energy skill of those, 0.600" in clear
    level = _ranked("good", 1, 0.6, **{relation: ("other",)})
    assert "highest" not in verdict(_summary(_contender("good", level), other, EXACT)).text
    alone = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), EXACT)).trusted
    assert "highest" not in alone, "there is nothing that it could be higher than"


def test_places_that_are_not_decided_are_marked() -> None:
    for relation, mark in (("tied_with", "1 ="), ("unresolved_with", "1 ?")):
        c = _contender("good", _ranked("good", 1, 0.6, **{relation: ("other",)}))
        assert place_cell(c, {"good", "other"}).text == mark
        assert place_cell(c, {"good", "third"}).text == "1"


@pytest.mark.parametrize("flaw", ["biased", "miscalibrated"])
def test_a_method_wrong_in_place_or_shape_passes_and_is_not_called_trusted(flaw: str) -> None:
    crooked = _contender("crooked", _ranked("crooked", 1, 0.6, **{flaw: ("b",)}))
    behind = _contender("behind", _ranked("behind", 2, 0.5))
    text = verdict(_summary(crooked, behind, EXACT)).trusted
    assert text.startswith("CROOKED passes the gate: it is over-confident in no parameter")
    assert f"though {flaw} in b" in text
    assert "To be trusted, with less skill: BEHIND (0.500)." in text
    text = verdict(_summary(_contender("good", _ranked("good", 1, 0.7)), crooked, EXACT)).trusted
    assert f"Passing the gate with less skill, and not calibrated: CROOKED (0.600, {flaw} in b)." in text
    level = _contender("good", _ranked("good", 1, 0.61, unresolved_with=("crooked",)))
    text = verdict(_summary(level, crooked, EXACT)).trusted
    assert text.startswith("GOOD can be trusted")
    assert f"On a level with it: CROOKED (0.600, {flaw} in b); none" in text


def test_over_confidence_shown_on_few_measurements_is_told() -> None:
    few = _contender("few", _ranked("few", None, 0.7, over_confident=("a",)))
    found = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), few, EXACT))
    assert "FEW (over-confident in a)" in found.distrusted
    assert "FEW" not in found.trusted


def test_a_method_worse_than_the_prior_is_not_called_trusted() -> None:
    others = [_contender("behind", _ranked("behind", 2, 0.5)), _contender("astray", _ranked("astray", 3, -1.3))]
    text = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), *others, EXACT)).trusted
    assert "To be trusted as well, with less skill: BEHIND (0.500)." in text
    assert "Over-confident in no parameter, yet worse than the prior: ASTRAY (−1.300)." in text


def test_a_method_that_may_know_nothing_is_not_called_trusted() -> None:
    alone = verdict(_summary(_contender("blind", _ranked("blind", 1, 0.0)), EXACT)).trusted
    assert alone.startswith("BLIND passes the gate: it is over-confident in no parameter")
    assert "not known to be more than the prior's)" in alone
    worse = verdict(_summary(_contender("astray", _ranked("astray", 1, -1.3)), EXACT)).trusted
    assert "worse than the prior)" in worse
    blind = _contender("blind", _ranked("blind", 2, 0.0))
    text = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), blind, EXACT)).trusted
    assert "Passing the gate, and not known to have more skill than the prior: BLIND (0.000)." in text
    level = _contender("good", _ranked("good", 1, 0.04, unresolved_with=("blind",)))
    text = verdict(_summary(level, blind, EXACT)).trusted
    assert "On a level with it: BLIND (0.000); none" in text


def test_the_over_confident_are_named_with_their_parameters() -> None:
    bad = _contender("bad", _ranked("bad", 2, 0.64, over_confident=("a", "b")))
    found = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), bad, EXACT))
    assert found.distrusted == "Not to be trusted: BAD (over-confident in a, b)."
    alone = verdict(_summary(bad, EXACT))
    assert alone.trusted.startswith("No method passes the gate")


def test_one_fit_a_missing_reference_and_failures_leave_things_open() -> None:
    failed = _contender("gone", None, status="failed")
    found = verdict(_summary(_contender("good", _ranked("good", 1, 0.6)), failed, fits=1, judge="GOOD"))
    assert "one fit each" in found.undecided
    assert "there is no reference" in found.undecided
    assert "GONE (failed)" in found.undecided
    assert "who knows more of b" in found.undecided


def test_an_anchor_that_is_not_calibrated_casts_doubt() -> None:
    wrong = _contender("exact", _ranked("exact", None, 0.65, over_confident=("a",)), "reference")
    good = _contender("good", _ranked("good", 1, 0.6))
    assert "EXACT is called over-confident in a" in verdict(_summary(good, wrong)).doubt
    assert verdict(_summary(good, EXACT)).doubt == ""


def test_nothing_to_rank_is_said() -> None:
    assert verdict(_summary(_contender("gone", None, status="failed"))).trusted.startswith("No method has scores")

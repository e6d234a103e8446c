from __future__ import annotations

from posterior_bench.reporting.style import ANCHOR_COLOUR, PALETTE, REFERENCE_COLOUR, interval, looks, number


def test_a_method_has_its_colour_whatever_else_is_in_the_report() -> None:
    alone = looks(["inn"])["inn"]
    for others in (["abc_rejection"], ["prior", "mdn", "npe"], ["somebody_elses"]):
        assert looks(["inn", *others])["inn"] == alone


def test_two_methods_never_look_alike() -> None:
    methods = [f"method_{i}" for i in range(3 * len(PALETTE))]
    found = looks(methods)
    assert len({(look.colour, look.dash) for look in found.values()}) == len(methods)
    assert {look.colour for look in found.values()} == set(PALETTE)


def test_colours_differ_while_there_are_enough() -> None:
    methods = ["inn", "inn_likelihood", "abc_rejection", "inn_lx", "stranger"]
    assert len({look.colour for look in looks(methods).values()}) == len(methods)


def test_anchors_are_black_and_grey_and_take_no_colour_from_methods() -> None:
    found = looks(["exact", "prior", "control", "inn"], {"exact"}, {"prior", "control"})
    assert found["exact"].colour == REFERENCE_COLOUR
    assert found["prior"].colour == found["control"].colour == ANCHOR_COLOUR
    assert found["prior"].dash != found["control"].dash
    assert found["inn"] == looks(["inn"])["inn"]


def test_numbers_that_are_not_there_are_dashes() -> None:
    assert number(None) == number(float("nan")) == number(float("inf")) == "–"
    assert number(-0.0001) == "0.000"
    assert interval(None, 1.0) == ""

from __future__ import annotations

import pytest
import torch

from posterior_bench import Score
from posterior_bench.evaluation import Entry, paired_difference, rank
from posterior_bench.evaluation.ranking import difference_on_common


def signed(metric: str, **values: float) -> tuple[Score, ...]:
    return tuple(Score(f"{metric}/{name}", v, null_low=-0.03, null_high=0.03) for name, v in values.items())


def entry(method: str, skill: float, bias: float = 0.0, shift: float = 0.0, noise: float = 0.001, **options) -> Entry:
    each = skill + noise * torch.randn(options.pop("repetitions", 1), 200)
    return Entry(method, signed("coverage_bias", a=bias, b=0.0), each, signed("rank_bias", a=0.0, b=shift), **options)


def test_gate_comes_before_skill():
    found = rank([entry("bold", 0.9, bias=-0.05), entry("modest", 0.2), entry("good", 0.5), entry("vain", 0.95, -0.04)])
    assert [(r.method, r.place, r.passes) for r in found] == [
        ("good", 1, True),
        ("modest", 2, True),
        ("vain", 3, False),
        ("bold", 4, False),
    ]
    assert found[0].low < found[0].skill < found[0].high


@pytest.mark.parametrize(
    ("bias", "shift", "verdict", "reason", "passes"),
    [
        (0.0, 0.0, "calibrated", "calibrated", True),
        (-0.05, 0.0, "over-confident", "over-confident in a", False),
        (0.05, 0.0, "under-confident", "under-confident in a", True),
        (0.0, 0.05, "biased", "biased in b", True),
        (0.0, -0.05, "biased", "biased in b", True),
        (0.05, -0.05, "biased", "biased in b; under-confident in a", True),
        (-0.05, 0.05, "over-confident", "over-confident in a; biased in b", False),
    ],
)
def test_verdict_and_reason(bias, shift, verdict, reason, passes):
    (found,) = rank([entry("m", 0.5, bias, shift)])
    assert (found.verdict, found.reason, found.passes) == (verdict, reason, passes)


@pytest.mark.parametrize(
    ("p_values", "verdict"),
    [
        ((0.0005,), "miscalibrated"),
        ((0.006,), "calibrated"),
        ((0.0005, 0.0005, 0.3), "miscalibrated"),
        ((0.0005, 0.3, 0.3), "calibrated"),
    ],
)
def test_ranks_that_are_not_uniform_are_named_where_the_mean_hides_it(p_values, verdict):
    """Two parameters share the level of 1 %; over several fits the median decides."""
    found = tuple(Score(f"sbc_p_value/{name}", p) for p in p_values for name in "a")
    found += tuple(Score("sbc_p_value/b", 0.4) for _ in p_values)
    (ranked,) = rank([entry("m", 0.5, uniformity=found)])
    assert (ranked.verdict, ranked.passes) == (verdict, True)
    assert ranked.miscalibrated == (("a",) if verdict == "miscalibrated" else ())
    (ranked,) = rank([entry("m", 0.5, bias=-0.05, uniformity=found)])
    assert ranked.reason == "over-confident in a", "a parameter is called by one name"


def test_all_parameters_are_named():
    wrong = Entry("m", signed("coverage_bias", sO2=-0.2, g=0.0, v_hb1=-0.1), torch.rand(1, 9))
    assert rank([wrong])[0].reason == "over-confident in sO2, v_hb1"


def test_ties_are_within_the_margin_and_not_transitive():
    found = rank([entry("c", 0.488), entry("a", 0.5), entry("d", 0.3), entry("b", 0.494)])
    assert [(r.method, r.place) for r in found] == [("a", 1), ("b", 1), ("c", 2), ("d", 4)]
    assert found[1].tied_with == ("a", "c")
    assert found[0].tied_with == ("b",)
    assert [r.place for r in rank([entry("a", 0.5), entry("b", 0.494)], margin=0.001)] == [1, 2]


def test_what_cannot_be_told_apart_is_no_tie():
    first, second = rank([entry("a", 0.51, noise=1.0), entry("b", 0.5, noise=1.0)])
    assert first.tied_with == second.tied_with == ()
    assert first.unresolved_with == (second.method,)
    assert (first.place, second.place) == (1, 2)


def test_a_difference_that_may_be_of_no_consequence_is_not_resolved():
    """Known to be above zero, and not known to be above the margin of 0.01."""
    hard = torch.randn(1, 400)
    ahead = 0.012 + 0.03 * torch.randn(1, 400)
    difference = paired_difference(hard + ahead, hard)
    assert 0 < difference.low < 0.01 < difference.high
    coverage = signed("coverage_bias", a=0.0)
    first, second = rank([Entry("a", coverage, hard + ahead), Entry("b", coverage, hard)])
    assert (first.unresolved_with, second.unresolved_with) == (("b",), ("a",))
    assert first.tied_with == ()
    clear, _ = rank([Entry("a", coverage, hard + ahead + 0.05), Entry("b", coverage, hard)])
    assert clear.unresolved_with == ()


def on(method: str, skill: torch.Tensor, **options) -> Entry:
    return Entry(method, signed("coverage_bias", a=0.0), skill, **options)


def test_a_method_scored_on_fewer_measurements_has_no_place_and_no_peers():
    each = torch.randn(1, 200)
    found = rank([on("few", each[:, :10] + 0.5), on("many", each), on("other", each + 0.3)])
    assert [(r.method, r.place, r.measurements) for r in found] == [
        ("other", 1, 200),
        ("many", 2, 200),
        ("few", None, 10),
    ]
    assert not any("few" in (*r.tied_with, *r.unresolved_with) for r in found)
    assert (found[2].tied_with, found[2].unresolved_with, found[2].verdict) == ((), (), "calibrated")
    assert rank([on("few", each[:, :10])])[0].place == 1


def test_an_anchor_with_more_measurements_takes_no_place_from_others():
    each = torch.cat([torch.zeros(1, 10), torch.ones(1, 90)], dim=1)
    found = rank([on("few", each[:, :10]), on("exact", each, anchor=True)])
    by_name = {r.method: r for r in found}
    assert (by_name["few"].place, by_name["exact"].place) == (1, None)
    assert by_name["few"].tied_with == by_name["few"].unresolved_with == ()
    assert difference_on_common(each, each[:, :10]).mean == 0
    assert difference_on_common(each, each[:, :10]).measurements == 10


def test_no_tie_across_the_gate():
    found = rank([entry("a", 0.5), entry("b", 0.5, bias=-0.05)])
    assert [r.tied_with for r in found] == [(), ()]
    assert [r.place for r in found] == [1, 2]


def test_anchors_are_placed_and_not_numbered():
    found = rank(
        [
            entry("inn", 0.5, repetitions=3),
            entry("prior", 0.0, anchor=True),
            entry("abc", 0.4),
            entry("reference", 0.6, anchor=True),
        ]
    )
    assert [(r.method, r.place) for r in found] == [("reference", None), ("inn", 1), ("abc", 2), ("prior", None)]


def test_repetitions_are_judged_by_their_mean():
    coverage = signed("coverage_bias", a=-0.05) + signed("coverage_bias", a=-0.02)
    assert rank([Entry("m", coverage, torch.rand(2, 9))])[0].verdict == "over-confident"
    coverage = signed("coverage_bias", a=-0.05) + signed("coverage_bias", a=0.0)
    assert rank([Entry("m", coverage, torch.rand(2, 9))])[0].verdict == "calibrated"


def test_entries_that_cannot_be_judged_raise():
    with pytest.raises(ValueError, match="no coverage_bias scores"):
        rank([Entry("m", (), torch.rand(1, 9))])
    with pytest.raises(ValueError, match="without null edges"):
        rank([Entry("m", (Score("coverage_bias/a", 0.0),), torch.rand(1, 9))])
    with pytest.raises(ValueError, match="comes twice"):
        rank([entry("m", 0.5), entry("m", 0.4)])

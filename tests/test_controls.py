"""The whole scoring on a real simulator: exact draws pass, and each way of spoiling them is caught, with its sign."""

from __future__ import annotations

import pytest
import torch

from baselines.anchors import Prior, Reference
from baselines.controls import Control
from posterior_bench import Draws, Need, Problem, Score, Simulations, Task, Truth
from posterior_bench.evaluation import Entry, Ranked, draws_of, rank
from posterior_bench.evaluation.calibration import Calibration
from posterior_bench.evaluation.nulls import NORMAL_95, null_distance, power
from posterior_bench.evaluation.skill import Skill
from posterior_bench.runtime import scope
from simulators.inverse_kinematics import InverseKinematics

T, N = 1000, 250


METHODS = {"prior": Prior(), "exact": Reference()}
METHODS |= {kind: Control(kind) for kind in ("shrunk", "widened", "shifted", "permuted")}


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


@pytest.fixture(scope="module")
def judged() -> dict[str, tuple[Ranked, dict[str, Score]]]:
    """Each control's place among the others, and its scores by id."""
    simulator = InverseKinematics()
    with scope(0):
        theta = simulator.prior().sample((T,))
        y = simulator.simulate(theta)
        prior = simulator.prior()
        problem = Problem(Task("controls", simulator), granted=frozenset({Need.REFERENCE}))
        nothing = Simulations(theta[:0], y[:0])
        draws = {name: draws_of(m.fit(nothing, problem, Silent()), y, N).theta for name, m in METHODS.items()}
        truth = Truth(theta, y, prior, prior.sample((5000,)), simulator.spec.parameters, simulator.simulate)
        scores = {
            name: {s.metric: s for metric in (Calibration(), Skill()) for s in metric.score(Draws(values), truth)}
            for name, values in draws.items()
        }

    def entry(name: str, found: dict[str, Score]) -> Entry:
        skill = found["energy_skill"].per_measurement
        assert skill is not None
        starting = {
            word: tuple(s for m, s in found.items() if m.startswith(word)) for word in ("coverage", "rank_bias")
        }
        return Entry(name, starting["coverage"], skill[None], starting["rank_bias"])

    ranked = rank([entry(name, found) for name, found in scores.items()])
    return {r.method: (r, scores[r.method]) for r in ranked}


def inside(score: Score) -> bool:
    assert score.null_low is not None
    assert score.null_high is not None
    return score.null_low <= score.value <= score.null_high


def test_the_prior_is_calibrated_and_knows_nothing(judged):
    ranked, scores = judged["prior"]
    assert ranked.verdict == "calibrated"
    assert abs(scores["energy_skill"].value) < 0.02


def test_the_exact_posterior_is_calibrated_and_first(judged):
    ranked, scores = judged["exact"]
    assert ranked.verdict == "calibrated"
    assert ranked.place == 1
    assert all(ranked.skill >= other.skill for other, _ in judged.values())
    assert inside(scores["energy_skill"])
    assert inside(scores["calibration_score"])


def test_a_posterior_shrunk_by_a_fifth_is_called_over_confident(judged):
    ranked, scores = judged["shrunk"]
    assert ranked.verdict == "over-confident"
    assert not ranked.passes
    assert all(scores[f"coverage_bias/{p.name}"].value < 0 for p in InverseKinematics().spec.parameters)
    assert ranked.place > judged["prior"][0].place, "it knows more than the prior, and comes after it all the same"


def test_a_widened_posterior_is_called_under_confident_and_may_be_trusted(judged):
    ranked, _ = judged["widened"]
    assert ranked.verdict == "under-confident"
    assert ranked.passes


def test_a_shifted_posterior_is_caught_with_its_sign(judged):
    ranked, scores = judged["shifted"]
    assert ranked.verdict != "calibrated"
    assert all(scores[f"rank_bias/{p.name}"].value < 0 for p in InverseKinematics().spec.parameters)
    assert set(ranked.biased) | set(ranked.over_confident) == {p.name for p in InverseKinematics().spec.parameters}


def test_draws_of_other_measurements_are_caught(judged):
    ranked, scores = judged["permuted"]
    assert ranked.verdict == "over-confident"
    assert scores["energy_skill"].value < 0


@pytest.mark.parametrize("width", [1.0, 0.92, 0.85])
def test_power_is_how_often_a_fresh_test_set_flags(width: float) -> None:
    """Coverage of normal posteriors with ``width`` times the exact spread: 600 fresh test sets against the formula."""
    size, sets = 150, 600
    with scope(1):
        rank_of_truth = torch.special.ndtr(torch.randn(sets, size) / width)
    each = 0.5 - (2 * rank_of_truth - 1).abs()
    edge = NORMAL_95 / (12 * size) ** 0.5
    values, errors = each.mean(1), each.std(1) / size**0.5
    flagged = float((values.abs() > edge).double().mean())
    assert sum(abs(null_distance(float(v), -edge, edge)) > 1 for v in values) == round(flagged * sets)
    expected = power(float(values.mean()), -edge, edge, float(errors.mean()))
    assert flagged == pytest.approx(expected, abs=4 * (0.25 / sets) ** 0.5)
    assert (flagged < 0.1) == (width == 1.0)


def test_without_a_standard_error_the_width_of_the_band_takes_its_place() -> None:
    assert power(0.3, -1.0, 1.0) == power(0.3, -1.0, 1.0, 1 / NORMAL_95)
    assert power(0.0, 0.0, 0.0) == 0.0
    assert power(0.1, 0.0, 0.0, 0.0) == 1.0
    assert null_distance(0.1, 0.0, 0.0) == float("inf")
    assert null_distance(-2.0, 0.0, 2.0) == -3.0

"""The whole scoring on a real simulator: exact draws pass, and each way of spoiling them is caught, with its sign."""

from __future__ import annotations

import pytest
from torch import Tensor

from posterior_bench import Draws, Score, Truth
from posterior_bench.evaluation import Entry, Ranked, rank
from posterior_bench.evaluation.calibration import Calibration
from posterior_bench.evaluation.skill import Skill
from posterior_bench.runtime import scope
from simulators.inverse_kinematics import InverseKinematics

T, N = 1000, 250


def spoiled(exact: Tensor, prior: Tensor) -> dict[str, Tensor]:
    centre, sd = exact.mean(0), prior.std((0, 1))
    return {
        "prior": prior,
        "exact": exact,
        "narrower": centre + 0.8 * (exact - centre),
        "wider": centre + 1.25 * (exact - centre),
        "shifted": exact + 0.25 * sd,
        "permuted": exact.roll(1, dims=1),
    }


@pytest.fixture(scope="module")
def judged() -> dict[str, tuple[Ranked, dict[str, Score]]]:
    """Each control's place among the others, and its scores by id."""
    simulator = InverseKinematics()
    with scope(0):
        theta = simulator.prior().sample((T,))
        y = simulator.simulate(theta)
        draws = spoiled(simulator.sample_reference(y, N), simulator.prior().sample((N, T)))
        prior = simulator.prior()
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
    ranked, scores = judged["narrower"]
    assert ranked.verdict == "over-confident"
    assert not ranked.passes
    assert all(scores[f"coverage_bias/{p.name}"].value < 0 for p in InverseKinematics().spec.parameters)
    assert ranked.place > judged["prior"][0].place, "it knows more than the prior, and comes after it all the same"


def test_a_widened_posterior_is_called_under_confident_and_may_be_trusted(judged):
    ranked, _ = judged["wider"]
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

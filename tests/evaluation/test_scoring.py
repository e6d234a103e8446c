"""From a fitted posterior to a verdict, as a user of the Python interface goes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from baselines.controls import Scaled, Shifted
from posterior_bench import Draws, Metric
from posterior_bench.evaluation import Entry, Leakage, Skill, draws_of, evaluate, metrics_shipped, rank
from posterior_bench.registry import load


class Drawn:
    """A posterior that returns draws of the wrong shape."""

    def sample(self, y, n):
        return torch.zeros(len(y), n, 3)


class Uneven:
    """Draws of which half are too near the mean and half too far: the truth is inside as often as it should be."""

    def __init__(self, problem):
        self.problem = problem

    def sample(self, y, n):
        # P(|draw| > |truth|) = 2 atan(scale) / pi for centred normals, so that scales s and 1 / s cancel
        near, far = (self.problem.draws(y, n, scale) for scale in (0.4, 2.5))
        return torch.where(torch.rand(n, len(y), 1) < 0.5, near, far)


def entry(name, posterior, truth, by_name):
    scores = by_name(evaluate(posterior, truth, n=100))
    return Entry(
        name,
        tuple(s for m, s in scores.items() if m.startswith("coverage_bias/")),
        scores["energy_skill"].per_measurement[None],
        tuple(s for m, s in scores.items() if m.startswith("rank_bias/")),
        tuple(s for m, s in scores.items() if m.startswith("sbc_p_value/") and m[-1] in "abc"),
    )


def test_controls_get_the_verdict_they_deserve(problem, by_name):
    truth = problem.truth(1000, reference=60)
    exact = problem.posterior()
    found = {
        r.method: r
        for r in rank(
            [
                entry("exact", exact, truth, by_name),
                entry("shrunk", Scaled(exact.sample, 0.8), truth, by_name),
                entry("widened", Scaled(exact.sample, 1.25), truth, by_name),
                entry("shifted", Shifted(exact.sample, 0.25), truth, by_name),
                entry("uneven", Uneven(problem), truth, by_name),
            ]
        )
    }
    assert {name: r.verdict for name, r in found.items()} == {
        "exact": "calibrated",
        "shrunk": "over-confident",
        "widened": "under-confident",
        "shifted": "biased",
        "uneven": "miscalibrated",
    }
    assert found["uneven"].passes
    assert found["exact"].place == 1
    assert found["shrunk"].place == 5
    assert found["shrunk"].over_confident == ("a", "b", "c")


def test_every_score_has_a_stable_id(problem, by_name):
    truth = problem.truth(60, reference=20)
    single = {
        "calibration_error",
        "calibration_score",
        "energy_score",
        "energy_skill",
        "map_error",
        "map_error_density",
        "map_resimulation_error",
        "map_resimulation_error_density",
        "resimulation_invalid",
        "resimulation_invalid_density",
        "simulation_noise",
        "err_resim",
        "err_resim_invalid",
        "err_post",
        "err_post_raw",
        "leakage",
        "log_score",
        "log_score_zero_density",
        "regret_nats",
        "sliced_wasserstein",
        "posterior_predictive",
        "posterior_predictive_bias",
        *(f"{m}_{kind}" for m in ("hpd_coverage", "tarp") for kind in ("deviation", "p_value")),
        "hpd_coverage_bias",
        "tarp_coverage_bias",
    }
    each = ("calibration_error", "calibration_score", "coverage_bias", "rank_bias", "crps_skill", "map_error")
    each += ("calibration_worst_bin", "coverage_worst_bin", "sbc_deviation", "sbc_p_value")
    each += ("information_gain", "information_lost", "information_ceiling", "crps")
    each += ("mean_error", "relative_error", "bias", "coverage_50", "coverage_90", "width_90")
    parameters = {f"{m}/{p}" for m in (*each, "map_error_density") for p in "abc"}
    scores = by_name(evaluate(problem.posterior(), truth, n=30))
    assert set(scores) == single | parameters
    without = by_name(evaluate(Draws(problem.draws(truth.y, 30)), problem.truth(60), [Skill(), Leakage()]))
    of_each = {f"{m}/{p}" for m in ("crps", "crps_skill") for p in "abc"}
    assert set(without) == {"leakage", "energy_score", "energy_skill"} | of_each


@pytest.mark.parametrize("measurements", [1, 2])
def test_one_or_two_measurements_are_scored_by_what_makes_sense(problem, by_name, measurements):
    scores = by_name(evaluate(problem.posterior(), problem.truth(measurements, reference=20), n=30))
    assert not any(name.startswith(("calibration", "coverage", "rank")) for name in scores)
    assert {"energy_skill", "map_error", "log_score", "err_post", "err_resim"} < set(scores)
    assert all((score.std_error is None) == (measurements == 1) for score in scores.values())


def test_same_seed_same_scores_and_the_callers_generator_is_left_alone(problem):
    truth = problem.truth(40, reference=20)
    before = torch.get_rng_state()
    runs = [evaluate(problem.posterior(), truth, n=30, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    values = [[score.value for score in run] for run in runs]
    assert values[0] == values[1] != values[2]


def test_registered_metrics_are_those_that_ship():
    points = (
        "calibration",
        "calibration_by_measurement",
        "c2st_mlp",
        "c2st_rf",
        "hpd_coverage",
        "information",
        "interval_coverage",
        "leakage",
        "local_c2st",
        "log_score",
        "map_estimate",
        "mmd",
        "parameter_error",
        "posterior_predictive",
        "resimulation",
        "sbc",
        "signals",
        "skill",
        "sliced_wasserstein",
        "stray_draws",
        "tarp",
    )
    shipped = {type(metric) for metric in metrics_shipped()}
    assert {load("metrics", name) for name in points} == shipped
    assert all(issubclass(cls, Metric) and cls.version >= 1 for cls in shipped)
    assert len({cls.name for cls in shipped}) == len(shipped)


def test_draws_keep_the_density_and_the_shape_is_checked(problem):
    truth = problem.truth(10)
    draws = draws_of(problem.posterior(), truth.y, 5)
    assert draws.theta.shape == (5, 10, 3)
    assert torch.equal(draws.log_density(draws.theta), problem.density(truth.y)(draws.theta))
    assert draws_of(Scaled(problem.posterior().sample, 0.5), truth.y, 5).log_density is None
    with pytest.raises(ValueError, match=r"returned shape \(10, 5, 3\) for 5 draws of 10 measurements"):
        draws_of(Drawn(), truth.y, 5)


def test_importing_the_evaluation_loads_no_heavy_package():
    heavy = "{'sbi', 'pyro', 'arviz', 'seaborn', 'sklearn'}"
    code = f"import posterior_bench.evaluation, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

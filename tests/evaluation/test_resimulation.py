from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Independent, Uniform

from posterior_bench import Draws, Parameter, Truth
from posterior_bench.evaluation import Resimulation


def test_scores_are_the_closed_form_of_a_gaussian(problem, by_name, monkeypatch):
    monkeypatch.setattr(
        "posterior_bench.evaluation.map_estimate.MEASUREMENTS", 4000
    )  # of fewer, noise hides which of two modes is better
    truth = problem.truth(4000)
    scores = by_name(Resimulation().score(problem.exact(truth, 100), truth))
    of_y = problem.forward @ torch.diag(problem.sd**2) @ problem.forward.T + problem.noise**2 * torch.eye(4)
    noise = scores["simulation_noise"]
    assert noise.value == pytest.approx(math.sqrt(float((2 * problem.noise**2 / of_y.diagonal()).mean())), rel=0.03)
    # at the mode: y - A m + noise, with y - A m = (I - A gain) y
    rest = torch.eye(4) - problem.forward @ problem.gain
    expected = (rest @ of_y @ rest.T).diagonal() + problem.noise**2
    found = scores["map_resimulation_error_density"]
    assert found.value == pytest.approx(math.sqrt(float((expected / of_y.diagonal()).mean())), rel=0.03)
    assert found.value < scores["map_resimulation_error"].value < noise.value  # a mode lies below, which is no merit
    # an exact draw and the truth are exchangeable: the squared error is that of two noises
    resim = scores["err_resim"]
    assert resim.value == pytest.approx(4 * 2 * problem.noise**2, abs=4 * resim.std_error)
    assert len(resim.per_measurement) == 200
    for name in ("resimulation_invalid", "resimulation_invalid_density", "err_resim_invalid"):
        assert scores[name].value == 0


def test_narrow_draws_flatter_and_shifted_ones_do_not(problem, by_name):
    truth = problem.truth(500)
    found = {}
    for name, options in {
        "exact": {},
        "narrow": {"scale": 0.1},
        "wide": {"scale": 3.0},
        "shifted": {"shift": 1.0},
    }.items():
        found[name] = by_name(Resimulation().score(Draws(problem.draws(truth.y, 60, **options)), truth))
    resim = {name: scores["err_resim"].value for name, scores in found.items()}
    assert resim["narrow"] < resim["exact"] < resim["wide"]
    assert resim["exact"] < resim["shifted"]
    error = {name: scores["map_resimulation_error"] for name, scores in found.items()}
    assert error["shifted"].value > found["shifted"]["simulation_noise"].value > error["exact"].value
    assert error["exact"].null_low is None


def test_invalid_simulations_are_counted_and_left_out(problem, by_name):
    truth = problem.truth(400)

    def fails(theta: torch.Tensor) -> torch.Tensor:
        y = problem.simulate(theta)
        y[theta[:, 1] > 0.5, 2] = torch.inf
        return y

    draws = problem.exact(truth, 50)
    scores = by_name(Resimulation().score(draws, replace(truth, simulate=fails)))
    lost = scores["resimulation_invalid"]
    assert lost.value == pytest.approx(float((draws.cache["map"][:, 1] > 0.5).float().mean()))
    assert 0.1 < lost.value < 0.9
    assert torch.equal(scores["map_resimulation_error"].per_measurement.isnan(), lost.per_measurement > 0)
    assert 0.1 < scores["err_resim_invalid"].value < 0.9
    never = by_name(Resimulation().score(draws, replace(truth, simulate=lambda t: torch.full((len(t), 4), torch.nan))))
    assert {name for name, score in never.items() if score.value == 1} == set(never)
    assert set(never) == {"resimulation_invalid", "resimulation_invalid_density", "err_resim_invalid"}


def test_nothing_is_simulated_outside_the_prior(by_name):
    prior = Independent(Uniform(torch.zeros(1), torch.ones(1)), 1)

    def strict(theta: torch.Tensor) -> torch.Tensor:
        if ((theta < 0) | (theta > 1)).any():
            raise RuntimeError("outside")
        return theta

    theta = prior.sample((100,))
    truth = Truth(theta, theta, prior, prior.sample((500,)), (Parameter("a"),), strict)
    draws = theta + 0.01 * torch.randn(60, 100, 1)
    draws[:, :25] += 2
    scores = by_name(Resimulation().score(Draws(draws), truth))
    assert 0.25 <= scores["resimulation_invalid"].value < 0.35
    assert scores["map_resimulation_error"].value < 0.1


def test_a_dimension_that_does_not_vary_keeps_scale_one(problem, by_name):
    truth = problem.truth(300)
    draws = Draws(problem.draws(truth.y, 50))

    def wider(theta: torch.Tensor) -> torch.Tensor:
        return torch.cat([problem.simulate(theta), torch.zeros(len(theta), 1)], 1)

    constant = replace(truth, y=torch.cat([truth.y, torch.zeros(300, 1)], 1), simulate=wider)
    plain = by_name(Resimulation().score(draws, truth))["simulation_noise"].value
    found = by_name(Resimulation().score(draws, constant))["simulation_noise"].value
    assert found == pytest.approx(plain * math.sqrt(4 / 5), rel=0.1)


def test_measurements_of_any_shape(problem, by_name):
    truth = problem.truth(30)
    shaped = replace(truth, y=truth.y.view(30, 2, 2), simulate=lambda t: problem.simulate(t).view(-1, 2, 2))
    assert by_name(Resimulation().score(problem.exact(truth, 30), shaped))["simulation_noise"].value > 0

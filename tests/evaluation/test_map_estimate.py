from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from posterior_bench import Draws
from posterior_bench.evaluation import MAPEstimate
from posterior_bench.evaluation.map_estimate import MEASUREMENTS, bandwidth, map_estimate, map_estimate_density


def loops(draws: torch.Tensor) -> torch.Tensor:
    """The definition, for draws (n, D) that are white already, by loops in double precision."""
    n, dim = draws.shape
    points, width = draws.double(), n ** (-1 / (dim + 6))

    def weights(at: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((points - at) ** 2).sum(1) / (2 * width**2))

    density = torch.stack([weights(point).sum() for point in points])
    modes = [points[i] for i in density.argsort(descending=True)[:5]]
    for _ in range(30):
        modes = [(weights(m)[:, None] * points).sum(0) / weights(m).sum() for m in modes]
    return max(modes, key=lambda m: float(weights(m).sum()))


def test_estimate_is_its_definition():
    draws = torch.randn(60, 4, 2)
    draws[:, 0, 0] += 4 * (torch.arange(60) < 40)
    white = []
    for t in range(4):
        points = (draws[:, t] - draws[:, t].mean(0)).double()
        factor = torch.linalg.cholesky(points.T @ points / 59)
        found = loops(torch.linalg.solve(factor, points.T).T)
        white.append(draws[:, t].double().mean(0) + factor @ found)
    assert torch.allclose(map_estimate(Draws(draws)), torch.stack(white).float(), atol=1e-3)


def test_bandwidth():
    assert float(bandwidth(torch.tensor(500.0), 13)) == pytest.approx(math.exp(-math.log(500) / 19))


def test_error_is_the_closed_form_of_a_gaussian(problem, by_name):
    truth = problem.truth(4000)
    scores = by_name(MAPEstimate().score(problem.exact(truth, 100), truth))
    ratio = problem.covariance.diagonal() / problem.sd**2  # the mode is the mean: its error is the posterior sd
    for k, name in enumerate("abc"):
        score = scores[f"map_error_density/{name}"]
        assert score.value == pytest.approx(math.sqrt(float(ratio[k])), abs=4 * score.std_error + 0.005)
        assert score.std_error == pytest.approx(math.sqrt(float(ratio[k])) / math.sqrt(2 * MEASUREMENTS), rel=0.15)
    total = math.sqrt(float(ratio.mean()))
    assert scores["map_error_density"].value == pytest.approx(
        total, abs=4 * scores["map_error_density"].std_error + 0.005
    )
    assert 1.0 < scores["map_error"].value / total < 1.08  # mean shift adds its own noise
    for score in scores.values():
        assert len(score.per_measurement) == MEASUREMENTS < len(truth.theta)
        assert math.sqrt(float(score.per_measurement.mean())) == pytest.approx(score.value)


def test_draws_that_came_again_count_once():
    """In 13 dimensions copies outweigh the rest of a kernel density: the estimate would be the most frequent draw."""
    atoms = torch.randn(300, 40, 13)
    again = atoms.gather(0, torch.randint(300, (1000, 40, 1)).expand(-1, -1, 13))
    errors = [map_estimate(Draws(draws)).square().mean().sqrt() for draws in (atoms, again)]
    assert errors[1] < 1.1 * errors[0] < 0.8


def test_polished_mode_is_that_of_the_density(problem):
    truth = problem.truth(200)
    found = map_estimate_density(problem.exact(truth, 50))
    assert ((found - truth.y @ problem.gain.T).abs() / problem.sd < 1e-3).all()


def test_heavier_of_two_modes_is_found():
    heavy = (torch.rand(500, 100, 1) < 0.7).float() * 6 - 3
    draws = Draws(heavy + 0.5 * torch.randn(500, 100, 1))
    assert ((map_estimate(draws) - 3).abs() < 0.5).all()
    mixture = MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), Normal(torch.tensor([-3.0, 3.0]), 0.5))
    polished = Draws(draws.theta, lambda theta: mixture.log_prob(theta[..., 0]))
    assert ((map_estimate_density(polished) - 3).abs() < 1e-2).all()


def test_polishing_leaves_whole_numbers_alone():
    """Of the mass of k and a normal around k: the mode has the likeliest k of the draws, and the other number at k."""

    def density(theta: torch.Tensor) -> torch.Tensor:
        whole, other = theta.unbind(-1)
        mass = torch.distributions.Poisson(4.0, validate_args=False).log_prob(whole)
        return torch.where(whole == whole.round(), mass + Normal(whole, 0.5).log_prob(other), -torch.inf)

    whole = torch.poisson(torch.full((200, 30), 4.0))
    found = map_estimate_density(Draws(torch.stack([whole, whole + 0.5 * torch.randn(200, 30)], -1), density))
    assert ((found[:, 0] == 3) | (found[:, 0] == 4)).all()  # equally likely
    assert torch.allclose(found[:, 1], found[:, 0], atol=1e-3)


def test_polishing_stays_where_the_density_is():
    def density(theta: torch.Tensor) -> torch.Tensor:  # grows towards the edge at 1, beyond which there is none
        inside = (theta[..., 0] > 0) & (theta[..., 0] < 1)
        return torch.where(inside, 5 * theta[..., 0], -torch.inf)

    draws = torch.rand(50, 20, 1)
    found = map_estimate_density(Draws(draws, density))
    assert (found < 1).all()
    assert (found >= draws.max(0).values).all()
    with pytest.raises(ValueError, match="no finite density to any of 50 of its own draws for 20 measurements"):
        map_estimate_density(Draws(draws + 7, density))
    with pytest.raises(ValueError, match="no density; use map_estimate"):
        map_estimate_density(Draws(draws))


def test_estimate_follows_an_affine_change_of_units(problem):
    draws = problem.draws(problem.truth(30).y, 80)
    matrix, shift = torch.tensor([[2.0, 0.0, 0.0], [0.3, 0.01, 0.0], [0.0, 0.1, 50.0]]), torch.tensor([1.0, -2.0, 30.0])
    expected = map_estimate(Draws(draws)) @ matrix.T + shift
    found = map_estimate(Draws(draws @ matrix.T + shift))
    assert (((found - expected) / expected.std(0)).abs() < 0.02).all()


def test_whole_numbers_stay_whole_and_constants_stay():
    draws = torch.cat([torch.poisson(torch.full((200, 30, 1), 4.0)), torch.randn(200, 30, 1)], -1)
    draws = torch.cat([draws, torch.full((200, 30, 1), 0.25)], -1)
    found = map_estimate(Draws(draws))
    assert torch.equal(found[:, 0], found[:, 0].round())
    assert ((found[:, 0] >= 1) & (found[:, 0] <= 7)).all()
    assert (found[:, 2] == 0.25).all()
    dependent = torch.randn(40, 5, 1).expand(-1, -1, 3).contiguous()  # of rank 1
    assert torch.isfinite(map_estimate(Draws(dependent))).all()


def test_estimate_is_computed_once_and_for_any_order(problem):
    truth = problem.truth(50)
    draws = problem.exact(truth, 60)
    first = map_estimate(draws)
    assert map_estimate(draws) is first is draws.cache["map"]
    order = torch.randperm(50)
    assert torch.allclose(map_estimate(Draws(draws.theta[:, order])), first[order], atol=1e-3)


def test_wide_and_shifted_draws_are_caught(problem, by_name):
    truth = problem.truth(1000)
    for scale, shift, sign in ((0.5, 0.0, 1), (2.0, 0.0, -1), (1.0, 0.5, 1)):
        scores = by_name(MAPEstimate().score(Draws(problem.draws(truth.y, 100, scale, shift)), truth))
        for metric in ("map_error", "map_error/b"):
            score = scores[metric]
            assert sign * (score.value - (score.null_high if sign > 0 else score.null_low)) > 0


def test_a_flat_density_has_its_mode_anywhere_inside():
    prior = torch.distributions.Independent(torch.distributions.Uniform(torch.zeros(2), torch.ones(2)), 1)
    draws = Draws(torch.rand(50, 7, 2), lambda theta: prior.log_prob(theta))
    mode = map_estimate_density(draws)
    assert ((mode >= 0) & (mode <= 1)).all()

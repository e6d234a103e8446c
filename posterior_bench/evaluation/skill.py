"""Skill: what the draws know beyond the prior, by proper scores.

Energy score ES = E|theta - theta*| - E|theta - theta'| / 2 and, for one parameter, the CRPS (Gneiting & Raftery 2007,
JASA 102:359), in their fair form (Ferro 2014, QJRMS 140:1917): the second mean is over pairs of different draws, so
that neither depends on n in expectation; a draw that came twice is one draw. skill = 1 - mean ES / mean ES_prior.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..contracts import Metric
from ..records import Draws, Score, Truth
from .arithmetic import absolute_differences, chunks, pair_sum, sort, squared_distances
from .inputs import check, multiplicities, names
from .nulls import PSEUDO_TRUTHS, mean_band, ratio_band, some_rows, standard_error

ENERGY_DRAWS = 500
"""Draws of a measurement that its energy score is computed from: the number of pairs is the cost, and the fair form has
the same expectation for any number."""

PRIOR_DRAWS = 2000
"""Draws of the prior that its own score is computed from, the same for every method of a task."""


def energy_scores(draws: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Fair energy score of each measurement, and of each draw as a pseudo-truth against the others.

    Args:
        draws: (n, T, D), n >= 3, in units that make the parameters comparable.
        theta: (T, D).

    Returns:
        (T,) and (n, T).
    """
    n, total, _ = draws.shape
    scores, pseudo = draws.new_empty(total), draws.new_empty(n, total)
    others, distinct, rest = _pairs(draws)
    for part in chunks(total, n * n):
        points = draws[:, part].transpose(0, 1)
        centre = points.mean(1, keepdim=True)
        points = points - centre
        distances = squared_distances(points, points).sqrt_()
        distances.diagonal(dim1=1, dim2=2).zero_()  # rounding leaves a little there
        rows = distances.sum(-1)
        pairs = rows.sum(-1)
        to_truth = (points - (theta[part].unsqueeze(1) - centre)).norm(dim=-1).mean(1)
        scores[part] = to_truth - pairs / (2 * distinct[part])
        pseudo[:, part] = rows.T / others[:, part] - (pairs - 2 * rows.T) / (2 * rest[:, part])
    return scores, pseudo


def _pairs(draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of pairs of different draws: with each draw (n, T), in all (T,), and in all without each draw (n, T).

    Draws that are equal are one draw that came again, as from importance sampling: a pair of them is no pair of
    independent draws. Without repetitions the numbers are n - 1, n (n - 1) and (n - 1) (n - 2).
    """
    others = len(draws) - multiplicities(draws)
    distinct = others.sum(0)
    return others.clamp(min=1), distinct.clamp(min=1), (distinct - 2 * others).clamp(min=1)


def crps(draws: Tensor, theta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Fair CRPS of each measurement and parameter, and of the draws ``rows`` as pseudo-truths against the others.

    Args:
        draws: (n, T, D), n >= 3.
        theta: (T, D).
        rows: (m,), indices of draws.

    Returns:
        (T, D) and (m, T, D).
    """
    n = len(draws)
    scores, pseudo = torch.empty_like(theta), draws.new_empty(len(rows), *theta.shape)
    others, distinct, rest = _pairs(draws)
    for part in chunks(len(theta), draws[:, 0].numel()):
        values = draws[:, part].permute(1, 2, 0).contiguous()
        centre = values.mean(-1, keepdim=True)
        values = values - centre
        ordered = sort(values)
        pairs = pair_sum(ordered)
        to_truth = absolute_differences(ordered, theta[part].unsqueeze(-1) - centre).squeeze(-1)
        scores[part] = to_truth / n - pairs / (2 * distinct[part, None])
        to_row = absolute_differences(ordered, values[..., rows]).permute(2, 0, 1)
        pseudo[:, part] = to_row / others[rows, part, None] - (pairs - 2 * to_row) / (2 * rest[rows, part, None])
    return scores, pseudo


class PriorScores:
    """Scores of the prior itself at any parameters, from its draws (P, D)."""

    def __init__(self, prior_draws: Tensor) -> None:
        self.centre = prior_draws.mean(0)
        self.points = prior_draws - self.centre
        self.ordered = sort(self.points.T.contiguous())
        count = len(prior_draws)
        square = squared_distances(self.points[None], self.points[None])[0].sqrt_()
        square.diagonal().zero_()
        self.spread = float(square.double().sum()) / (2 * count * (count - 1))
        self.spreads = pair_sum(self.ordered) / (2 * count * (count - 1))

    def energy(self, theta: Tensor) -> Tensor:
        """Energy score (N,) of the prior at theta (N, D)."""
        found = theta.new_empty(len(theta))
        for part in chunks(len(theta), len(self.points)):
            squared = squared_distances((theta[part] - self.centre)[None], self.points[None])
            found[part] = squared.sqrt_().mean(-1)[0]
        return found - self.spread

    def crps(self, theta: Tensor) -> Tensor:
        """CRPS (N, D) of the prior's marginals at theta (N, D)."""
        values = (theta - self.centre).T.contiguous()
        return (absolute_differences(self.ordered, values) / len(self.points)).T - self.spreads


def _skill(metric: str, scores: Tensor, prior: Tensor, band: tuple[float, float]) -> Score:
    """1 - mean(scores) / mean(prior), both (T,), as a score whose measurements average to it."""
    scale = prior.double().mean()
    ratio = scores.double().mean() / scale
    return Score(
        metric,
        float(1 - ratio),
        std_error=standard_error((scores.double() - ratio * prior.double()) / scale),  # the ratio's delta method
        null_low=band[0],
        null_high=band[1],
        per_measurement=1 - scores.double() / scale,
    )


class Skill(Metric):
    """Energy score in units of the prior's sd, and the skill against the prior.

    - ``energy_score``: mean over the test set; lower is better; units of prior sd in D dimensions.
    - ``energy_skill``: 1 - mean ES / mean ES_prior on the same test set: 0 for the prior, 1 for the truth itself;
      ``per_measurement`` is 1 - ES_j / mean ES_prior.
    - ``crps_skill/<p>``: the same for each parameter alone.
    - ``crps/<p>``: mean CRPS of each parameter, in its own unit; lower is better.

    A null band is what these draws would score were the truth one of them. It says whether a method knows what it
    claims to know: an over-confident one scores below its own band.
    """

    name = "energy_score"
    version = 2

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores, each with ``per_measurement`` (T,)."""
        check(draws, truth)
        scale = truth.prior_sd
        theta, star = draws.theta / scale, truth.theta / scale
        prior = PriorScores(truth.prior_draws[:PRIOR_DRAWS] / scale)
        some = some_rows(len(theta), ENERGY_DRAWS, theta.device)
        rows = some[:PSEUDO_TRUTHS]
        chosen = theta[rows]  # (m, T, D)
        scores, pseudo = energy_scores(theta[some], star)
        low, high = mean_band(pseudo.mean(0), pseudo.var(0), len(pseudo))
        yield Score(
            "energy_score", float(scores.double().mean()), standard_error(scores), low, high, per_measurement=scores
        )
        band = ratio_band(pseudo[: len(rows)], prior.energy(chosen.flatten(0, 1)).view(chosen.shape[:2]))
        yield _skill("energy_skill", scores, prior.energy(star), band)
        marginal, pseudo = crps(theta, star, rows)
        of_prior, pseudo_prior = prior.crps(star), prior.crps(chosen.flatten(0, 1)).view(chosen.shape)
        for k, name in enumerate(names(truth)):
            band = ratio_band(pseudo[..., k], pseudo_prior[..., k])
            yield _skill(f"crps_skill/{name}", marginal[:, k], of_prior[:, k], band)
            own, null = scale[k] * marginal[:, k], scale[k] * pseudo[..., k]
            low, high = mean_band(null.mean(0), null.var(0), len(rows))
            error = standard_error(own)
            yield Score(f"crps/{name}", float(own.double().mean()), error, low, high, per_measurement=own)

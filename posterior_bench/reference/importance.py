"""Route one: self-normalised importance sampling, Z = E_q[w], w = p(r) p(y | r) / q(r).

    q = a prior + b flow(. | y) + (1 - a - b) mixture(.; y),   a = 0.1, b = 0.2

The prior's share is defensive (Hesterberg 1995, Technometrics 37:185): w <= p(y | r) / a. The flow is amortised; where
it serves a measurement badly, mixtures are fitted to weighted draws round by round (population Monte Carlo, Cappé et
al. 2008, arXiv:0710.4242), with weights tempered while few of them count (Koblents & Míguez 2015, Stat. Comput.
25:407). Only draws of the last proposal, which no longer changes, enter the result; of each part of q a fixed number is
drawn (He & Owen 2014, arXiv:1411.3954). Draws are taken from the pool by systematic resampling, each at most once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .flow import Flow
from .mixture import StudentMixture, fit_mixture
from .settings import Settings
from .target import Target
from .weights import effective_size, gather, largest_exponent, log_mean, log_mean_error, pareto_k, systematic

FACTOR = 10.0
"""ESS for each draw that is kept: repeated and neighbouring draws are then rare."""

RELIABLE_K = 0.7
"""Shape of the weights' tail below which their mean is reliable (Vehtari et al., arXiv:1507.02646)."""

MOST_CORRECTIONS = 4
"""Times as many draws as a recipe says are corrected at most."""

SPARE = 2
"""Times as many different draws are asked of a surrogate's posterior as are kept: corrections take some of them."""

FIT_POINTS = 8000
"""Draws that a mixture is fitted to, resampled by their weights."""

FIT_SIZE = 20
"""ESS for each component of a mixture to which weights are tempered before a fit."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where draws for importance sampling come from, for the measurements of ``target``.

    Args:
        target: what is to be reached.
        flow: or ``None``, without one.
        mixture: or ``None``, before the first refinement.
        prior_share, flow_share: of the draws; the flow has what the prior leaves until there is a mixture.
    """

    target: Target
    flow: Flow | None
    mixture: StudentMixture | None
    prior_share: float
    flow_share: float

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of prior, flow and mixture; they add up to 1."""
        rest = 1 - self.prior_share
        if self.mixture is None:
            return (1.0, 0.0, 0.0) if self.flow is None else (self.prior_share, rest, 0.0)
        flow = 0.0 if self.flow is None else self.flow_share
        return self.prior_share, flow, rest - flow

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Mapped draws (n, B, D), in random order, and the logarithms of their weights (n, B)."""
        prior, flow, _ = self.shares
        counts = [max(1, round(prior * n)), round(flow * n)]
        counts.append(n - sum(counts))
        parts = [self.target.draw_prior(counts[0])]
        if self.flow is not None and counts[1] > 0:
            parts.append(self.flow.sample(self.target.y, counts[1]))
        if self.mixture is not None and counts[2] > 0:
            parts.append(self.mixture.sample(counts[2]))
        real = torch.cat(parts)[torch.randperm(n, device=parts[0].device)]
        return real, self.log_weight(real, tuple(count / n for count in counts))

    def log_weight(self, real: Tensor, shares: Sequence[float] | None = None) -> Tensor:
        """log of p(r) p(y | r) / q(r), (n, B), at real (n, B, D), for the shares that were drawn."""
        prior, flow, mixture = self.shares if shares is None else shares
        log_prior = self.target.log_prior(real)
        terms = [log_prior + math.log(prior)]
        if self.flow is not None and flow > 0:
            terms.append(self.flow.log_prob(real, self.target.y) + math.log(flow))
        if self.mixture is not None and mixture > 0:
            terms.append(self.mixture.log_prob(real) + math.log(mixture))
        return log_prior + self.target.log_likelihood(real) - torch.stack(terms).logsumexp(0)

    def select(self, index: Tensor) -> Proposal:
        """The same for the measurements ``index`` (b,) alone."""
        mixture = None if self.mixture is None else self.mixture.select(index)
        return replace(self, target=self.target.select(index), mixture=mixture)


@dataclass(frozen=True, eq=False)
class ImportanceResult:
    """Draws and log Z of B measurements, and how far to trust them.

    Args:
        theta: (n, B, D), draws in their own units, in random order.
        log_evidence: (B,), log Z in nats.
        log_evidence_error: (B,), its standard error.
        effective_size: (B,), ESS of the whole pool.
        pareto_k: (B,), shape of the tail of the weights.
        proposals: (B,), size of the pool.
        refinements: (B,), rounds of refinement that the measurement took.
    """

    theta: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    effective_size: Tensor
    pareto_k: Tensor
    proposals: Tensor
    refinements: Tensor


def sample_importance(
    target: Target, flow: Flow | None, n: int, settings: Settings, start: StudentMixture | None = None
) -> ImportanceResult:
    """Draw ``n`` times from the posterior of each measurement of ``target``, from torch's global generator.

    Args:
        target: the posteriors without their constants.
        flow: a first proposal, or ``None``: the prior is it then.
        n: draws kept of each.
        settings: the recipe.
        start: mixtures to begin with instead.

    Raises:
        ArithmeticError: where no proposal for a measurement has a positive density.
    """
    proposal, rounds = refine(Proposal(target, flow, start, settings.prior_share, settings.flow_share), settings)
    return pool(proposal, n, n, settings, rounds)


def sample_corrected(target: Target, flow: Flow | None, n: int, settings: Settings) -> ImportanceResult:
    """As ``sample_importance``, for a target with a surrogate, whose draws the likelihood then corrects.

    Where the corrected draws do not suffice, more are corrected, ``MOST_CORRECTIONS`` times as many at most. The
    effective size is the smaller of both stages'; the error of log Z holds that of both.

    Raises:
        ArithmeticError: where no proposal, or none of the surrogate's draws, has a positive density.
    """
    proposal, rounds = refine(Proposal(target, flow, None, settings.prior_share, settings.flow_share), settings)
    block = settings.corrections * n
    first = pool(proposal, MOST_CORRECTIONS * block, SPARE * n, settings, rounds)
    real = target.theta_map(first.theta)
    active = torch.arange(len(target.y), device=real.device)
    columns = [real.new_empty(0) for _ in active]
    for begun in range(0, len(real), block):  # in random order: what was corrected first is a sample of its own
        some, part = real[begun : begun + block, active], target.select(active)
        log_weights = replace(part, surrogate=None).log_likelihood(some) - part.log_likelihood(some)
        for measurement, column in zip(active.tolist(), log_weights.unbind(1), strict=True):
            columns[measurement] = torch.cat([columns[measurement], column])
        short = [m for m in active.tolist() if not _corrected_enough(real[:, m], columns[m], n, settings.error)]
        active = torch.tensor(short, dtype=torch.long, device=real.device)
        if not short:
            break
    theta, table = [], []
    for measurement, column in enumerate(columns):
        weights = column[:, None]
        _require_support(weights, torch.tensor([measurement]))
        draws, merged = _distinct(first.theta[: len(column), measurement], column)
        theta.append(draws[systematic(merged[:, None], n)[torch.randperm(n, device=draws.device), 0]])
        whole = float(log_mean(weights)), float(log_mean_error(weights))
        table.append((*whole, float(effective_size(merged[:, None])), pareto_k(column)))
    log_mean_weight, error, size, k = torch.tensor(table, dtype=torch.float64).unbind(1)
    return replace(
        first,
        theta=torch.stack(theta, dim=1),
        log_evidence=first.log_evidence + log_mean_weight,
        log_evidence_error=torch.hypot(first.log_evidence_error, error),
        effective_size=torch.minimum(first.effective_size, size),
        pareto_k=torch.maximum(first.pareto_k, k),
    )


def _distinct(draws: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The different ones of the draws (N, D), and the logarithms of the weights (N,) that all copies of each have."""
    distinct, which, copies = draws.unique(dim=0, return_inverse=True, return_counts=True)
    return distinct, log_weights.new_empty(len(distinct)).index_copy(0, which, log_weights) + copies.log()


def _corrected_enough(draws: Tensor, log_weights: Tensor, n: int, error: float) -> bool:
    """Whether corrections (N,) of the first N draws give n different ones and log Z to ``error``, copies as one."""
    merged = _distinct(draws[: len(log_weights)], log_weights)[1]
    return _enough(log_weights, n, error) and _separate(merged, n)


def refine(proposal: Proposal, settings: Settings) -> tuple[Proposal, Tensor]:
    """The proposal with mixtures fitted to the draws of the one before it, and the rounds (B,) that each took.

    The first pilot has ``settings.pilot`` draws; each further one twice as many, at most ``settings.most_pilot``: small
    ones find where a posterior is, large ones find its narrow parts. Measurements of which a pilot is efficient, and
    has weights of a light tail where ``settings.pilot_k`` asks for it, drop out with the mixture that made it.
    """
    count, device = len(proposal.target.y), proposal.target.y.device
    rounds = torch.zeros(count, dtype=torch.long, device=device)
    active = torch.arange(count, device=device)
    size = settings.pilot
    for _ in range(settings.refinements):
        real, log_weights = proposal.select(active).draw(size)
        _require_support(log_weights, active)
        poor = effective_size(log_weights) < settings.efficiency * size
        if settings.pilot_k is not None:
            tails = [pareto_k(column) for column in log_weights.unbind(1)]
            poor |= torch.tensor(tails, device=poor.device) >= settings.pilot_k
        if not poor.any():
            break
        if proposal.mixture is None:
            poor = torch.ones_like(poor)  # a mixture for all or for none
        active, real, log_weights = active[poor], real[:, poor], log_weights[:, poor]
        rounds[active] += 1
        # a weight that is only large by chance must not draw a component all to itself
        tempered = _tempered(log_weights, FIT_SIZE * settings.components)
        index = systematic(tempered, min(FIT_POINTS, size))
        points = gather(real, index)
        mixture = fit_mixture(points, torch.zeros_like(points[..., 0]), settings.components)
        if proposal.mixture is not None:
            mixture = proposal.mixture.updated(active, mixture)
        proposal = replace(proposal, mixture=mixture)
        size = min(2 * size, max(settings.pilot, settings.most_pilot))
    return proposal, rounds


def pool(proposal: Proposal, n: int, distinct: int, settings: Settings, rounds: Tensor) -> ImportanceResult:
    """``n`` draws from a proposal, made until ESS, error and largest weight suffice, or the most is reached.

    Args:
        proposal: where they come from.
        n: draws that are kept.
        distinct: draws for which ESS and largest weight must suffice: of more, some may come twice.
        settings: the recipe.
        rounds: (B,), of refinement that the proposal took.
    """
    count = len(proposal.target.y)
    drawn: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(count)]
    weights: list[Tensor] = [torch.empty(0)] * count
    active = list(range(count))
    batch = min(settings.proposals, settings.most_proposals)
    while active:
        index = torch.tensor(active, device=proposal.target.y.device)
        real, log_weights = proposal.select(index).draw(batch)
        _require_support(log_weights, index)
        unfinished = []
        for column, measurement in enumerate(active):
            drawn[measurement].append((real[:, column], log_weights[:, column]))
            weights[measurement] = torch.cat([part for _, part in drawn[measurement]])
            total = len(weights[measurement])
            if not _enough(weights[measurement], distinct, settings.error) and total < settings.most_proposals:
                unfinished.append(measurement)
        if unfinished:
            total = len(weights[unfinished[0]])  # the same for all that are not done
            batch = min(total, settings.most_proposals - total)
        active = unfinished
    theta = []
    for measurement in range(count):
        chosen = systematic(weights[measurement][:, None], n)[torch.randperm(n, device=index.device), 0]
        theta.append(torch.cat([part for part, _ in drawn[measurement]])[chosen])
        drawn[measurement] = []
    table = [
        (float(log_mean(w[:, None])), float(log_mean_error(w[:, None])), float(effective_size(w[:, None])), pareto_k(w))
        for w in weights
    ]
    log_evidence, error, size, k = torch.tensor(table, dtype=torch.float64).unbind(1)
    proposals = torch.tensor([len(w) for w in weights])
    return ImportanceResult(
        proposal.target.theta(torch.stack(theta, dim=1)), log_evidence, error, size, k, proposals, rounds
    )


def _enough(log_weights: Tensor, n: int, error: float) -> bool:
    """Whether a pool (N,) gives n different draws and log Z to ``error``."""
    precise = float(log_mean_error(log_weights[:, None])) <= error
    return precise and _separate(log_weights, n) and pareto_k(log_weights) < RELIABLE_K


def _separate(log_weights: Tensor, n: int) -> bool:
    """Whether systematic resampling takes n draws by weights (N,) without repetition, of which ESS is large enough."""
    largest_share = float((log_weights.max() - log_weights.logsumexp(0)).exp())
    return float(effective_size(log_weights[:, None])) >= FACTOR * n and largest_share * n < 1


def _tempered(log_weights: Tensor, size: float) -> Tensor:
    """w^e, (n, B), with the largest e <= 1 that leaves an effective size of ``size``, or half of the positive ones."""
    positive = torch.isfinite(log_weights).sum(0).double()
    exponent = largest_exponent(log_weights, torch.minimum(torch.full_like(positive, size), positive / 2), positive**0)
    return exponent.clamp_min(1e-12) * log_weights.clamp_min(-1e30)


def _require_support(log_weights: Tensor, measurements: Tensor) -> None:
    empty = (log_weights == -torch.inf).all(0)
    if empty.any():
        first = int(measurements[empty][0])
        raise ArithmeticError(
            f"none of {len(log_weights)} proposals has a positive density for measurement {first} of this part; "
            "expected some. It may not come from this simulator; else raise pilot, or simulations and flow_steps"
        )

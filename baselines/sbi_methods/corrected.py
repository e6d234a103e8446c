"""Neural posterior estimation, corrected by the likelihood: sampling, importance, resampling.

    theta_i ~ q(theta | y),   w_i = p(theta_i) p(y | theta_i) / q(theta_i | y),   draws: theta_i with probability ~ w_i

Rubin 1988, "Using the SIR algorithm to simulate posterior distributions", Bayesian Statistics 3; with a learned
proposal Dax et al. 2023, arXiv:2210.05686. The weights do not know of leakage: outside the prior's support they are 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_bench import MethodSpec, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.priors import in_support

from .library import SbiPrior
from .posteriors import ROWS, FlowPosterior
from .training import FlowMethod

CHECKED, CHECKED_DRAWS = 20, 500
"""Simulations for which the effective sample size is kept with the fit, and proposals for each."""


class CorrectedPosterior(Posterior):
    """Draws of a flow, chosen again by weights that make them draws of the posterior.

    There is no density: that of the draws differs from the posterior's where few proposals carry the weight, and is not
    known. A draw may occur more than once.

    Args:
        proposal: the flow.
        problem: one that grants LOG_LIKELIHOOD.
        oversampling: proposals for each draw.
        history: curves of the training.
        efficiency: (k,), effective share of the proposals for some measurements, see ``effective_share``.
    """

    def __init__(
        self,
        proposal: FlowPosterior,
        problem: Problem,
        oversampling: int,
        history: Mapping[str, Tensor],
        efficiency: Tensor,
    ) -> None:
        self.proposal, self.network = proposal, proposal.network
        self.problem = problem
        self.oversampling = oversampling
        self.history = history
        self.efficiency = efficiency

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape), from ``oversampling * n`` proposals for each.

        Where no proposal has any weight, the draws are the proposals' own.
        """
        parts = []
        for part in y.split(max(1, ROWS // (n * self.oversampling))):
            theta, log_weight = self._weighted(part, n * self.oversampling)
            lost = (log_weight == -math.inf).all(0)
            chosen = torch.multinomial(log_weight.masked_fill(lost, 0.0).softmax(0).T, n, replacement=True).T
            parts.append(theta.gather(0, chosen.unsqueeze(-1).expand(-1, -1, theta.shape[-1])))
        return torch.cat(parts, dim=1)

    def effective_share(self, y: Tensor, n: int) -> Tensor:
        """Effective sample size of n proposals as a share of n, (B,): (sum w)^2 / (n sum w^2), Kong 1992; or 0."""
        log_weight = self._weighted(y, n)[1]
        share = (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp() / n
        return share.nan_to_num(0.0)

    def _weighted(self, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Proposals (n, B, D) and their log weights (n, B)."""
        prior = self.problem.prior
        theta = self.proposal.sample(y, n)
        inside = in_support(prior, theta)
        density = SbiPrior(prior)
        safe = torch.where(inside.unsqueeze(-1), theta, density.anchor.to(theta))
        repeated = y.expand(n, *y.shape).flatten(0, 1)
        with torch.no_grad():
            log_likelihood = self.problem.log_likelihood(safe.flatten(0, 1), repeated).view(n, len(y))
            log_weight = density.log_prob(safe) + log_likelihood - self.proposal.log_prob(theta, y)
        if (log_weight.isnan() | (log_weight == math.inf))[inside].any():
            raise ValueError(
                "the log likelihood is NaN or +inf for parameters inside the prior's support; expected a number or "
                "-inf: compute it in log space"
            )
        return theta, torch.where(inside, log_weight, -math.inf)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The flow's, and the effective share of proposals for some simulations."""
        return {**self.proposal.state()[0], "efficiency": self.efficiency}, {}


@dataclass(frozen=True)
class NPEImportance(FlowMethod):
    """Neural posterior estimation whose draws are weighted by the likelihood and resampled.

    The fit keeps the effective share of its proposals for some simulations: ``efficiency`` of the posterior.

    Args:
        oversampling: proposals for each draw.
    """

    oversampling: int = 10

    spec: ClassVar[MethodSpec] = MethodSpec(
        "npe_is",
        1,
        "Dax et al. 2023, arXiv:2210.05686",
        needs=frozenset({Need.LOG_LIKELIHOOD}),
        space="native",
        label="NPE, corrected",
    )
    quick: ClassVar[Mapping[str, object]] = {
        "hidden_features": 20,
        "transforms": 2,
        "bins": 4,
        "learning_rate": 5e-3,
        "max_epochs": 8,
    }

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> CorrectedPosterior:
        """Train the flow on the valid simulations, and see how well its draws cover some of their posteriors."""
        network, columns, history = self._fitted(simulations, problem, progress)
        flow = FlowPosterior(network, columns, problem.prior, history)
        some = simulations.only_valid().y[:CHECKED]
        share = CorrectedPosterior(flow, problem, self.oversampling, {}, some).effective_share(some, CHECKED_DRAWS)
        return CorrectedPosterior(flow, problem, self.oversampling, history, share)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> CorrectedPosterior:
        """The posterior with these weights."""
        network, columns = self._restored(tensors, problem)
        flow = FlowPosterior(network, columns, problem.prior, {})
        return CorrectedPosterior(flow, problem, self.oversampling, {}, tensors["efficiency"])

"""Posteriors around the networks of sbi: draws and densities, for many measurements at once where that can be."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from posterior_bench import HasLogProb, Posterior
from posterior_bench.priors import in_support
from posterior_bench.runtime import scope, seed_for

from .library import SbiPrior, quiet

ROWS = 4000
"""Pairs of draw and measurement that pass a network at a time."""

REDRAWS = 200
"""Times that a draw outside the prior's support is made again, where asked for: 1 in 1e9 is left at 10 % inside."""

ACCEPTANCE_DRAWS = 2000
"""Draws a measurement that tell the share of a density inside the support: to 2 % of itself where it is a half."""

ATTEMPTS = 5
"""Of a draw that a flow's own checks refuse, before the error is let through."""


class NetworkPosterior(Posterior):
    """What a network of sbi knows.

    Args:
        network: trained.
        columns: (K,), the numbers of a flattened measurement that it sees.
        prior: p(theta).
        history: curves of the training.
    """

    def __init__(self, network: nn.Module, columns: Tensor, prior: Distribution, history: Mapping[str, Tensor]) -> None:
        self.network: Any = network
        self.columns = columns
        self.prior = prior
        self.history = history

    def _seen(self, y: Tensor) -> Tensor:
        return y.flatten(1)[:, self.columns].float()

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Weights, sbi's standardisation among them, and the columns of y; the sizes are the method's."""
        weights = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return {"columns": self.columns, **weights}, {}


class DirectPosterior(NetworkPosterior):
    """Independent draws, each made by the network.

    Args:
        network, columns, prior, history: see ``NetworkPosterior``.
        reject: whether draws outside the prior's support are made again, up to ``REDRAWS`` times. What is outside
            then is left there, to be counted.
    """

    def __init__(
        self,
        network: nn.Module,
        columns: Tensor,
        prior: Distribution,
        history: Mapping[str, Tensor],
        reject: bool = False,
    ) -> None:
        super().__init__(network, columns, prior, history)
        self.reject = reject

    @abstractmethod
    def _draw(self, seen: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) as the network makes them, for the columns (B, K) of measurements."""

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        parts = []
        with torch.no_grad(), quiet():
            for part in self._seen(y).split(max(1, ROWS // n)):
                draws = torch.cat([self._draw(part, min(ROWS, n - start)) for start in range(0, n, ROWS)])
                parts.append(self._redrawn(draws, part) if self.reject else draws)
        return torch.cat(parts, dim=1)

    def _redrawn(self, draws: Tensor, seen: Tensor) -> Tensor:
        """``draws`` (n, B, D), those outside the support replaced by others of the same measurement."""
        for _ in range(REDRAWS):
            outside = ~in_support(self.prior, draws)
            behind = outside.any(0).nonzero()[:, 0]
            if len(behind) == 0:
                break
            outside = outside[:, behind]
            fresh = self._draw(seen[behind], int(outside.sum(0).max()))
            row, column = outside.nonzero(as_tuple=True)
            draws[row, behind[column]] = fresh[(outside.cumsum(0) - 1)[row, column], column]
        return draws


class DensityPosterior(DirectPosterior, HasLogProb):
    """Draws whose density the network knows too.

    The density is that of the draws. Without rejection it is the network's own, whose integral over the support may
    fall short of 1; with rejection it is divided by its share inside, estimated from draws under a seed of their own.
    """

    @abstractmethod
    def _log_density(self, theta: Tensor, seen: Tensor) -> Tensor:
        """The network's own log density (n, B) at theta (n, B, D)."""

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and y (B, *y_shape)."""
        seen, count = self._seen(y), max(1, ROWS // len(theta))
        columns = []
        with quiet():
            for at, part in zip(theta.split(count, dim=1), seen.split(count), strict=True):
                columns.append(torch.cat([self._log_density(rows, part) for rows in at.split(ROWS)]))
            density = torch.cat(columns, dim=1)
            if not self.reject:
                return density
            inside = in_support(self.prior, theta.detach())
            return torch.where(inside, density - self._log_share(seen), -math.inf)

    def _log_share(self, seen: Tensor) -> Tensor:
        """Log of the share of the network's draws that lie inside the support, (B,); kept for the next call."""
        kept: tuple[Tensor, Tensor] | None = getattr(self, "_share", None)
        if kept is None or not torch.equal(kept[0], seen):
            seed, threads = seed_for("share inside the support"), torch.get_num_threads()
            with torch.no_grad(), scope(seed, seen.device, seen.dtype, threads), quiet():
                draws = (self._draw(row.unsqueeze(0), ACCEPTANCE_DRAWS) for row in seen)
                counts = [in_support(self.prior, theta).sum(0) for theta in draws]
            kept = seen, (torch.cat(counts).clamp(min=1) / ACCEPTANCE_DRAWS).log()
            self._share = kept
        return kept[1]


class FlowPosterior(DensityPosterior):
    """Draws and density of a normalising flow or a mixture."""

    def _draw(self, seen: Tensor, n: int) -> Tensor:
        for _ in range(ATTEMPTS - 1):
            try:
                return self.network.sample((n,), seen)
            except AssertionError:  # a spline's discriminant below zero by rounding, which other noise does not repeat
                continue
        return self.network.sample((n,), seen)

    def _log_density(self, theta: Tensor, seen: Tensor) -> Tensor:
        return self.network.log_prob(theta, seen)


class ODEPosterior(DensityPosterior):
    """Draws and density of a vector field: the noise is carried to theta by its ordinary differential equation."""

    def _draw(self, seen: Tensor, n: int) -> Tensor:
        return self._carried(seen).sample((n,))

    def _log_density(self, theta: Tensor, seen: Tensor) -> Tensor:
        return self._carried(seen).log_prob(theta)

    def _carried(self, seen: Tensor) -> Distribution:
        """The noise, carried to theta: batch_shape (B,). sbi's tolerances, 1e-6 and 1e-5, and the exact trace."""
        from sbi.samplers.ode_solvers import build_neural_ode

        field = self.network
        base = field.mean_base, field.std_base, field.condition_shape
        return build_neural_ode(field.ode_fn, field.net, *base, t_min=field.t_min, t_max=field.t_max)(seen)


class DiffusionPosterior(DirectPosterior):
    """Draws of a score network by the reversed diffusion, in ``steps`` steps of Euler and Maruyama; no density."""

    def __init__(
        self,
        network: nn.Module,
        columns: Tensor,
        prior: Distribution,
        history: Mapping[str, Tensor],
        reject: bool,
        steps: int,
    ) -> None:
        super().__init__(network, columns, prior, history, reject)
        self.steps = steps

    def _draw(self, seen: Tensor, n: int) -> Tensor:
        from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior

        posterior = VectorFieldPosterior(self.network, SbiPrior(self.prior), device=str(seen.device), sample_with="sde")
        return posterior.sample_batched(
            torch.Size([n]),
            seen,
            steps=self.steps,
            max_sampling_batch_size=n,
            show_progress_bars=False,
            reject_outside_prior=False,
        )


class ChainPosterior(NetworkPosterior):
    """Draws of prior times likelihood, or ratio, by sbi's vectorised slice sampler, one measurement after another.

    Args:
        network, columns, prior, history: see ``NetworkPosterior``.
        kind: what the network models, ``"likelihood"`` or ``"ratio"``.
        chains: Markov chains a measurement, whose draws are taken together; neighbours in a chain are dependent.
        warmup: steps of each that are dropped.
        thin: of the steps that follow, one in so many is kept.
        candidates: draws of the prior from which the start of each chain is chosen.
    """

    def __init__(
        self,
        network: nn.Module,
        columns: Tensor,
        prior: Distribution,
        history: Mapping[str, Tensor],
        kind: str,
        chains: int,
        warmup: int,
        thin: int,
        candidates: int,
    ) -> None:
        super().__init__(network, columns, prior, history)
        self.kind, self.chains, self.warmup, self.thin, self.candidates = kind, chains, warmup, thin, candidates

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape), from torch's and numpy's global generators."""
        with torch.no_grad(), quiet():
            sampler = self._sampler()
            draws = [sampler.sample((n,), x=row.unsqueeze(0), show_progress_bars=False) for row in self._seen(y)]
        return torch.stack(draws, dim=1)

    def _sampler(self) -> Any:
        from sbi.inference.posteriors.mcmc_posterior import MCMCPosterior
        from sbi.inference.potentials import likelihood_estimator_based_potential, ratio_estimator_based_potential

        make = likelihood_estimator_based_potential if self.kind == "likelihood" else ratio_estimator_based_potential
        prior = SbiPrior(self.prior)
        potential, transform = make(self.network, prior, None)
        return MCMCPosterior(
            potential,
            proposal=prior,
            theta_transform=transform,
            method="slice_np_vectorized",
            num_chains=self.chains,
            warmup_steps=self.warmup,
            thin=self.thin,
            init_strategy="resample",
            init_strategy_parameters={"num_candidate_samples": self.candidates},
        )

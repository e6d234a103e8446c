"""Networks that predict mean and variance of every parameter: one with dropout left on, and an ensemble of plain ones.

    q(theta | y) = 1/M sum_m N(real; mu_m(y), diag sigma_m^2(y)) |d real / d theta|,   real = the mapped theta
    loss of one network = E[-log N(real; mu(y), diag sigma^2(y))]

``DropoutNetwork``: m is a mask of dropout; Gal & Ghahramani 2016 (arXiv:1506.02142), with the predicted ("aleatoric")
variance of Kendall & Gal 2017 (arXiv:1703.04977). ``DeepEnsemble``: m is a network trained from an initialisation and
in an order of its own; Lakshminarayanan, Pritzel & Blundell 2017 (arXiv:1612.01474), without the adversarial examples,
which are optional there. Both variances are diagonal, as published: correlations between parameters arise only from
how the components differ.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, softplus

from posterior_bench import HasLogProb, MethodSpec, Posterior, Problem, Progress
from posterior_bench.priors import log_density_in_support
from posterior_bench.training import Stage, Standardise, ThetaMap, TrainedMethod, train

ROWS = 4096
"""Passes of a network made at a time when drawing, and a tenth of the draws made at a time."""

LOWEST, HIGHEST = 2 * math.log(1e-3), 2 * math.log(10.0)
"""Soft bounds of a log variance of mapped theta, whose prior has sd 1: below a thousandth of it, a network trained on
up to some 100,000 simulations does not predict; ten times it leaves any spread of the simulations reachable."""


class GaussianNetwork(nn.Module):
    """A fully connected network from standardised y to mean and log variance of mapped theta.

    Args:
        y_dim: numbers in a measurement.
        theta_dim: parameters.
        width, depth: of the hidden layers, with ReLU.
        rate: fraction of hidden activations that dropout zeroes in every pass, in training and after it.
    """

    def __init__(self, y_dim: int, theta_dim: int, width: int, depth: int, rate: float) -> None:
        super().__init__()
        sizes = [y_dim, *[width] * depth]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], 2 * theta_dim)
        self.rate = rate

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (N, D), for standardised measurements (N, M), with a fresh mask a row."""
        for layer in self.hidden:
            y = layer(y).relu_()
            if self.rate > 0:
                # also in eval mode: the weights that are kept are those whose masked passes fit held-out pairs best
                y = dropout(y, self.rate, training=True)
        mean, log_variance = self.head(y).chunk(2, dim=1)
        # bounded as in Chua et al. 2018 (arXiv:1805.12114), appendix A.1: gradients never vanish altogether
        log_variance = HIGHEST - softplus(HIGHEST - log_variance)
        return mean, LOWEST + softplus(log_variance - LOWEST)


def log_normal(real: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(real; mean, diag exp(log_variance)), (...,), for arguments that broadcast to (..., D), in nats."""
    squared = (real - mean).square() * (-log_variance).exp()
    return -0.5 * (squared + log_variance + math.log(2 * math.pi)).sum(-1)


class GaussianModel(nn.Module):
    """Networks with the maps around them: theta and y in their own units outside."""

    def __init__(self, theta_map: ThetaMap, y_map: Standardise, networks: list[GaussianNetwork]) -> None:
        super().__init__()
        self.theta_map, self.y_map, self.networks = theta_map, y_map, nn.ModuleList(networks)


class _GaussianPosterior(Posterior):
    """Draws from a mixture of Gaussians of mapped theta."""

    def __init__(self, model: GaussianModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        standard = self.model.y_map(y)
        draws = standard.new_empty(n, len(y), len(self.model.theta_map.loc))
        count = max(1, ROWS // max(self._passes(n), n // 10))
        with torch.no_grad():
            for start in range(0, len(y), count):
                mean, log_variance = self._components(standard[start : start + count], n)
                real = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
                draws[:, start : start + count] = self.model.theta_map.inverse(real)
        return draws

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}

    @abstractmethod
    def _passes(self, n: int) -> int:
        """Passes a measurement that n draws need."""

    @abstractmethod
    def _components(self, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (n, B, D), of the Gaussian behind each draw, for standardised y (B, M)."""


class DropoutPosterior(_GaussianPosterior):
    """Draw i of a measurement is Gaussian noise on pass i mod ``passes``; its masks are redrawn at every call.

    Each draw follows the distribution over all masks; those that share a pass are independent only given its mask.
    """

    def __init__(self, model: GaussianModel, passes: int, history: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(model, history)
        self.passes = passes

    def _passes(self, n: int) -> int:
        return min(self.passes, n)

    def _components(self, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        passes = self._passes(n)
        index = torch.arange(n, device=y.device) % passes
        mean, log_variance = self.model.networks[0](y.repeat(passes, 1))
        return mean.view(passes, len(y), -1)[index], log_variance.view(passes, len(y), -1)[index]


class EnsemblePosterior(_GaussianPosterior, HasLogProb):
    """Independent draws from the equal mixture of the members' Gaussians."""

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and y (B, *y_shape); -inf outside the support."""
        theta_map, standard = self.model.theta_map, self.model.y_map(y)

        def density(at: Tensor) -> Tensor:
            real = theta_map(at)
            each = torch.stack([log_normal(real, *network(standard)) for network in self.model.networks])
            return each.logsumexp(0) - math.log(len(each)) + theta_map.log_abs_det(at)

        anchor = theta_map.inverse(torch.zeros_like(theta[0, 0]))
        return log_density_in_support(theta_map.prior, theta, anchor, density)

    def _passes(self, n: int) -> int:
        return len(self.model.networks)

    def _components(self, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        means, log_variances = zip(*(network(y) for network in self.model.networks), strict=True)
        member = torch.randint(len(means), (n, len(y)), device=y.device)
        row = torch.arange(len(y), device=y.device)
        return torch.stack(means)[member, row], torch.stack(log_variances)[member, row]


@dataclass(frozen=True)
class _GaussianNetworks(TrainedMethod[GaussianModel]):
    """What both methods have in common: the architecture and the training.

    Args:
        width, depth: of the hidden layers of one network. Settings of the training are those of one network, too.
    """

    width: int = 340
    depth: int = 3

    quick: ClassVar[Mapping[str, object]] = {"width": 48, "depth": 2, "steps": 300, "batch_size": 200}

    def _model(self, theta_map: ThetaMap, y_map: Standardise, problem: Problem) -> GaussianModel:
        sizes = len(y_map.loc), len(theta_map.loc), self.width, self.depth, self._rate()
        return GaussianModel(theta_map, y_map, [GaussianNetwork(*sizes) for _ in range(self._count())])

    def _train(self, model: GaussianModel, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        """One network after the other, each with its own held-out pairs."""
        curves: list[dict[str, Tensor]] = []
        for i, network in enumerate(model.networks):

            def losses(
                batch: tuple[Tensor, ...], fraction: float, network: nn.Module = network
            ) -> Iterator[tuple[str, Tensor]]:
                yield "negative log-likelihood", -log_normal(batch[0], *network(batch[1])).mean()

            stage = Stage(progress, i, len(model.networks), f"member {i + 1} of {len(model.networks)}, ")
            curves.append(train(network, losses, data, self._settings(), stage))
            if i > 0:
                curves[-1]["step"] += curves[-2]["step"][-1]
        model.eval()
        return {name: torch.cat([c[name] for c in curves]) for name in curves[0]}

    @abstractmethod
    def _rate(self) -> float:
        """The rate of dropout."""

    @abstractmethod
    def _count(self) -> int:
        """The number of networks."""


@dataclass(frozen=True)
class DropoutNetwork(_GaussianNetworks):
    """One network, trained and evaluated with dropout after every hidden layer.

    Args:
        rate: fraction of the hidden activations that is dropped.
        passes: passes with masks of their own that the draws of a measurement share evenly, so that n draws cost
            ``passes`` passes.

    Raises:
        ValueError: where a setting is impossible.
    """

    rate: float = 0.05
    passes: int = 100

    spec: ClassVar[MethodSpec] = MethodSpec(
        "dropout_nn",
        1,
        "Kendall & Gal 2017, arXiv:1703.04977; Gal & Ghahramani 2016, arXiv:1506.02142",
        label="NN + dropout",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate is {self.rate}; expected 0 <= rate < 1: it is the fraction that is dropped")
        if self.passes < 1:
            raise ValueError(f"passes is {self.passes}; expected at least 1")

    def _rate(self) -> float:
        return self.rate

    def _count(self) -> int:
        return 1

    def _posterior(self, model: GaussianModel, history: Mapping[str, Tensor]) -> Posterior:
        return DropoutPosterior(model, self.passes, history)


@dataclass(frozen=True)
class DeepEnsemble(_GaussianNetworks):
    """Networks from initialisations of their own, each with its own order of batches and its own held-out pairs.

    An ensemble holds M times the numbers of a member: by default five times about 50,000, for 8 measured numbers and 13
    parameters. Five of 250,000 trained for about as long gave the same held-out likelihood on ``tissue`` (a fit each).

    Args:
        members: M, the number of networks.

    Raises:
        ValueError: where a setting is impossible.
    """

    members: int = 5
    width: int = 150
    steps: int = 3000

    spec: ClassVar[MethodSpec] = MethodSpec(
        "deep_ensemble",
        1,
        "Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474",
        label="Deep ensemble",
    )
    quick: ClassVar[Mapping[str, object]] = {"members": 2, "width": 48, "depth": 2, "steps": 200, "batch_size": 200}

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ValueError(f"members is {self.members}; expected at least 1")

    def _rate(self) -> float:
        return 0.0

    def _count(self) -> int:
        return self.members

    def _posterior(self, model: GaussianModel, history: Mapping[str, Tensor]) -> Posterior:
        return EnsemblePosterior(model, history)

"""Conditional variational autoencoders, with and without an inverse autoregressive flow in the approximate posterior.

    ELBO(theta, y) = E_q(z | theta, y)[log p(theta | z, y)] - KL(q(z | theta, y) || p(z | y)) <= log p(theta | y)

Sohn, Lee & Yan 2015, NeurIPS 28; Kingma & Welling 2014, arXiv:1312.6114; the flow: Kingma et al. 2016,
arXiv:1606.04934. A draw is z ~ p(z | y), then theta ~ p(theta | z, y), its noise included. The decoder gives a mean and
a standard deviation of each parameter for each (z, y): with one sd for all measurements it could not say that some
inform theta better than others except by bending z.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
from pyro.distributions.transforms import ConditionalAffineAutoregressive
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Tensor, nn
from torch.nn import functional

from posterior_bench import MethodSpec, Posterior, Problem, Progress
from posterior_bench.training import Standardise, ThetaMap, TrainedMethod, train

ROWS = 4_000
"""Draws made at a time: few enough that the decoder's activations stay in cache."""

LATENT_FLOOR = 1e-3
"""Smallest sd of z in q and in a learned prior."""


class Network(nn.Sequential):
    """Fully connected layers with SiLU between them: ``depth`` hidden ones of ``width``."""

    def __init__(self, inputs: int, width: int, depth: int, outputs: int) -> None:
        sizes = [inputs, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        super().__init__(*hidden, nn.Linear(sizes[-1], outputs))


def mean_and_sd(raw: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Mean and sd (N, K) of a diagonal Gaussian from a network's output (N, 2 K); the sd exceeds ``floor``."""
    mean, width = raw.chunk(2, dim=1)
    return mean, functional.softplus(width) + floor


def log_normal(value: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """log N(value; mean, diag sd^2), (N,), for (N, K) each, in nats."""
    return -(0.5 * ((value - mean) / sd) ** 2 + sd.log() + 0.5 * math.log(2 * math.pi)).sum(1)


class LatentPrior(nn.Module):
    """p(z | y): standard normal, or a diagonal Gaussian whose mean and sd a network of y gives (Sohn et al. 2015).

    Args:
        latent_dim: K.
        network: from y (N, M) to (N, 2 K); ``None`` for the standard normal.
    """

    def __init__(self, latent_dim: int, network: Network | None) -> None:
        super().__init__()
        self.latent_dim, self.network = latent_dim, network

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and sd of z, (N, K) each, for standardised measurements (N, M)."""
        if self.network is None:
            return y.new_zeros(len(y), self.latent_dim), y.new_ones(len(y), self.latent_dim)
        return mean_and_sd(self.network(y), LATENT_FLOOR)


class ApproximatePosterior(nn.Module, ABC):
    """q(z | theta, y)."""

    @abstractmethod
    def forward(self, pair: Tensor, prior: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One draw z (N, K) of q, and its divergence from the prior (N,): exact, or unbiased at this draw.

        Args:
            pair: mapped parameters and standardised measurements, side by side (N, D + M).
            prior: mean and sd of p(z | y), (N, K) each.
        """


class GaussianPosterior(ApproximatePosterior):
    """q(z | theta, y) = N(mean, diag sd^2), with the divergence in closed form."""

    def __init__(self, inputs: int, latent_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = Network(inputs, width, depth, 2 * latent_dim)

    def forward(self, pair: Tensor, prior: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Kingma & Welling 2014, appendix B, for any diagonal Gaussian as the prior."""
        mean, sd = mean_and_sd(self.encoder(pair), LATENT_FLOOR)
        z = mean + sd * torch.randn_like(mean)
        ratio = sd / prior[1]
        return z, (0.5 * (ratio**2 + ((mean - prior[0]) / prior[1]) ** 2 - 1) - ratio.log()).sum(1)


class FlowPosterior(ApproximatePosterior):
    """A Gaussian z_0 carried on by affine autoregressive steps (Kingma et al. 2016, equation 10).

        z_t = mu_t(z_<, h) + sigma_t(z_<, h) z_(t-1),   log q(z_T) = log N(z_0; mean, sd) - sum_t sum log sigma_t

    The encoder gives mean, sd and the context h. Only this direction, in which a step is one pass of its network, is
    ever taken. The order of the variables is reversed from step to step, and steps start near the identity.
    """

    def __init__(
        self, inputs: int, latent_dim: int, width: int, depth: int, transforms: int, hidden: int, context_dim: int
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = Network(inputs, width, depth, 2 * latent_dim + context_dim)
        steps = []
        for t in range(transforms):
            order = torch.arange(latent_dim) if t % 2 == 0 else torch.arange(latent_dim - 1, -1, -1)
            # every variable needs a hidden unit of its own
            sizes = [max(hidden, latent_dim)] * 2
            permutation = cast("torch.LongTensor", order)
            network = ConditionalAutoRegressiveNN(
                latent_dim, context_dim, sizes, permutation=permutation, nonlinearity=nn.SiLU()
            )
            with torch.no_grad():
                for parameter in network.layers[-1].parameters():
                    parameter.mul_(0.1)
            steps.append(ConditionalAffineAutoregressive(network))
        self.steps = nn.ModuleList(steps)

    def forward(self, pair: Tensor, prior: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """log q(z) - log p(z | y) at the draw: unbiased for the divergence."""
        raw = self.encoder(pair)
        mean, sd = mean_and_sd(raw[:, : 2 * self.latent_dim], LATENT_FLOOR)
        z = mean + sd * torch.randn_like(mean)
        log_q = log_normal(z, mean, sd)
        z, log_det = self.transform(z, raw[:, 2 * self.latent_dim :])
        return z, log_q - log_det - log_normal(z, *prior)

    def transform(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z_T (N, K) and log |det d z_T / d z_0| (N,), for z_0 (N, K) and the context (N, C)."""
        total = z.new_zeros(len(z))
        for step in self.steps:
            conditioned = cast(ConditionalAffineAutoregressive, step).condition(context)
            before, z = z, conditioned(z)
            # asked with the very tensors of the call, Pyro answers from what the call left behind
            total = total + conditioned.log_abs_det_jacobian(before, z)
        return z, total


class VAEModel(nn.Module):
    """The three networks with the maps around them; theta and y are mapped inside.

    Args:
        theta_map, y_map: from the units of theta and y.
        approximate: q(z | theta, y).
        prior: p(z | y).
        decoder: from [z, y] (N, K + M) to mean and sd (N, 2 D) of mapped theta.
        sd_floor: smallest sd of the decoder.
    """

    def __init__(
        self,
        theta_map: ThetaMap,
        y_map: Standardise,
        approximate: ApproximatePosterior,
        prior: LatentPrior,
        decoder: Network,
        sd_floor: float,
    ) -> None:
        super().__init__()
        self.theta_map, self.y_map = theta_map, y_map
        self.approximate, self.prior, self.decoder, self.sd_floor = approximate, prior, decoder, sd_floor

    def encode(self, real: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One z (N, K) of q and its divergence (N,), for mapped parameters (N, D) and measurements (N, M)."""
        return self.approximate(torch.cat([real, y], dim=1), self.prior(y))

    def log_likelihood(self, real: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """log p(theta | z, y), (N,), in nats, as a density of mapped theta."""
        return log_normal(real, *self._decode(z, y))

    def elbo(self, real: Tensor, y: Tensor) -> Tensor:
        """The bound (N,) on log p(theta | y) as a density of mapped theta, in nats, estimated with one z a pair."""
        z, divergence = self.encode(real, y)
        return self.log_likelihood(real, z, y) - divergence

    def draw(self, y: Tensor) -> Tensor:
        """Mapped parameters (N, D), one draw for each standardised measurement (N, M)."""
        mean, sd = self.prior(y)
        mean, sd = self._decode(mean + sd * torch.randn_like(mean), y)
        return mean + sd * torch.randn_like(mean)

    def _decode(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return mean_and_sd(self.decoder(torch.cat([z, y], dim=1)), self.sd_floor)


class VAEPosterior(Posterior):
    """Draws by the prior of z and the decoder. The density is an integral over z, so there is none."""

    def __init__(self, model: VAEModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        return self.model.theta_map.draws(self.model.draw, self.model.y_map(y), n, ROWS)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}


@dataclass(frozen=True)
class _VAE(TrainedMethod[VAEModel]):
    """What both methods have in common: prior, decoder and training.

    Args:
        latent_dim: K, dimensions of z; ``None`` for as many as theta has.
        conditional_prior: whether p(z | y) is learned; else it is N(0, I).
        width, depth: of the hidden layers of each network, and their number.
        sd_floor: smallest sd of the decoder, in sd of the prior. Early in the ramp the divergence costs nothing and the
            decoder's sd falls to here; it also limits how sharp the posterior can be.
        weight_kl: of the divergence; 1 is the ELBO.
        ramp: fraction of the training over which ``weight_kl`` is reached from 0, linearly, so that z is used before it
            costs anything: started at its full weight, z is easily ignored for good (posterior collapse).
    """

    latent_dim: int | None = None
    conditional_prior: bool = True
    width: int = 208
    depth: int = 3
    sd_floor: float = 0.01
    weight_kl: float = 1.0
    ramp: float = 0.25
    steps: int = 5000

    quick: ClassVar[Mapping[str, object]] = {
        "width": 32,
        "depth": 2,
        "steps": 150,
        "batch_size": 200,
        "learning_rate": 5e-3,
    }

    def __post_init__(self) -> None:
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp is {self.ramp}; expected a fraction of the training between 0 and 1")
        if not self.sd_floor > 0:
            raise ValueError(f"sd_floor is {self.sd_floor}; expected a positive sd: without it the ELBO has no maximum")

    def losses(self, model: VAEModel, real: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """The two terms of the negative, weighted ELBO, for mapped parameters (N, D) and measurements (N, M).

        The first is to be differentiated before the second is asked for, see ``posterior_bench.training.Losses``.
        """
        z, divergence = model.encode(real, y)
        # the decoder's gradient stops at this leaf; the second term hands it on, so that the encoder is passed once
        leaf = z.detach().requires_grad_()
        yield "reconstruction", -model.log_likelihood(real, leaf, y).mean()
        weight = self.weight_kl * (min(1.0, fraction / self.ramp) if self.ramp > 0 else 1.0)
        term = weight * divergence.mean()
        if leaf.grad is not None:
            through = (z * leaf.grad).sum()
            term = term + through - through.detach()
        yield "divergence", term

    def _model(self, theta_map: ThetaMap, y_map: Standardise, problem: Problem) -> VAEModel:
        theta_dim, y_dim = len(theta_map.loc), len(y_map.loc)
        latent_dim = self._latent_dim(theta_dim)
        return VAEModel(
            theta_map,
            y_map,
            self._approximate(theta_dim + y_dim, latent_dim),
            LatentPrior(
                latent_dim, Network(y_dim, self.width, self.depth, 2 * latent_dim) if self.conditional_prior else None
            ),
            Network(latent_dim + y_dim, self.width, self.depth, 2 * theta_dim),
            self.sd_floor,
        )

    def _train(self, model: VAEModel, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
            return self.losses(model, batch[0], batch[1], fraction)

        return train(model, losses, data, self._settings(settle=self.ramp), progress)

    def _posterior(self, model: VAEModel, history: Mapping[str, Tensor]) -> Posterior:
        return VAEPosterior(model, history)

    @abstractmethod
    def _latent_dim(self, theta_dim: int) -> int:
        """K, for D."""

    @abstractmethod
    def _approximate(self, inputs: int, latent_dim: int) -> ApproximatePosterior:
        """q(z | theta, y) for ``inputs`` numbers of theta and y together."""


@dataclass(frozen=True)
class ConditionalVAE(_VAE):
    """The conditional variational autoencoder with a diagonal Gaussian as the approximate posterior."""

    spec: ClassVar[MethodSpec] = MethodSpec("cvae", 1, "Sohn, Lee & Yan 2015, NeurIPS 28", label="cVAE")

    def _latent_dim(self, theta_dim: int) -> int:
        return self.latent_dim or theta_dim

    def _approximate(self, inputs: int, latent_dim: int) -> ApproximatePosterior:
        return GaussianPosterior(inputs, latent_dim, self.width, self.depth)


@dataclass(frozen=True)
class ConditionalVAEFlow(_VAE):
    """The same with an inverse autoregressive flow in the approximate posterior; K is at least 2.

    Args:
        transforms: number of autoregressive steps.
        iaf_hidden: width of the two hidden layers of each; at least K is taken.
        context_dim: numbers that the encoder hands to every step.
    """

    width: int = 184
    transforms: int = 4
    iaf_hidden: int = 64
    context_dim: int = 32

    spec: ClassVar[MethodSpec] = MethodSpec(
        "cvae_iaf",
        1,
        "Kingma et al. 2016, arXiv:1606.04934 (flow); Sohn, Lee & Yan 2015, NeurIPS 28 (cVAE)",
        label="cVAE-IAF",
    )

    def _latent_dim(self, theta_dim: int) -> int:
        if self.latent_dim == 1:
            raise ValueError("latent_dim is 1; expected 2 or more: of one number, an autoregressive flow is a Gaussian")
        return self.latent_dim or max(2, theta_dim)

    def _approximate(self, inputs: int, latent_dim: int) -> ApproximatePosterior:
        return FlowPosterior(
            inputs, latent_dim, self.width, self.depth, self.transforms, self.iaf_hidden, self.context_dim
        )

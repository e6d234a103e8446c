"""Generators theta = G(z, y) without a density: the conditional adversarial network, and the same trained by MMD.

    cgan:      min_D  E[s(-D(theta, y))] + E[s(D(G(z, y), y))] + gamma / 2 E|d D(theta, y) / d theta|^2
               min_G  E[s(-D(G(z, y), y))],                          s(v) = log(1 + e^v)
    cgan_mmd:  min_G  MMD^2( (theta, y), (G(z, y), y) )

Mirza & Osindero 2014, arXiv:1411.1784, with the non-saturating loss of Goodfellow et al. 2014, arXiv:1406.2661. Both
stand beside the INN in Ardizzone et al. 2018, arXiv:1808.04730: the second shows what is due to the loss alone. Pairs
of the simulator are real, pairs with a generated theta are not; theta is mapped, y standardised, z ~ N(0, I).

The stabiliser is the gradient penalty R1 on real pairs, which makes the game converge locally where it otherwise
circles (Mescheder, Geiger & Nowozin 2018, arXiv:1801.04406). Unlike spectral normalisation it puts no bound on D's
slope, which has to be steep where a posterior is narrow, and it vanishes where G is right. Penalised is the slope in
theta alone, since no player moves y. Both players step at once, from one look at each other, with Adam's mean gradient
switched off: momentum makes players overshoot each other, and with that of the other methods (0.9) the draws for a
linear problem had a fifth of the posterior's standard deviation, without it all of it. The running mean of the weights
takes out what is left of the circling (Yazici et al. 2019, arXiv:1806.04498).

Neither loss of the game says how good G is. Weights are kept where the energy score of G's draws against held-out
theta given y is lowest, E|G - theta| - E|G - G'| / 2, which only the posterior minimises (Gneiting & Raftery 2007,
JASA 102:359). The MMD generator is chosen by the same score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from posterior_bench import MethodSpec, Posterior, Problem, Progress
from posterior_bench.training import Standardise, ThetaMap, TrainedMethod, Training, train

BETAS = (0.0, 0.99)
"""Adam's decays for the game: close to the RMSProp of Mescheder et al. 2018."""

ROWS = 4000
"""Draws made at a time: few enough that the generator's activations stay in cache."""

SCORE_DRAWS = 8
"""Draws a held-out pair for the energy score: its error is then mostly that of the held-out pairs."""


class Network(nn.Sequential):
    """Fully connected layers with leaky ReLU between them: ``depth`` hidden ones of ``width``."""

    def __init__(self, inputs: int, width: int, depth: int, outputs: int) -> None:
        sizes = [inputs, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        super().__init__(*hidden, nn.Linear(sizes[-1], outputs))


class Generator(nn.Module):
    """G: one draw of mapped parameters for each measurement.

    Args:
        latent_dim: dimensions of z.
        network: from [z, y] (N, K + M) to (N, D).
    """

    def __init__(self, latent_dim: int, network: Network) -> None:
        super().__init__()
        self.latent_dim, self.network = latent_dim, network

    def forward(self, y: Tensor) -> Tensor:
        """Mapped parameters (N, D) for standardised measurements (N, M), with fresh z."""
        z = torch.randn(len(y), self.latent_dim, dtype=y.dtype, device=y.device)
        return self.network(torch.cat([z, y], dim=1))


def energy_score(generator: Generator, real: Tensor, y: Tensor) -> Tensor:
    """Fair energy score (a scalar, in sd of the prior) of G's draws for y (N, M) against ``real`` (N, D)."""
    draws = generator(y.repeat(SCORE_DRAWS, 1)).view(SCORE_DRAWS, len(y), -1)
    between = (draws.unsqueeze(0) - draws.unsqueeze(1)).norm(dim=-1).sum((0, 1)) / (SCORE_DRAWS * (SCORE_DRAWS - 1))
    return ((draws - real).norm(dim=-1).mean(0) - 0.5 * between).mean()


def joint_mmd2(real: Tensor, generated: Tensor, y: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Unbiased MMD^2 between the pairs (real_i, y_i) and (generated_i, y_i): a scalar.

        k = sum_h 1 / (1 + d^2 / h^2),   d^2 = |theta - theta'|^2 / D + |y - y'|^2 / M

    Gretton et al. 2012, JMLR 13:723, equation 4: since row i of both samples has one y, every mean leaves i = j out.

    Args:
        real, generated: (N, D), N >= 2; gradients flow to either.
        y: (N, M).
        bandwidths: h of each kernel of the sum, in sd of the prior and of y.
    """
    apart = _squared(y, y)
    own = sum(_kernel(apart + _squared(t, t), bandwidths) for t in (real, generated))
    return own - 2 * _kernel(apart + _squared(real, generated), bandwidths)


def _squared(u: Tensor, v: Tensor) -> Tensor:
    """Squared distances (N, P) of the rows of u (N, K) and v (P, K), per dimension."""
    return ((u * u).sum(1, keepdim=True) + (v * v).sum(1) - 2 * u @ v.T).clamp_min(0) / u.shape[1]


def _kernel(squared: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """The mean of the kernel over i != j, for squared distances (N, N)."""
    rows = len(squared)
    total = sum((h * h / (squared + h * h) for h in bandwidths), torch.zeros_like(squared))
    return (total.sum() - total.diagonal().sum()) / (rows * (rows - 1))


class Game(nn.Module):
    """Generator against discriminator.

    Args:
        generator: G.
        discriminator: D, from [theta, y] (N, D + M) to a logit (N, 1): large for real pairs.
        penalty: gamma.
    """

    def __init__(self, generator: Generator, discriminator: Network, penalty: float) -> None:
        super().__init__()
        self.generator, self.discriminator, self.penalty = generator, discriminator, penalty

    def terms(self, real: Tensor, y: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The discriminator's loss, of which G learns nothing, then the generator's, of which D learns nothing.

        Each is to be differentiated before the next is asked for. ``real`` is (N, D), ``y`` is (N, M).
        """
        draws = self.generator(y)
        real, leaf = real.detach().requires_grad_(), draws.detach().requires_grad_()
        on_real, on_draws = (self.discriminator(torch.cat([t, y], dim=1)) for t in (real, leaf))
        (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
        deceit = softplus(-on_draws).mean()
        (pull,) = torch.autograd.grad(deceit, leaf, retain_graph=True)
        penalty = 0.5 * self.penalty * slope.square().sum(1).mean()
        yield "discriminator", softplus(-on_real).mean() + softplus(on_draws).mean() + penalty
        through = (draws * pull).sum()
        yield "generator", deceit.detach() + through - through.detach()


def train_generator(
    module: nn.Module,
    generator: Generator,
    terms: Callable[[Tensor, Tensor], Iterator[tuple[str, Tensor]]],
    data: tuple[Tensor, ...],
    settings: Training,
    progress: Progress,
) -> dict[str, Tensor]:
    """Train ``module`` in place and leave it with the weights whose generator has the lowest held-out energy score.

    Args:
        module: all that is trained: the generator, or a game that holds it.
        generator: G.
        terms: of the loss, for mapped parameters (N, D) and standardised measurements (N, M).
        data: mapped parameters and standardised measurements of all pairs.
        settings, progress: see ``posterior_bench.training.train``, whose curves are returned.
    """

    def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
        if module.training:
            yield from terms(*batch)
        else:  # the loop looks at the held-out pairs
            yield "energy score", energy_score(generator, *batch)

    return train(module, losses, data, settings, progress)


class GeneratorModel(nn.Module):
    """A generator with the maps around it: theta and y in their own units outside."""

    def __init__(self, theta_map: ThetaMap, y_map: Standardise, generator: Generator) -> None:
        super().__init__()
        self.theta_map, self.y_map, self.generator = theta_map, y_map, generator


class GeneratorPosterior(Posterior):
    """Draws by passes of the generator. There is no density: z may have more dimensions than theta."""

    def __init__(self, model: GeneratorModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        return self.model.theta_map.draws(self.model.generator, self.model.y_map(y), n, ROWS)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The generator's weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}


@dataclass(frozen=True)
class _Generative(TrainedMethod[GeneratorModel]):
    """What both methods have in common: the generator, and how its weights are chosen.

    Args:
        latent_dim: dimensions of z; ``None`` for twice those of theta: it takes more than an INN (Ardizzone et al.).
        width, depth: of the hidden layers of each network, and their number.
    """

    latent_dim: int | None = None
    width: int = 240
    depth: int = 3
    epochs: int | None = 50

    quick: ClassVar[Mapping[str, object]] = {"width": 32, "depth": 2, "steps": 200, "batch_size": 100}

    def _model(self, theta_map: ThetaMap, y_map: Standardise, problem: Problem) -> GeneratorModel:
        theta_dim, y_dim = len(theta_map.loc), len(y_map.loc)
        latent_dim = self.latent_dim or 2 * theta_dim
        network = Network(latent_dim + y_dim, self.width, self.depth, theta_dim)
        return GeneratorModel(theta_map, y_map, Generator(latent_dim, network))

    def _posterior(self, model: GeneratorModel, history: Mapping[str, Tensor]) -> Posterior:
        return GeneratorPosterior(model, history)


@dataclass(frozen=True)
class ConditionalGAN(_Generative):
    """The conditional generative adversarial network.

    Args:
        penalty: gamma, of R1.
        patience: so large by default that every step is taken: a game has no loss whose rise would say that it is over.

    Raises:
        ValueError: where a setting is impossible.
    """

    penalty: float = 1.0
    steps: int = 6000
    batch_size: int = 256
    patience: int = 100
    average: float = 0.99

    spec: ClassVar[MethodSpec] = MethodSpec("cgan", 1, "Mirza & Osindero 2014, arXiv:1411.1784", label="cGAN")

    def __post_init__(self) -> None:
        if self.penalty < 0:
            raise ValueError(f"penalty is {self.penalty}; expected 0 or more: it is the weight of a squared slope")

    def _train(self, model: GeneratorModel, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        discriminator = Network(data[0].shape[1] + data[1].shape[1], self.width, self.depth, 1)
        game = Game(model.generator, discriminator, self.penalty).to(data[0].device)
        settings = replace(self._settings(), betas=BETAS)
        return train_generator(game, model.generator, game.terms, data, settings, progress)


@dataclass(frozen=True)
class ConditionalMMDGenerator(_Generative):
    """A conditional generator, as large as both networks of the game, with the MMD in the discriminator's place.

    Args:
        bandwidths: h of the inverse multiquadratic kernels, per dimension, in sd of the prior and of y.

    Raises:
        ValueError: where a setting is impossible.
    """

    bandwidths: tuple[float, ...] = (0.1, 0.3, 1.0, 2.0)
    width: int = 340
    steps: int = 3000

    spec: ClassVar[MethodSpec] = MethodSpec(
        "cgan_mmd",
        1,
        "Ardizzone et al. 2018, arXiv:1808.04730; Gretton et al. 2012, JMLR 13:723",
        label="cGAN (MMD)",
    )

    def __post_init__(self) -> None:
        if not self.bandwidths or min(self.bandwidths) <= 0:
            raise ValueError(f"bandwidths are {self.bandwidths}; expected one or more positive numbers")

    def _train(self, model: GeneratorModel, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        def terms(real: Tensor, y: Tensor) -> Iterator[tuple[str, Tensor]]:
            yield "MMD", joint_mmd2(real, model.generator(y), y, self.bandwidths)

        return train_generator(model.generator, model.generator, terms, data, self._settings(), progress)

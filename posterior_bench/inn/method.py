"""The invertible neural network as a method: what its trainings share, and the one by maximum likelihood.

    f([theta, pads]) = [u, z],   p(theta | y):  theta = g(u, z),  u ~ q(u | y),  z ~ N(0, I)

Ardizzone et al. 2018, arXiv 1808.04730. Theta enters through its prior's distribution function, y standardised.

The simulator is noisy, y no function of theta, and f cannot send theta alone to y. What stands beside theta decides
what f can be. Pads of independent noise leave y a scatter about u, which q(u | y) has to describe. Pads that hold the
noise behind y make f([theta, noise]) = [y, z] an exact bijection, and all losses can reach their least value.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_bench import MethodSpec, Need, Posterior, Problem, Progress
from posterior_bench.training import Stage, Standardise, ThetaMap, TrainedMethod, train

from .coupling import InvertibleNetwork
from .losses import MeasurementNoise
from .model import INNModel, INNPosterior
from .outsourcing import outsource


@dataclass(frozen=True)
class InvertibleMethod(TrainedMethod[INNModel]):
    """What all methods on this network have in common: the architecture and the training; they differ in the loss.

    Args:
        latent_dim: K, dimensions of z; ``None`` for as many as theta has, so that a noisy simulator finds room, or as
            known pads ask for.
        blocks, width, depth, clamp, mixing, bins, norm: see ``InvertibleNetwork``.
        noise_floor: smallest sd of ``MeasurementNoise``, in sd of y. A deterministic simulator drives it down to here:
            lower is sharper and takes longer to train.
        learned_noise: whether q(u | y) is learned; else u is y, up to ``noise_floor``.
        outsourced: whether the noise behind y is estimated, see ``outsourcing``, and stands beside theta as known pads.
    """

    latent_dim: int | None = None
    blocks: int = 6
    width: int = 128
    depth: int = 2
    clamp: float = 2.0
    mixing: str = "orthogonal"
    bins: int = 0
    norm: bool = False
    noise_floor: float = 0.01
    learned_noise: bool = True
    outsourced: bool = False
    steps: int = 6000
    epochs: int | None = 50
    learning_rate: float = 2e-3

    quick: ClassVar[Mapping[str, object]] = {"blocks": 3, "width": 48, "steps": 500, "batch_size": 200}

    def _model(self, theta_map: ThetaMap, y_map: Standardise, problem: Problem) -> INNModel:
        theta_dim, y_dim = len(theta_map.loc), len(y_map.loc)
        known = self._known(y_dim, problem)
        dim = y_dim + (self.latent_dim or max(theta_dim, theta_dim + known - y_dim))
        if dim < theta_dim + known:
            raise ValueError(
                f"latent_dim is {self.latent_dim}, and with {y_dim} numbers in a measurement the network's output has "
                f"{dim} dimensions; theta and what stands beside it have {theta_dim + known}: expected latent_dim of "
                f"at least {theta_dim + known - y_dim}"
            )
        network = InvertibleNetwork(
            dim, self.blocks, self.width, self.depth, self.clamp, self.mixing, bins=self.bins, norm=self.norm
        )
        noise = MeasurementNoise(y_dim, floor=self.noise_floor, learned=self.learned_noise)
        return INNModel(theta_map, y_map, noise, network, known)

    def _train(self, model: INNModel, data: tuple[Tensor, ...], progress: Progress) -> Mapping[str, Tensor]:
        real, y, *noise = data
        if self.outsourced:
            y, estimated = outsource(real, y, self._settings(), Stage(progress, 0, 2, "noise behind y, "))
            noise, progress = [estimated], Stage(progress, 1, 2)

        def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
            return self._losses(model, batch[0], batch[1], fraction)

        return train(model, losses, (torch.cat([real, *noise], dim=1), y), self._settings(self._settle()), progress)

    def _posterior(self, model: INNModel, history: Mapping[str, Tensor]) -> Posterior:
        return INNPosterior(model, history)

    def _known(self, y_dim: int, problem: Problem) -> int:
        """Number of known pads."""
        if Need.NOISE in self.spec.needs:
            if self.outsourced:
                raise ValueError(f"{self.spec.name} is given the simulations' noise; outsourced would estimate it")
            return problem.noise_dim
        return y_dim if self.outsourced else 0

    @abstractmethod
    def _losses(self, model: INNModel, inputs: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """The terms of the loss of a batch.

        Args:
            model: the network.
            inputs: mapped parameters and known pads (N, D + known).
            y: standardised measurements (N, M).
            fraction: how much of the training has passed.
        """

    @abstractmethod
    def _settle(self) -> float:
        """Fraction of the training before which looks at the held-out pairs do not compare."""


@dataclass(frozen=True)
class INNLikelihood(InvertibleMethod):
    """The same network by maximum likelihood of theta and its pads given y.

    log q(theta, pads | y) = log q(u | y) + log N(z; 0, I) + log|det J|,   [u, z] = f([theta, pads])
    """

    blocks: int = 8
    width: int = 112
    epochs: int | None = 30
    learning_rate: float = 3e-3
    patience: int = 20

    spec: ClassVar[MethodSpec] = MethodSpec(
        "inn_likelihood",
        1,
        "Ardizzone et al. 2018, arXiv:1808.04730 (network); Kruse et al. 2021, arXiv:2101.10763 (likelihood)",
        label="INN (likelihood)",
    )

    def _losses(self, model: INNModel, inputs: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        yield "negative log-likelihood", -model.log_prob(*model.forward_pass(inputs), y).mean()

    def _settle(self) -> float:
        return 0.0

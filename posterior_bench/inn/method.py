"""The invertible neural network as a method, trained both ways or by maximum likelihood.

    f([theta, pads]) = [u, z],   p(theta | y):  theta = g(u, z),  u ~ q(u | y),  z ~ N(0, I)

Ardizzone et al. 2018, arXiv 1808.04730. Theta enters through its prior's distribution function, y standardised.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from posterior_bench import Method, MethodSpec, Posterior, Problem, Progress, Simulations
from posterior_bench.training import Standardise, ThetaMap, Training, train

from .coupling import InvertibleNetwork
from .losses import MeasurementNoise, backward_loss, forward_loss, kernel_score, latent_loss

ROWS = 2048
"""Backward passes made at a time when drawing: the activations of a layer, 1 MB, stay in the processor's cache."""


class INNModel(nn.Module):
    """The network with the maps around it: theta and y in their own units outside, unbounded and unit scale inside."""

    def __init__(
        self, theta_map: ThetaMap, y_map: Standardise, noise: MeasurementNoise, network: InvertibleNetwork
    ) -> None:
        super().__init__()
        self.theta_map, self.y_map, self.noise, self.network = theta_map, y_map, noise, network
        self.theta_dim, self.y_dim = len(theta_map.loc), len(y_map.loc)

    @property
    def pads(self) -> int:
        """Number of noise dimensions beside theta."""
        return self.network.dim - self.theta_dim

    def forward_pass(self, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u (N, M), z (N, K) and log|det J| (N,) for mapped parameters (N, D), with fresh pads."""
        pads = torch.randn(len(real), self.pads, dtype=real.dtype, device=real.device)
        out, log_det = self.network(torch.cat([real, pads], dim=1))
        return out[:, : self.y_dim], out[:, self.y_dim :], log_det

    def backward_pass(self, y: Tensor) -> Tensor:
        """Mapped parameters (N, D) for standardised measurements (N, M), with fresh u and z."""
        z = torch.randn(len(y), self.network.dim - self.y_dim, dtype=y.dtype, device=y.device)
        return self.network.inverse(torch.cat([self.noise.sample(y), z], dim=1))[0][:, : self.theta_dim]


class INNPosterior(Posterior):
    """Draws by backward passes of a trained network."""

    def __init__(self, model: INNModel, history: Mapping[str, Tensor] | None = None) -> None:
        self.model = model
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        standard = self.model.y_map(y)
        draws = standard.new_empty(n * len(y), self.model.theta_dim)
        with torch.no_grad():
            for part in torch.arange(len(draws), device=y.device).split(ROWS):
                real = self.model.backward_pass(standard[part % len(y)])
                draws[part] = self.model.theta_map.inverse(real)
        return draws.view(n, len(y), -1)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}


@dataclass(frozen=True)
class InvertibleMethod(Method):
    """What all methods on this network have in common: the architecture and the training; they differ in the loss.

    Args:
        latent_dim: K, dimensions of z; ``None`` for as many as theta has, so that a noisy simulator finds room.
        blocks, width, depth, clamp, mixing: see ``InvertibleNetwork``.
        noise_floor: smallest sd of ``MeasurementNoise``, in sd of y. A deterministic simulator drives it down to here:
            lower is sharper and takes longer to train.
        steps, epochs, batch_size, learning_rate, weight_decay, patience: see ``posterior_bench.training.Training``.
    """

    latent_dim: int | None = None
    blocks: int = 6
    width: int = 128
    depth: int = 2
    clamp: float = 2.0
    mixing: str = "orthogonal"
    noise_floor: float = 0.01
    steps: int = 2000
    epochs: int | None = 50
    batch_size: int = 500
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    patience: int = 10

    quick: ClassVar[Mapping[str, object]] = {"blocks": 3, "width": 48, "steps": 500, "batch_size": 200}

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """Train on the valid simulations."""
        pairs = simulations.only_valid()
        theta_map = ThetaMap.of(problem.prior, pairs.theta)
        model = self._model(theta_map, Standardise.of(pairs.y)).to(pairs.theta.device)
        data = theta_map(pairs.theta), model.y_map(pairs.y)

        def losses(batch: tuple[Tensor, ...], fraction: float) -> Iterator[tuple[str, Tensor]]:
            yield from self._losses(model, batch[0], batch[1], fraction)

        return INNPosterior(model, train(model, losses, data, self._training(), progress))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior with these weights."""
        y_dim = torch.Size(problem.y_shape).numel()
        model = self._model(ThetaMap(problem.prior), Standardise(y_dim))
        model.load_state_dict(tensors)
        model.to(next(iter(tensors.values())).device).eval().requires_grad_(False)
        return INNPosterior(model)

    def _model(self, theta_map: ThetaMap, y_map: Standardise) -> INNModel:
        theta_dim, y_dim = len(theta_map.loc), len(y_map.loc)
        dim = y_dim + (self.latent_dim or theta_dim)
        if dim < theta_dim:
            raise ValueError(
                f"latent_dim is {self.latent_dim}, and with {y_dim} numbers in a measurement the network's output has "
                f"{dim} dimensions; theta has {theta_dim}: expected latent_dim of at least {theta_dim - y_dim}"
            )
        network = InvertibleNetwork(dim, self.blocks, self.width, self.depth, self.clamp, self.mixing)
        return INNModel(theta_map, y_map, MeasurementNoise(y_dim, floor=self.noise_floor), network)

    def _training(self) -> Training:
        return Training(
            steps=self.steps,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            settle=self._settle(),
        )

    @abstractmethod
    def _losses(self, model: INNModel, real: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """The terms of the loss for a batch of mapped parameters (N, D) and standardised measurements (N, M)."""

    @abstractmethod
    def _settle(self) -> float:
        """Fraction of the training before which looks at the held-out pairs do not compare."""


@dataclass(frozen=True)
class INN(InvertibleMethod):
    """The INN trained in both directions: L_y and L_z forwards, L_x and a kernel score backwards; see ``losses``.

    Args:
        weight_y: of L_y.
        weight_z: of L_z.
        weight_x: of L_x, reached by ``ramp`` of the training from nearly nothing.
        weight_kernel_score: of the kernel score, which is added to L_x; 0 leaves the paper's losses, and q(u | y) is
            then fitted by likelihood to f's own u as well, since L_x alone leaves it too narrow.
        ramp: fraction of the training over which ``weight_x`` rises.
        bandwidths: h of the inverse multiquadratic kernels of the MMD, per dimension, in units of mapped theta and z.
        score_bandwidths: those of the kernel score.
    """

    weight_y: float = 0.1
    weight_z: float = 5.0
    weight_x: float = 5.0
    weight_kernel_score: float = 20.0
    ramp: float = 0.5
    bandwidths: tuple[float, ...] = (0.5, 1.0, 2.0)
    score_bandwidths: tuple[float, ...] = (0.1, 0.3, 1.0, 2.0)

    spec: ClassVar[MethodSpec] = MethodSpec("inn", 1, "Ardizzone et al. 2018, arXiv:1808.04730", label="INN")

    def _losses(self, model: INNModel, real: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        ramp = min(1.0, max(1e-3, fraction / self.ramp)) if self.ramp > 0 else 1.0
        published = self.weight_kernel_score == 0
        yield from forward_terms(model, real, y, self.weight_y, self.weight_z, self.bandwidths, fit_noise=published)
        yield from backward_terms(
            model, real, y, ramp * self.weight_x, self.bandwidths, self.weight_kernel_score, self.score_bandwidths
        )

    def _settle(self) -> float:
        return self.ramp


@dataclass(frozen=True)
class INNLikelihood(InvertibleMethod):
    """The same network by maximum likelihood of theta and its pads given y.

    log q(theta, pads | y) = log q(u | y) + log N(z; 0, I) + log|det J|,   [u, z] = f([theta, pads])
    """

    blocks: int = 8
    width: int = 112
    steps: int = 6000
    epochs: int | None = 30
    learning_rate: float = 3e-3
    patience: int = 20

    spec: ClassVar[MethodSpec] = MethodSpec(
        "inn_likelihood",
        1,
        "Ardizzone et al. 2018, arXiv:1808.04730 (network); Kruse et al. 2021, arXiv:2101.10763 (likelihood)",
        label="INN (likelihood)",
    )

    def _losses(self, model: INNModel, real: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        u, z, log_det = model.forward_pass(real)
        yield "negative log-likelihood", -(model.noise.log_prob(u, y) - 0.5 * z.square().sum(1) + log_det).mean()

    def _settle(self) -> float:
        return 0.0


def forward_terms(
    model: INNModel,
    real: Tensor,
    y: Tensor,
    weight_y: float,
    weight_z: float,
    bandwidths: Sequence[float],
    fit_noise: bool = False,
) -> Iterator[tuple[str, Tensor]]:
    """The weighted L_y and L_z of mapped parameters (N, D) and standardised measurements (N, M).

    L_y and L_z tell q(u | y) nothing. ``fit_noise`` adds its likelihood, mean of -log q(u | y), of which f learns
    nothing: for objectives in which no other term says how far u scatters about y.
    """
    # each direction runs the network once: its terms share a leaf, and the network is differentiated at the end
    u, z, _ = model.forward_pass(real)
    u_leaf, z_leaf = _leaf(u), _leaf(z)
    yield "L_y", weight_y * forward_loss(u_leaf, y)
    with torch.no_grad():
        target = model.noise.sample(y)
    yield "L_z", weight_z * latent_loss(u_leaf, z_leaf, target, bandwidths)
    _pull(torch.cat([u, z], dim=1), u_leaf, z_leaf)
    if fit_noise:
        yield "measurement noise", -model.noise.log_prob(u.detach(), y).mean()


def backward_terms(
    model: INNModel,
    real: Tensor,
    y: Tensor,
    weight_x: float,
    bandwidths: Sequence[float],
    weight_score: float = 0.0,
    score_bandwidths: Sequence[float] = (),
) -> Iterator[tuple[str, Tensor]]:
    """The weighted L_x of mapped parameters (N, D) and measurements (N, M), after the kernel score if it has weight."""
    draws = model.backward_pass(y.repeat(2 if weight_score > 0 else 1, 1))
    leaf = _leaf(draws)
    first, *second = leaf.split(len(y))
    if second:
        yield "kernel score", weight_score * kernel_score(first, second[0], real, score_bandwidths)
    yield "L_x", weight_x * backward_loss(first, real, bandwidths)
    _pull(draws, leaf)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_()


def _pull(value: Tensor, *leaves: Tensor) -> None:
    """Send the gradients that were gathered in leaves through what made ``value``."""
    if value.requires_grad and any(leaf.grad is not None for leaf in leaves):
        value.backward(torch.cat([_gradient(leaf) for leaf in leaves], dim=1))


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

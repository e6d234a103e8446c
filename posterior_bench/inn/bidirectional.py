"""The INN trained in both directions at once, the paper's way.

    w_y L_y + w_z L_z  forwards,   w_x L_x + kernel score  backwards;   see ``losses``

Ardizzone et al. 2018, arXiv 1808.04730, and the authors' released code, whose further means are options here.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_bench import MethodSpec, Need

from .losses import backward_loss, forward_loss, kernel_score, latent_loss
from .method import InvertibleMethod
from .model import INNModel

REFERENCE = "Ardizzone et al. 2018, arXiv:1808.04730"


@dataclass(frozen=True)
class _Bidirectional(InvertibleMethod, ABC):
    """L_y and L_z forwards, L_x and a kernel score backwards; see ``losses``.

    Args:
        weight_y: of L_y.
        weight_z: of L_z.
        weight_x: of L_x, reached by ``ramp`` of the training from nearly nothing.
        weight_kernel_score: of the kernel score, which is added to L_x; 0 leaves the paper's losses, and q(u | y) is
            then fitted by likelihood to f's own u as well, since L_x alone leaves it too narrow.
        ramp: fraction of the training over which ``weight_x`` rises.
        bandwidths: h of the inverse multiquadratic kernels of the MMD, per dimension, in units of mapped theta and z.
        score_bandwidths: those of the kernel score.
        unbiased: whether MMDs are the unbiased estimates; else the V-statistics of the released code.
        closeness: L_x compares theta together with ``closeness`` times y, so that pairs count by how close their
            measurements are; 0 compares theta alone, as the paper does.
        noise_on_y: sd of noise on standardised y in training, falling to 0 at its end; the released code holds 0.05.
        weight_likelihood: of the negative log-likelihood of theta and its pads, as a further term.
        likelihood_start: fraction of the training, at its start, with the likelihood alone.
    """

    weight_y: float = 0.1
    weight_z: float = 5.0
    weight_x: float = 5.0
    weight_kernel_score: float = 20.0
    ramp: float = 0.5
    bandwidths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    score_bandwidths: tuple[float, ...] = (0.1, 0.3, 1.0, 2.0)
    unbiased: bool = True
    closeness: float = 0.0
    noise_on_y: float = 0.0
    weight_likelihood: float = 0.0
    likelihood_start: float = 0.0

    def _losses(self, model: INNModel, inputs: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        if self.noise_on_y > 0 and fraction < 1:
            y = y + self.noise_on_y * (1 - fraction) * torch.randn_like(y)
        if fraction < self.likelihood_start:
            yield "negative log-likelihood", -model.log_prob(*model.forward_pass(inputs), y).mean()
            return
        yield from forward_terms(
            model,
            inputs,
            y,
            self.weight_y,
            self.weight_z,
            self.bandwidths,
            unbiased=self.unbiased,
            weight_likelihood=self.weight_likelihood,
            fit_noise=self.learned_noise and self.weight_kernel_score == 0,
        )
        ramp = min(1.0, max(1e-3, fraction / self.ramp)) if self.ramp > 0 else 1.0
        yield from backward_terms(
            model,
            inputs,
            y,
            ramp * self.weight_x,
            self.bandwidths,
            unbiased=self.unbiased,
            closeness=self.closeness,
            weight_score=self.weight_kernel_score,
            score_bandwidths=self.score_bandwidths,
        )

    def _settle(self) -> float:
        return max(self.ramp, self.likelihood_start)


@dataclass(frozen=True)
class INN(_Bidirectional):
    """The INN of a simulator that is a black box."""

    spec: ClassVar[MethodSpec] = MethodSpec("inn", 1, REFERENCE, label="INN")


@dataclass(frozen=True)
class INNNoise(_Bidirectional):
    """The INN that is given the noise of its simulations as pads: f([theta, noise]) = [y, z] can be exact.

    What the simulator's noise was is privileged knowledge, hence an id of its own. L_x looks at theta and the noise,
    the kernel score at theta alone. Draws of the noise are thrown away.
    """

    spec: ClassVar[MethodSpec] = MethodSpec(
        "inn_noise", 1, REFERENCE, needs=frozenset({Need.NOISE}), label="INN (simulation's noise)"
    )


def forward_terms(
    model: INNModel,
    inputs: Tensor,
    y: Tensor,
    weight_y: float,
    weight_z: float,
    bandwidths: Sequence[float],
    unbiased: bool = True,
    weight_likelihood: float = 0.0,
    fit_noise: bool = False,
) -> Iterator[tuple[str, Tensor]]:
    """The weighted L_y, L_z and likelihood of network inputs (N, D + known) and standardised measurements (N, M).

    L_y and L_z tell q(u | y) nothing. ``fit_noise`` adds its likelihood, mean of -log q(u | y), of which f learns
    nothing: for objectives in which no other term says how far u scatters about y.
    """
    # each direction runs the network once: its terms share leaves, and the network is differentiated at the end
    found = model.forward_pass(inputs)
    u, z, log_det = leaves = [_leaf(value) for value in found]
    yield "L_y", weight_y * forward_loss(u, y)
    with torch.no_grad():
        target = model.noise.sample(y)
    yield "L_z", weight_z * latent_loss(u, z, target, bandwidths, unbiased)
    if weight_likelihood > 0:
        yield "negative log-likelihood", -weight_likelihood * model.log_prob(u, z, log_det, y).mean()
    _pull(found, leaves)
    if fit_noise:
        yield "measurement noise", -model.noise.log_prob(u.detach(), y).mean()


def backward_terms(
    model: INNModel,
    inputs: Tensor,
    y: Tensor,
    weight_x: float,
    bandwidths: Sequence[float],
    unbiased: bool = True,
    closeness: float = 0.0,
    weight_score: float = 0.0,
    score_bandwidths: Sequence[float] = (),
) -> Iterator[tuple[str, Tensor]]:
    """The weighted L_x of inputs (N, D + known) and measurements (N, M), after the kernel score if it has weight."""
    draws = model.backward_pass(y.repeat(2 if weight_score > 0 else 1, 1))
    leaf = _leaf(draws)
    first, *second = leaf.split(len(y))
    if second:
        theta = slice(0, model.theta_dim)
        score = kernel_score(first[:, theta], second[0][:, theta], inputs[:, theta], score_bandwidths)
        yield "kernel score", weight_score * score
    near = closeness * y if closeness > 0 else y[:, :0]
    yield (
        "L_x",
        weight_x
        * backward_loss(torch.cat([first, near], dim=1), torch.cat([inputs, near], dim=1), bandwidths, unbiased),
    )
    _pull([draws], [leaf])


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_()


def _pull(values: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
    """Send the gradients that were gathered in leaves through what made the values."""
    gathered = [(value, leaf.grad) for value, leaf in zip(values, leaves, strict=True) if leaf.grad is not None]
    if gathered and gathered[0][0].requires_grad:
        torch.autograd.backward([value for value, _ in gathered], [gradient for _, gradient in gathered])

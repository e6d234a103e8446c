"""The loss of the physics VAE: the bound, and three regularisers that keep the physics in use.

    loss = E|y - y_hat|^2 + sd^2 (w_divergence + w_least_action) KL(q(z | y) || p(z))
           + w_least_action R_PPC + w_cleansing R_DA1 + w_physics_encoder R_DA2

    R_PPC = 1/4 E[|x_PA - x_P|^2 + |x_PB - x_P|^2 + |x_PAB - x_PA|^2 + |x_PAB - x_PB|^2]
    R_DA1 = E|u - sg(x_P)|^2
    R_DA2 = E|E_q[z_P | sg(x_P(z*))] - z*|^2,     z* ~ prior

|.|^2 is a sum over a signal, E a mean over the batch, sg stops gradients, sd is that of the noise. x_P is the signal of
the known physics alone, x_PA that with f_A1, x_PB that with f_A2, x_PAB = y_hat that with both. As f_A2 is added to the
signal, x_PAB - x_PA = x_PB - x_P = f_A2 and x_PAB - x_PB = x_PA - x_P, so that
R_PPC = E[|x_PA - x_P|^2 + |f_A2|^2] / 2. u is the cleansed measurement.

Without regularisers it is 2 sd^2 times the negative bound on log p(y), but for the divergence, which counts half with
w_divergence = 1, the authors' value, and in full with 2.

The letters. Paper and code disagree on those of the weights, so that here they are named by what they do. In the
authors' code alpha is ``weight_least_action``, for R_PPC with its share of the divergence; beta is
``weight_physics_encoder``, for R_DA2; gamma is ``weight_cleansing``, for R_DA1. Later work that follows the paper
gives beta to R_DA1 and gamma to R_DA2. A value of 0.1 or 0.001 that goes by a letter alone may thus mean either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .model import Branches, PhysicsVAEModel
from .networks import Gaussian


@dataclass(frozen=True)
class Weights:
    """The weights of the loss; see the formula above."""

    divergence: float
    least_action: float
    cleansing: float
    physics_encoder: float


def square(signal: Tensor) -> Tensor:
    """The sum of squares of each signal (N, *shape), averaged over the batch: ()."""
    return (signal**2).flatten(1).sum(1).mean()


def reconstruction(branches: Branches, y: Tensor) -> Tensor:
    """E|y - y_hat|^2, (), for measurements y (N, *y_shape)."""
    return square(branches.full - y)


def least_action(branches: Branches) -> Tensor:
    """R_PPC, (): how much the two corrections change the signal. 0 where there is none, or no physics."""
    if branches.reduced is None:
        return branches.full.new_zeros(())
    return 0.5 * (square(branches.with_inside - branches.reduced) + square(branches.full - branches.with_inside))


def cleansing(model: PhysicsVAEModel, branches: Branches) -> Tensor:
    """R_DA1, (), in the units of y: how far a cleansed measurement is from the physics alone. 0 without cleansing."""
    if branches.code.cleansed is None or branches.reduced is None:
        return branches.full.new_zeros(())
    target = model.y_map(branches.reduced.detach())
    return square((branches.code.cleansed - target) * model.y_map.scale)


def physics_encoder_error(model: PhysicsVAEModel, theta: Tensor, signal: Tensor) -> Tensor:
    """R_DA2 as published, (): squared error of the mean of q, in the units of theta, its spread left alone.

    Args:
        model: its g_P2 is asked, without cleansing.
        theta: (N, D), the parameters.
        signal: (N, *y_shape), what the known physics makes of them.
    """
    return square(model.theta_map.inverse(_physics(model, signal).mean) - theta)


def physics_encoder_log_score(model: PhysicsVAEModel, theta: Tensor, signal: Tensor) -> Tensor:
    """R_DA2 by a proper score, (): E[-log q(theta* | signal)], in nats, as a density of mapped theta.

    Its minimum is the posterior itself, as nearly as a Gaussian can be it, spread included (Gneiting & Raftery 2007,
    J. Am. Stat. Assoc. 102:359), where ``signal`` (N, *y_shape) holds the noise of a measurement.
    """
    return -_physics(model, signal).log_prob(model.theta_map(theta)).mean()


def _physics(model: PhysicsVAEModel, signal: Tensor) -> Gaussian:
    if model.encoder.physics is None:
        raise ValueError("this model has no physics, so that no encoder of theta is there to be trained")
    return model.encoder.physics(model.y_map(signal))


def unregularised(
    model: PhysicsVAEModel, branches: Branches, y: Tensor, weights: Weights, noise_sd: float
) -> Mapping[str, Tensor]:
    """All weighted terms but R_DA2, by name, () each; those without a weight are left out."""
    share = noise_sd**2 * (weights.divergence + weights.least_action)
    terms = {
        "reconstruction": reconstruction(branches, y),
        "divergence": share * branches.code.divergence().mean(),
    }
    if weights.least_action:
        terms["least action"] = weights.least_action * least_action(branches)
    if weights.cleansing:
        terms["cleansing"] = weights.cleansing * cleansing(model, branches)
    return terms

"""The physics-integrated variational autoencoder, as published and with a proper score in its augmentation.

    z = (z_P, z_A),     log p(y) >= E_q(z | y)[log N(y; y_hat(z), sd^2)] - KL(q(z | y) || p(z)),

with a decoder y_hat that solves the known, incomplete physics f_P(z_P) together with trained corrections f_A(z_A), and
regularisers that keep f_A from taking over (``losses``). It learns from unlabelled measurements of the real process;
q(z_P | y) is then its posterior of the physics' parameters.

Takeishi & Kalousis 2021, NeurIPS 34, arXiv:2102.13156; sizes, weights and optimiser of the defaults are those of the
authors' code for the pendulum (https://github.com/n-takeishi/phys-vae). Where it differs:

- z_P is a Gaussian in theta mapped to the reals by the prior, where its prior is N(0, I), and so stays in the prior's
  support. There it is a Gaussian in theta's own units with a wide Gaussian prior, whose draws are clipped to a box.
- The learning rate falls by a cosine (``final_rate``); there it is constant for 25,000 steps.
- Signals are standardised by one location and scale before a network sees them; there networks see them raw.
- One cleansing network, y + network(y, mean of z_A), serves all problems, and states are observed as the simulator
  says; there advection-diffusion has a cleansing of its own and a trained, linear map of the state in its place.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posterior_bench import Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.training import Standardise, ThetaMap

from .decoder import Decoder, with_solver
from .descent import Descent, descend
from .losses import Weights, physics_encoder_error, physics_encoder_log_score, square, unregularised
from .model import PhysicsVAEModel
from .networks import Correction, Encoder, layers
from .posterior import PhysicsVAEPosterior

REFERENCE = "Takeishi & Kalousis 2021, arXiv:2102.13156"
NEEDS = frozenset({Need.DYNAMICS, Need.UNLABELLED})
PRIOR_DRAWS = 4096
"""Draws that give location and scale of theta."""


@dataclass(frozen=True)
class _PhysicsVAE(Method):
    """What both methods have in common.

    The published variants: Phys-only is both ``correct_...`` false; NN+phys has no weight but that of the divergence;
    NN+solver is ``physics="none"``; NN-only is that with ``correct_inside`` false.

    Args:
        physics: ``"known"``; ``"permuted"``, the control in which each row is decoded with another row's parameters;
            or ``"none"``.
        correct_inside, correct_outside: whether f_A1 and f_A2 are there.
        inside_dim, outside_dim: K1 and K2, numbers of variables in z_A1 and z_A2, of f_A1 and f_A2.
        cleansing: whether g_P1 is there; else g_P2 looks at y itself.
        time_as: how f_A1 is told the time: ``"number"``, or ``"angle"``, as sine and cosine.
        solver, substeps: ``"euler"`` or ``"rk4"`` and its steps from one time to the next, where the simulator has
            these options; ``"simulator"`` for its own. Euler steps are as published: at the fastest swing of the
            pendulum they raise the amplitude to 1.8-fold, which z_P and f_A have to make up for.
        noise_sd: sd of the noise of y; as published, e^(-9/2) for the pendulum.
        weight_divergence, weight_least_action, weight_cleansing, weight_physics_encoder: see ``losses``. They weigh
            squares in the units of y, or of theta for the last one, so that they belong to a problem.
        feature_width, features, head_width: of the encoders, see ``networks``.
        cleansing_width, inside_width, outside_width: of the two hidden layers of g_P1, f_A1 and f_A2.
        steps, batch_size, learning_rate, final_rate, epsilon, weight_decay, clip_value, held_out, check_every: see
            ``descent``.

    Raises:
        ValueError: where a setting is impossible.
    """

    physics: str = "known"
    correct_inside: bool = True
    correct_outside: bool = True
    inside_dim: int = 1
    outside_dim: int = 2
    cleansing: bool = True
    time_as: str = "number"
    solver: str = "euler"
    substeps: int = 1
    noise_sd: float = 0.0111
    weight_divergence: float = 1.0
    weight_least_action: float = 1e-2
    weight_cleansing: float = 1e-3
    weight_physics_encoder: float = 1e-1
    feature_width: int = 128
    features: int = 256
    head_width: int = 64
    cleansing_width: int = 128
    inside_width: int = 64
    outside_width: int = 128
    steps: int = 20_000
    batch_size: int = 200
    learning_rate: float = 1e-3
    final_rate: float = 0.01
    epsilon: float = 1e-3
    weight_decay: float = 1e-6
    clip_value: float = 5.0
    held_out: float = 1 / 3
    check_every: int = 50

    quick: ClassVar[Mapping[str, object]] = {
        "feature_width": 32,
        "features": 32,
        "head_width": 16,
        "cleansing_width": 32,
        "inside_width": 16,
        "outside_width": 32,
        "steps": 150,
        "batch_size": 100,
        "learning_rate": 5e-3,
        "epsilon": 1e-6,
    }

    def __post_init__(self) -> None:
        for name, value, expected in (
            ("physics", self.physics, ("known", "permuted", "none")),
            ("time_as", self.time_as, ("number", "angle")),
            ("solver", self.solver, ("euler", "rk4", "simulator")),
        ):
            if value not in expected:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, expected))}")
        if self.physics == "none" and not (self.correct_inside or self.correct_outside):
            raise ValueError("a model without physics and without corrections has nothing to train; leave one of them")
        if min(self.inside_dim, self.outside_dim) < 0 or self.substeps < 1:
            raise ValueError(
                f"found inside_dim {self.inside_dim}, outside_dim {self.outside_dim} and substeps {self.substeps}; "
                "expected 0 or more variables and 1 or more steps"
            )
        if not self.noise_sd > 0 or not 0 < self.held_out < 1:
            raise ValueError(
                f"found noise_sd {self.noise_sd} and held_out {self.held_out}; expected a positive sd and a fraction"
            )

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """Train on the unlabelled measurements. The simulations are not used: the known physics is asked directly."""
        y = problem.unlabelled
        y = y[torch.isfinite(y).flatten(1).all(1)]
        model = self._model(problem, problem.prior.sample(torch.Size((PRIOR_DRAWS,)))).to(y.device)
        # one location and scale for all numbers, so that a number that hardly varies is not blown up
        overall = Standardise.of(y.reshape(-1, 1))
        model.y_map.loc.copy_(overall.loc)
        model.y_map.scale.copy_(overall.scale)
        prior, weights = problem.prior, self._weights

        def losses(batch: Tensor) -> Mapping[str, Tensor]:
            augmentation = prior.sample(torch.Size((len(batch),))).to(batch) if self._augmented else None
            branches = model.branches(batch, augmentation, self._spread_by_bound)
            terms = dict(unregularised(model, branches, batch, weights, self.noise_sd))
            if branches.simulated is not None:
                terms["physics encoder"] = weights.physics_encoder * self._augmentation_loss(model, *branches.simulated)
            return terms

        def error(held: Tensor) -> Tensor:
            return square(model.reconstruct(model.encode(held), held, held.shape[-1]) - held)

        return PhysicsVAEPosterior(model, descend(model, losses, error, y, self._descent, progress))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior with these weights."""
        model = self._model(problem, problem.prior.sample(torch.Size((2,))))
        model.load_state_dict(tensors)
        model.to(next(iter(tensors.values())).device).eval().requires_grad_(False)
        return PhysicsVAEPosterior(model)

    @abstractmethod
    def _augmentation_loss(self, model: PhysicsVAEModel, theta: Tensor, signal: Tensor) -> Tensor:
        """R_DA2, (), for parameters (N, D) and their signals (N, *y_shape) under the known physics."""

    @property
    @abstractmethod
    def _spread_by_bound(self) -> bool:
        """Whether the bound has a say in the spread of q(z_P | y)."""

    @property
    def _augmented(self) -> bool:
        return self.physics != "none" and self.weight_physics_encoder > 0

    @property
    def _weights(self) -> Weights:
        return Weights(
            self.weight_divergence, self.weight_least_action, self.weight_cleansing, self.weight_physics_encoder
        )

    @property
    def _descent(self) -> Descent:
        names = Descent.__dataclass_fields__
        return Descent(**{name: getattr(self, name) for name in names})

    def _model(self, problem: Problem, theta: Tensor) -> PhysicsVAEModel:
        """The untrained model, its scales of theta from draws of the prior (N, D)."""
        dynamics = with_solver(problem.dynamics, self.solver, self.substeps)
        y_dim, theta_dim = torch.Size(problem.y_shape).numel(), theta.shape[1]
        physics = theta_dim if self.physics != "none" else 0
        inside_dim = self.inside_dim if self.correct_inside else 0
        outside_dim = self.outside_dim if self.correct_outside else 0
        inside = outside = None
        if self.correct_inside:
            inside = Correction(inside_dim, tuple(dynamics.correctable), self.inside_width, self.time_as)
        if self.correct_outside:
            outside = layers(physics + inside_dim + outside_dim, self.outside_width, self.outside_width, y_dim)
        return PhysicsVAEModel(
            ThetaMap.of(problem.prior, theta),
            Standardise.of(theta),
            Standardise(y_dim),
            Encoder(
                y_dim,
                physics,
                inside_dim,
                outside_dim,
                self.cleansing_width if self.cleansing else 0,
                self.feature_width,
                self.features,
                self.head_width,
            ),
            Decoder(dynamics, self.physics, inside, outside),
        )


@dataclass(frozen=True)
class PhysicsVAE(_PhysicsVAE):
    """The published method: R_DA2 is the squared error of the encoder's mean, on simulations without noise.

    Nothing in it tells the encoder how wide q(z_P | y) should be but the bound, which knows the decoder's one
    explanation of y and not the others: its intervals are far too narrow.
    """

    spec: ClassVar[MethodSpec] = MethodSpec("physics_vae", 1, REFERENCE, NEEDS, label="physics VAE")

    def _augmentation_loss(self, model: PhysicsVAEModel, theta: Tensor, signal: Tensor) -> Tensor:
        return physics_encoder_error(model, theta, signal)

    @property
    def _spread_by_bound(self) -> bool:
        return True


@dataclass(frozen=True)
class PhysicsVAEProper(_PhysicsVAE):
    """The same with R_DA2 by the log density of the true parameters, and with the noise of y on the simulations.

    The spread of q is thereby trained too, where the physics is all there is. It is no published method.

    Args:
        spread_by_bound: whether the bound trains the spread as well. On real measurements it pulls it to nearly 0,
            since a draw far from the mean spoils the reconstruction, and the score, which knows simulations alone, does
            not hold against it. Without, the spread is what simulations teach.
    """

    spread_by_bound: bool = True

    spec: ClassVar[MethodSpec] = MethodSpec(
        "physics_vae_proper", 1, REFERENCE + ", with a proper score", NEEDS, label="physics VAE, proper score"
    )

    def _augmentation_loss(self, model: PhysicsVAEModel, theta: Tensor, signal: Tensor) -> Tensor:
        return physics_encoder_log_score(model, theta, signal + self.noise_sd * torch.randn_like(signal))

    @property
    def _spread_by_bound(self) -> bool:
        return self.spread_by_bound

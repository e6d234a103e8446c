"""How sbi trains a network, and what its amortised methods share.

Adam with sbi's own defaults; stopped where the loss on held-out simulations has not improved for some epochs. The
weights of the best held-out loss are kept.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posterior_bench import Method, Posterior, Problem, Progress, Simulations

from .library import Builder, NoTracker, SbiPrior, frozen, quiet, rebuild, varying

Curves = dict[str, list[float]]

DENSITY_ESTIMATORS = ("nsf", "maf", "mdn", "zuko_nsf", "zuko_maf")
"""sbi's names of conditional densities: neural spline flow, masked autoregressive flow, mixture of Gaussians."""


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` where an option is none of its choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {list(choices)}")


@dataclass(frozen=True)
class NetworkMethod(Method):
    """A method whose network sbi trains. The defaults are sbi's, but for the two bounds, which sbi leaves open.

    Args:
        batch_size: simulations a gradient step.
        learning_rate: of Adam.
        validation_fraction: of the simulations, held out to stop by.
        stop_after_epochs: passes over the simulations without a better held-out loss before training stops.
        clip_max_norm: the gradient's norm is clipped here.
        max_epochs, max_steps: training stops here at the latest, whichever comes first, at the end of an epoch.
    """

    batch_size: int = 200
    learning_rate: float = 5e-4
    validation_fraction: float = 0.1
    stop_after_epochs: int = 20
    clip_max_norm: float = 5.0
    max_epochs: int = 1000
    max_steps: int = 40_000

    mean_loss: ClassVar[bool] = False
    """Whether the trainer's loss is already a mean over a batch, which sbi then divides by the batch's size again."""
    held_out_terms: ClassVar[int] = 1
    """Losses of a held-out simulation that sbi adds up."""

    @abstractmethod
    def _builder(self) -> Builder:
        """What makes the untrained network."""

    @abstractmethod
    def _trainer(self, builder: Builder, **common: Any) -> Any:
        """sbi's trainer of that network; ``common`` are arguments that all its trainers take."""

    def _new_trainer(self, prior: SbiPrior, device: torch.device) -> Any:
        return self._trainer(
            self._builder(), prior=prior, device=str(device), tracker=NoTracker(), show_progress_bars=False
        )

    def _train(self, trainer: Any, size: int, progress: Progress, curves: Curves) -> nn.Module:
        """Train on the ``size`` simulations that the trainer holds, and add to the curves, one value an epoch."""
        kept = int((1 - self.validation_fraction) * size)
        batches = kept // min(self.batch_size, kept)
        epochs = max(1, min(self.max_epochs, self.max_steps // batches))

        def show(_: bool, epoch: int) -> None:
            progress.update(epoch, epochs, f"held-out loss {trainer.summary['validation_loss'][-1]:.4g}")

        trainer._maybe_show_progress = show  # sbi's hook for its printed counter
        before = len(trainer.summary["training_loss"])
        network = trainer.train(
            training_batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            validation_fraction=self.validation_fraction,
            stop_after_epochs=self.stop_after_epochs,
            max_num_epochs=epochs - 1,  # sbi trains one more
            clip_max_norm=self.clip_max_norm,
        )
        done = trainer.summary["training_loss"][before:]
        held_out = trainer.summary["validation_loss"][before:]
        unit = min(self.batch_size, kept) if self.mean_loss else 1
        held_unit = (min(self.batch_size, size - kept) if self.mean_loss else 1) / self.held_out_terms
        start = curves.setdefault("step", [0.0])[-1]
        curves["step"] += [start + batches * (epoch + 1) for epoch in range(len(done))]
        curves.setdefault("loss", []).extend(unit * value for value in done)
        curves.setdefault("held_out", []).extend(held_unit * value for value in held_out)
        return network

    def _fitted(
        self, simulations: Simulations, problem: Problem, progress: Progress
    ) -> tuple[nn.Module, Tensor, Mapping[str, Tensor]]:
        """A network trained on the valid simulations of the prior, the columns of y it sees, and its curves."""
        pairs = simulations.only_valid()
        columns = varying(pairs.y)
        curves: Curves = {}
        with quiet():
            trainer = self._new_trainer(SbiPrior(problem.prior), pairs.theta.device)
            trainer.append_simulations(pairs.theta.float(), pairs.y.flatten(1)[:, columns].float())
            network = self._train(trainer, len(pairs), progress, curves)
        return frozen(network), columns, history_of(curves)

    def _restored(self, tensors: dict[str, Tensor], problem: Problem) -> tuple[nn.Module, Tensor]:
        """The network with these weights, and the columns of y it sees."""
        return rebuild(self._builder(), tensors, problem.prior.event_shape[0])


def history_of(curves: Curves) -> dict[str, Tensor]:
    """The curves as tensors (epochs,), without the step 0 at which nothing was measured."""
    return {name: torch.tensor(values[1:] if name == "step" else values) for name, values in curves.items()}


@dataclass(frozen=True)
class AmortisedMethod(NetworkMethod):
    """A method whose posterior is what its network knows after one training on simulations of the prior."""

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """Train on the valid simulations; numbers of y that are constant over them are left out.

        Raises:
            ValueError: on fewer than 20 valid simulations.
        """
        network, columns, history = self._fitted(simulations, problem, progress)
        return self._posterior(network, columns, problem, history)

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior with these weights."""
        network, columns = self._restored(tensors, problem)
        return self._posterior(network, columns, problem, {})

    @abstractmethod
    def _posterior(
        self, network: nn.Module, columns: Tensor, problem: Problem, history: Mapping[str, Tensor]
    ) -> Posterior:
        """The posterior of a trained network that sees these columns of y."""


@dataclass(frozen=True)
class FlowMethod(NetworkMethod):
    """A method that trains a conditional density of theta given y, each number of either standardised by sbi.

    Args:
        density_estimator: one of ``DENSITY_ESTIMATORS``; sbi's own default is ``"maf"``.
        hidden_features: width of the networks in the flow.
        transforms: of a flow.
        bins: of a spline.
    """

    density_estimator: str = "nsf"
    hidden_features: int = 50
    transforms: int = 5
    bins: int = 10

    def __post_init__(self) -> None:
        require_choice("density_estimator", self.density_estimator, DENSITY_ESTIMATORS)

    def _builder(self) -> Builder:
        def build(theta: Tensor, y: Tensor) -> nn.Module:
            from sbi.neural_nets import posterior_nn

            sizes = {"hidden_features": self.hidden_features, "num_transforms": self.transforms, "num_bins": self.bins}
            return posterior_nn(self.density_estimator, **sizes)(theta, y)

        return build

    def _trainer(self, builder: Builder, **common: Any) -> Any:
        from sbi.inference import NPE_C

        return NPE_C(density_estimator=builder, **common)

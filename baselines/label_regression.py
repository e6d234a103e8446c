"""Regression on a few labelled measurements, and on nothing else: what the labels are worth without any simulator.

    ridge:    q(t | y) = N(k' (K + s^2 I)^-1 t_labels,  k(y, y) - k' (K + s^2 I)^-1 k + s^2)
    network:  q(t | y) = 1/M sum_m N(mu_m(y), diag sigma_m^2(y)),   each trained by -log N of the labels

for mapped parameters t = T(theta). The first is kernel ridge regression, whose ridge s^2 and kernel, a squared
exponential of standardised y, are found by marginal likelihood with weak log-normal priors, a parameter at a time: a
Gaussian process, so that it knows its uncertainty (Rasmussen & Williams 2006, chapter 2); by scikit-learn. The second
is a small ensemble (network by network as Nix & Weigend 1994, IEEE ICNN 1:55; averaged as Lakshminarayanan, Pritzel &
Blundell 2017, arXiv:1612.01474), held back by weight decay and stopped by labels that are kept aside.

Both are controls: what learns from the same labels and from a simulator as well must do better than these.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import softplus

from posterior_bench import HasLogProb, Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.priors import in_support, log_density_in_support
from posterior_bench.training import Stage, Standardise, ThetaMap, Training, train

NEEDS = frozenset({Need.LABELLED})

NARROWEST, WIDEST = 2 * math.log(1e-2), 2 * math.log(10.0)
"""Soft bounds of a network's log variance of mapped theta, whose prior has sd 1: few labels cannot teach less."""

PRIOR_SPREAD = np.array([1.0, 1.0, 1.5])
"""Sd of the log-normal priors of the ridge's kernel variance, length scale and s^2, with medians 1, sqrt(M) and 0.1."""


class LabelPosterior(Posterior, HasLogProb):
    """An equal mixture of normals of mapped theta, each with independent parameters."""

    def __init__(self, theta_map: ThetaMap, history: Mapping[str, Tensor] | None = None) -> None:
        self.theta_map = theta_map
        self.history = history or {}

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        with torch.no_grad():
            mean, sd = self._components(y)
            count, rows = torch.randint(len(mean), (n, len(y)), device=mean.device), torch.arange(len(y))
            mean, sd = mean[count, rows], sd[count, rows]
            return self.theta_map.inverse(mean + sd * torch.randn_like(mean))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and y (B, *y_shape); -inf outside the support."""
        mean, sd = self._components(y)

        def density(at: Tensor) -> Tensor:
            each = Normal(mean.unsqueeze(1), sd.unsqueeze(1)).log_prob(self.theta_map(at)).sum(-1)
            return each.logsumexp(0) - math.log(len(mean)) + self.theta_map.log_abs_det(at)

        anchor = self.theta_map.inverse(torch.zeros_like(theta[0, 0]))
        return log_density_in_support(self.theta_map.prior, theta, anchor, density)

    @abstractmethod
    def _components(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Means and sds of mapped theta, each (M, B, D), for measurements y (B, *y_shape)."""


@dataclass(frozen=True)
class _LabelRegression(Method):
    """What both methods have in common.

    Args:
        labels: pairs to learn from: the first so many valid ones of the problem's.
    """

    labels: int = 50

    def __post_init__(self) -> None:
        if self.labels < 10:
            raise ValueError(f"labels is {self.labels}; expected at least 10")

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """Learn from the labelled pairs. The simulations are not used.

        Raises:
            ValueError: where the problem has fewer valid pairs than ``labels``, or some outside the prior's support.
        """
        pairs = problem.labelled.only_valid()
        if len(pairs) < self.labels:
            raise ValueError(
                f"found {len(pairs)} valid labelled pairs of {len(problem.labelled)}; expected at least {self.labels}: "
                "lower the method's option labels, or raise the task's"
            )
        theta, y = pairs.theta[: self.labels], pairs.y[: self.labels]
        outside = int((~in_support(problem.prior, theta)).sum())
        if outside:
            raise ValueError(
                f"found {outside} of {self.labels} labelled parameters outside the support of the simulator's prior; "
                "expected none: widen the prior"
            )
        return self._learn(ThetaMap.of(problem.prior, theta).to(theta.device), theta, y, progress)

    @abstractmethod
    def _learn(self, theta_map: ThetaMap, theta: Tensor, y: Tensor, progress: Progress) -> Posterior:
        """The posterior learned from theta (N, D) and y (N, *y_shape)."""


class RidgePosterior(LabelPosterior):
    """One normal: the predictive distribution of a Gaussian process for each mapped parameter.

    Args:
        theta_map: from theta to the reals.
        y_map: standardises y.
        rows: standardised measurements (N, M) of the labels.
        real: their mapped parameters (N, D).
        hyperparameters: logs of the kernel's variance, length scale and ridge, (D, 3).
    """

    def __init__(
        self, theta_map: ThetaMap, y_map: Standardise, rows: Tensor, real: Tensor, hyperparameters: Tensor
    ) -> None:
        super().__init__(theta_map)
        self.y_map, self.rows, self.real, self.hyperparameters = y_map, rows, real, hyperparameters
        known = [value.double().cpu().numpy() for value in (rows, real, hyperparameters)]
        self._processes = [_process(known[0], t, at) for t, at in zip(known[1].T, known[2], strict=True)]

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The labels, scales and hyperparameters, from which the processes are built anew."""
        scales = {"y_loc": self.y_map.loc, "y_scale": self.y_map.scale}
        scales |= {"theta_loc": self.theta_map.loc, "theta_scale": self.theta_map.scale}
        return scales | {"rows": self.rows, "real": self.real, "hyperparameters": self.hyperparameters}, {}

    def _components(self, y: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.y_map(y).detach().double().cpu().numpy()
        found = [process.predict(rows, return_std=True) for process in self._processes]
        mean, sd = (torch.from_numpy(np.stack(part, axis=1)).to(self.real) for part in zip(*found, strict=True))
        return mean[None], sd[None]


@dataclass(frozen=True)
class LabelRidge(_LabelRegression):
    """Kernel ridge regression of mapped theta on y."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        "label_ridge",
        1,
        "Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, chapter 2",
        NEEDS,
        label="kernel ridge on labels",
    )
    quick: ClassVar[Mapping[str, object]] = {"labels": 20}

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior of the same labels and hyperparameters."""
        theta_map, y_map = ThetaMap(problem.prior), Standardise(len(tensors["y_loc"]))
        theta_map.loc, theta_map.scale = tensors["theta_loc"], tensors["theta_scale"]
        y_map.loc, y_map.scale = tensors["y_loc"], tensors["y_scale"]
        return RidgePosterior(theta_map, y_map, tensors["rows"], tensors["real"], tensors["hyperparameters"])

    def _learn(self, theta_map: ThetaMap, theta: Tensor, y: Tensor, progress: Progress) -> Posterior:
        y_map = Standardise.of(y)
        rows, real = y_map(y), theta_map(theta)
        start = np.log([1.0, math.sqrt(rows.shape[1]), 0.1])
        wide = rows.double().cpu().numpy()
        found = [_process(wide, t, start, _most_likely).kernel_.theta for t in real.double().cpu().numpy().T]
        return RidgePosterior(theta_map, y_map, rows, real, torch.from_numpy(np.stack(found)).to(real))


def _process(rows: np.ndarray, t: np.ndarray, at: np.ndarray, optimiser: object = None) -> GaussianProcessRegressor:
    """The process given mapped parameters (N,) at rows (N, M), with log variance, length scale and ridge ``at``."""
    variance, length, ridge = np.exp(at)
    # bounds far beyond what the priors let be likely
    smooth = ConstantKernel(variance, (1e-4, 1e4)) * RBF(length, (1e-4, 1e6))
    kernel = smooth + WhiteKernel(ridge, (1e-9, 1e4))
    return GaussianProcessRegressor(kernel, optimizer=optimiser).fit(rows, t)


def _most_likely(loss, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:  # type: ignore[no-untyped-def]
    """Maximise marginal likelihood and log prior from three lengths on; the signature is scikit-learn's."""

    def penalised(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(at)
        z = (at - start) / PRIOR_SPREAD
        return float(value + 0.5 * z @ z), slope + z / PRIOR_SPREAD

    starts = [start + np.array([0.0, shift, 0.0]) for shift in (-1.0, 0.0, 1.0)]
    found = [minimize(penalised, s, jac=True, method="L-BFGS-B", bounds=bounds) for s in starts]
    best = min(found, key=lambda result: result.fun)
    return best.x, float(best.fun)


class LabelModel(nn.Module):
    """Networks from standardised y to means and log variances of mapped theta, with the maps around them."""

    def __init__(self, theta_map: ThetaMap, y_map: Standardise, members: int, width: int) -> None:
        super().__init__()
        self.theta_map, self.y_map = theta_map, y_map
        inputs, outputs = len(y_map.loc), 2 * len(theta_map.loc)
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
            )
            for _ in range(members)
        )


def mean_and_log_variance(network: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of mapped theta, each (N, D), for standardised measurements (N, M)."""
    mean, log_variance = network(rows).chunk(2, dim=-1)
    log_variance = WIDEST - softplus(WIDEST - log_variance)
    return mean, NARROWEST + softplus(log_variance - NARROWEST)


class NetworkPosterior(LabelPosterior):
    """The equal mixture of the networks' normals."""

    def __init__(self, model: LabelModel, history: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(model.theta_map, history)
        self.model = model

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The weights; the sizes are the method's."""
        return dict(self.model.state_dict()), {}

    def _components(self, y: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.model.y_map(y)
        found = [mean_and_log_variance(network, rows) for network in self.model.networks]
        return torch.stack([mean for mean, _ in found]), torch.stack([(0.5 * log).exp() for _, log in found])


@dataclass(frozen=True)
class LabelNetwork(_LabelRegression):
    """An ensemble of small networks with a normal output.

    Args:
        members: networks, each with its own initialisation and its own labels kept aside.
        width: of the two hidden layers.
        steps, learning_rate, weight_decay, held_out: see ``Training``.
    """

    members: int = 5
    width: int = 64
    steps: int = 600
    learning_rate: float = 6e-3
    weight_decay: float = 0.1
    held_out: float = 0.2

    spec: ClassVar[MethodSpec] = MethodSpec(
        "label_network",
        1,
        "Nix & Weigend 1994, IEEE ICNN 1:55; Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474",
        NEEDS,
        label="networks on labels",
    )
    quick: ClassVar[Mapping[str, object]] = {"labels": 20, "members": 2, "width": 16, "steps": 100}

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior with these weights."""
        y_map = Standardise(torch.Size(problem.y_shape).numel())
        model = LabelModel(ThetaMap(problem.prior), y_map, self.members, self.width)
        model.load_state_dict(tensors)
        return NetworkPosterior(model.to(next(iter(tensors.values())).device).eval().requires_grad_(False))

    def _learn(self, theta_map: ThetaMap, theta: Tensor, y: Tensor, progress: Progress) -> Posterior:
        model = LabelModel(theta_map, Standardise.of(y), self.members, self.width).to(y.device)
        data = theta_map(theta), model.y_map(y)
        settings = Training(
            steps=self.steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            held_out=self.held_out,
            check_every=10,
            patience=15,
        )
        curves: list[dict[str, Tensor]] = []
        for i, network in enumerate(model.networks):

            def losses(
                batch: tuple[Tensor, ...], fraction: float, network: nn.Module = network
            ) -> Iterator[tuple[str, Tensor]]:
                mean, log_variance = mean_and_log_variance(network, batch[1])
                yield (
                    "negative log-likelihood",
                    -Normal(mean, (0.5 * log_variance).exp()).log_prob(batch[0]).sum(-1).mean(),
                )

            stage = Stage(progress, i, self.members, f"network {i + 1} of {self.members}, ")
            curves.append(train(network, losses, data, settings, stage))
            if i > 0:
                curves[-1]["step"] += curves[-2]["step"][-1]
        model.eval()
        return NetworkPosterior(model, {name: torch.cat([c[name] for c in curves]) for name in curves[0]})

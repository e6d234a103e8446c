"""Methods of sbi that spend the budget on one measurement: simulations go where its posterior seems to be.

    snpe:     round after round, theta ~ the last q(theta | y*);  max E[log (q(theta | y)/p(theta)) / sum_a (...)_a]
    smc_abc:  particles theta_i with weight w_i and |y_i - y*| < epsilon_t, epsilon_t falling

Greenberg, Nonnenmacher & Macke 2019, arXiv:1905.07488, algorithm APT with atoms; Beaumont, Cornuet, Marin & Robert
2009, Biometrika 96:983, as sbi implements it. Defaults are those of Lueckmann et al. 2021, arXiv:2101.04653, where they
are not said to be others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from posterior_bench import HasLogProb, Method, MethodSpec, Need, Posterior, Problem, Progress, Simulations
from posterior_bench.priors import in_support
from posterior_bench.training import ThetaMap

from .library import SbiPrior, frozen, quiet, varying
from .posteriors import FlowPosterior
from .training import Curves, FlowMethod, history_of

SEQUENTIAL = frozenset({Need.SIMULATE, Need.OBSERVATION})


def require_observed(y: Tensor, observation: Tensor) -> None:
    """Raise ``ValueError`` where a measurement of y (B, *y_shape) is not the one that a posterior was fitted to."""
    if not torch.equal(y, observation.to(y).expand_as(y)):
        raise ValueError(
            "this posterior knows one measurement, and was asked for another; expected the observation of its problem: "
            "fit again for this one"
        )


class ObservedPosterior(Posterior, HasLogProb):
    """A flow that is to be trusted at one measurement.

    Args:
        flow: the flow.
        observation: (*y_shape), the measurement.
    """

    def __init__(self, flow: FlowPosterior, observation: Tensor) -> None:
        self.flow, self.network, self.history = flow, flow.network, flow.history
        self.observation = observation

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Independent draws (n, B, D) for B times the observation, y (B, *y_shape)."""
        require_observed(y, self.observation)
        return self.flow.sample(y, n)

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), in nats, for theta (n, B, D) and B times the observation."""
        require_observed(y, self.observation)
        return self.flow.log_prob(theta, y)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The flow's, and the observation."""
        return {**self.flow.state()[0], "observation": self.observation}, {}


@dataclass(frozen=True)
class SNPE(FlowMethod):
    """Sequential neural posterior estimation, NPE-C: a flow trained in rounds on simulations of its own proposals.

    The loss compares parameters inside the prior's support alone, so that the flow may put any mass outside: draws are
    by default taken inside, as sbi does.

    Failed simulations are left out. Where they fail with a probability that depends on theta, the loss of the later
    rounds is biased by the factor 1 / P(valid | theta).

    Args:
        rounds: of equal parts of the budget.
        reject: see ``NPE``.
    """

    rounds: int = 10
    reject: bool = True

    spec: ClassVar[MethodSpec] = MethodSpec(
        "snpe", 1, "Greenberg et al. 2019, arXiv:1905.07488", needs=SEQUENTIAL, space="native", label="SNPE"
    )
    quick: ClassVar[Mapping[str, object]] = {
        "hidden_features": 20,
        "transforms": 2,
        "bins": 4,
        "learning_rate": 5e-3,
        "max_epochs": 8,
        "rounds": 2,
    }

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> ObservedPosterior:
        """Spend the budget of the problem on its observation.

        Raises:
            ValueError: where a round has fewer than 20 valid simulations.
        """
        observation = problem.observation
        prior = SbiPrior(problem.prior)
        curves: Curves = {}
        columns, network, size = torch.empty(0), None, 0
        with quiet():
            trainer = self._new_trainer(prior, observation.device)
        for index in range(self.rounds):
            budget = problem.budget * (index + 1) // self.rounds - problem.budget * index // self.rounds
            theta = self._proposed(network, columns, prior, observation, budget)
            pairs = Simulations(theta, problem.simulate(theta)).only_valid()
            if network is None:
                columns = varying(pairs.y)
            elif len(pairs) < 20:
                raise ValueError(
                    f"round {index + 1} has {len(pairs)} valid simulations of {budget}; expected at least 20: raise "
                    "the budget or take fewer rounds"
                )
            size += len(pairs)
            with quiet():
                proposal = None
                if network is not None:
                    proposal = trainer.build_posterior().set_default_x(observation.flatten()[columns].unsqueeze(0))
                trainer.append_simulations(pairs.theta, pairs.y.flatten(1)[:, columns].float(), proposal=proposal)
                stage = Round(progress, index, self.rounds)
                network = self._train(trainer, size, stage, curves)
        if network is None:
            raise ValueError(f"rounds is {self.rounds}; expected at least 1")
        flow = FlowPosterior(frozen(network), columns, problem.prior, history_of(curves), self.reject)
        return ObservedPosterior(flow, observation)

    def _proposed(
        self, network: nn.Module | None, columns: Tensor, prior: SbiPrior, observation: Tensor, n: int
    ) -> Tensor:
        """Parameters (n, D) to simulate: of the prior at first, then of the flow inside the prior's support.

        Where the flow has next to nothing inside, the prior stands in: the loss holds for any proposal.
        """
        if network is None:
            return prior.sample((n,))
        flow = FlowPosterior(network.eval(), columns, prior.prior, {}, reject=True)
        theta = flow.sample(observation.unsqueeze(0), n)[:, 0]
        inside = in_support(prior.prior, theta)
        return torch.where(inside.unsqueeze(-1), theta, prior.sample((n,)))

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> ObservedPosterior:
        """The posterior with these weights, for the same observation."""
        network, columns = self._restored(tensors, problem)
        flow = FlowPosterior(network, columns, problem.prior, {}, self.reject)
        return ObservedPosterior(flow, tensors["observation"])


@dataclass(frozen=True)
class Round:
    """Progress of one round of several.

    Args:
        whole: told how far they all are.
        index, count: which round this is, and their number.
    """

    whole: Progress
    index: int
    count: int

    def update(self, done: int, total: int, message: str = "") -> None:
        """Say that ``done`` of ``total`` steps of this round are taken."""
        self.whole.update(self.index * total + done, self.count * total, f"round {self.index + 1}: {message}")


class ParticlePosterior(Posterior):
    """Weighted particles of one measurement.

    Args:
        particles: (K, D).
        weights: (K,), which sum to 1.
        observation: (*y_shape).
        theta_map: where ``bandwidth`` is not 0, the map to the reals in which a draw is blurred.
        bandwidth: sd of the blur in standard deviations of the particles; 0 for none.
    """

    def __init__(
        self, particles: Tensor, weights: Tensor, observation: Tensor, theta_map: ThetaMap, bandwidth: float
    ) -> None:
        self.particles, self.weights, self.observation = particles, weights, observation
        self.theta_map, self.bandwidth = theta_map, bandwidth

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for B times the observation, y (B, *y_shape): particles, with replacement, maybe blurred."""
        require_observed(y, self.observation)
        chosen = torch.multinomial(self.weights, n * len(y), replacement=True)
        if self.bandwidth == 0:
            return self.particles[chosen].view(n, len(y), -1)
        real = self.theta_map(self.particles)
        centred = (real - self.weights @ real) * self.weights.sqrt().unsqueeze(1)
        # the noise is a random mixture of the particles' deviations: it has their covariance, singular or not
        noise = torch.randn(len(chosen), len(real), device=real.device) @ centred
        return self.theta_map.inverse(real[chosen] + self.bandwidth * noise).view(n, len(y), -1)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """The particles, their weights and the observation."""
        tensors = {"particles": self.particles, "weights": self.weights, "observation": self.observation}
        return tensors, {"bandwidth": self.bandwidth}


@dataclass(frozen=True)
class SMCABC(Method):
    """Sequential Monte Carlo by approximate Bayesian computation: variant C of sbi, with a Gaussian kernel.

    A population of particles is perturbed by a normal of ``kernel_scale`` times its weighted covariance; a particle
    is accepted where its simulation is nearer than epsilon, and weighted by prior over proposal. When the budget ends
    within a population, the last one fills it up. The distance is Euclidean with each number of y scaled by its sd over
    the first simulations, which are of the prior; a failed simulation is at no distance and never accepted.

    Args:
        particles: in a population; 0 for 100, or 1,000 where the budget exceeds 10,000.
        initial: simulations of the prior in units of ``particles``, at most half the budget; the nearest are the first
            population.
        decay: quantile of the last population's summed distances that is the next epsilon.
        kernel_scale: of the perturbation's covariance.
        standardise: whether y is scaled; Lueckmann et al. did not.
        smooth: whether draws are blurred by a Gaussian kernel, in parameters mapped to the reals, with the bandwidth
            (4 / (d + 2))^(1/(d + 4)) k^(-1/(d + 4)) of Silverman 1986, k the effective number of particles.
    """

    particles: int = 0
    initial: int = 5
    decay: float = 0.2
    kernel_scale: float = 0.5
    standardise: bool = True
    smooth: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        "smc_abc", 1, "Beaumont et al. 2009, Biometrika 96:983", needs=SEQUENTIAL, space="native", label="SMC-ABC"
    )
    quick: ClassVar[Mapping[str, object]] = {"particles": 100}

    def __post_init__(self) -> None:
        if self.particles < 0 or self.initial < 1 or not 0 < self.decay < 1 or not self.kernel_scale > 0:
            raise ValueError(
                f"particles is {self.particles}, initial {self.initial}, decay {self.decay}, kernel_scale "
                f"{self.kernel_scale}; expected at least 0, at least 1, a number between 0 and 1, a positive number"
            )

    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> ParticlePosterior:
        """Spend the budget of the problem on its observation."""
        budget, observation = problem.budget, problem.observation
        particles = min(self.particles or (1000 if budget > 10_000 else 100), budget)
        first = max(particles, min(self.initial * particles, budget // 2))
        done: list[Tensor] = []
        scale: list[Tensor] = []

        def simulate(theta: Tensor) -> Tensor:
            done.append(theta)
            progress.update(sum(map(len, done)), budget)
            return problem.simulate(theta).flatten(1)

        def distance(observed: Tensor, y: Tensor) -> Tensor:
            if not scale:  # the first call is with simulations of the prior
                scale.append(_spread(y) if self.standardise else torch.ones_like(y[0]))
            return ((y - observed) / scale[0]).square().sum(-1).sqrt()

        with quiet():
            inference = self._inference(simulate, SbiPrior(problem.prior), distance, budget)
            _, summary = inference(
                observation.flatten().unsqueeze(0),
                num_particles=particles,
                num_initial_pop=first,
                num_simulations=budget,
                epsilon_decay=self.decay,
                distance_based_decay=True,
                kernel_variance_scale=self.kernel_scale,
                use_last_pop_samples=True,
                return_summary=True,
            )
        theta, weights = summary["particles"][-1], summary["weights"][-1].exp()
        bandwidth = _silverman(weights, theta.shape[1]) if self.smooth else 0.0
        return ParticlePosterior(theta, weights, observation, ThetaMap.of(problem.prior, theta), bandwidth)

    def _inference(self, simulate: Any, prior: SbiPrior, distance: Any, budget: int) -> Any:
        from sbi.inference import SMCABC as Sampler

        return Sampler(
            simulate,
            prior,
            distance=distance,
            requires_iid_data=False,
            simulation_batch_size=budget,
            show_progress_bars=False,
            kernel="gaussian",
            algorithm_variant="C",
        )

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> ParticlePosterior:
        """The same particles."""
        theta_map = ThetaMap.of(problem.prior, tensors["particles"])
        rest = tensors["weights"], tensors["observation"], theta_map, settings["bandwidth"]
        return ParticlePosterior(tensors["particles"], *rest)


def _spread(y: Tensor) -> Tensor:
    """Standard deviation (M,) of the valid rows of y (N, M); 1 where it is 0 or not known."""
    valid = y[torch.isfinite(y).all(1)]
    if len(valid) < 2:
        return torch.ones_like(y[0])
    sd = valid.std(0)
    return torch.where(sd > 1e-6 * valid.mean(0).abs(), sd, torch.ones_like(sd))


def _silverman(weights: Tensor, dim: int) -> float:
    """Silverman's bandwidth in standard deviations, for weighted particles in ``dim`` dimensions."""
    count = 1 / float(weights.square().sum())
    return float((4 / ((dim + 2) * count)) ** (1 / (dim + 4)))

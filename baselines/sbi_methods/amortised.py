"""Methods of sbi that learn once for all measurements.

    npe:   max E[log q(theta | y)]                                              q a neural spline flow
    nle:   max E[log l(y | theta)],             then  q(theta | y) ~ p(theta) l(y | theta)
    nre:   max E[log r(theta, y) / sum_a r(theta_a, y)],  then  q(theta | y) ~ p(theta) r(theta, y)
    fmpe:  min E|v(theta_t, t, y) - (noise - theta)|^2,   theta_t = (1 - t) theta + t noise
    npse:  min E w(t)|s(theta_t, t, y) - grad log p(theta_t | theta)|^2

Over simulations (theta, y); ``~`` is up to a constant, and such posteriors are drawn from by Markov chains. Greenberg,
Nonnenmacher & Macke 2019, arXiv:1905.07488, with neural splines of Durkan et al. 2019, arXiv:1906.04032; Papamakarios,
Sterratt & Murray 2019, arXiv:1805.07226; Durkan, Murray & Papamakarios 2020, arXiv:2002.03712; Wildberger et al. 2023,
arXiv:2305.17161; Geffner, Papamakarios & Mnih 2023, arXiv:2209.14249; Sharrock et al. 2024, arXiv:2210.04872.

Where simulations fail with a probability that depends on theta, npe, fmpe and npse learn p(theta | y, valid) =
p(theta | y), as long as y is valid; nle and nre model y given that it is valid, and so their posterior is off by the
factor 1 / P(valid | theta).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from posterior_bench import MethodSpec, Posterior, Problem

from .library import Builder
from .posteriors import ChainPosterior, DiffusionPosterior, FlowPosterior, ODEPosterior
from .training import DENSITY_ESTIMATORS, AmortisedMethod, FlowMethod, require_choice

FIELDS = ("mlp", "ada_mlp")
"""sbi's names of networks for vector fields."""


@dataclass(frozen=True)
class NPE(FlowMethod, AmortisedMethod):
    """Neural posterior estimation: a conditional density of theta given y, by maximum likelihood.

    Args:
        reject: whether draws outside the prior's support are made again, and the density is divided by its share
            inside, as sbi's own posterior does. By default draws are the network's, and what leaks is counted.
    """

    reject: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        "npe", 1, "Greenberg et al. 2019, arXiv:1905.07488", space="native", label="NPE"
    )
    quick: ClassVar[Mapping[str, object]] = {
        "hidden_features": 20,
        "transforms": 2,
        "bins": 4,
        "learning_rate": 5e-3,
        "max_epochs": 8,
    }

    def _posterior(
        self, network: nn.Module, columns: Tensor, problem: Problem, history: Mapping[str, Tensor]
    ) -> Posterior:
        return FlowPosterior(network, columns, problem.prior, history, self.reject)


@dataclass(frozen=True)
class ChainMethod(AmortisedMethod):
    """A method whose posterior is known up to a constant and drawn from by sbi's vectorised slice sampler.

    Measurements are done one after another, each in seconds. There is no density: its constant is not known.

    Args:
        chains, warmup, thin, candidates: see ``ChainPosterior``. The first three are sbi's defaults; so are the
            candidates by sbi's documentation, its code takes 10,000.
    """

    chains: int = 20
    warmup: int = 200
    thin: int = 1
    candidates: int = 1000


@dataclass(frozen=True)
class NLE(ChainMethod):
    """Neural likelihood estimation: a conditional density of y given theta, then Markov chains.

    Args:
        density_estimator: of y, one of ``DENSITY_ESTIMATORS``. For a single number ``"maf"`` is a mere Gaussian.
        hidden_features, transforms, bins: see ``FlowMethod``.
    """

    density_estimator: str = "maf"
    hidden_features: int = 50
    transforms: int = 5
    bins: int = 10

    spec: ClassVar[MethodSpec] = MethodSpec(
        "nle", 1, "Papamakarios et al. 2019, arXiv:1805.07226", space="native", label="NLE"
    )
    quick: ClassVar[Mapping[str, object]] = {
        "hidden_features": 20,
        "transforms": 1,
        "learning_rate": 5e-3,
        "max_epochs": 8,
        "warmup": 5,
        "candidates": 200,
    }

    def __post_init__(self) -> None:
        require_choice("density_estimator", self.density_estimator, DENSITY_ESTIMATORS)

    def _builder(self) -> Builder:
        def build(theta: Tensor, y: Tensor) -> nn.Module:
            from sbi.neural_nets import likelihood_nn

            sizes = {"hidden_features": self.hidden_features, "num_transforms": self.transforms, "num_bins": self.bins}
            return likelihood_nn(self.density_estimator, **sizes)(theta, y)

        return build

    def _trainer(self, builder: Builder, **common: Any) -> Any:
        from sbi.inference import NLE_A

        return NLE_A(density_estimator=builder, **common)

    def _posterior(
        self, network: nn.Module, columns: Tensor, problem: Problem, history: Mapping[str, Tensor]
    ) -> Posterior:
        sampler = self.chains, self.warmup, self.thin, self.candidates
        return ChainPosterior(network, columns, problem.prior, history, "likelihood", *sampler)


@dataclass(frozen=True)
class NRE(ChainMethod):
    """Neural ratio estimation: a classifier tells the theta behind y from nine others, then Markov chains.

    Args:
        classifier: ``"resnet"``, ``"mlp"`` or ``"linear"``.
        hidden_features: width of the classifier.
    """

    classifier: str = "resnet"
    hidden_features: int = 50

    mean_loss: ClassVar[bool] = True
    spec: ClassVar[MethodSpec] = MethodSpec(
        "nre", 1, "Durkan, Murray & Papamakarios 2020, arXiv:2002.03712", space="native", label="NRE"
    )
    quick: ClassVar[Mapping[str, object]] = {
        "hidden_features": 32,
        "learning_rate": 5e-3,
        "max_epochs": 10,
        "warmup": 5,
        "candidates": 200,
    }

    def __post_init__(self) -> None:
        require_choice("classifier", self.classifier, ("resnet", "mlp", "linear"))

    def _builder(self) -> Builder:
        def build(theta: Tensor, y: Tensor) -> nn.Module:
            from sbi.neural_nets import classifier_nn

            return classifier_nn(self.classifier, hidden_features=self.hidden_features)(theta, y)

        return build

    def _trainer(self, builder: Builder, **common: Any) -> Any:
        from sbi.inference import NRE_B

        return NRE_B(classifier=builder, **common)

    def _posterior(
        self, network: nn.Module, columns: Tensor, problem: Problem, history: Mapping[str, Tensor]
    ) -> Posterior:
        sampler = self.chains, self.warmup, self.thin, self.candidates
        return ChainPosterior(network, columns, problem.prior, history, "ratio", *sampler)


@dataclass(frozen=True)
class FMPE(AmortisedMethod):
    """Flow matching: a vector field carries noise to theta; draws and density by an adaptive solver.

    sbi's rule ends training only where the held-out loss stays two of its standard deviations above the best, which it
    seldom does: as a rule ``max_epochs`` or ``max_steps`` ends it.

    Args:
        field: network of the field, ``"mlp"`` or ``"ada_mlp"``.
        hidden_features, layers: its width and depth.
        reject: see ``NPE``.
    """

    field: str = "mlp"
    hidden_features: int = 100
    layers: int = 5
    reject: bool = False

    held_out_terms: ClassVar[int] = 10
    spec: ClassVar[MethodSpec] = MethodSpec(
        "fmpe", 1, "Wildberger et al. 2023, arXiv:2305.17161", space="native", label="FMPE"
    )
    quick: ClassVar[Mapping[str, object]] = {
        "hidden_features": 32,
        "layers": 2,
        "learning_rate": 5e-3,
        "max_epochs": 20,
    }

    def __post_init__(self) -> None:
        require_choice("field", self.field, FIELDS)

    def _builder(self) -> Builder:
        def build(theta: Tensor, y: Tensor) -> nn.Module:
            from sbi.neural_nets import posterior_flow_nn

            return posterior_flow_nn(self.field, hidden_features=self.hidden_features, num_layers=self.layers)(theta, y)

        return build

    def _trainer(self, builder: Builder, **common: Any) -> Any:
        from sbi.inference import FMPE as Trainer

        return Trainer(vf_estimator=builder, **common)

    def _posterior(
        self, network: nn.Module, columns: Tensor, problem: Problem, history: Mapping[str, Tensor]
    ) -> Posterior:
        return ODEPosterior(network, columns, problem.prior, history, self.reject)


@dataclass(frozen=True)
class NPSE(AmortisedMethod):
    """Posterior score estimation: a network learns the score of noised theta, by which noise is diffused back.

    Training ends as that of ``FMPE`` does.

    Args:
        field, hidden_features, layers, reject: see ``FMPE``.
        process: how noise is added, ``"ve"`` (its variance explodes), ``"vp"`` (preserved) or ``"subvp"``.
        sampler: ``"sde"`` for the reversed diffusion, or ``"ode"`` for the equation with the same marginals, whose
            draws have a density.
        sampler_steps: of the reversed diffusion.
    """

    field: str = "mlp"
    hidden_features: int = 100
    layers: int = 5
    process: str = "ve"
    sampler: str = "sde"
    sampler_steps: int = 500
    reject: bool = False

    held_out_terms: ClassVar[int] = 10
    spec: ClassVar[MethodSpec] = MethodSpec(
        "npse", 1, "Geffner et al. 2023, arXiv:2209.14249", space="native", label="NPSE"
    )
    quick: ClassVar[Mapping[str, object]] = {
        "hidden_features": 32,
        "layers": 2,
        "learning_rate": 5e-3,
        "max_epochs": 20,
        "sampler_steps": 50,
    }

    def __post_init__(self) -> None:
        require_choice("field", self.field, FIELDS)
        require_choice("process", self.process, ("ve", "vp", "subvp"))
        require_choice("sampler", self.sampler, ("sde", "ode"))

    def _builder(self) -> Builder:
        def build(theta: Tensor, y: Tensor) -> nn.Module:
            from sbi.neural_nets import posterior_score_nn

            sizes = {"hidden_features": self.hidden_features, "num_layers": self.layers}
            return posterior_score_nn(self.field, sde_type=self.process, **sizes)(theta, y)

        return build

    def _trainer(self, builder: Builder, **common: Any) -> Any:
        from sbi.inference import NPSE as Trainer

        return Trainer(vf_estimator=builder, **common)

    def _posterior(
        self, network: nn.Module, columns: Tensor, problem: Problem, history: Mapping[str, Tensor]
    ) -> Posterior:
        if self.sampler == "ode":
            return ODEPosterior(network, columns, problem.prior, history, self.reject)
        return DiffusionPosterior(network, columns, problem.prior, history, self.reject, self.sampler_steps)

"""sbi's methods behind the contract: against closed forms, against sbi itself, and without its side effects."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Uniform

from baselines.sbi_methods import FMPE, NLE, NPE, NPSE, NRE, SMCABC, SNPE, NPEImportance
from baselines.sbi_methods.library import SbiPrior, load, quiet, varying
from posterior_bench import HasLogProb, Method, Parameter, Posterior, Problem, Simulations, Simulator, Spec, Task
from posterior_bench.checks import LinearGaussian, check_method
from posterior_bench.evaluation import Leakage
from posterior_bench.priors import Product, TruncatedNormal, in_support
from posterior_bench.records import Draws, Need, Truth
from posterior_bench.runtime import scope

AMORTISED = (NPE(), NPEImportance(), NLE(), NRE(), FMPE(), NPSE(), NPSE(sampler="ode"))
SEQUENTIAL = (SNPE(), SMCABC())
LINEAR = LinearGaussian()
TRUE = torch.tensor([[-1.0, -2.0], [1.0, 2.0], [-1.0, 2.0]])


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


@dataclass(frozen=True)
class Bounded(Simulator):
    """y = theta + 0.5 noise, theta uniform on (0, 1): the posterior is cut off at both bounds."""

    @property
    def spec(self) -> Spec:
        return Spec("bounded", 1, "", (Parameter("only"),), (1,))

    def prior(self) -> Distribution:
        return Independent(Uniform(torch.zeros(1), torch.ones(1)), 1)

    def simulate(self, theta: Tensor) -> Tensor:
        return theta + 0.5 * torch.randn_like(theta)


@dataclass(frozen=True)
class Mixed(Simulator):
    """y = theta + 0.1 noise, theta half a normal and a uniform; the third number of y is constant, some y fail."""

    @property
    def spec(self) -> Spec:
        return Spec("mixed", 1, "", (Parameter("first"), Parameter("second")), (3,))

    def prior(self) -> Distribution:
        return Product([TruncatedNormal(0.0, 1.0, 0.0, math.inf), Uniform(-1.0, 1.0)])

    def simulate(self, theta: Tensor) -> Tensor:
        y = theta + 0.1 * torch.randn_like(theta)
        y = torch.cat([y, torch.full((len(y), 1), 0.3)], dim=1)
        return torch.where(torch.rand(len(y), 1) < 0.05, torch.nan, y)


def quickly(method: Method, **options: object) -> Method:
    return dataclasses.replace(method, **{**method.quick, **options})  # type: ignore[type-var]


def fit(method: Method, simulator: Simulator, size: int = 1000, observation: Tensor | None = None, seed: int = 0):
    """The posterior of a method, and its problem."""
    problem = Problem(Task("task", simulator), method.spec.needs, size, observation)
    with scope(seed):
        theta = simulator.prior().sample((0 if Need.SIMULATE in method.spec.needs else size,))
        y = simulator.simulate(theta) if len(theta) else theta.new_empty(0, *simulator.spec.y_shape)
        return method.fit(Simulations(theta, y), problem, Silent()), problem


def measured(simulator: Simulator = LINEAR) -> Tensor:
    with scope(9):
        return simulator.simulate(TRUE)


def name(method: object) -> str:
    return method.spec.name + ("_ode" if getattr(method, "sampler", "") == "ode" else "")


@pytest.fixture(scope="module")
def trained() -> tuple[Posterior, Problem, NPE]:
    method = NPE(hidden_features=20, transforms=2, bins=4, learning_rate=5e-3, max_epochs=20)
    return *fit(method, LINEAR, 3000), method


def test_importing_is_light_and_loading_changes_nothing() -> None:
    script = (
        "import sys, baselines.sbi_methods as m\n"
        "assert not {'sbi', 'zuko', 'pyro', 'nflows'} & set(sys.modules)\n"
        "m.NPE(), m.SMCABC()\n"
        "from torch.distributions import Distribution\n"
        "from baselines.sbi_methods.library import load\n"
        "load()\n"
        "assert 'zuko' in sys.modules and Distribution._validate_args\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr


def test_npe_is_near_the_exact_posterior(trained: tuple[Posterior, Problem, NPE]) -> None:
    posterior, _, _ = trained
    y = measured()
    exact = LINEAR.posterior(y)
    with scope(1):
        draws = posterior.sample(y, 2000)
    assert draws.shape == (2000, 3, 2)
    assert ((draws.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.5
    assert (draws.std(0) / exact.stddev).log().abs().max() < math.log(1.4)
    assert isinstance(posterior, HasLogProb)
    with scope(1):
        draws = exact.sample((2000,))
    assert 0 < (exact.log_prob(draws) - posterior.log_prob(draws, y)).mean() < 0.3  # the divergence, in nats


def test_measurements_are_not_swapped(trained: tuple[Posterior, Problem, NPE]) -> None:
    posterior, _, _ = trained
    y, order = measured(), torch.tensor([2, 0, 1])
    with scope(1):
        draws = posterior.sample(y, 1500)
    with scope(2):
        permuted = posterior.sample(y[order], 1500)
    assert (permuted.mean(0) - draws.mean(0)[order]).abs().max() < 0.1
    assert (draws.mean(0) - draws.mean(0)[order]).abs().max() > 1.0


def test_many_draws_are_made_in_parts(trained: tuple[Posterior, Problem, NPE], monkeypatch: pytest.MonkeyPatch) -> None:
    posterior, _, _ = trained
    monkeypatch.setattr("baselines.sbi_methods.posteriors.ROWS", 64)
    y = measured().repeat(3, 1)
    with scope(1):
        for n in (150, 10):
            draws = posterior.sample(y, n)
            assert draws.shape == (n, 9, 2)
            assert draws.unique(dim=0).shape[0] == n
            value = posterior.log_prob(draws, y)  # type: ignore[attr-defined]
            one = torch.stack([posterior.log_prob(draws[:1, i : i + 1], y[i : i + 1])[0, 0] for i in range(9)])  # type: ignore[attr-defined]
            assert torch.allclose(value[0], one, atol=1e-4)


@pytest.mark.parametrize("method", [*AMORTISED, *SEQUENTIAL], ids=name)
def test_runs_silently_and_comes_back_from_its_state(
    method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    y = measured()[:1] if method in SEQUENTIAL else measured()[:2]
    before = Distribution._validate_args
    method = quickly(method, **({} if isinstance(method, SMCABC) else {"max_epochs": 3}))
    posterior, problem = fit(method, LINEAR, observation=y[0])
    tensors, settings = posterior.state()
    with scope(3):
        draws = posterior.sample(y, 6)
    with scope(99):  # an untrained network that differs from the first in all that is drawn
        restored = method.restore({k: v.clone() for k, v in tensors.items()}, settings, problem)
    with scope(3):
        assert torch.equal(restored.sample(y, 6), draws)
    assert draws.shape == (6, len(y), 2)
    assert torch.isfinite(draws).all()
    assert len({len(curve) for curve in posterior.history.values()}) <= 1
    assert set(posterior.history) in (set(), {"step", "loss", "held_out"})
    assert os.listdir(tmp_path) == []
    assert tuple(capfd.readouterr()) == ("", "")
    assert Distribution._validate_args == before
    if isinstance(posterior, HasLogProb):
        assert torch.allclose(restored.log_prob(draws, y), posterior.log_prob(draws, y))
    else:
        assert method.spec.name in {"nle", "nre", "npse", "npe_is", "smc_abc"}


@pytest.mark.parametrize("method", [NPE(density_estimator="maf"), NLE(), NRE(), FMPE(), NPSE()], ids=name)
def test_defaults_are_those_of_sbi(method: Method) -> None:
    """The same weights as sbi's own trainer gives with nothing but the number of epochs said."""
    load()
    import sbi.inference

    trainers = {"npe": "NPE", "nle": "NLE", "nre": "NRE", "fmpe": "FMPE", "npse": "NPSE"}
    method = dataclasses.replace(method, max_epochs=2)  # type: ignore[type-var]
    posterior, _ = fit(method, LINEAR, 600)
    with scope(0), quiet():
        theta = LINEAR.prior().sample((600,))
        y = LINEAR.simulate(theta)
        from baselines.sbi_methods.library import NoTracker

        make = getattr(sbi.inference, trainers[method.spec.name])
        trainer = make(prior=SbiPrior(LINEAR.prior()), tracker=NoTracker(), show_progress_bars=False)
        network = trainer.append_simulations(theta, y).train(max_num_epochs=1)
    ours = posterior.state()[0]
    for key, value in network.state_dict().items():
        assert torch.equal(ours[f"network.{key}"], value), key
    assert len(posterior.history["loss"]) == 2
    assert posterior.history["step"].tolist() == [2.0, 4.0]  # 540 simulations, 200 at a time


def test_what_leaks_is_counted_not_dropped() -> None:
    simulator = Bounded()
    posterior, _ = fit(quickly(NPE(), max_epochs=12), simulator, 2000)
    y = torch.tensor([[-0.2], [0.5], [1.2]])
    with scope(1):
        draws = posterior.sample(y, 1000)
    prior = simulator.prior()
    truth = Truth(
        torch.full((3, 1), 0.5), y, prior, prior.sample((100,)), simulator.spec.parameters, simulator.simulate
    )
    leaked = next(iter(Leakage().score(Draws(draws), truth))).value
    assert 0.01 < leaked < 0.5
    assert leaked == pytest.approx(float((~in_support(prior, draws)).double().mean()))


def test_rejection_cuts_draws_and_density_at_the_bounds() -> None:
    simulator = Bounded()
    raw, problem = fit(quickly(NPE(), max_epochs=12), simulator, 2000)
    cut = NPE(**{**NPE.quick, "reject": True}).restore(*raw.state(), problem)  # type: ignore[arg-type]
    y = torch.tensor([[-0.2], [0.5], [1.2]])
    with scope(1):
        before, draws = raw.sample(y, 2000), cut.sample(y, 2000)
    prior = simulator.prior()
    assert in_support(prior, draws).all()
    kept = torch.stack([before[in_support(prior, before)[:, i], i].mean() for i in range(3)])
    assert torch.allclose(draws.mean(0)[:, 0], kept[:], atol=0.04)
    grid = torch.linspace(-3, 4, 7001).reshape(-1, 1, 1).expand(-1, 3, 1)
    with scope(5):
        mass = cut.log_prob(grid, y).exp().sum(0) * 0.001  # type: ignore[attr-defined]
        again = cut.log_prob(grid, y).exp().sum(0) * 0.001  # type: ignore[attr-defined]
    assert torch.equal(mass, again)
    assert torch.allclose(mass, torch.ones(3), atol=0.06)
    whole = raw.log_prob(grid, y).exp().sum(0) * 0.001  # type: ignore[attr-defined]
    assert torch.allclose(whole, torch.ones(3), atol=0.02)


def test_what_cannot_be_redrawn_inside_is_left_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior, _ = fit(quickly(NPE(), max_epochs=2, reject=True), Bounded(), 500)
    monkeypatch.setattr("baselines.sbi_methods.posteriors.in_support", lambda prior, theta: theta[..., 0] > 1e9)
    with scope(1):
        assert posterior.sample(torch.zeros(2, 1), 10).shape == (10, 2, 1)


@pytest.mark.parametrize("method", [NPE(reject=True), NLE(), SNPE()], ids=name)
def test_priors_of_any_product_failures_and_constants(method: Method) -> None:
    simulator = Mixed()
    y = torch.tensor([[0.5, 0.3, 0.3], [1.5, -0.8, 0.3]])[: 2 if isinstance(method, NPE) else 1]
    posterior, problem = fit(quickly(method), simulator, observation=y[0])
    assert posterior.state()[0]["columns"].tolist() == [0, 1]
    with scope(1):
        draws = posterior.sample(y, 40)
    assert in_support(simulator.prior(), draws).all()
    assert ((draws.mean(0) - y[:, :2]).abs() < 0.5).all()
    if isinstance(method, SNPE):
        assert problem.calls == 1000
        assert 0 < problem.invalid < 200


def test_prior_has_a_density_everywhere() -> None:
    with scope(0):  # where torch checks arguments, and a uniform raises outside
        prior = SbiPrior(Independent(Uniform(torch.zeros(2), torch.ones(2)), 1))
        theta = torch.tensor([[0.5, 0.5], [0.5, 1.5], [torch.nan, 0.5]])
        assert prior.log_prob(theta).tolist() == [0.0, -math.inf, -math.inf]
        assert prior.sample((4,)).shape == (4, 2)


def test_too_few_or_equal_simulations_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        varying(torch.randn(5, 3))
    with pytest.raises(ValueError, match="the same"):
        varying(torch.full((50, 3), 0.1))
    for method, option in ((NPE, "density_estimator"), (NLE, "density_estimator"), (NRE, "classifier")):
        with pytest.raises(ValueError, match="expected one of"):
            method(**{option: "nothing"})
    for bad in ({"field": "nothing"}, {"process": "nothing"}, {"sampler": "nothing"}):
        with pytest.raises(ValueError, match="expected one of"):
            NPSE(**bad)
    with pytest.raises(ValueError, match="expected"):
        SMCABC(decay=1.5)


def test_weights_correct_a_poor_flow() -> None:
    y = measured()
    exact = LINEAR.posterior(y)
    posterior, _ = fit(quickly(NPEImportance()), LINEAR, 1500)
    with scope(1):
        draws, own = posterior.sample(y, 1000), posterior.proposal.sample(y, 1000)
        share = posterior.effective_share(y, 1000)
    off = ((draws.mean(0) - exact.mean) / exact.stddev).abs().max()
    assert off < 0.15
    assert (draws.std(0) / exact.stddev).log().abs().max() < math.log(1.15)
    assert (own.std(0) / exact.stddev).log().abs().max() > math.log(1.3)
    assert ((share > 0.02) & (share < 1)).all()
    assert posterior.efficiency.shape == (20,)
    far = posterior.sample(torch.full((1, 4), 1e20), 5)  # where every likelihood is zero
    assert far.shape == (5, 1, 2)
    assert posterior.effective_share(torch.full((1, 4), 1e20), 50).tolist() == [0.0]


@pytest.mark.parametrize("method", [SNPE(), SMCABC(), SMCABC(smooth=True)], ids=name)
def test_sequential_methods_spend_the_budget_on_one_measurement(method: Method) -> None:
    y = measured()[:1]
    exact = LINEAR.posterior(y)
    posterior, problem = fit(quickly(method), LINEAR, 2000, y[0])
    assert problem.calls == 2000
    with scope(1):
        draws = posterior.sample(y.expand(2, -1), 500).flatten(0, 1)
    assert ((draws.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.6
    assert (draws.std(0) < torch.tensor([0.5, 1.0])).all()  # half of the prior's
    for other in (y + 0.01, torch.cat([y, y + 1])):
        with pytest.raises(ValueError, match="knows one measurement"):
            posterior.sample(other, 5)


def test_smooth_particles_stay_in_the_support_and_spread_like_the_particles() -> None:
    simulator = Mixed()
    y = torch.tensor([[0.1, 0.95, 0.3]])
    plain, problem = fit(quickly(SMCABC()), simulator, 1000, y[0])
    smooth = SMCABC(smooth=True).restore(plain.state()[0], {"bandwidth": 0.3}, problem)
    with scope(1):
        ours, theirs = smooth.sample(y, 4000)[:, 0], plain.sample(y, 4000)[:, 0]
    assert in_support(simulator.prior(), ours).all()
    assert len(ours.unique(dim=0)) == 4000
    assert len(theirs.unique(dim=0)) <= 100
    real = smooth.theta_map(ours).std(0) / smooth.theta_map(theirs).std(0)
    assert torch.allclose(real, torch.full((2,), math.sqrt(1 + 0.3**2)), atol=0.05)


def test_npe_keeps_the_contract() -> None:
    findings = check_method(NPE(), simulations=1000)
    assert [f for f in findings if not f.ok] == []
    assert next(f for f in findings if f.name == "log_prob").message == "normalised, and that of the draws"


@pytest.mark.slow
@pytest.mark.parametrize("method", [NPEImportance(), FMPE(), NPSE(), NPSE(sampler="ode")], ids=name)
def test_the_others_keep_the_contract(method: Method) -> None:
    assert [f for f in check_method(method, simulations=1000) if not f.ok] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        NLE(learning_rate=2e-3, max_epochs=12, warmup=20),
        NRE(learning_rate=2e-3, max_epochs=25, warmup=20),
        FMPE(learning_rate=2e-3, max_epochs=60),
        NPSE(learning_rate=2e-3, max_epochs=60, sampler_steps=200),
    ],
    ids=name,
)
def test_networks_of_default_size_find_the_posterior(method: Method) -> None:
    y = measured()[:2]
    exact = LINEAR.posterior(y)
    posterior, _ = fit(method, LINEAR, 4000)
    with scope(1):
        draws = posterior.sample(y, 500)
    assert ((draws.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.5
    assert (draws.std(0) / exact.stddev).log().abs().max() < math.log(1.35)

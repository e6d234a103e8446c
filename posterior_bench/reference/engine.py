"""Reference posteriors: draws of p(theta | y) and log Z = log p(y), with a record that says how far to trust them.

log p(theta | y) = log p(theta) + log p(y | theta) - log Z
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..contracts import HasLikelihood, HasReference, HasReferenceDensity, Progress, Simulator
from ..problem import check_simulated
from ..records import Simulations
from ..runtime import scope
from . import acceptance as accept
from .acceptance import Check, check_duplicates, check_ranks, check_tempered, judge, missing, not_applicable, repeated
from .flow import Flow
from .importance import ImportanceResult
from .record import make_record
from .routes import Routes, SecondRoute
from .settings import Settings
from .surrogate import Surrogate
from .target import Target

CLOSED_FORM_DRAWS = 32
"""At which log Z follows from a closed form; it must be the same at all."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference for B measurements.

    Args:
        theta: (n, B, D), draws of the posterior, in y's dtype.
        log_evidence: (B,), log Z in nats, float64; NaN where the process has no density.
        log_evidence_error: (B,), its standard error.
        y: (B, *y_shape), the measurements.
        record: how it was made, versions, seeds, diagnostics of each measurement, and the list of acceptance; JSON.
        truth: (B, D), the parameters behind the measurements, where they are known.
    """

    theta: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    y: Tensor
    record: Mapping[str, Any]
    truth: Tensor | None = None

    @property
    def accepted(self) -> bool:
        """Whether every item of the list lets it pass."""
        return bool(self.record["accepted"])


def log_posterior(simulator: Simulator, theta: Tensor, y: Tensor, log_evidence: Tensor) -> Tensor:
    """log p(theta | y), (n, B) in nats, float64; -inf outside the prior's support.

    Args:
        simulator: with a likelihood.
        theta: (n, B, D).
        y: (B, *y_shape).
        log_evidence: (B,), of a reference.
    """
    with scope(0, y.device, torch.float64):
        target = Target.of(simulator, y)
        return target.log_joint_of(theta.double()) - log_evidence.double()


def build_reference(
    simulator: Simulator,
    y: Tensor,
    draws: int,
    settings: Settings | None = None,
    truth: Tensor | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Make a reference for the measurements ``y`` (B, *y_shape), ``draws`` draws each; the same at every call.

    Whether it is accepted stands in its record: nothing is left out for failing.

    Args:
        simulator: with a likelihood, or with a reference sampler of its own, or both.
        y: (B, *y_shape), finite.
        draws: n.
        settings: the recipe.
        truth: (B, D), the parameters behind the measurements, drawn from the prior, where known: they then serve for
            the rank statistics.
        progress: told how far it is.

    Raises:
        TypeError: where the simulator has neither likelihood nor reference.
        ValueError: where a measurement is not finite.
        ArithmeticError: where a measurement has no posterior that a route could reach.
    """
    settings, progress = settings or Settings(), progress or _Silent()
    _check(simulator, y, settings)
    routes = Routes(simulator, settings, progress)
    own, how = _own_draws(routes, y, draws)
    density = isinstance(simulator, HasLikelihood)
    closed_form = density and own is not None and isinstance(simulator, HasReferenceDensity)
    needed = density and not closed_form
    flow = routes.flow(y.device) if needed else None
    surrogate = routes.surrogate(y.device) if needed else None
    wanted = draws if own is None else 1
    first = routes.first(y, wanted, flow, "route one", surrogate) if needed else None
    theta = own if own is not None else cast(ImportanceResult, first).theta.to(y.dtype)

    log_evidence = torch.full((len(y),), math.nan, dtype=torch.float64)
    error = log_evidence.clone()
    if first is not None:
        log_evidence, error = first.log_evidence, first.log_evidence_error
    elif closed_form:
        log_evidence, error = _closed_form(simulator, theta, y)
        how += "; log Z from its own density"
    second = None
    if density and settings.repetitions:
        # where there is a closed form, one part of the measurements shows whether it is right
        most = settings.part if closed_form else len(y)
        checked = most if settings.second_route is None else settings.second_route
        second = routes.second(y[: min(most, checked)], 1, "route two") if checked else None
    ranks = _rank_check(routes, flow, surrogate, theta if truth is not None else None, y, truth, own is not None)
    checks = [
        *_weight_checks(first, own is not None, draws),
        check_duplicates(theta),
        not_applicable(accept.R_HAT, "no route keeps chains"),
        *_agreement(log_evidence, second, density),
        ranks,
    ]
    record = make_record(routes, y, theta, how, first, second, error, checks)
    return Reference(theta, log_evidence, error, y, record, truth)


def make_reference(
    simulator: Simulator,
    measurements: int,
    draws: int,
    settings: Settings | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Reference:
    """A reference for measurements simulated for the purpose, whose true parameters serve for the rank statistics.

    Args:
        simulator: as for ``build_reference``, which says what is raised.
        measurements: B.
        draws: n.
        settings: the recipe.
        device: where it is made.
        progress: told how far it is.
    """
    settings = settings or Settings()
    with scope(Routes(simulator, settings, _Silent()).seed("measurements"), device):
        pairs = simulate_pairs(simulator, measurements)
    return build_reference(simulator, pairs.y, draws, settings, pairs.theta, progress)


class _Silent:
    def update(self, done: int, total: int, message: str = "") -> None:
        """Say nothing."""


def _check(simulator: Simulator, y: Tensor, settings: Settings) -> None:
    name = simulator.spec.name
    if not isinstance(simulator, HasLikelihood | HasReference):
        raise TypeError(
            f"simulator {name!r} has neither likelihood nor reference; expected one that derives from HasLikelihood or "
            "HasReference"
        )
    wanted = {"simulator": HasReference, "engine": HasLikelihood}.get(settings.source)
    if wanted is not None and not isinstance(simulator, wanted):
        raise TypeError(f"source is {settings.source!r} and simulator {name!r} does not derive from {wanted.__name__}")
    if tuple(y.shape[1:]) != simulator.spec.y_shape or len(y) == 0:
        raise ValueError(f"y has shape {tuple(y.shape)}; expected (B, *{simulator.spec.y_shape}), B at least 1")
    if not torch.isfinite(y).all():
        raise ValueError("a measurement is not finite; expected valid measurements alone: leave failed ones out")


def _own_draws(routes: Routes, y: Tensor, draws: int) -> tuple[Tensor | None, str]:
    """Draws (n, B, D) of the simulator's own sampler, or ``None`` where the engine must draw, and why."""
    simulator, source = routes.simulator, routes.settings.source
    if not isinstance(simulator, HasReference):
        return None, "importance sampling: the simulator has no sampler of its own"
    if source == "engine":
        return None, "importance sampling, as asked"
    with scope(routes.seed("own draws"), y.device):
        theta = simulator.sample_reference(y, draws)
    again = int(repeated(theta).max())
    if source == "auto" and again and isinstance(simulator, HasLikelihood) and check_duplicates(theta).failed:
        return None, f"importance sampling: the simulator's own sampler repeats up to {again} of {draws} draws"
    return theta, "the simulator's own sampler"


def _closed_form(simulator: Simulator, theta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """log Z (B,) from p(theta) p(y | theta) / p(theta | y) at some draws, and by how much it varies among them."""
    some = theta[:CLOSED_FORM_DRAWS].double()
    with scope(0, y.device, torch.float64):
        joint = Target.of(simulator, y).log_joint_of(some)
        found = joint - cast(HasReferenceDensity, simulator).log_reference(some, y.double()).double()
    return found.mean(0).cpu(), found.std(0).nan_to_num(nan=0.0).cpu()


def _weight_checks(first: ImportanceResult | None, own: bool, draws: int) -> Iterator[Check]:
    if first is None:
        yield not_applicable(accept.EFFECTIVE_SIZE, "no weights")
        yield not_applicable(accept.PARETO_K, "no weights")
        return
    if own:
        yield not_applicable(accept.EFFECTIVE_SIZE, "draws are the simulator's own")
    else:
        yield judge(accept.EFFECTIVE_SIZE, first.effective_size / draws)
    yield judge(accept.PARETO_K, first.pareto_k)


def _agreement(log_evidence: Tensor, second: SecondRoute | None, density: bool) -> Iterator[Check]:
    for criterion in (accept.DIFFERENCE, accept.TEMPERED):
        if not density:
            yield not_applicable(criterion, "the process has no density")
        elif second is None:
            yield missing(criterion, "route two was left out")
        elif criterion is accept.TEMPERED:
            yield check_tempered(log_evidence[: second.tempered.shape[1]], second.tempered)
        else:
            found = second.importance.log_evidence
            count = len(found)
            note = "" if count == len(log_evidence) else f"of the first {count} measurements"
            yield judge(criterion, (found - log_evidence[:count]).abs(), note)


def _rank_check(
    routes: Routes,
    flow: Flow | None,
    surrogate: Surrogate | None,
    theta: Tensor | None,
    y: Tensor,
    truth: Tensor | None,
    own: bool,
) -> Check:
    """Ranks of the caller's true parameters where they suffice, else of pseudo-truths made for the purpose."""
    simulator, settings = routes.simulator, routes.settings
    if truth is None or theta is None or len(truth) < accept.FEWEST_RANKS:
        with scope(routes.seed("pseudo-truths"), y.device):
            pairs = simulate_pairs(simulator, settings.rank_measurements)
        truth, y = pairs.theta, pairs.y
        if len(y) < accept.FEWEST_RANKS:
            return check_ranks(truth, truth[None])
        if own:
            with scope(routes.seed("their draws"), y.device):
                theta = cast(HasReference, simulator).sample_reference(y, settings.rank_draws)
        else:
            theta = routes.first(y, settings.rank_draws, flow, "pseudo-truths' draws", surrogate).theta
    theta = theta[: settings.rank_draws]
    with scope(routes.seed("ranks"), y.device, torch.float64):
        likelihoods = None
        if isinstance(simulator, HasLikelihood):
            everything = torch.cat([truth[None].double(), theta.double()])
            likelihoods = Target.of(simulator, y).log_likelihood_of(everything)
        return check_ranks(truth, theta, likelihoods)


def simulate_pairs(simulator: Simulator, count: int) -> Simulations:
    """``count`` valid pairs of the prior and the process, from torch's global generator.

    Raises:
        ValueError: where fewer than one simulation in twenty is valid.
    """
    found = Simulations(torch.empty(0, len(simulator.spec.parameters)), torch.empty(0, *simulator.spec.y_shape))
    for _ in range(20):
        if len(found) >= count:
            break
        theta = simulator.prior().sample(torch.Size([count]))
        more = Simulations(theta, check_simulated(simulator.simulate(theta), theta, simulator)).only_valid()
        found = Simulations(torch.cat([found.theta, more.theta]), torch.cat([found.y, more.y]))
    if len(found) < count:
        raise ValueError(
            f"only {len(found)} of {20 * count} simulations are valid; expected at least one in twenty: narrow the "
            "prior to where the simulator works"
        )
    return Simulations(found.theta[:count], found.y[:count])

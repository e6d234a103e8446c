"""Checks of what every method promises, on a problem whose posterior is a normal."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..contracts import HasLatent, HasLogProb, Method, Posterior
from ..problem import unmet
from ..records import MethodSpec, Need, Simulations
from ..runtime import load_tensors, save_tensors, scope
from .findings import Failure, Finding, require_frozen_defaults, run
from .gaussian import PRIOR_SD, LinearGaussian
from .sequential import sequential_checks
from .statistics import distance_between, normalisation
from .trial import LINEAR, Trial, task_of

FAR, RARE = 20.0, 0.01
"""Standard deviations of the prior that draws do not reach, unless failed simulations were learned from; and by how
much the fraction that lies farther out may exceed that of a fit without failures: some networks throw draws there."""


def check_method(method: Method, simulations: int = 2000) -> list[Finding]:
    """Check that a method keeps its contract, with its ``quick`` settings on a linear Gaussian problem.

    It is no test of how good the posterior is: quick settings may be far from converged.

    Args:
        method: an instance; its ``quick`` settings take the place of its own.
        simulations: number to learn from.

    Returns:
        One finding a check. Where a basic one fails, those that rest on it are left out. A method that needs what the
        problem does not offer gets one finding that says so.
    """
    findings = run([partial(_spec, method)])
    if not findings[0].ok:
        return findings
    missing = unmet(method.spec.needs, task_of(LINEAR))
    if missing:
        return [*findings, Finding("fit", True, f"not checked: it needs {', '.join(missing)}")]
    if Need.OBSERVATION in method.spec.needs:
        return findings + run(sequential_checks(method, simulations), essential=2)
    trial = Trial(method, simulations)
    basic = (_fit, _sample)
    further = (_arguments_unchanged, _observations_apart, _repeatable, _restore, _invalid_rows, _shaped_y, _history)
    checks = [partial(check, trial) for check in (*basic, *further, _log_prob, _latent)]
    return findings + run(checks, essential=len(basic))


def _spec(method: Method) -> str:
    if not isinstance(method, Method):
        raise Failure(f"a {type(method).__name__}", "an instance of Method", "Derive from Method.")
    options = require_frozen_defaults(method)
    if not isinstance(method.spec, MethodSpec) or {"spec", "quick"} & options:
        raise Failure(
            "a spec or quick that is a setting, or no MethodSpec",
            "spec: ClassVar[MethodSpec] and quick: ClassVar[...]",
            "Annotate both as ClassVar.",
        )
    strange = sorted(set(method.quick) - options)
    if strange:
        raise Failure(f"quick settings that are no settings: {strange}", f"some of {sorted(options)}", "Rename them.")
    return f"{method.spec.name} version {method.spec.version}, needs {sorted(n.value for n in method.spec.needs)}"


def _fit(trial: Trial) -> str:
    posterior = trial.posterior
    if not isinstance(posterior, Posterior):
        raise Failure(f"a {type(posterior).__name__} from fit()", "a Posterior", "Return an object derived from it.")
    return f"returns a {type(posterior).__name__}"


def _sample(trial: Trial) -> str:
    for y, n in ((trial.y, 7), (trial.y[:1], 7), (trial.y[:2], 1)):
        _check_draws(trial.posterior.sample(y, n), n, len(y))
    return "draws (n, B, D), also for n = 1 and B = 1, finite, without a gradient"


def _check_draws(draws: Tensor, n: int, count: int) -> None:
    if not isinstance(draws, Tensor) or tuple(draws.shape) != (n, count, 2):
        found = tuple(draws.shape) if isinstance(draws, Tensor) else type(draws).__name__
        raise Failure(
            f"{found} for {n} draws of {count} measurements",
            f"a tensor of shape {(n, count, 2)}",
            "Draws lead, then measurements, then parameters; keep an axis of length 1.",
        )
    if not torch.isfinite(draws).all():
        raise Failure("draws that are not finite", "finite ones", "Look for divisions by a scale that may be zero.")
    if draws.requires_grad:
        raise Failure("draws that carry a gradient", "plain numbers", "Sample under torch.no_grad().")


def _arguments_unchanged(trial: Trial) -> str:
    simulations = trial.simulations(LINEAR)
    theta, y = simulations.theta.clone(), simulations.y.clone()
    before = dataclasses.asdict(trial.method)  # type: ignore[call-overload]
    posterior = trial.fit(simulations)
    measured = trial.y
    posterior.sample(measured, 5)
    changed = [
        name
        for name, same in (
            ("theta", torch.equal(theta, simulations.theta)),
            ("y", torch.equal(y, simulations.y) and torch.equal(measured, trial.y)),
            ("the method", before == dataclasses.asdict(trial.method)),  # type: ignore[call-overload]
        )
        if not same
    ]
    if changed:
        raise Failure(f"that fit() or sample() changed {changed}", "neither to be touched", "Work on copies.")
    return "simulations, measurements and method are left alone"


def _observations_apart(trial: Trial) -> str:
    """Draws for a batch must be distributed as those for its measurements one by one."""
    n = 200
    batch = trial.posterior.sample(trial.y, n)
    worst = 0.0
    for i in range(len(trial.y)):
        single = trial.posterior.sample(trial.y[i : i + 1], n)[:, 0]
        worst = max(worst, *(distance_between(batch[:, i, d], single[:, d]) for d in range(2)))
    # equal distributions differ by 0.3 with probability 1e-7; beyond it there is room for draws of Markov chains
    if worst > 0.4:
        raise Failure(
            f"draws of a batch whose distribution is {worst:.2f} off that for single measurements",
            "the same",
            "Measurements are mixed up or shared: check reshape and repeat against (n, B, D).",
        )
    return f"a batch agrees with single measurements (distance {worst:.2f})"


def _repeatable(trial: Trial) -> str:
    draws = []
    for posterior in (trial.posterior, trial.posterior, trial.fit()):
        with scope(3):
            draws.append(posterior.sample(trial.y, 20))
    if not torch.equal(draws[0], draws[1]):
        raise Failure(
            "other draws from one posterior under the same seed", "the same", "Sampling must not change the posterior."
        )
    # but for rounding: in what order a library sums may rest on where in memory its numbers lie
    if not torch.allclose(draws[0], draws[2], rtol=1e-3, atol=1e-4):
        raise Failure(
            "another posterior from the same simulations and seed",
            "the same",
            "Draw from the global generators; stop training by steps, not by the clock.",
        )
    return "the same seed gives the same posterior and draws"


def _restore(trial: Trial) -> str:
    tensors, settings = trial.posterior.state()
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Failure(
            f"settings in state() that JSON cannot hold ({error})", "numbers, text, lists and dicts", "Convert them."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_tensors(path, tensors, settings)
        restored = trial.method.restore(*load_tensors(path), trial.problem(LINEAR))
    draws = []
    for posterior in (trial.posterior, restored):
        with scope(4):
            draws.append(posterior.sample(trial.y, 20))
    # the memory layout of a tensor is lost on disk, and with it the last digit of a matrix product
    if not torch.allclose(draws[0], draws[1], rtol=1e-3, atol=1e-4):
        raise Failure(
            "other draws from the restored posterior",
            "the same under the same seed",
            "state() must hold all that sample() uses: buffers, standardisation, settings.",
        )
    return "state() and restore() give the same draws"


def _invalid_rows(trial: Trial) -> str:
    """Failed simulations carry parameters far outside: a posterior that learned from them shows it."""
    good = trial.simulations(LINEAR)
    every = torch.arange(len(good)) % 5 == 0
    theta = torch.where(every[:, None], 100 * torch.tensor(PRIOR_SD), good.theta)
    y = good.y.masked_fill(every[:, None], torch.nan)
    draws = trial.fit(Simulations(theta, y, good.noise)).sample(trial.y, 50)
    _check_draws(draws, 50, len(trial.y))
    far = _far(draws)
    if far > 2 * _far(trial.posterior.sample(trial.y, 50)) + RARE:
        raise Failure(
            f"{far:.0%} of the draws more than {FAR:g} prior sd out after failed simulations were mixed in",
            "no trace of them",
            "Learn from simulations.only_valid().",
        )
    return "failed simulations leave no trace"


def _far(draws: Tensor) -> float:
    """Fraction of draws (n, B, D) with a parameter more than ``FAR`` prior standard deviations out."""
    return float(((draws.abs() / torch.tensor(PRIOR_SD)) > FAR).any(-1).double().mean())


def _shaped_y(trial: Trial) -> str:
    draws = trial.fit(simulator=LinearGaussian(shape=(2, 2))).sample(trial.y.reshape(-1, 2, 2), 5)
    _check_draws(draws, 5, len(trial.y))
    return "measurements that are matrices work too"


def _history(trial: Trial) -> str:
    history = trial.posterior.history
    strange = [k for k, v in history.items() if not (isinstance(k, str) and isinstance(v, Tensor) and v.dim() == 1)]
    if strange:
        raise Failure(f"curves in history that are no tensors (steps,): {strange}", "names to tensors", "Convert them.")
    return f"{len(history)} curves"


def _log_prob(trial: Trial) -> str:
    posterior = trial.posterior
    if not isinstance(posterior, HasLogProb):
        return "the posterior offers no density"
    draws = posterior.sample(trial.y, 6)
    value = posterior.log_prob(draws, trial.y)
    if tuple(value.shape) != (6, 4) or not torch.isfinite(value).all():
        raise Failure(f"shape {tuple(value.shape)}, or values that are not finite", "finite ones, (n, B)", "")
    single = torch.cat([posterior.log_prob(draws[:, i : i + 1], trial.y[i : i + 1]) for i in range(4)], dim=1)
    if not torch.allclose(value, single, rtol=1e-3, atol=1e-3):
        raise Failure("a density that depends on what else is in the batch", "none that does", "Check reshape.")
    y = trial.y[:1]
    off = normalisation(
        posterior.sample(y, 2000)[:, 0], lambda theta: posterior.log_prob(theta[:, None], y)[:, 0].detach()
    )
    if off is not None and abs(off) > 5:
        raise Failure(
            f"a density whose integral is off 1 by {off:+.1f} standard errors on its own draws",
            "1",
            "Check the log determinant of every map from theta, and that sample() draws from this density.",
        )
    return "normalised, and that of the draws" if off is not None else "finite; its integral could not be told"


def _latent(trial: Trial) -> str:
    posterior = trial.posterior
    if not isinstance(posterior, HasLatent):
        return "the posterior offers no latent vector"
    z = torch.randn(6, len(trial.y), posterior.latent_dim)
    decoded = posterior.decode(z, trial.y)
    _check_draws(decoded, 6, len(trial.y))
    if not torch.equal(decoded, posterior.decode(z, trial.y)):
        raise Failure("other parameters for one latent vector", "the same", "decode() draws nothing.")
    count = range(len(trial.y))
    single = torch.cat([posterior.decode(z[:, i : i + 1], trial.y[i : i + 1]) for i in count], dim=1)
    if not torch.allclose(decoded, single, rtol=1e-3, atol=1e-3):
        raise Failure("parameters that depend on what else is in the batch", "none that do", "Check reshape.")
    return f"{posterior.latent_dim} latent coordinates decode to parameters"
